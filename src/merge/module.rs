//! [`MergedModule`]: one module of the result.

use faer::Mat;
use faer::MatRef;
use serde::Deserialize;
use serde::Serialize;

use crate::peft::MAX_RANK;

use super::core_space::CoreSpace;
use super::elementwise::ElementwiseMerge;
use super::elementwise::pruning_key;
use super::error::MergeError;
use super::factors::ModuleFactors;
use super::factors::ParentFactors;
use super::recipe::MergeMethod;
use super::recipe::MergeRecipe;
use super::recipe::MergeSpace;
use super::recipe::OutputSize;
use super::rule::ElementwiseRule;
use super::sketch;
use super::spectrum::BalancedFactors;
use super::spectrum::Spectrum;
use super::spectrum::single;
use super::tiles::TileSource;

/// Report on the merge of one module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// Rank of the result.
    pub rank: usize,
    /// Share of the squared norm of the exact merge that the result holds, `0.0..=1.0`.
    pub captured: f64,
    /// Relative error against the exact merge, in the Frobenius norm.
    pub error: f64,
    /// Mean squared cosine of the principal angles between the parents' output spaces and between
    /// their input spaces, `0.0..=1.0`; `None` for a single parent.
    pub overlap: Option<[f64; 2]>,
    /// Of the entries that several parents have after pruning, the share whose signs differ; `None`
    /// for methods that do not look at entries.
    pub conflict: Option<f64>,
    /// Names of the parents that do not adapt the module; their deltas are zero.
    pub absent: Vec<String>,
}

/// One module of the result.
#[derive(Debug)]
pub(super) struct MergedModule {
    /// Size of the module, `(outputs, inputs)`.
    pub(super) size: (usize, usize),
    /// `(rank, inputs)`, row-major.
    pub(super) a: Vec<f32>,
    /// `(outputs, rank)`, row-major.
    pub(super) b: Vec<f32>,
    pub(super) report: ModuleReport,
}

impl MergedModule {
    /// Merges the module `name`.
    pub(super) fn new(
        name: &str,
        factors: &ModuleFactors,
        recipe: &MergeRecipe,
    ) -> Result<Self, MergeError> {
        let did_not_converge = || MergeError::Decomposition { module: name.to_owned() };
        let (balanced, conflict) = match recipe.method {
            MergeMethod::Cat => (side_by_side(factors, recipe.lambda)?, None),
            MergeMethod::Linear | MergeMethod::Iso => {
                let mut spectrum = summed(factors).ok_or_else(did_not_converge)?;
                let rank = spectrum.rank(recipe.size, factors.total_rank());
                if recipe.method == MergeMethod::Iso {
                    spectrum.flatten(rank);
                }
                (spectrum.truncated(rank, recipe.lambda), None)
            }
            _ => {
                let (spectrum, conflict) =
                    by_elements(name, factors, recipe)?.ok_or_else(did_not_converge)?;
                let rank = spectrum.rank(recipe.size, factors.total_rank());
                (spectrum.truncated(rank, recipe.lambda), Some(conflict))
            }
        };
        let BalancedFactors { rank, a, b, captured } = balanced;
        if !a.iter().chain(&b).all(|value| value.is_finite()) {
            return Err(MergeError::Overflow { module: name.to_owned() });
        }
        let report = ModuleReport {
            rank,
            captured,
            error: (1.0 - captured).max(0.0).sqrt(),
            overlap: CoreSpace::overlap(&factors.parents),
            conflict,
            absent: factors.absent.clone(),
        };
        Ok(Self { size: factors.size, a, b, report })
    }

    /// Rank of the module.
    pub(super) fn rank(&self) -> u32 {
        u32::try_from(self.report.rank).unwrap_or(u32::MAX)
    }
}

/// Decomposes the weighted sum of the deltas.
fn summed(factors: &ModuleFactors) -> Option<Spectrum> {
    let space = CoreSpace::new(&factors.parents);
    let sum = space.sum(factors.parents.iter().map(|parent| parent.weight));
    space.spectrum(sum.as_ref())
}

/// Decomposes the merge by an elementwise method; also returns how often signs differ. `None` if a
/// decomposition does not converge.
fn by_elements(
    name: &str,
    factors: &ModuleFactors,
    recipe: &MergeRecipe,
) -> Result<Option<(Spectrum, f64)>, MergeError> {
    let rule = ElementwiseRule::new(recipe)?;
    let key = |digest: &String| pruning_key(recipe.seed, digest, name);
    let weights = factors.parents.iter().map(|parent| parent.weight);
    let parents: Vec<(f64, u64)> = weights.zip(factors.digests.iter().map(key)).collect();
    let parents = (parents.as_slice(), factors.absent.len());
    if recipe.space == MergeSpace::Core {
        let Some(space) = CoreSpace::canonical(&factors.parents) else { return Ok(None) };
        let source = TileSource::Matrices(space.entries());
        let merge = ElementwiseMerge::new(&source, space.size(), rule, parents);
        let (rows, columns) = space.size();
        let mut core = Mat::zeros(rows, columns);
        merge.for_each_tile(|_, tile| {
            let tile = MatRef::from_row_major_slice(tile, rows, columns);
            core = Mat::from_fn(rows, columns, |row, column| f64::from(tile[(row, column)]));
        });
        let conflict = merge.conflict;
        return Ok(space.spectrum(core.as_ref()).map(|spectrum| (spectrum, conflict)));
    }
    let deltas = factors.parents.iter().map(ParentFactors::to_single).collect();
    let source = TileSource::Deltas(deltas);
    let merge = ElementwiseMerge::new(&source, factors.size, rule, parents);
    let rank = match recipe.size {
        OutputSize::Rank(rank) => rank,
        OutputSize::Energy(_) => factors.total_rank(),
    };
    let seed = pruning_key(recipe.seed, "sketch", name);
    let spectrum = sketch::decompose(&merge, rank.min(MAX_RANK as usize), seed);
    Ok(spectrum.map(|spectrum| (spectrum, merge.conflict)))
}

/// Puts the factors of all parents side by side, each with the root of its weight in both.
fn side_by_side(factors: &ModuleFactors, lambda: f64) -> Result<BalancedFactors, MergeError> {
    let rank = factors.total_rank();
    if rank > MAX_RANK as usize {
        let text =
            format!("the ranks sum to {rank}, and {MAX_RANK} is the largest that `cat` may give");
        return Err(MergeError::Recipe(text));
    }
    let (n_out, n_in) = factors.size;
    let (mut a, mut columns) = (Vec::with_capacity(rank * n_in), Vec::with_capacity(rank));
    for parent in &factors.parents {
        let root = parent.weight.abs().sqrt();
        for k in 0..parent.a.nrows() {
            a.extend((0..n_in).map(|column| single(root * parent.a[(k, column)])));
            columns.push((parent, k, lambda * root * parent.weight.signum()));
        }
    }
    let rows = (0..n_out).flat_map(|row| columns.iter().map(move |column| (row, column)));
    let b = rows.map(|(row, (parent, k, factor))| single(factor * parent.b[(row, *k)])).collect();
    Ok(BalancedFactors { rank, a, b, captured: 1.0 })
}
