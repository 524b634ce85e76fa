//! Figures with their intervals.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::Event;
use crate::event::PairedScores;
use crate::event::PassRate;
use crate::event::ScoreComparison;

use super::answers::EvalOutcome;

/// The 97.5 % point of the normal distribution: intervals of 95 %.
const Z_95: f64 = 1.959_963_984_540_054;
/// The 95 % point: intervals of 90 %.
const Z_90: f64 = 1.644_853_626_951_472_7;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 4000;

/// What came of all answers to one task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskScore<'a> {
    /// The task's family.
    pub family: &'a str,
    /// Answers, at least 1.
    pub n: u32,
    /// Answers that passed.
    pub passed: u32,
}

impl PassRate {
    /// The score of these tasks, of which there is at least one, each with as many answers.
    pub fn new(tasks: &[TaskScore<'_>]) -> Self {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (n_tasks, n_samples) = (count(tasks.len()), tasks.first().map_or(1, |task| task.n));
        let passed = tasks.iter().map(|task| task.passed).sum();
        let of_task = |task: &TaskScore<'_>| f64::from(task.passed) / f64::from(task.n);
        let (interval, fitness) = if n_samples == 1 {
            (wilson(passed, n_tasks, Z_95), wilson(passed, n_tasks, Z_90).0)
        } else {
            let means = bootstrap(tasks, &of_task);
            (middle(&means, 0.95), middle(&means, 0.90).0)
        };
        Self { n_tasks, n_samples, passed, share: mean(tasks, &of_task), interval, fitness }
    }
}

impl std::fmt::Display for PassRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_share(f, self.share, self.interval)
    }
}

fn write_share(
    f: &mut std::fmt::Formatter<'_>,
    share: f64,
    (low, high): (f64, f64),
) -> std::fmt::Result {
    write!(f, "{:.1} % ({:.1} to {:.1})", share * 100.0, low * 100.0, high * 100.0)
}

/// How likely one of `k` answers passes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PassAtK {
    /// Answers that are drawn.
    pub k: u32,
    /// The mean over tasks.
    pub share: f64,
    /// 95 % interval, by a bootstrap over families.
    pub interval: (f64, f64),
}

impl PassAtK {
    /// pass@k of these tasks, without bias (Chen et al. 2021, arXiv:2107.03374, eq. 1); `None`
    /// where a task has fewer than `k` answers, or `k` is 0.
    pub fn new(tasks: &[TaskScore<'_>], k: u32) -> Option<Self> {
        if k == 0 || tasks.iter().any(|task| task.n < k) {
            return None;
        }
        let of_task = |task: &TaskScore<'_>| pass_at_k(task.n, task.passed, k);
        Some(Self {
            k,
            share: mean(tasks, &of_task),
            interval: middle(&bootstrap(tasks, &of_task), 0.95),
        })
    }
}

impl std::fmt::Display for PassAtK {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_share(f, self.share, self.interval)
    }
}

/// `1 - C(n - c, k) / C(n, k)`, as a product that stays in range.
fn pass_at_k(n: u32, c: u32, k: u32) -> f64 {
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - f64::from(k) / f64::from(i)).product::<f64>()
}

#[expect(clippy::cast_precision_loss, reason = "tasks are few")]
fn mean(tasks: &[TaskScore<'_>], value: &dyn Fn(&TaskScore<'_>) -> f64) -> f64 {
    tasks.iter().map(value).sum::<f64>() / tasks.len().max(1) as f64
}

/// The means of families drawn with replacement, sorted: tasks of one family pass or fail together.
fn bootstrap(tasks: &[TaskScore<'_>], value: &dyn Fn(&TaskScore<'_>) -> f64) -> Vec<f64> {
    let mut families: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for task in tasks {
        let (sum, n) = families.entry(task.family).or_default();
        (*sum, *n) = (*sum + value(task), *n + 1.0);
    }
    let families: Vec<(f64, f64)> = families.into_values().collect();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        families[usize::try_from(random >> 33).unwrap_or(0) % families.len().max(1)]
    };
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let add = |(sum, n): (f64, f64), (a, b): (f64, f64)| (sum + a, n + b);
            let (sum, n) = (0..families.len()).map(|_| draw()).fold((0.0, 0.0), add);
            sum / n
        })
        .collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The ends of the middle `share` of sorted numbers.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count"
)]
fn middle(sorted: &[f64], share: f64) -> (f64, f64) {
    let left_out = (sorted.len() as f64 * (1.0 - share) / 2.0).round() as usize;
    (sorted[left_out], sorted[sorted.len() - 1 - left_out])
}

