//! The evaluation workflow: measures the base and adapters on the same tasks and seeds, and stores
//! their scores in the registry.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use crate::adapter::AdapterId;
use crate::event::Event;
use crate::event::Reporter;
use crate::event::timestamp;
use crate::registry::AdapterFilter;
use crate::registry::Evaluation;
use crate::registry::MeasuredGain;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::new_id;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::training::family_digest;

use super::answers;
use super::answers::AdapterWeights;
use super::answers::AnswerCounter;
use super::answers::EvalOutcome;
use super::answers::EvaluationTools;
use super::answers::JUDGE_VERSION;
use super::answers::UnjudgeableTask;
use super::error::EvaluationError;
use super::evaluator::Evaluator;
use super::modules::PackageModules;
use super::options::MeasureOptions;
use super::statistics::compare;
use super::statistics::score;
use super::suite::TaskSuite;
use super::task::EvalTask;

/// Adapters to measure beside the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasuredAdapters {
    /// All of these; one that does not fit the model is an error.
    These(Vec<AdapterId>),
    /// Those of them that were trained on the weights of the model.
    ThoseThatFit(Vec<AdapterId>),
}

/// Outcomes of the base and of every adapter on the same tasks.
#[derive(Debug, Default)]
pub struct MeasuredOutcomes {
    /// Outcomes of the base.
    pub base: Vec<EvalOutcome>,
    /// Outcomes of each adapter.
    pub adapters: Vec<(AdapterId, Vec<EvalOutcome>)>,
    /// Tasks that cannot be judged on this machine; they are missing from all outcomes.
    pub voids: Vec<UnjudgeableTask>,
}

impl MeasuredOutcomes {
    /// Removes tasks that could not be judged for the base or any adapter, so that all are measured
    /// on the same tasks.
    fn without_voids(mut self) -> Self {
        self.voids.sort_by(|a, b| a.id.cmp(&b.id));
        self.voids.dedup_by(|a, b| a.id == b.id);
        let voids = &self.voids;
        let counts = |outcome: &EvalOutcome| voids.iter().all(|void| void.id != outcome.id);
        self.base.retain(counts);
        self.adapters.iter_mut().for_each(|(_, outcomes)| outcomes.retain(counts));
        self
    }

    /// Names the tasks that could not be judged; `None` if there are none.
    fn void_notice(&self) -> Option<String> {
        let [UnjudgeableTask { id, reason }, others @ ..] = self.voids.as_slice() else {
            return None;
        };
        let more = match others.len() {
            0 => String::new(),
            n => format!(" ({n} more)"),
        };
        Some(format!("left out, as it cannot be judged here: `{id}`: {reason}{more}"))
    }
}

impl MeasuredAdapters {
    /// Parses adapter ids, `all` or `none`. With `all`, adapters that were trained on a family of
    /// the suite are skipped with a notice.
    ///
    /// # Errors
    /// [`EvaluationError::SeenBefore`] for a named adapter that was trained on a family of the
    /// suite; [`RegistryError::NotFound`]; [`EvaluationError::Adapter`].
    pub fn parse(
        registry: &Registry,
        suite: &TaskSuite,
        words: &[String],
        reporter: &dyn Reporter,
    ) -> Result<Self, EvaluationError> {
        let mut ids = Vec::new();
        for word in words {
            match word.as_str() {
                "none" => {}
                "all" => {
                    let all = registry.adapters(&AdapterFilter::default())?;
                    for adapter in all.into_iter().filter(|one| one.archived_at.is_none()) {
                        match refuse_seen(suite, &adapter.train_families) {
                            Ok(()) => ids.push(adapter.id),
                            Err(error) => {
                                let message = format!("{} is left out: {error}", adapter.id);
                                reporter.report("", &Event::notice(message));
                            }
                        }
                    }
                }
                id => {
                    let adapter = registry.adapter(&AdapterId::parse(id)?)?;
                    refuse_seen(suite, &adapter.train_families)?;
                    ids.push(adapter.id);
                }
            }
        }
        let is_all = words.iter().any(|word| word == "all");
        Ok(if is_all { Self::ThoseThatFit(ids) } else { Self::These(ids) })
    }

    fn ids(&self, registry: &Registry, base_model: &str) -> Result<Vec<&AdapterId>, RegistryError> {
        let ids = match self {
            Self::These(ids) => return Ok(ids.iter().collect()),
            Self::ThoseThatFit(ids) => ids,
        };
        let mut fit = Vec::new();
        for id in ids {
            if registry.adapter(id)?.base_model == base_model {
                fit.push(id);
            }
        }
        Ok(fit)
    }
}

/// Fails if an adapter was trained on a family of the suite: its score would only show what it
/// memorized.
///
/// # Errors
/// [`EvaluationError::SeenBefore`].
pub fn refuse_seen(suite: &TaskSuite, train_families: &[String]) -> Result<(), EvaluationError> {
    let is_seen = |family: &&str| train_families.binary_search(&family_digest(family)).is_ok();
    match suite.tasks().iter().flat_map(EvalTask::families).find(is_seen) {
        Some(family) => Err(EvaluationError::SeenBefore { family: family.to_owned() }),
        None => Ok(()),
    }
}

