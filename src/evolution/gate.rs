//! [`GateRule`]: whether an adapter is better than what it would replace, decided while answers
//! come in.
//!
//! A test that is looked at after every task accepts an equal adapter far more often than its level
//! says. An e-value may be looked at any time: where the adapter is no better, it exceeds
//! `1 / alpha` with a probability of at most `alpha`, however long one waits (Ville 1939).

use crate::evaluation::PairedAnswer;
use crate::evaluation::gain_e_value;
use crate::event::PairedScores;

/// Rule for one comparison of an adapter with what it would replace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateRule {
    /// Probability at which an adapter that is no better may be accepted, `0.0 < alpha < 1.0`.
    pub alpha: f64,
    /// Least difference that is worth anything, as a share of the tasks.
    pub min_effect: f64,
}

/// Decision after some of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateDecision {
    /// The adapter is better than what it would replace.
    Accept,
    /// With 90 % confidence, it is not better by what would be worth anything.
    Futile,
    /// More answers are needed to decide.
    Undecided,
}

impl Default for GateRule {
    fn default() -> Self {
        Self { alpha: 0.05, min_effect: 0.02 }
    }
}

impl GateRule {
    /// Returns the rule for the `k`-th test of a project, from 1. All tests of a project together
    /// accept an adapter that is no better with probability `alpha` at most: the levels
    /// `6 alpha / (pi^2 k^2)` sum to `alpha`.
    #[must_use]
    pub fn of_test(self, k: u32) -> Self {
        let k = f64::from(k.max(1));
        Self { alpha: self.alpha * 6.0 / (std::f64::consts::PI * k).powi(2), ..self }
    }

    /// Decides after the pairs so far; the second answer of each is the adapter's. They must be
    /// whole families: each counts once, by whether more or fewer of its tasks pass.
    pub fn decide(&self, pairs: &[PairedAnswer<'_>]) -> GateDecision {
        if gain_e_value(pairs) >= 1.0 / self.alpha {
            GateDecision::Accept
        } else if !pairs.is_empty() && PairedScores::new(pairs).interval_90.1 < self.min_effect {
            GateDecision::Futile
        } else {
            GateDecision::Undecided
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(families: &[String], gained: usize, lost: usize) -> Vec<PairedAnswer<'_>> {
        let pair = |index: usize| PairedAnswer {
            family: families[index].as_str(),
            before: (gained..gained + lost).contains(&index),
            after: index < gained,
        };
        (0..families.len()).map(pair).collect()
    }

    fn decided(gained: usize, lost: usize, n: usize) -> GateDecision {
        let families: Vec<String> = (0..n).map(|index| index.to_string()).collect();
        GateRule::default().decide(&pairs(&families, gained, lost))
    }

    #[test]
    fn evidence_accepts_and_its_absence_ends_the_test() {
        // `2^7 B(7, 1) P[Beta(7, 1) > 1/2]` is 18.1, and with one more gain 31.9.
        assert_eq!(decided(6, 0, 6), GateDecision::Undecided);
        assert_eq!(decided(7, 0, 7), GateDecision::Accept);
        assert_eq!(decided(10, 9, 60), GateDecision::Undecided);
        assert_eq!(decided(2, 2, 400), GateDecision::Futile);
        assert_eq!(decided(0, 9, 60), GateDecision::Futile);
        assert_eq!(GateRule::default().decide(&[]), GateDecision::Undecided);
    }

    #[test]
    fn tasks_of_one_family_are_one_observation() {
        let family = ["a".to_owned()];
        let of_one: Vec<PairedAnswer<'_>> = (0..30).flat_map(|_| pairs(&family, 1, 0)).collect();
        assert_ne!(GateRule::default().decide(&of_one), GateDecision::Accept);
    }

    #[test]
    fn levels_of_all_tests_sum_to_alpha() {
        let sum: f64 = (1..100_000).map(|k| GateRule::default().of_test(k).alpha).sum();
        assert!((sum - 0.05).abs() < 1e-5, "{sum}");
    }
}
