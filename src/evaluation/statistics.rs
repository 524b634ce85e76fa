//! Figures with their intervals.

use serde::Serialize;

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share of tasks that passed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Tasks that passed.
    pub passed: u32,
    /// Tasks.
    pub n: u32,
    /// 95 % interval of the share (Wilson 1927).
    pub interval: (f64, f64),
}

impl Score {
    /// The score of `passed` tasks of `n`, of which there is at least one.
    pub fn new(passed: u32, n: u32) -> Self {
        Self { passed, n, interval: wilson(passed, n) }
    }

    /// The share that passed, `0.0..=1.0`.
    pub fn share(&self) -> f64 {
        f64::from(self.passed) / f64::from(self.n.max(1))
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.interval;
        let percent = self.share() * 100.0;
        write!(f, "{percent:.1} % ({:.1} to {:.1})", low * 100.0, high * 100.0)
    }
}

fn wilson(passed: u32, n: u32) -> (f64, f64) {
    let n = f64::from(n.max(1));
    let p = f64::from(passed) / n;
    let z2 = Z * Z / n;
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// Two scores on the same tasks, task by task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Paired {
    /// Tasks that the second passes and the first does not.
    pub gained: u32,
    /// Tasks that the first passes and the second does not.
    pub lost: u32,
    /// Second share less first, `-1.0..=1.0`.
    pub difference: f64,
    /// 95 % interval of the difference (Newcombe 1998, method 10 for paired shares).
    pub interval: (f64, f64),
    /// How likely so uneven a split is if both are equal: McNemar's exact test, two-sided.
    pub p_value: f64,
}

impl Paired {
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
        let interval = newcombe(cells);
        Self { gained, lost, difference, interval, p_value: mcnemar(gained, lost) }
    }
}

/// The interval of the difference of the shares, from both passed, first alone, second alone, none.
fn newcombe([both, first, second, none]: [u32; 4]) -> (f64, f64) {
    let total = both + first + second + none;
    let (passed_1, passed_2) = (both + first, both + second);
    let share = |passed: u32| f64::from(passed) / f64::from(total.max(1));
    let ((low_1, high_1), (low_2, high_2)) = (wilson(passed_1, total), wilson(passed_2, total));
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

#[cfg(test)]
mod tests {
    use super::Paired;
    use super::Score;
    use super::mcnemar;
    use super::newcombe;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
        for ((passed, n), (low, high)) in [
            ((81, 263), (0.2553, 0.3662)),
            ((15, 148), (0.0624, 0.1605)),
            ((0, 20), (0.0, 0.1611)),
            ((1, 29), (0.0061, 0.1718)),
        ] {
            let (ours_low, ours_high) = Score::new(passed, n).interval;
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
        let paired = Paired::new(&before, &after);
        assert_eq!((paired.gained, paired.lost), (6, 0));
        assert!((paired.difference - 0.6).abs() < 1e-12);
        assert!((paired.p_value - 0.031_25).abs() < 1e-12);
        assert!((mcnemar(600, 600) - 1.0).abs() < 1e-9 && mcnemar(700, 500) < 1e-7);
        // Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired
        // data", table II, method 10.
        let (low, high) = newcombe([36, 2, 12, 0]);
        assert!((low - 0.0569).abs() < 5e-5 && (high - 0.3404).abs() < 5e-5, "{low} {high}");
        // Without any difference the interval holds 0.
        let (low, high) = newcombe([5, 2, 2, 5]);
        assert!(low < 0.0 && high > 0.0);
    }
}
