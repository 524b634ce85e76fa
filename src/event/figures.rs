//! Scores and statistics that events carry.

use serde::Deserialize;
use serde::Serialize;

/// A pass rate with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PassRate {
    /// Number of tasks that were judged.
    pub n_tasks: u32,
    /// Number of answers per task.
    pub n_samples: u32,
    /// Number of answers that passed, over all tasks.
    pub passed: u32,
    /// pass@1: the mean over tasks of the share of answers that passed, `0.0..=1.0`.
    pub share: f64,
    /// 95 % interval of the share: Wilson's (1927), with an effective sample size where tasks share
    /// families.
    pub interval: (f64, f64),
    /// Fitness, by which adapters are ranked: the lower end of the 90 % interval. Ranking by the
    /// mean would favor adapters that were measured least.
    pub fitness: f64,
}

/// A paired comparison of two scores on the same tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedScores {
    /// Number of families of the tasks. Tasks of a family count as one observation.
    pub n_families: u32,
    /// Number of answers of the second that pass where the first's does not.
    pub gained: u32,
    /// Number of answers of the first that pass where the second's does not.
    pub lost: u32,
    /// Second share minus the first, `-1.0..=1.0`.
    pub difference: f64,
    /// 95 % interval of the difference (Newcombe 1998, method 10 for paired proportions), with an
    /// effective sample size where tasks share families.
    pub interval: (f64, f64),
    /// 90 % interval of the difference. Adapters are ranked by its lower end, a conservative
    /// estimate of the gain.
    pub interval_90: (f64, f64),
    /// Two-sided p-value of the exact sign-flip test over families of the hypothesis that both are
    /// equal; with one task a family it is McNemar's exact test.
    pub p_value: f64,
    /// Two-sided e-value over families: evidence of a difference, valid under optional stopping.
    /// From 20 on it is significant at 5 %.
    pub e_value: f64,
}

/// A comparison with the first subject of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreComparison {
    /// Adapter id, `base`, or a condition of `rune bench memory`.
    pub who: String,
    /// The comparison, paired by task.
    pub paired: PairedScores,
}

/// Summary of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// Median; for an even number of measurements, the mean of the middle two.
    pub median: f64,
    /// Minimum of the measurements.
    pub min: f64,
    /// Maximum of the measurements.
    pub max: f64,
}

/// The effect of adapters that were trained on libraries, paired by answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryVerdict {
    /// The adapter alone, compared with the base that has 8 of the training records in its prompt.
    pub adapter: PairedScores,
    /// The adapter with the 8 records in its prompt, compared with the base that has them.
    pub both: PairedScores,
    /// The adapters compared with the base on tasks that need no library, by name of the tasks.
    pub controls: Vec<(String, PairedScores)>,
    /// Another library's adapter compared with the base, with the same prompt, by condition.
    pub damage: Vec<(String, PairedScores)>,
    /// Number of answers to the controls that use a name of the adapter's library.
    pub n_invented: u32,
    /// The reader compared with the base that has the same text in its prompt, by condition; then
    /// on tasks that need no library. Empty without a reader.
    pub reader: Vec<(String, PairedScores)>,
}

/// The mean cost of an answer under a condition of `rune bench memory`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConditionCost {
    /// Name of the condition.
    pub condition: String,
    /// Tokens of the prompt.
    pub tokens_in: f64,
    /// Tokens that the model generates.
    pub tokens_out: f64,
    /// Seconds of prefill and decoding, beside the other answers of a batch.
    pub seconds: f64,
}

/// What `rune evolve` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionKind {
    /// Whether an adapter is better than what it would replace.
    Gate,
    /// That a project uses an adapter from now on.
    Promote,
    /// That an adapter is no longer a candidate.
    Archive,
    /// Whether a merge of adapters is worth keeping.
    Merge,
    /// That a project returns to what it used before.
    Rollback,
}

impl DecisionKind {
    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Promote => "promote",
            Self::Archive => "archive",
            Self::Merge => "merge",
            Self::Rollback => "rollback",
        }
    }
}
