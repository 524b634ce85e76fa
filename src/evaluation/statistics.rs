//! Scores of answers and comparisons of two subjects, with confidence intervals.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::Event;
use crate::event::PairedScores;
use crate::event::PassRate;
use crate::event::ScoreComparison;

use super::answers::EvalOutcome;
use super::intervals::FamilySums;
use super::intervals::Z_90;
use super::intervals::Z_95;
use super::intervals::newcombe;

/// Number of answers to one task that passed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskScore<'a> {
    /// Family of the task; tasks of a family count as one observation.
    pub family: &'a str,
    /// Number of answers, at least 1.
    pub n: u32,
    /// Number of answers that passed.
    pub passed: u32,
}

impl PassRate {
    /// Scores at least one task, all with the same number of answers.
    pub fn new(tasks: &[TaskScore<'_>]) -> Self {
        let answers = tasks.iter().flat_map(|task| {
            (0..task.n).map(|index| (task.family, f64::from(u8::from(index < task.passed))))
        });
        let sums = FamilySums::new(answers);
        Self {
            n_tasks: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            n_samples: tasks.first().map_or(1, |task| task.n),
            passed: tasks.iter().map(|task| task.passed).sum(),
            share: sums.mean(),
            interval: sums.wilson(Z_95),
            fitness: sums.wilson(Z_90).0,
        }
    }
}

impl std::fmt::Display for PassRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_share(f, self.share, self.interval)
    }
}

/// Renders a difference of shares with its interval, in percentage points.
pub fn points(difference: f64, (low, high): (f64, f64)) -> String {
    format!("{:+.1} ({:+.1} to {:+.1})", 100.0 * difference, 100.0 * low, 100.0 * high)
}

fn write_share(
    f: &mut std::fmt::Formatter<'_>,
    share: f64,
    (low, high): (f64, f64),
) -> std::fmt::Result {
    write!(f, "{:.1} % ({:.1} to {:.1})", share * 100.0, low * 100.0, high * 100.0)
}

/// Probability that at least one of `k` answers passes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PassAtK {
    /// Number of answers that are drawn.
    pub k: u32,
    /// Mean probability over all tasks.
    pub share: f64,
    /// 95 % confidence interval of the mean probability.
    pub interval: (f64, f64),
}

impl PassAtK {
    /// Computes the unbiased estimator of pass@k (Chen et al. 2021, arXiv:2107.03374, eq. 1).
    /// `None` if `k` is 0 or a task has fewer than `k` answers.
    pub fn new(tasks: &[TaskScore<'_>], k: u32) -> Option<Self> {
        if k == 0 || tasks.iter().any(|task| task.n < k) {
            return None;
        }
        let sums = FamilySums::new(
            tasks.iter().map(|task| (task.family, pass_at_k(task.n, task.passed, k))),
        );
        Some(Self { k, share: sums.mean(), interval: sums.wilson(Z_95) })
    }
}

impl std::fmt::Display for PassAtK {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_share(f, self.share, self.interval)
    }
}

/// Computes `1 - C(n - c, k) / C(n, k)` as a product, because the binomials overflow.
fn pass_at_k(n: u32, c: u32, k: u32) -> f64 {
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - f64::from(k) / f64::from(i)).product::<f64>()
}

/// Two answers to the same task with the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairedAnswer<'a> {
    /// Family of the task; pairs of a family count as one observation.
    pub family: &'a str,
    /// Whether the first subject's answer passed.
    pub before: bool,
    /// Whether the second subject's answer passed.
    pub after: bool,
}

