//! Thompson sampling among adapters and none (Thompson 1933; Russo et al. 2018, "A tutorial on
//! Thompson sampling"): what is uncertain is tried as often as it may be the best.

use crate::rng::SplitMix64;

/// Number of imagined decisions, by which probabilities are estimated: with a standard error of at
/// most 2.2 points.
const N_DRAWS: usize = 512;
/// Seed of the imagined decisions: probabilities do not depend on the seed of a decision.
const ESTIMATES: u64 = 0;
/// Probability of a gain below which an adapter is not taken, unless it is promoted.
const MIN_GAIN_PROBABILITY: f64 = 0.6;

/// Numbers of tasks that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TaskCounts {
    pub(super) passed: f64,
    pub(super) failed: f64,
}

/// Adapter to choose or not, by what it and the base have done with such tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Arm {
    /// Outcomes with the adapter.
    pub(super) adapter: TaskCounts,
    /// Outcomes with the base alone.
    pub(super) base: TaskCounts,
    /// Whether the adapter is promoted: then a gate has decided that it gains.
    pub(super) is_promoted: bool,
}

/// Decision among arms and the base alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BanditChoice {
    /// Index of the arm; `None` is the base alone.
    pub(super) arm: Option<usize>,
    /// Probability of this decision, over all seeds.
    pub(super) propensity: f64,
}

/// Draws a gain over the base for every arm, and decides for the largest one, or for none if no
/// gain is above 0. The same seed gives the same decision.
pub(super) fn choose(arms: &[Arm], seed: u64) -> BanditChoice {
    let mut random = SplitMix64::new(ESTIMATES);
    let draws: Vec<Vec<f64>> = (0..N_DRAWS).map(|_| gains(arms, &mut random)).collect();
    let is_eligible = |index: &usize| {
        arms[*index].is_promoted
            || share(draws.iter().map(|gains| gains[*index] > 0.0)) >= MIN_GAIN_PROBABILITY
    };
    let eligible: Vec<usize> = (0..arms.len()).filter(is_eligible).collect();
    let decide = |gains: &Vec<f64>| {
        let order = |one: &usize, other: &usize| gains[*one].total_cmp(&gains[*other]);
        eligible.iter().copied().max_by(order).filter(|best| gains[*best] > 0.0)
    };
    let arm = decide(&gains(arms, &mut SplitMix64::new(seed)));
    BanditChoice { arm, propensity: share(draws.iter().map(|gains| decide(gains) == arm)) }
}

/// Draws a gain for each arm. Arms that were measured beside the same base share the draw of its
/// rate.
fn gains(arms: &[Arm], random: &mut SplitMix64) -> Vec<f64> {
    let base_seed = random.next();
    let gain =
        |arm: &Arm| beta(arm.adapter, random) - beta(arm.base, &mut SplitMix64::new(base_seed));
    arms.iter().map(gain).collect()
}

/// Returns the share of what is true, of at least one.
#[expect(clippy::cast_precision_loss, reason = "few draws")]
fn share(facts: impl ExactSizeIterator<Item = bool>) -> f64 {
    let n = facts.len();
    facts.filter(|fact| *fact).count() as f64 / n as f64
}

/// Draws a pass rate from its posterior with a uniform prior, `Beta(1 + passed, 1 + failed)`.
fn beta(counts: TaskCounts, random: &mut SplitMix64) -> f64 {
    let passed = gamma(1.0 + counts.passed, random);
    passed / (passed + gamma(1.0 + counts.failed, random))
}

/// Draws from the gamma distribution of a shape of at least 1 (Marsaglia and Tsang 2000, "A simple
/// method for generating gamma variables").
fn gamma(shape: f64, random: &mut SplitMix64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && uniform(random).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Draws from the standard normal distribution (Box and Muller 1958).
fn normal(random: &mut SplitMix64) -> f64 {
    let (radius, angle) = (uniform(random), uniform(random));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Draws from `0.0 < x < 1.0`.
#[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
fn uniform(random: &mut SplitMix64) -> f64 {
    ((random.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An arm of 100 tasks beside a base that passes 30 of 100.
    fn arm(passed: f64) -> Arm {
        let counts = |passed: f64| TaskCounts { passed, failed: 100.0 - passed };
        Arm { adapter: counts(passed), base: counts(30.0), is_promoted: false }
    }

    #[test]
    fn what_is_better_is_chosen_and_what_is_not_is_no_arm() {
        let sure = choose(&[arm(10.0), arm(90.0), arm(30.0)], 1);
        assert_eq!(sure.arm, Some(1));
        assert!(sure.propensity > 0.99, "{sure:?}");
        for seed in 0..50 {
            assert_eq!(choose(&[arm(10.0), arm(30.0)], seed).arm, None, "{seed}");
        }
        assert_eq!(choose(&[], 1), BanditChoice { arm: None, propensity: 1.0 });
    }

    #[test]
    fn a_seed_decides_and_the_propensity_is_how_often() {
        let arms = [arm(90.0), arm(86.0)];
        assert_eq!(choose(&arms, 7), choose(&arms, 7));
        let choices: Vec<BanditChoice> = (0..400).map(|seed| choose(&arms, seed)).collect();
        let first = choices.iter().filter(|choice| choice.arm == Some(0)).count();
        let stated = choices.iter().find(|choice| choice.arm == Some(0)).unwrap().propensity;
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let found = first as f64 / 400.0;
        assert!((found - stated).abs() < 0.1, "{found} {stated}");
        assert!((0.6..0.95).contains(&found), "the better one more often: {found}");
    }

    #[test]
    fn an_adapter_without_outcomes_is_taken_only_if_it_is_promoted() {
        let unknown = Arm { adapter: TaskCounts::default(), ..arm(50.0) };
        let promoted = Arm { base: unknown.adapter, is_promoted: true, ..unknown };
        let n_taken =
            |arm: Arm| (0..200).filter(|seed| choose(&[arm], *seed).arm.is_some()).count();
        // Its rate may be anything: above 30 % with a probability of 0.7.
        assert!((110..170).contains(&n_taken(unknown)), "{}", n_taken(unknown));
        assert_eq!(n_taken(Arm { is_promoted: false, ..promoted }), 0, "no more likely than not");
        assert!((70..130).contains(&n_taken(promoted)), "{}", n_taken(promoted));
    }

    /// Mean and variance of `Beta(3, 5)` are `3 / 8` and `15 / 576`.
    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let mut random = SplitMix64::new(3);
        let draws: Vec<f64> = (0..20_000)
            .map(|_| beta(TaskCounts { passed: 2.0, failed: 4.0 }, &mut random))
            .collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(
            (mean - 0.375).abs() < 0.005 && (variance - 15.0 / 576.0).abs() < 0.001,
            "{mean} {variance}"
        );
    }
}