/// Wilson's interval (1927) of a share, `z` standard deviations to either side.
fn wilson(passed: u32, n: u32, z: f64) -> (f64, f64) {
    let n = f64::from(n.max(1));
    let p = f64::from(passed) / n;
    let z2 = z * z / n;
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

impl PairedScores {
    /// Compares what passed before and after, task by task; both are of one length, at least 1.
    pub fn new(before: &[bool], after: &[bool]) -> Self {
        let count = |wanted: (bool, bool)| {
            let pairs = before.iter().zip(after);
            let n = pairs.filter(|(before, after)| (**before, **after) == wanted).count();
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        let cells = [(true, true), (true, false), (false, true), (false, false)].map(count);
        let [_, lost, gained, _] = cells;
        let n = f64::from(cells.iter().sum::<u32>().max(1));
        let difference = (f64::from(gained) - f64::from(lost)) / n;
        let (interval, quality) = (newcombe(cells, Z_95), newcombe(cells, Z_90).0);
        let (p_value, e_value) = (mcnemar(gained, lost), e_value(gained, lost));
        Self { gained, lost, difference, interval, quality, p_value, e_value }
    }
}

/// The interval of the difference of the shares, from both passed, first alone, second alone, none.
fn newcombe([both, first, second, none]: [u32; 4], z: f64) -> (f64, f64) {
    let total = both + first + second + none;
    let (passed_1, passed_2) = (both + first, both + second);
    let share = |passed: u32| f64::from(passed) / f64::from(total.max(1));
    let [(low_1, high_1), (low_2, high_2)] =
        [passed_1, passed_2].map(|passed| wilson(passed, total, z));
    let margins = [passed_1, total - passed_1, passed_2, total - passed_2].map(f64::from);
    let product: f64 = margins.iter().product();
    let cross = f64::from(both) * f64::from(none) - f64::from(first) * f64::from(second);
    // Newcombe's correction for continuity, of positive correlations alone.
    let cross = if cross > 0.0 { (cross - f64::from(total) / 2.0).max(0.0) } else { cross };
    let phi = if product > 0.0 { cross / product.sqrt() } else { 0.0 };
    let width = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
    let (p_1, p_2) = (share(passed_1), share(passed_2));
    let difference = p_2 - p_1;
    (difference - width(p_2 - low_2, high_1 - p_1), difference + width(high_2 - p_2, p_1 - low_1))
}

/// `min(1, 2 P(X <= min(b, c)))` for `X` of `b + c` throws of a coin.
fn mcnemar(b: u32, c: u32) -> f64 {
    let n = b + c;
    // In logarithms: the terms of many throws are too small for a number.
    let mut term = f64::from(n) * 0.5_f64.ln();
    let mut sum = 0.0;
    for k in 0..=b.min(c) {
        sum += term.exp();
        term += (f64::from(n - k) / f64::from(k + 1)).ln();
    }
    (2.0 * sum).min(1.0)
}

/// The mean likelihood ratio of `b` against `c` over all chances above one half of which the first
/// may be, uniformly: `2^(b+c+1) B(b+1, c+1) P[Beta(b+1, c+1) > 1/2]`, a test martingale (Ville
/// 1939). As a sum: `b! c! / (b+c+1)! * sum over k <= b of C(b+c+1, k)`.
fn e_value(b: u32, c: u32) -> f64 {
    let n = b + c + 1;
    let ln_factorial = |m: u32| (2..=m).map(|i| f64::from(i).ln()).sum::<f64>();
    let head = ln_factorial(b) + ln_factorial(c) - ln_factorial(n);
    let (mut term, mut sum) = (head, 0.0);
    for k in 0..=b {
        sum += term.exp();
        term += (f64::from(n - k) / f64::from(k + 1)).ln();
    }
    sum
}

/// Outcomes by the group of their tasks.
pub fn groups(outcomes: &[EvalOutcome]) -> BTreeMap<String, Vec<&EvalOutcome>> {
    let mut groups: BTreeMap<String, Vec<&EvalOutcome>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(outcome.group.clone()).or_default().push(outcome);
    }
    groups
}

/// The score of these answers.
pub fn score(outcomes: &[&EvalOutcome]) -> PassRate {
    PassRate::new(&by_task(outcomes))
}

/// Compares two on the same tasks in the same order, one answer each.
pub fn compare(before: &[&EvalOutcome], after: &[&EvalOutcome]) -> PairedScores {
    let passed = |outcomes: &[&EvalOutcome]| outcomes.iter().map(|o| o.passed).collect::<Vec<_>>();
    PairedScores::new(&passed(before), &passed(after))
}

/// The score of everyone on each group of tasks; `part` names one part of a benchmark.
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

/// Answers by task, in the order in which tasks come first.
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
    use super::PairedScores;
    use super::PassAtK;
    use super::PassRate;
    use super::TaskScore;
    use super::Z_90;
    use super::Z_95;
    use super::e_value;
    use super::mcnemar;
    use super::newcombe;
    use super::pass_at_k;
    use super::wilson;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I,
        // method 3.
        for ((passed, n), (low, high)) in [
            ((81, 263), (0.2553, 0.3662)),
            ((15, 148), (0.0624, 0.1605)),
            ((0, 20), (0.0, 0.1611)),
            ((1, 29), (0.0061, 0.1718)),
        ] {
            let (ours_low, ours_high) = wilson(passed, n, Z_95);
            assert!(
                (ours_low - low).abs() < 5e-5 && (ours_high - high).abs() < 5e-5,
                "{passed}/{n}"
            );
        }
    }

    #[test]
    fn a_paired_comparison_counts_what_was_gained_and_lost() {
        let before = [true, false, false, false, false, true, false, false, false, false];
        let after = [true, true, true, true, true, true, true, false, false, true];
        let paired = PairedScores::new(&before, &after);
        assert_eq!((paired.gained, paired.lost), (6, 0));
        assert!((paired.difference - 0.6).abs() < 1e-12);
        assert!((paired.p_value - 0.031_25).abs() < 1e-12);
        assert!((mcnemar(600, 600) - 1.0).abs() < 1e-9 && mcnemar(700, 500) < 1e-7);
        // Newcombe 1998, "Improved confidence intervals for the difference between binomial
        // proportions based on paired data", table II, method 10.
        let (low, high) = newcombe([36, 2, 12, 0], Z_95);
        assert!((low - 0.0569).abs() < 5e-5 && (high - 0.3404).abs() < 5e-5, "{low} {high}");
        // Without any difference the interval holds 0.
        let (low, high) = newcombe([5, 2, 2, 5], Z_95);
        assert!(low < 0.0 && high > 0.0);
    }

    #[test]
    fn pass_at_k_is_what_all_draws_give() {
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
    fn fitness_prefers_what_was_measured_more() {
        let all = |n: usize, passed: usize| {
            let tasks =
                (0..n).map(|i| TaskScore { family: "a", n: 1, passed: (i < passed).into() });
            PassRate::new(&tasks.collect::<Vec<_>>())
        };
        let (few, many) = (all(5, 4), all(200, 150));
        assert!(few.share > many.share && few.fitness < many.fitness);
        assert!((many.fitness - wilson(150, 200, Z_90).0).abs() < 1e-12);
        assert!(many.fitness > many.interval.0);
    }

    #[test]
    fn evidence_is_the_mean_likelihood_ratio() {
        // 2 * integral from 1/2 to 1 of 2^n p^b (1-p)^c, by hand.
        assert!((e_value(0, 0) - 1.0).abs() < 1e-12);
        assert!((e_value(1, 0) - 1.5).abs() < 1e-12);
        assert!((e_value(0, 1) - 0.5).abs() < 1e-12);
        assert!(e_value(20, 4) > 20.0 && e_value(12, 10) < 2.0 && e_value(900, 600) > 1e9);
    }
}
