//! A trial: whether an adapter is better than the base and than what it would replace, on the tasks
//! of the gate.

use serde::Serialize;

use crate::evaluation::AdapterWeights;
use crate::evaluation::EvalOutcome;
use crate::evaluation::TaskSuite;
use crate::evaluation::gain_e_value;
use crate::event::PairedScores;
use crate::registry::ACCEPT;

use super::error::EvolutionError;
use super::examiner::Examiner;
use super::examiner::compare;
use super::examiner::pairs;
use super::gate::GateDecision;
use super::gate::GateRule;

/// Number of new tasks after which the trial looks at the answers.
const STEP: usize = 8;
/// Loss on tasks of other projects from which an adapter is not promoted, as a share of the tasks.
const GUARD_MARGIN: f64 = 0.02;
/// Number of tasks of other projects from which a loss can be told.
const MIN_GUARDED: usize = 50;

/// Outcome of a trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trial {
    /// Decision of the gate, of the guard and of the fresh answers together.
    #[serde(skip)]
    pub(super) decision: TrialDecision,
    /// Number of tasks that were answered.
    pub(super) n_tasks: usize,
    /// Level of the test.
    pub(super) alpha: f64,
    /// Which gate test of the project it is, from 1.
    pub(super) number: u32,
    /// Comparison with the base.
    pub(super) base: PairedEvidence,
    /// Comparison with what it would replace; `None` if that is the base.
    pub(super) incumbent: Option<PairedEvidence>,
    /// Comparison with the base on tasks of other projects; `None` if there are too few.
    pub(super) guard: Option<PairedScores>,
    /// Comparison on the same tasks with fresh answers.
    pub(super) fresh: Option<PairedScores>,
}

/// What a trial decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TrialDecision {
    /// The adapter is better.
    Accept,
    /// The adapter is not better by what would be worth anything.
    Futile,
    /// The tasks do not suffice to decide.
    #[default]
    Undecided,
    /// The adapter is better here, and worse on tasks of other projects.
    Harmful,
    /// The adapter is not better when asked again.
    Lucky,
}

/// Comparison with one opponent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct PairedEvidence {
    /// Answers gained and lost, with intervals.
    pub(super) paired: PairedScores,
    /// Largest e-value at any look, for the adapter being better.
    pub(super) e_value: f64,
}

impl TrialDecision {
    /// Returns the word that the ledger stores.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accept => ACCEPT,
            Self::Futile => "futile",
            Self::Undecided => "undecided",
            Self::Harmful => "harmful",
            Self::Lucky => "lucky",
        }
    }
}

/// Tasks of a trial.
pub(super) struct TrialTasks<'a> {
    /// Tasks of the gate, in the order of [`TaskSuite::by_family`].
    pub(super) gate: &'a TaskSuite,
    /// Tasks of other projects.
    pub(super) sentinels: &'a TaskSuite,
}

/// Tries whether `candidate` is better than the base and than `incumbent`, as the `number`-th test.
///
/// # Errors
/// Those of [`Examiner::ask`].
pub(super) async fn trial(
    examiner: &Examiner<'_>,
    tasks: &TrialTasks<'_>,
    (candidate, incumbent): (&AdapterWeights, Option<&AdapterWeights>),
    number: u32,
) -> Result<Trial, EvolutionError> {
    let rule = GateRule::default().of_test(number);
    let mut base = Opponent::new(None);
    let mut other = incumbent.map(|weights| Opponent::new(Some(weights)));
    let (mut decision, mut n_tasks) = (TrialDecision::Undecided, 0);
    while n_tasks < tasks.gate.n_tasks() && decision == TrialDecision::Undecided {
        let part = tasks.gate.first_families(n_tasks + STEP);
        n_tasks = part.n_tasks();
        let own = examiner.ask(&part, Some(candidate)).await?;
        let mut all = Vec::new();
        for opponent in [Some(&mut base), other.as_mut()].into_iter().flatten() {
            all.push(opponent.look(examiner, &part, (&own, rule)).await?);
        }
        decision = joint(&all);
    }
    let mut trial = Trial {
        decision,
        n_tasks,
        alpha: rule.alpha,
        number,
        base: base.evidence(),
        incumbent: other.map(Opponent::evidence),
        guard: None,
        fresh: None,
    };
    if decision == TrialDecision::Accept {
        trial.check(examiner, tasks, (candidate, incumbent)).await?;
    }
    Ok(trial)
}

