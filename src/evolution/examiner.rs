//! [`Examiner`]: asks adapters the tasks of a suite, as long as the budget lasts.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use crate::evaluation;
use crate::evaluation::AdapterWeights;
use crate::evaluation::AnswerCounter;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvaluationError;
use crate::evaluation::EvaluationTools;
use crate::evaluation::Evaluator;
use crate::evaluation::PairedAnswer;
use crate::evaluation::SuiteMemory;
use crate::evaluation::TaskSuite;
use crate::evaluation::UnjudgeableTask;
use crate::event::PairedScores;
use crate::judge::JudgeError;
use crate::services::Services;
use crate::trajectory::Sampling;

use super::error::EvolutionError;

/// Added to the seed of fresh answers.
const FRESH_SEED: u64 = 1_000_003;
/// Temperature of fresh answers.
const FRESH_TEMPERATURE: f32 = 0.6;

/// Asks adapters tasks. Answers are cached, so an interrupted comparison resumes where it stopped.
pub(super) struct Examiner<'a> {
    pub(super) services: &'a Services,
    pub(super) evaluator: &'a Evaluator<'a>,
    sampling: &'a Sampling,
    /// When the budget ends; `None` for no limit.
    deadline: Option<Instant>,
    /// Tasks that cannot be judged, which were reported.
    voids: Mutex<BTreeSet<String>>,
}

impl<'a> Examiner<'a> {
    /// Creates an examiner whose answers are sampled with `sampling` until `deadline`.
    pub(super) fn new(
        services: &'a Services,
        evaluator: &'a Evaluator<'a>,
        (sampling, deadline): (&'a Sampling, Option<Instant>),
    ) -> Self {
        Self { services, evaluator, sampling, deadline, voids: Mutex::default() }
    }

    /// Asks the base or an adapter all tasks of a suite. Tasks that cannot be judged are left out,
    /// so the answers of two subjects are paired by task and not by position.
    ///
    /// # Errors
    /// [`EvolutionError::OutOfTime`]; [`EvolutionError::Stopped`]; [`EvolutionError::Evaluation`].
    pub(super) async fn ask(
        &self,
        suite: &TaskSuite,
        subject: Option<&AdapterWeights>,
    ) -> Result<Vec<EvalOutcome>, EvolutionError> {
        let tools = self.evaluator.tools(SuiteMemory::default());
        self.ask_with(&tools, suite, subject).await
    }

    /// Asks again, with another seed and at a temperature: an adapter that only was lucky is found
    /// out.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub(super) async fn ask_afresh(
        &self,
        suite: &TaskSuite,
        subject: Option<&AdapterWeights>,
    ) -> Result<Vec<EvalOutcome>, EvolutionError> {
        let sampling = Sampling { temperature: FRESH_TEMPERATURE, ..self.sampling.clone() };
        let seed = self.services.config.run.seed.wrapping_add(FRESH_SEED);
        let tools = self.evaluator.other_tools(&sampling, seed);
        self.ask_with(&tools, suite, subject).await
    }

    async fn ask_with(
        &self,
        tools: &EvaluationTools<'_>,
        suite: &TaskSuite,
        subject: Option<&AdapterWeights>,
    ) -> Result<Vec<EvalOutcome>, EvolutionError> {
        if suite.n_tasks() == 0 {
            return Ok(Vec::new());
        }
        let counter = AnswerCounter::new(&*self.services.reporter, suite.n_tasks());
        let on_each = |outcome: &EvalOutcome| counter.report(subject, outcome);
        let asked = evaluation::run(tools, suite, subject, &on_each);
        let asked = self.services.shutdown.or_stop(asked);
        let asked = match self.deadline {
            None => asked.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), asked).await {
                Ok(asked) => asked,
                Err(_) => return Err(EvolutionError::OutOfTime),
            },
        };
        match asked? {
            Ok(answered) => {
                answered.voids.iter().for_each(|void| self.report_void(void));
                Ok(answered.outcomes)
            }
            // None of them can be judged.
            Err(EvaluationError::BadCheck { id, source: source @ JudgeError::BrokenCheck(_) }) => {
                self.report_void(&UnjudgeableTask { id, reason: source.to_string() });
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn report_void(&self, void: &UnjudgeableTask) {
        let mut voids = self.voids.lock().unwrap_or_else(PoisonError::into_inner);
        if voids.insert(void.id.clone()) {
            let UnjudgeableTask { id, reason } = void;
            self.services
                .notice(format!("left out, as it cannot be judged here: `{id}`: {reason}"));
        }
    }

    /// Returns a digest of everything that determines the outcomes of a suite, except who answers.
    pub(super) fn conditions(&self, suite: &TaskSuite) -> String {
        evaluation::conditions_of(&self.evaluator.tools(SuiteMemory::default()), suite)
    }
}

/// Pairs the answers of two subjects to the tasks that both have answered.
pub(super) fn pairs<'a>(
    before: &'a [EvalOutcome],
    after: &'a [EvalOutcome],
) -> Vec<PairedAnswer<'a>> {
    let after: HashMap<&str, bool> =
        after.iter().map(|outcome| (outcome.id.as_str(), outcome.passed)).collect();
    let pair = |outcome: &'a EvalOutcome| {
        let (family, before) = (outcome.family.as_str(), outcome.passed);
        Some(PairedAnswer { family, before, after: *after.get(outcome.id.as_str())? })
    };
    before.iter().filter_map(pair).collect()
}

/// Compares the answers of two subjects to the tasks that both have answered.
pub(super) fn compare(before: &[EvalOutcome], after: &[EvalOutcome]) -> PairedScores {
    PairedScores::new(&pairs(before, after))
}

/// Counts the answers that passed.
pub(super) fn n_passed(outcomes: &[EvalOutcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.passed).count()
}

#[cfg(test)]
mod tests {
    use super::super::race::tests::answers;
    use super::*;

    #[test]
    fn answers_are_paired_by_task_when_one_is_missing() {
        let before = answers([true, false, true, false]);
        let mut after = answers([true, true, false, false]);
        after.remove(1);
        let paired = compare(&before, &after);
        assert_eq!((paired.gained, paired.lost, paired.n_families), (0, 1, 3));
    }
}