impl PairedScores {
    /// Compares two subjects by at least one pair of answers.
    pub fn new(pairs: &[PairedAnswer<'_>]) -> Self {
        let count = |wanted: (bool, bool)| {
            let n = pairs.iter().filter(|pair| (pair.before, pair.after) == wanted).count();
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        let cells = [(true, true), (true, false), (false, true), (false, false)].map(count);
        let [_, lost, gained, _] = cells;
        let sums = changes(pairs);
        let (n, difference) = (sums.n().max(1.0), sums.mean());
        let simple_variance = f64::from(gained + lost) / n - difference * difference;
        let interval = |z: f64| {
            let shrunk = sums.effective_n(simple_variance, z) / n;
            newcombe(cells.map(|count| f64::from(count) * shrunk), z)
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let n_families = sums.n_families() as u32;
        Self {
            n_families,
            gained,
            lost,
            difference,
            interval: interval(Z_95),
            interval_90: interval(Z_90),
            p_value: sums.sign_flip_p(),
            e_value: sums.e_value(),
        }
    }

    /// Whether the second subject is not worse than the first by `margin` (a share) or more: a
    /// one-sided non-inferiority test at 5 %. With too few tasks it is not shown.
    pub fn is_not_worse_by(&self, margin: f64) -> bool {
        self.interval_90.0 > -margin
    }
}

/// Computes the e-value for the second subject being better than the first. If it is not, the value
/// exceeds `1 / alpha` at any time with probability `alpha` at most. A family counts once.
pub fn gain_e_value(pairs: &[PairedAnswer<'_>]) -> f64 {
    changes(pairs).gain_e_value()
}

/// Sums, by family, how many more answers of the second subject passed.
fn changes(pairs: &[PairedAnswer<'_>]) -> FamilySums {
    let change = |pair: &PairedAnswer<'_>| f64::from(i8::from(pair.after) - i8::from(pair.before));
    FamilySums::new(pairs.iter().map(|pair| (pair.family, change(pair))))
}

/// Groups outcomes by the group of their tasks.
pub fn groups(outcomes: &[EvalOutcome]) -> BTreeMap<String, Vec<&EvalOutcome>> {
    let mut groups: BTreeMap<String, Vec<&EvalOutcome>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(outcome.group.clone()).or_default().push(outcome);
    }
    groups
}

/// Scores answers, with several answers to one task as its samples.
pub fn score(outcomes: &[&EvalOutcome]) -> PassRate {
    PassRate::new(&by_task(outcomes))
}

/// Compares two sets of outcomes: the same tasks in the same order, with equally many answers.
pub fn compare(before: &[&EvalOutcome], after: &[&EvalOutcome]) -> PairedScores {
    let pairs = before.iter().zip(after).map(|(before, after)| PairedAnswer {
        family: &before.family,
        before: before.passed,
        after: after.passed,
    });
    PairedScores::new(&pairs.collect::<Vec<_>>())
}

/// Returns the scores by group and subject as events; `part` names a part of a benchmark.
pub fn score_events(all: &[(&str, &[EvalOutcome])], part: Option<&str>) -> Vec<Event> {
    let Some(((first, before), _)) = all.split_first() else { return Vec::new() };
    let mut events = Vec::new();
    for (index, (who, outcomes)) in all.iter().enumerate() {
        for (group, outcomes) in groups(outcomes) {
            let before = groups(before).remove(&group).unwrap_or_default();
            let against = (index > 0).then(|| ScoreComparison {
                who: (*first).to_owned(),
                paired: compare(&before, &outcomes),
            });
            let score = score(&outcomes);
            events.push(Event::EvaluationScore {
                who: (*who).to_owned(),
                group,
                part: part.map(str::to_owned),
                score,
                pass_at_1: score.share,
                against,
            });
        }
    }
    events
}

/// Counts answers by task, in order of first appearance.
pub fn by_task<'a>(outcomes: &[&'a EvalOutcome]) -> Vec<TaskScore<'a>> {
    let mut tasks: Vec<(&str, TaskScore<'a>)> = Vec::new();
    for outcome in outcomes {
        if tasks.last().is_none_or(|(id, _)| *id != outcome.id) {
            tasks.push((&outcome.id, TaskScore { family: &outcome.family, n: 0, passed: 0 }));
        }
        if let Some((_, task)) = tasks.last_mut() {
            task.n += 1;
            task.passed += u32::from(outcome.passed);
        }
    }
    tasks.into_iter().map(|(_, task)| task).collect()
}

#[cfg(test)]
mod tests {
    use super::PairedAnswer;
    use super::PairedScores;
    use super::PassAtK;
    use super::PassRate;
    use super::TaskScore;
    use super::pass_at_k;

    /// Compares answers to tasks of these families.
    fn paired(families: &[&str], before: &[bool], after: &[bool]) -> PairedScores {
        let pairs = families.iter().zip(before.iter().zip(after));
        let pairs = pairs.map(|(family, (before, after))| PairedAnswer {
            family,
            before: *before,
            after: *after,
        });
        PairedScores::new(&pairs.collect::<Vec<_>>())
    }

    #[test]
    fn a_paired_comparison_counts_what_was_gained_and_lost() {
        let before = [true, false, false, false, false, true, false, false, false, false];
        let after = [true, true, true, true, true, true, true, false, false, true];
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let apart = paired(&names, &before, &after);
        assert_eq!((apart.gained, apart.lost, apart.n_families), (6, 0, 10));
        assert!((apart.difference - 0.6).abs() < 1e-12);
        assert!((apart.p_value - 0.031_25).abs() < 1e-12);
        assert!(apart.interval.0 > 0.0 && apart.is_not_worse_by(0.0));
        // The same answers of two families: nothing is shown.
        let names = ["a", "a", "a", "a", "a", "b", "b", "b", "b", "b"];
        let together = paired(&names, &before, &after);
        assert!((together.difference - 0.6).abs() < 1e-12);
        assert!(together.p_value >= 0.5 && together.e_value < 3.0, "{together:?}");
        assert!(together.interval.0 < 0.0 && together.interval_90.0 > together.interval.0);
    }

    #[test]
    fn pass_at_k_matches_enumeration_of_all_draws() {
        // 3 of 5 answers pass: of the 10 pairs one has none of them.
        assert!((pass_at_k(5, 3, 2) - 0.9).abs() < 1e-12);
        assert!((pass_at_k(5, 3, 1) - 0.6).abs() < 1e-12 && (pass_at_k(5, 0, 5)).abs() < 1e-12);
        assert!((pass_at_k(5, 3, 3) - 1.0).abs() < 1e-12);
        let tasks = [("a", 5), ("a", 0), ("b", 5), ("c", 0)];
        let tasks = tasks.map(|(family, passed)| TaskScore { family, n: 5, passed });
        assert_eq!(PassAtK::new(&tasks, 6), None);
        let score = PassRate::new(&tasks);
        let at_1 = PassAtK::new(&tasks, 1).unwrap();
        assert!((score.share - 0.5).abs() < 1e-12 && (at_1.share - 0.5).abs() < 1e-12);
        assert!(score.interval.0 <= 0.26 && score.interval.1 >= 0.74, "{score}");
        assert!(score.interval.0 <= score.fitness && score.fitness < score.share);
    }

    #[test]
    fn fitness_prefers_more_families_to_more_tasks() {
        let names: Vec<String> = (0..200).map(|task| task.to_string()).collect();
        let all = |n: usize, passed: usize, per_family: usize| {
            let tasks = (0..n).map(|i| TaskScore {
                family: &names[i / per_family],
                n: 1,
                passed: (i < passed).into(),
            });
            PassRate::new(&tasks.collect::<Vec<_>>())
        };
        let (few, many, copies) = (all(5, 4, 1), all(200, 150, 1), all(200, 160, 40));
        assert!(few.share > many.share && few.fitness < many.fitness);
        assert!(copies.share > many.share && copies.fitness < many.fitness);
        assert!(many.fitness > many.interval.0);
    }
}