/// Asks the base and the adapters all tasks of a suite, judges the answers and records the scores.
///
/// # Errors
/// [`EvaluationError`]. Judged answers stay in the cache for the next call.
pub async fn measure(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    (suite, modules): (&TaskSuite, &PackageModules),
    adapters: &MeasuredAdapters,
    options: &MeasureOptions,
) -> Result<MeasuredOutcomes, EvaluationError> {
    let measured = measure_all((services, sandbox), (suite, modules), adapters, options);
    services.shutdown.or_stop(measured).await?
}

async fn measure_all(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    (suite, modules): (&TaskSuite, &PackageModules),
    adapters: &MeasuredAdapters,
    options: &MeasureOptions,
) -> Result<MeasuredOutcomes, EvaluationError> {
    let needs_pytest = suite.has_sessions();
    let evaluator = Evaluator::open((services, sandbox), (modules, needs_pytest), options).await?;
    let mut subjects = Vec::new();
    for id in adapters.ids(&services.registry, &evaluator.provider.base().base_model)? {
        subjects.push(evaluator.load_stored(id).await?);
    }
    let tools = &evaluator.tools(evaluator.memory(suite).await?);
    let measured = ask_all(&*services.reporter, tools, suite, &subjects).await?.without_voids();
    if options.is_recorded {
        store_scores(tools, suite, &options.label(), (&measured, &subjects))?;
    }
    if let Some(notice) = measured.void_notice() {
        services.notice(notice);
    }
    Ok(measured)
}

/// Asks the base, then each adapter in turn.
async fn ask_all(
    reporter: &dyn Reporter,
    tools: &EvaluationTools<'_>,
    suite: &TaskSuite,
    subjects: &[AdapterWeights],
) -> Result<MeasuredOutcomes, EvaluationError> {
    let n_tasks = suite.tasks().iter().filter(|task| tools.strategy.supports(task)).count();
    let n_total = n_tasks * tools.n_samples as usize * (1 + subjects.len());
    let counter = AnswerCounter::new(reporter, n_total);
    let base = answers::run(tools, suite, None, &|outcome| counter.report(None, outcome)).await?;
    let mut measured =
        MeasuredOutcomes { base: base.outcomes, adapters: Vec::new(), voids: base.voids };
    for subject in subjects {
        let on_each = |outcome: &EvalOutcome| counter.report(Some(subject), outcome);
        let adapted = answers::run(tools, suite, Some(subject), &on_each).await?;
        measured.adapters.push((subject.id.clone(), adapted.outcomes));
        measured.voids.extend(adapted.voids);
    }
    Ok(measured)
}

/// Stores the scores of the base and of every adapter beside it; `split` names the measured part.
///
/// # Errors
/// [`RegistryError::Database`].
pub fn store_scores(
    tools: &EvaluationTools<'_>,
    suite: &TaskSuite,
    split: &str,
    (measured, subjects): (&MeasuredOutcomes, &[AdapterWeights]),
) -> Result<(), RegistryError> {
    for is_control in [false, true] {
        let base = only(&measured.base, is_control);
        if base.is_empty() {
            continue;
        }
        let split = if is_control { format!("{split}-control") } else { split.to_owned() };
        let row = score_row(tools, suite, &split, &base)?;
        tools.registry.insert_evaluation(&row)?;
        for (subject, (_, outcomes)) in subjects.iter().zip(&measured.adapters) {
            let outcomes = only(outcomes, is_control);
            let paired = compare(&base, &outcomes);
            let gain = MeasuredGain {
                base_id: row.id.clone(),
                n_families: paired.n_families,
                difference: paired.difference,
                interval: paired.interval_90,
            };
            tools.registry.insert_evaluation(&Evaluation {
                adapter_id: Some(subject.id.clone()),
                gain: Some(gain),
                ..score_row(tools, suite, &split, &outcomes)?
            })?;
        }
    }
    Ok(())
}

/// Returns the outcomes of controls, or those of all other tasks.
fn only(outcomes: &[EvalOutcome], is_control: bool) -> Vec<&EvalOutcome> {
    outcomes.iter().filter(|outcome| outcome.is_control == is_control).collect()
}

/// Creates the row of the base's score.
fn score_row(
    tools: &EvaluationTools<'_>,
    suite: &TaskSuite,
    split: &str,
    outcomes: &[&EvalOutcome],
) -> Result<Evaluation, RegistryError> {
    let score = score(outcomes);
    Ok(Evaluation {
        id: new_id()?,
        adapter_id: None,
        base_digest: tools.provider.base().base_digest,
        suite: suite.name.clone(),
        suite_digest: suite.digest.clone(),
        split: split.to_owned(),
        via: tools.strategy.as_str().to_owned(),
        n_tasks: score.n_tasks,
        n_samples: score.n_samples,
        passed: score.passed,
        pass_at_1: score.share,
        ci_low: score.interval.0,
        ci_high: score.interval.1,
        fitness: Some(score.fitness),
        conditions: Some(answers::conditions(tools, outcomes)),
        gain: None,
        sampling: json!({ "drawn": tools.strategy.sampling(), "seed": tools.seed }),
        judge_version: JUDGE_VERSION.to_owned(),
        provider: tools.provider.name().to_owned(),
        at: timestamp(SystemTime::now()),
    })
}
