//! [`MergeRecipe`]: how adapters are merged.

use serde::Deserialize;
use serde::Serialize;

use crate::peft::MAX_RANK;

use super::error::MergeError;

/// Method of a merge. `w` is a parent's weight, `d` the density.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeMethod {
    /// Weighted sum of the deltas, truncated to a rank.
    #[default]
    Linear,
    /// Weighted sum of the deltas with the sum of all ranks: exact, factors side by side.
    Cat,
    /// Weighted sum, then every kept singular value replaced by their mean (Marczak et al. 2025,
    /// arXiv:2502.04959).
    Iso,
    /// Keeps the largest `d` of each delta, elects a sign for each entry, and averages the entries
    /// that agree with it (Yadav et al. 2023, arXiv:2306.01708).
    Ties,
    /// Keeps random entries with probability `d`, divided by `d` (Yu et al. 2023,
    /// arXiv:2311.03099).
    DareLinear,
    /// As [`Self::DareLinear`], then elects signs as [`Self::Ties`] does.
    DareTies,
    /// Keeps random entries, in each row the larger ones more likely (Deep et al. 2024,
    /// arXiv:2406.11617), then elects signs.
    Della,
    /// Drops the largest and the smallest entries (Davari and Belilovsky 2023, arXiv:2312.06795).
    Breadcrumbs,
    /// Keeps the entries that vary most among the parents, weighs parents by their mean square, and
    /// elects signs (Wan et al. 2024, arXiv:2408.07990).
    Sce,
    /// Weighted sum of the largest `d` of each delta.
    MagnitudePrune,
}

impl MergeMethod {
    /// All methods, in the order of their help.
    pub const ALL: [Self; 10] = [
        Self::Linear,
        Self::Cat,
        Self::Iso,
        Self::Ties,
        Self::DareLinear,
        Self::DareTies,
        Self::Della,
        Self::Breadcrumbs,
        Self::Sce,
        Self::MagnitudePrune,
    ];

    /// Returns the word used on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Iso => "iso",
            Self::Ties => "ties",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::Della => "della",
            Self::Breadcrumbs => "breadcrumbs",
            Self::Sce => "sce",
            Self::MagnitudePrune => "magnitude_prune",
        }
    }

    /// Whether the method works on the entries of the deltas, and therefore has a density.
    pub fn is_elementwise(self) -> bool {
        !matches!(self, Self::Linear | Self::Cat | Self::Iso)
    }
}

/// Entries that an elementwise method works on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeSpace {
    /// Entries of the delta itself.
    #[default]
    Delta,
    /// Coordinates of the delta in bases that the deltas of all parents share (Panariello et al.
    /// 2025, arXiv:2509.17786): far fewer, and lossless for a sum.
    Core,
}

/// Definition of the elementwise methods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeSemantics {
    /// Signs are elected by weight, means are weighted, and random pruning is unbiased.
    #[default]
    Rune,
    /// PEFT's `*_svd` types: signs are elected without weights, sums divided by counts.
    Peft,
    /// mergekit's: random pruning restores the sum of magnitudes.
    Mergekit,
}

/// Election of the sign of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignElection {
    /// By the sum of the parents' entries.
    #[default]
    Total,
    /// By the number of parents.
    Frequency,
}

/// Size of the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputSize {
    /// Rank of every module, at least 1.
    Rank(usize),
    /// The smallest rank of each module that keeps this share of the squared norm, `0.0..=1.0`, but
    /// at most the sum of the parents' ranks.
    Energy(f64),
}

/// Options of a merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeRecipe {
    /// The method, with its own options below.
    pub method: MergeMethod,
    /// What elementwise methods take as entries.
    pub space: MergeSpace,
    /// Share of entries that elementwise methods keep, `0.0 < density <= 1.0`.
    pub density: f64,
    /// Factor of the whole result.
    pub lambda: f64,
    /// Rank of the result; [`MergeMethod::Cat`] has its own.
    pub size: OutputSize,
    /// Seed of the methods that prune at random.
    pub seed: u64,
    /// Whose definition of elementwise methods is followed.
    pub semantics: MergeSemantics,
    /// How the sign of an entry is elected.
    pub election: SignElection,
}

/// Share of the squared norm that a result keeps by default.
pub const DEFAULT_ENERGY: f64 = 0.99;
/// Share of entries that elementwise methods keep by default.
pub const DEFAULT_DENSITY: f64 = 0.5;

impl Default for OutputSize {
    fn default() -> Self {
        Self::Energy(DEFAULT_ENERGY)
    }
}

impl Default for MergeRecipe {
    fn default() -> Self {
        Self {
            method: MergeMethod::default(),
            space: MergeSpace::default(),
            density: DEFAULT_DENSITY,
            lambda: 1.0,
            size: OutputSize::default(),
            seed: 0,
            semantics: MergeSemantics::default(),
            election: SignElection::default(),
        }
    }
}

impl MergeRecipe {
    /// Checks that the options go together.
    pub(super) fn check(&self) -> Result<(), MergeError> {
        let refuse = |reason: &str| Err(MergeError::Recipe(reason.to_owned()));
        if !(self.density > 0.0 && self.density <= 1.0) {
            return refuse("the density must be above 0 and at most 1");
        }
        if !self.lambda.is_finite() {
            return refuse("lambda must be a finite number");
        }
        match self.size {
            OutputSize::Rank(rank) if !(1..=MAX_RANK as usize).contains(&rank) => {
                return Err(MergeError::Recipe(format!("the rank must be 1 to {MAX_RANK}")));
            }
            OutputSize::Rank(_) if self.method == MergeMethod::Cat => {
                return refuse("`cat` has the sum of all ranks, and no rank of its own");
            }
            OutputSize::Energy(share) if !(share > 0.0 && share <= 1.0) => {
                return refuse("the energy must be above 0 and at most 1");
            }
            OutputSize::Rank(_) | OutputSize::Energy(_) => {}
        }
        if self.method.is_elementwise() {
            return super::rule::ElementwiseRule::new(self).map(drop);
        }
        Ok(())
    }
}
