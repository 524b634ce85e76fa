//! Intervals and tests for answers that come in families.
//!
//! Tasks of a family pass or fail together, so a family is one observation and not as many as it
//! has tasks. Intervals are computed from an effective sample size (Korn and Graubard 1998,
//! "Confidence intervals for proportions with small expected number of positive counts estimated
//! from survey data"); tests flip or count whole families. Where every family has one task, all of
//! this is the textbook method for independent tasks.

use std::collections::BTreeMap;

/// 97.5 % quantile of the normal distribution, for two-sided 95 % intervals.
pub(super) const Z_95: f64 = 1.959_963_984_540_054;
/// 95 % quantile of the normal distribution, for two-sided 90 % intervals.
pub(super) const Z_90: f64 = 1.644_853_626_951_472_7;

/// Values of one variable, summed by family.
#[derive(Debug, Clone)]
pub(super) struct FamilySums {
    /// Sum and number of the values of each family.
    families: Vec<(f64, f64)>,
}

impl FamilySums {
    /// Sums `values`, each with its family.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let mut families: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (family, value) in values {
            let (sum, n) = families.entry(family).or_default();
            (*sum, *n) = (*sum + value, *n + 1.0);
        }
        Self { families: families.into_values().collect() }
    }

    /// Returns the number of families.
    #[expect(clippy::cast_precision_loss, reason = "families are few")]
    pub(super) fn n_families(&self) -> f64 {
        self.families.len() as f64
    }

    /// Returns the number of values.
    pub(super) fn n(&self) -> f64 {
        self.families.iter().map(|(_, n)| n).sum()
    }

    /// Returns the mean of all values.
    pub(super) fn mean(&self) -> f64 {
        self.families.iter().map(|(sum, _)| sum).sum::<f64>() / self.n().max(1.0)
    }

    /// Returns the number of independent values that would tell as much about the mean as these,
    /// for an interval of `z` standard deviations; `simple_variance` is the variance of one value.
    ///
    /// The number of values is divided by the design effect: the variance of the mean over
    /// families, by linearization (Cochran 1977, "Sampling Techniques", eq. 11.30), divided by
    /// that of independent values. It is at least 1. Few families estimate the variance badly,
    /// which Student's quantile makes up for.
    pub(super) fn effective_n(&self, simple_variance: f64, z: f64) -> f64 {
        let (n, n_families, mean) = (self.n(), self.n_families(), self.mean());
        // One value a family, or a single family, which says nothing about others.
        if n_families >= n || n_families <= 1.0 {
            return n_families;
        }
        let square = |(sum, n): &(f64, f64)| (sum - mean * n).powi(2);
        let deviations = self.families.iter().map(square).sum::<f64>();
        // All families are alike: their number is all that is known.
        if deviations <= 0.0 || simple_variance <= 0.0 {
            return n_families;
        }
        let variance = n_families / (n_families - 1.0) * deviations / (n * n);
        let design_effect = (variance * (n - 1.0) / simple_variance).max(1.0);
        let students = student_quantile(z, n_families - 1.0);
        (n / design_effect * (z / students).powi(2)).max(1.0)
    }

    /// Computes the Wilson score interval (1927) of the mean of values in `0.0..=1.0`.
    pub(super) fn wilson(&self, z: f64) -> (f64, f64) {
        let mean = self.mean();
        wilson(mean, self.effective_n(mean * (1.0 - mean), z), z)
    }

    /// Computes the exact two-sided p-value of the hypothesis that the sum of each family is as
    /// likely to have the opposite sign (randomization test: Fisher 1935, "The Design of
    /// Experiments", section 21). The values are whole numbers. With one value a family in -1, 0
    /// and 1 it is McNemar's exact test.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sums of whole numbers"
    )]
    pub(super) fn sign_flip_p(&self) -> f64 {
        let sums = self.families.iter().map(|(sum, _)| sum.abs().round() as usize);
        let sums: Vec<usize> = sums.filter(|sum| *sum > 0).collect();
        let observed = self.families.iter().map(|(sum, _)| sum).sum::<f64>().abs().round() as usize;
        let total: usize = sums.iter().sum();
        // `shares[i]`: the probability that the flipped sums add up to `i - total`.
        let mut shares = vec![0.0; 2 * total + 1];
        shares[total] = 1.0;
        for sum in sums {
            let before = shares.clone();
            for (index, share) in shares.iter_mut().enumerate() {
                let below = index.checked_sub(sum).map_or(0.0, |from| before[from]);
                let above = before.get(index + sum).copied().unwrap_or(0.0);
                *share = f64::midpoint(below, above);
            }
        }
        let is_extreme = |index: &usize| index.abs_diff(total) >= observed;
        (0..shares.len()).filter(is_extreme).map(|index| shares[index]).sum::<f64>().min(1.0)
    }

    /// Computes the two-sided e-value of the families with a positive sum against those with a
    /// negative one: the mean of the e-values of both directions. Whatever is looked at and
    /// however often, it exceeds `1 / alpha` with probability `alpha` at most where neither
    /// direction is more likely (Ville 1939).
    pub(super) fn e_value(&self) -> f64 {
        let (gained, lost) = self.signs();
        let evidence = f64::midpoint(e_value(gained, lost), e_value(lost, gained));
        // A large family against many small ones: the evidence would be for one direction, and the
        // mean for the other. A smaller e-value is always a valid one.
        let agrees = (gained > lost) == (self.mean() > 0.0);
        if agrees { evidence } else { evidence.min(1.0) }
    }

    /// Computes the one-sided e-value that families with a positive sum are more likely than those
    /// with a negative one.
    pub(super) fn gain_e_value(&self) -> f64 {
        let (gained, lost) = self.signs();
        let evidence = e_value(gained, lost);
        if self.mean() > 0.0 { evidence } else { evidence.min(1.0) }
    }

    /// Counts the families with a positive and with a negative sum.
    fn signs(&self) -> (u32, u32) {
        let count = |is_counted: fn(f64) -> bool| {
            let n = self.families.iter().filter(|(sum, _)| is_counted(*sum)).count();
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        (count(|sum| sum > 0.0), count(|sum| sum < 0.0))
    }
}

