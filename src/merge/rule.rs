//! [`ElementwiseRule`]: an elementwise method as the four decisions that it consists of.

use super::error::MergeError;
use super::recipe::MergeMethod;
use super::recipe::MergeRecipe;
use super::recipe::MergeSemantics;
use super::recipe::SignElection;

/// Selection of the entries of a delta that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sparsify {
    /// All entries of the delta.
    Nothing,
    /// Those with the largest magnitudes.
    Magnitude,
    /// All but the very largest and the smallest.
    Outliers,
    /// Random ones, all equally likely.
    Random,
    /// Random ones, more likely the larger they are in their row.
    RowRanked,
    /// Those that vary most among the parents.
    Variance,
}

/// Compensation for the entries that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rescale {
    /// Nothing: the sum shrinks.
    Nothing,
    /// Division by the probability of being kept, so that the mean stays.
    Probability,
    /// A factor that restores the sum of magnitudes.
    Magnitude,
}

/// Divisor of the sum of the entries that agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Divisor {
    /// By 1: they are added.
    Nothing,
    /// By the sum of the absolute values of their weights, so that a negative weight negates.
    Weights,
    /// By their number: the mean.
    Count,
}

/// An elementwise method as its decisions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ElementwiseRule {
    pub(super) sparsify: Sparsify,
    pub(super) rescale: Rescale,
    /// How a sign is elected, and whether weights count; `None` if all entries are added.
    pub(super) signs: Option<(SignElection, bool)>,
    pub(super) divisor: Divisor,
    /// Whether a parent also weighs as much as the mean square of what is kept of it.
    pub(super) weighs_by_square: bool,
    pub(super) density: f64,
}

impl ElementwiseRule {
    /// Returns the rule of a recipe with an elementwise method.
    pub(super) fn new(recipe: &MergeRecipe) -> Result<Self, MergeError> {
        let MergeRecipe { method, semantics, .. } = recipe;
        let is_peft = *semantics == MergeSemantics::Peft;
        let is_mergekit = *semantics == MergeSemantics::Mergekit;
        let is_unknown = match method {
            MergeMethod::Della | MergeMethod::Breadcrumbs | MergeMethod::Sce => is_peft,
            MergeMethod::MagnitudePrune => is_mergekit,
            _ => false,
        };
        if is_unknown {
            let semantics = if is_peft { "PEFT" } else { "mergekit" };
            let text = format!("`{}` is not a method of {semantics}", method.as_str());
            return Err(MergeError::Recipe(text));
        }
        let sparsify = match method {
            MergeMethod::Linear | MergeMethod::Cat | MergeMethod::Iso => Sparsify::Nothing,
            MergeMethod::Ties | MergeMethod::MagnitudePrune => Sparsify::Magnitude,
            MergeMethod::Breadcrumbs => Sparsify::Outliers,
            MergeMethod::DareLinear | MergeMethod::DareTies => Sparsify::Random,
            MergeMethod::Della => Sparsify::RowRanked,
            MergeMethod::Sce => Sparsify::Variance,
        };
        let rescale = match sparsify {
            Sparsify::Random | Sparsify::RowRanked if is_mergekit => Rescale::Magnitude,
            Sparsify::Random | Sparsify::RowRanked => Rescale::Probability,
            _ => Rescale::Nothing,
        };
        let elects = matches!(
            method,
            MergeMethod::Ties | MergeMethod::DareTies | MergeMethod::Della | MergeMethod::Sce
        );
        let is_weighted = !is_peft && *method != MergeMethod::Sce;
        let divisor = match method {
            _ if !elects => Divisor::Nothing,
            _ if is_peft => Divisor::Count,
            MergeMethod::DareTies if is_mergekit => Divisor::Nothing,
            _ => Divisor::Weights,
        };
        Ok(Self {
            sparsify: if recipe.density < 1.0 { sparsify } else { Sparsify::Nothing },
            rescale,
            signs: elects.then_some((recipe.election, is_weighted)),
            divisor,
            weighs_by_square: *method == MergeMethod::Sce,
            density: recipe.density,
        })
    }

    /// Merges the entries of one place. `entries` are those of the parents after pruning, 0 for one
    /// that was dropped; `weights` are the parents'.
    pub(super) fn merged(&self, entries: &[f32], weights: &[f32]) -> f32 {
        let weighted = || entries.iter().zip(weights).map(|(entry, weight)| entry * weight);
        let Some((election, is_weighted)) = self.signs else { return weighted().sum() };
        let vote = |(entry, weighted): (&f32, f32)| {
            let entry = if is_weighted { weighted } else { *entry };
            match election {
                SignElection::Total => entry,
                SignElection::Frequency if entry == 0.0 => 0.0,
                SignElection::Frequency => entry.signum(),
            }
        };
        // A tie goes to the positive sign, as in PEFT and mergekit.
        let is_positive = entries.iter().zip(weighted()).map(vote).sum::<f32>() >= 0.0;
        let (mut sum, mut divisor) = (0.0, 0.0);
        for ((entry, weight), weighted) in entries.iter().zip(weights).zip(weighted()) {
            let signed = if is_weighted { weighted } else { *entry };
            if signed != 0.0 && (signed > 0.0) == is_positive {
                sum += weighted;
                divisor += match self.divisor {
                    Divisor::Nothing => 0.0,
                    Divisor::Weights => weight.abs(),
                    Divisor::Count => 1.0,
                };
            }
        }
        if divisor > 0.0 { sum / divisor } else { sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(method: MergeMethod, semantics: MergeSemantics, entries: &[f32]) -> f32 {
        let recipe = MergeRecipe { method, semantics, density: 1.0, ..MergeRecipe::default() };
        ElementwiseRule::new(&recipe).unwrap().merged(entries, &[0.5, 0.25, 1.0])
    }

    #[test]
    fn signs_and_divisors_follow_the_semantics() {
        use MergeMethod::{DareTies, MagnitudePrune, Ties};
        use MergeSemantics::{Mergekit, Peft, Rune};
        let entries = [2.0, -2.0, -1.0];
        // Weighted: 1.0, -0.5, -1.0, so minus; without weights -1.0, so minus as well.
        let close = |found: f32, wanted: f32| assert!((found - wanted).abs() < 1e-6, "{found}");
        close(merged(Ties, Rune, &entries), -1.5 / 1.25);
        close(merged(Ties, Peft, &entries), -1.5 / 2.0);
        close(merged(DareTies, Mergekit, &entries), -1.5);
        close(merged(MagnitudePrune, Rune, &entries), -0.5);
        close(merged(Ties, Rune, &[3.0, -1.0, -1.0]), 3.0);
        close(merged(Ties, Rune, &[0.0, 0.0, 0.0]), 0.0);
    }

    #[test]
    fn methods_that_a_semantics_does_not_have_are_refused() {
        let recipe = MergeRecipe {
            method: MergeMethod::Della,
            semantics: MergeSemantics::Peft,
            ..MergeRecipe::default()
        };
        let error = ElementwiseRule::new(&recipe).unwrap_err();
        assert_eq!(error.to_string(), "`della` is not a method of PEFT");
    }
}
