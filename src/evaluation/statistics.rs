//! Estimates with confidence intervals.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::Event;
use crate::event::PairedScores;
use crate::event::PassRate;
use crate::event::ScoreComparison;

use super::answers::EvalOutcome;

/// 97.5 % quantile of the normal distribution, for two-sided 95 % intervals.
const Z_95: f64 = 1.959_963_984_540_054;
/// 95 % quantile of the normal distribution, for two-sided 90 % intervals.
const Z_90: f64 = 1.644_853_626_951_472_7;

/// Number of bootstrap resamples.
const RESAMPLES: usize = 4000;

/// Number of answers to one task that passed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskScore<'a> {
    /// Family of the task, the unit of resampling.
    pub family: &'a str,
    /// Number of answers, at least 1.
    pub n: u32,
    /// Number of answers that passed.
    pub passed: u32,
}

impl PassRate {
    /// Scores at least one task, all with the same number of answers. With one answer per task the
    /// interval is Wilson's, else a bootstrap over families.
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

/// Probability that at least one of `k` answers passes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PassAtK {
    /// Number of answers that are drawn.
    pub k: u32,
    /// Mean probability over all tasks.
    pub share: f64,
    /// 95 % confidence interval from a bootstrap over families.
    pub interval: (f64, f64),
}

impl PassAtK {
    /// Computes the unbiased estimator of pass@k (Chen et al. 2021, arXiv:2107.03374, eq. 1).
    /// `None` if `k` is 0 or a task has fewer than `k` answers.
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

/// Computes `1 - C(n - c, k) / C(n, k)` as a product, because the binomials overflow.
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

/// Returns sorted bootstrap means over families drawn with replacement. Resampling families rather
/// than tasks accounts for tasks of one family that pass or fail together.
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

/// Returns both ends of the middle `share` of sorted numbers.
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

/// Computes the Wilson score interval (1927) of `passed / n`, `z` standard deviations wide on each
/// side.
fn wilson(passed: u32, n: u32, z: f64) -> (f64, f64) {
    let n = f64::from(n.max(1));
    let p = f64::from(passed) / n;
    let z2 = z * z / n;
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

impl PairedScores {
    /// Compares passes before and after, task by task. Both slices have the same length, at least
    /// 1.
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

/// Computes Newcombe's interval (1998, method 10) of the difference of paired proportions, from the
/// counts of both passed, only the first, only the second, and none.
fn newcombe([both, first, second, none]: [u32; 4], z: f64) -> (f64, f64) {
    let total = both + first + second + none;
    let (passed_1, passed_2) = (both + first, both + second);
    let share = |passed: u32| f64::from(passed) / f64::from(total.max(1));
    let [(low_1, high_1), (low_2, high_2)] =
        [passed_1, passed_2].map(|passed| wilson(passed, total, z));
    let margins = [passed_1, total - passed_1, passed_2, total - passed_2].map(f64::from);
    let product: f64 = margins.iter().product();
    let cross = f64::from(both) * f64::from(none) - f64::from(first) * f64::from(second);
    // Newcombe's continuity correction applies only to positive correlations.
    let cross = if cross > 0.0 { (cross - f64::from(total) / 2.0).max(0.0) } else { cross };
    let phi = if product > 0.0 { cross / product.sqrt() } else { 0.0 };
    let width = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
    let (p_1, p_2) = (share(passed_1), share(passed_2));
    let difference = p_2 - p_1;
    (difference - width(p_2 - low_2, high_1 - p_1), difference + width(high_2 - p_2, p_1 - low_1))
}

/// Computes the exact two-sided p value of McNemar's test: `min(1, 2 P(X <= min(b, c)))` for `X ~
/// Binomial(b + c, 1/2)`.
fn mcnemar(b: u32, c: u32) -> f64 {
    let n = b + c;
    // In logarithms, because the terms underflow for large `b + c`.
    let mut term = f64::from(n) * 0.5_f64.ln();
    let mut sum = 0.0;
    for k in 0..=b.min(c) {
        sum += term.exp();
        term += (f64::from(n - k) / f64::from(k + 1)).ln();
    }
    (2.0 * sum).min(1.0)
}

/// Computes the e-value of `b` gains against `c` losses: the likelihood ratio against 1/2, averaged
/// over success probabilities uniform above 1/2. It equals
/// `2^(b+c+1) B(b+1, c+1) P[Beta(b+1, c+1) > 1/2]` and is a test martingale (Ville 1939). As a sum:
/// `b! c! / (b+c+1)! * sum over k <= b of C(b+c+1, k)`.
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

/// Compares two sets of outcomes on the same tasks in the same order, with one answer per task.
pub fn compare(before: &[&EvalOutcome], after: &[&EvalOutcome]) -> PairedScores {
    let passed = |outcomes: &[&EvalOutcome]| outcomes.iter().map(|o| o.passed).collect::<Vec<_>>();
    PairedScores::new(&passed(before), &passed(after))
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
    fn intervals_match_the_literature() {
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
        // Without any difference the interval contains 0.
        let (low, high) = newcombe([5, 2, 2, 5], Z_95);
        assert!(low < 0.0 && high > 0.0);
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
    fn fitness_prefers_larger_samples() {
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
        // 2 * integral from 1/2 to 1 of 2^n p^b (1-p)^c, computed manually.
        assert!((e_value(0, 0) - 1.0).abs() < 1e-12);
        assert!((e_value(1, 0) - 1.5).abs() < 1e-12);
        assert!((e_value(0, 1) - 0.5).abs() < 1e-12);
        assert!(e_value(20, 4) > 20.0 && e_value(12, 10) < 2.0 && e_value(900, 600) > 1e9);
    }
}
