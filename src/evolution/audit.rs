//! An audit: whether an adapter gains as much on tasks that no decision has looked at.

use std::sync::Arc;

use serde::Serialize;

use crate::adapter::AdapterId;
use crate::evaluation;
use crate::evaluation::Evaluator;
use crate::event::PairedScores;
use crate::families::FamilySplit;
use crate::sandbox::Sandbox;
use crate::services::Services;

use super::error::EvolutionError;
use super::evolve::measure_options;
use super::examiner::Examiner;
use super::examiner::compare;
use super::request::EvolveRequest;

/// Standard errors from which a gap between two splits is more than chance.
const ALARM: f64 = 2.0;
/// Half the width of a 95 % interval, in standard errors.
const Z_95: f64 = 1.96;

/// Gains of the adapter in use on each split.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// Id of the adapter.
    pub adapter_id: AdapterId,
    /// Gains on the splits that have tasks, that of the race first.
    pub gains: Vec<SplitGain>,
}

/// Gain over the base on a split.
#[derive(Debug, Clone, Serialize)]
pub struct SplitGain {
    /// Name of the split.
    pub split: String,
    /// Number of tasks that were judged.
    pub n_tasks: usize,
    /// Comparison with the base.
    pub paired: PairedScores,
    /// The gain of the race minus this one.
    pub gap: f64,
    /// Whether the gap is more than chance: the adapter is better on the tasks that chose it.
    pub is_alarming: bool,
}

impl Audit {
    /// Whether any gap is more than chance.
    pub fn has_gap(&self) -> bool {
        self.gains.iter().any(|gain| gain.is_alarming)
    }
}

/// Measures the adapter that a project uses on the tasks of the race, the gate and the vault.
/// Nothing is decided.
///
/// # Errors
/// [`EvolutionError::NothingInUse`]; [`EvolutionError::Evaluation`], also for an adapter that was
/// trained on one of the tasks; [`EvolutionError::Registry`];
/// [`EvolutionError::Stopped`].
pub async fn audit(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    request: &EvolveRequest,
) -> Result<Audit, EvolutionError> {
    let options = measure_options(request.lib.as_deref());
    let needs_pytest = request.suite.has_sessions();
    let sandboxed = (services, sandbox);
    let evaluator = Evaluator::open(sandboxed, (&request.modules, needs_pytest), &options).await?;
    let base_digest = evaluator.provider.base().base_digest;
    let incumbent = services.registry.incumbent(&request.project, &base_digest)?;
    let Some(id) = incumbent else { return Err(EvolutionError::NothingInUse) };
    let weights = evaluator.load_stored(&id).await?;
    let seen = services.registry.adapter(&id)?.train_families;
    let examiner = Examiner::new(services, &evaluator, (&options.sampling, None));
    let mut gains: Vec<SplitGain> = Vec::new();
    for split in [FamilySplit::Dev, FamilySplit::Gate, FamilySplit::Vault] {
        let part = request.part(split);
        evaluation::refuse_seen(&part, &seen)?;
        if part.n_tasks() == 0 {
            continue;
        }
        let before = examiner.ask(&part, None).await?;
        let after = examiner.ask(&part, Some(&weights)).await?;
        let first = gains.first().map(|first| first.paired);
        gains.push(SplitGain::new(split.as_str(), before.len(), (compare(&before, &after), first)));
    }
    Ok(Audit { adapter_id: id, gains })
}

impl SplitGain {
    fn new(
        split: &str,
        n_tasks: usize,
        (paired, first): (PairedScores, Option<PairedScores>),
    ) -> Self {
        let first = first.unwrap_or(paired);
        let gap = first.difference - paired.difference;
        let error = standard_error(&first).hypot(standard_error(&paired));
        Self { split: split.to_owned(), n_tasks, paired, gap, is_alarming: gap > ALARM * error }
    }
}

fn standard_error(paired: &PairedScores) -> f64 {
    (paired.interval.1 - paired.interval.0) / (2.0 * Z_95)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::PairedAnswer;

    fn gain(n_gained: usize, n: usize) -> PairedScores {
        let families: Vec<String> = (0..n).map(|task| task.to_string()).collect();
        let pairs: Vec<PairedAnswer<'_>> = families
            .iter()
            .enumerate()
            .map(|(task, family)| PairedAnswer { family, before: false, after: task < n_gained })
            .collect();
        PairedScores::new(&pairs)
    }

    #[test]
    fn only_a_gap_beyond_chance_alarms() {
        let of = |n_gained| SplitGain::new("gate", 40, (gain(n_gained, 40), Some(gain(30, 40))));
        assert!(!of(30).is_alarming && !of(26).is_alarming && !of(40).is_alarming);
        assert!(of(5).is_alarming);
        assert!((of(5).gap - 0.625).abs() < 1e-12);
    }
}
