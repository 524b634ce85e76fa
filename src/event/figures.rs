//! Figures that events carry.

use serde::Deserialize;
use serde::Serialize;

/// A share of answers that passed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PassRate {
    /// Tasks.
    pub n_tasks: u32,
    /// Answers to each.
    pub n_samples: u32,
    /// Answers that passed, of all tasks.
    pub passed: u32,
    /// The mean over tasks of the share that passed: pass@1.
    pub share: f64,
    /// 95 % interval of the share: Wilson's (1927) with one answer a task, else a bootstrap over
    /// families.
    pub interval: (f64, f64),
    /// Fitness, by which adapters are ranked: the lower end of the 90 % interval. A mean ranks
    /// those first that were measured least.
    pub fitness: f64,
}

/// Two scores on the same tasks, task by task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedScores {
    /// Tasks that the second passes and the first does not.
    pub gained: u32,
    /// Tasks that the first passes and the second does not.
    pub lost: u32,
    /// Second share less first, `-1.0..=1.0`.
    pub difference: f64,
    /// 95 % interval of the difference (Newcombe 1998, method 10 for paired shares).
    pub interval: (f64, f64),
    /// Quality: the lower end of the 90 % interval, which is what the second is sure to add.
    pub quality: f64,
    /// How likely so uneven a split is if both are equal: McNemar's exact test, two-sided.
    pub p_value: f64,
    /// Evidence that the second is better, valid at whatever time one stops to look: from 20 on it
    /// is one at 5 %.
    pub e_value: f64,
}

/// A comparison with whoever was measured first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreComparison {
    /// An adapter's id, `base`, or a condition of `rune bench memory`.
    pub who: String,
    /// The comparison, task by task.
    pub paired: PairedScores,
}

/// Median, minimum and maximum of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
}

/// The effect of an adapter on tasks, each compared with the base task by task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryVerdict {
    /// The held-out tasks about what it was trained on.
    pub tasks: PairedScores,
    /// Tasks that need nothing of it, by name.
    pub controls: Vec<(String, PairedScores)>,
    /// Tasks about another library, of which it was taught nothing.
    pub foreign: PairedScores,
}