/// Computes the Wilson score interval (1927) of a proportion among `n` independent values, `z`
/// standard deviations wide on each side.
pub(super) fn wilson(p: f64, n: f64, z: f64) -> (f64, f64) {
    let n = n.max(1.0);
    let z2 = z * z / n;
    let center = (p + z2 / 2.0) / (1.0 + z2);
    let half = z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// Computes Newcombe's interval (1998, method 10) of the difference of paired proportions, from the
/// counts of both passed, only the first, only the second, and none.
pub(super) fn newcombe([both, first, second, none]: [f64; 4], z: f64) -> (f64, f64) {
    let total = both + first + second + none;
    let (passed_1, passed_2) = (both + first, both + second);
    let share = |passed: f64| passed / total.max(1.0);
    let [(low_1, high_1), (low_2, high_2)] =
        [passed_1, passed_2].map(|passed| wilson(share(passed), total, z));
    let margins = [passed_1, total - passed_1, passed_2, total - passed_2];
    let product: f64 = margins.iter().product();
    let cross = both * none - first * second;
    // Newcombe's continuity correction applies only to positive correlations.
    let cross = if cross > 0.0 { (cross - total / 2.0).max(0.0) } else { cross };
    let phi = if product > 0.0 { cross / product.sqrt() } else { 0.0 };
    let width = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
    let (p_1, p_2) = (share(passed_1), share(passed_2));
    let difference = p_2 - p_1;
    (difference - width(p_2 - low_2, high_1 - p_1), difference + width(high_2 - p_2, p_1 - low_1))
}

/// Computes the quantile of Student's distribution that corresponds to the normal quantile `z`:
/// exactly for one and two degrees of freedom, else by a series (Abramowitz and Stegun 1964,
/// 26.7.5, three terms).
fn student_quantile(z: f64, freedom: f64) -> f64 {
    let middle = 2.0 * normal_share(z) - 1.0;
    if freedom < 1.5 {
        return (std::f64::consts::FRAC_PI_2 * middle).tan();
    }
    if freedom < 2.5 {
        return middle * (2.0 / (1.0 - middle * middle)).sqrt();
    }
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    let [first, second, third] = terms;
    z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

/// Computes the share of the normal distribution below `z`, for positive `z` (Abramowitz and Stegun
/// 1964, 26.2.17; off by less than 1e-7).
fn normal_share(z: f64) -> f64 {
    const TERMS: [f64; 5] =
        [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let sum = TERMS.iter().fold(0.0, |sum, term| (sum + term) * t);
    1.0 - (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum
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

#[cfg(test)]
mod tests {
    use super::FamilySums;
    use super::Z_95;
    use super::e_value;
    use super::newcombe;
    use super::student_quantile;
    use super::wilson;
    use crate::rng::SplitMix64;

    #[test]
    fn intervals_match_the_literature() {
        // Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I,
        // method 3.
        for ((passed, n), (low, high)) in [
            ((81.0, 263.0), (0.2553, 0.3662)),
            ((15.0, 148.0), (0.0624, 0.1605)),
            ((0.0, 20.0), (0.0, 0.1611)),
            ((1.0, 29.0), (0.0061, 0.1718)),
        ] {
            let (ours_low, ours_high) = wilson(passed / n, n, Z_95);
            assert!(
                (ours_low - low).abs() < 5e-5 && (ours_high - high).abs() < 5e-5,
                "{passed}/{n}"
            );
        }
        // Newcombe 1998, "Improved confidence intervals for the difference between binomial
        // proportions based on paired data", table II, method 10.
        let (low, high) = newcombe([36.0, 2.0, 12.0, 0.0], Z_95);
        assert!((low - 0.0569).abs() < 5e-5 && (high - 0.3404).abs() < 5e-5, "{low} {high}");
        // Without any difference the interval contains 0.
        let (low, high) = newcombe([5.0, 2.0, 2.0, 5.0], Z_95);
        assert!(low < 0.0 && high > 0.0);
        // Any table of Student's distribution, two-sided 95 %.
        for (freedom, quantile) in [(1.0, 12.7062), (2.0, 4.3027), (3.0, 3.1824), (10.0, 2.2281)] {
            let found = student_quantile(Z_95, freedom);
            assert!((found / quantile - 1.0).abs() < 1e-2, "{freedom}: {found}");
        }
    }

    /// Draws 40 families of 4 answers that agree within a family with probability `agreement`, and
    /// returns them as 0 and 1; half of the families pass.
    fn drawn(random: &mut SplitMix64, agreement: f32) -> Vec<(String, f64)> {
        let mut values = Vec::new();
        for family in 0..40 {
            let common = random.uniform() < 0.5;
            for _ in 0..4 {
                let own = random.uniform() < 0.5;
                let passed = if random.uniform() < agreement { common } else { own };
                values.push((format!("f{family}"), f64::from(u8::from(passed))));
            }
        }
        values
    }

    /// Returns the share of 2,000 intervals that contain the true share, 0.5.
    fn coverage(agreement: f32, interval: impl Fn(&[(String, f64)]) -> (f64, f64)) -> f64 {
        let mut random = SplitMix64::new(11);
        let hit = |(low, high): (f64, f64)| low <= 0.5 && high >= 0.5;
        let hits = (0..2000).filter(|_| hit(interval(&drawn(&mut random, agreement)))).count();
        f64::from(u32::try_from(hits).unwrap()) / 2000.0
    }

    #[test]
    fn intervals_of_families_cover_the_truth_as_often_as_they_say() {
        let of_families = |values: &[(String, f64)]| {
            FamilySums::new(values.iter().map(|(family, value)| (family.as_str(), *value)))
                .wilson(Z_95)
        };
        let of_tasks = |values: &[(String, f64)]| {
            let n = f64::from(u32::try_from(values.len()).unwrap());
            wilson(values.iter().map(|(_, value)| value).sum::<f64>() / n, n, Z_95)
        };
        for agreement in [0.0, 0.5, 0.9] {
            let covered = coverage(agreement, of_families);
            assert!((0.935..=0.975).contains(&covered), "{agreement}: {covered}");
        }
        // The interval that takes tasks for independent is too narrow.
        assert!(coverage(0.9, of_tasks) < 0.75);
    }

    #[test]
    fn equal_subjects_are_told_apart_no_more_often_than_the_level() {
        // Each family of four tasks changes as one: gained, lost, or the same.
        let mut random = SplitMix64::new(12);
        let (mut p_values, mut e_values) = (0, 0);
        for _ in 0..2000 {
            let changes: Vec<f64> =
                (0..60).map(|_| [1.0, -1.0, 0.0, 0.0][random.below(4)]).collect();
            let names: Vec<String> = (0..60).map(|family| family.to_string()).collect();
            let values = names
                .iter()
                .zip(&changes)
                .flat_map(|(name, change)| std::iter::repeat_n((name.as_str(), *change), 4));
            let sums = FamilySums::new(values);
            p_values += i32::from(sums.sign_flip_p() <= 0.05);
            e_values += i32::from(sums.e_value() >= 20.0);
        }
        assert!((20..=100).contains(&p_values) && e_values <= 100, "{p_values} {e_values}");
    }

    #[test]
    fn evidence_is_not_for_a_direction_that_the_answers_do_not_have() {
        let names: Vec<String> = (0..12).map(|family| family.to_string()).collect();
        let gained = names.iter().map(|name| (name.as_str(), 1.0));
        let lost = std::iter::repeat_n(("large", -1.0), 20);
        assert!(FamilySums::new(gained.clone()).e_value() > 20.0);
        assert!(FamilySums::new(gained.chain(lost)).e_value() <= 1.0);
    }

    #[test]
    fn families_of_one_task_are_tested_as_independent_tasks() {
        let names: Vec<String> = (0..30).map(|task| task.to_string()).collect();
        let p_value = |gained: usize, lost: usize| {
            let change = |index: usize| match index {
                index if index < gained => 1.0,
                index if index < gained + lost => -1.0,
                _ => 0.0,
            };
            let values = names.iter().enumerate().map(|(i, name)| (name.as_str(), change(i)));
            FamilySums::new(values).sign_flip_p()
        };
        // McNemar's exact test, computed manually: 2 * P[X <= min] for X ~ Binomial(n, 1/2).
        assert!((p_value(6, 0) - 0.031_25).abs() < 1e-12);
        assert!((p_value(7, 1) - 2.0 * 9.0 / 256.0).abs() < 1e-12);
        assert!((p_value(5, 5) - 1.0).abs() < 1e-12 && (p_value(0, 0) - 1.0).abs() < 1e-12);
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