/// Decides by the comparisons with all opponents.
fn joint(all: &[GateDecision]) -> TrialDecision {
    if all.contains(&GateDecision::Futile) {
        TrialDecision::Futile
    } else if all.iter().all(|one| *one == GateDecision::Accept) {
        TrialDecision::Accept
    } else {
        TrialDecision::Undecided
    }
}

/// What a candidate is compared with.
struct Opponent<'a> {
    weights: Option<&'a AdapterWeights>,
    evidence: Option<PairedEvidence>,
    is_beaten: bool,
}

impl<'a> Opponent<'a> {
    fn new(weights: Option<&'a AdapterWeights>) -> Self {
        Self { weights, evidence: None, is_beaten: false }
    }

    /// Compares with the candidate's answers so far. Once beaten, an opponent stays beaten: an
    /// e-value holds whenever it is looked at.
    async fn look(
        &mut self,
        examiner: &Examiner<'_>,
        part: &TaskSuite,
        (own, rule): (&[EvalOutcome], GateRule),
    ) -> Result<GateDecision, EvolutionError> {
        let answers = examiner.ask(part, self.weights).await?;
        let pairs = pairs(&answers, own);
        let best = self.evidence.map_or(0.0, |evidence| evidence.e_value);
        let e_value = gain_e_value(&pairs).max(best);
        self.evidence = Some(PairedEvidence { paired: PairedScores::new(&pairs), e_value });
        let decision = rule.decide(&pairs);
        self.is_beaten |= decision == GateDecision::Accept;
        Ok(if self.is_beaten { GateDecision::Accept } else { decision })
    }

    fn evidence(self) -> PairedEvidence {
        self.evidence.unwrap_or(PairedEvidence { paired: PairedScores::new(&[]), e_value: 1.0 })
    }
}

impl Trial {
    /// Checks an accepted adapter on tasks of other projects, and with fresh answers.
    async fn check(
        &mut self,
        examiner: &Examiner<'_>,
        tasks: &TrialTasks<'_>,
        (candidate, incumbent): (&AdapterWeights, Option<&AdapterWeights>),
    ) -> Result<(), EvolutionError> {
        let before = examiner.ask(tasks.sentinels, None).await?;
        if before.len() >= MIN_GUARDED {
            let after = examiner.ask(tasks.sentinels, Some(candidate)).await?;
            let guard = compare(&before, &after);
            self.guard = Some(guard);
            if guard.difference < -GUARD_MARGIN {
                self.decision = TrialDecision::Harmful;
                return Ok(());
            }
        }
        let part = tasks.gate.clone().first(self.n_tasks);
        let before = examiner.ask_afresh(&part, incumbent).await?;
        let after = examiner.ask_afresh(&part, Some(candidate)).await?;
        let fresh = compare(&before, &after);
        self.fresh = Some(fresh);
        if fresh.difference <= 0.0 {
            self.decision = TrialDecision::Lucky;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_opponents_must_be_beaten_and_one_is_enough_to_end_it() {
        use GateDecision::Accept;
        use GateDecision::Futile;
        use GateDecision::Undecided;
        assert_eq!(joint(&[Accept]), TrialDecision::Accept);
        assert_eq!(joint(&[Accept, Accept]), TrialDecision::Accept);
        assert_eq!(joint(&[Accept, Undecided]), TrialDecision::Undecided);
        assert_eq!(joint(&[Undecided, Futile]), TrialDecision::Futile);
        assert_eq!(joint(&[Accept, Futile]), TrialDecision::Futile);
    }
}
