//! An evaluation, from its tools to its rows in the registry: the base and adapters on the same
//! tasks and seeds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde_json::json;

use crate::adapter::AdapterId;
use crate::event::Event;
use crate::event::Reporter;
use crate::event::timestamp;
use crate::judge::FunctionJudge;
use crate::judge::Judge;
use crate::judge::library_mounts;
use crate::pipeline::SessionSettings;
use crate::registry::AdapterFilter;
use crate::registry::AdapterStore;
use crate::registry::Evaluation;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::new_id;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::training::family_digest;
use crate::trajectory::Sampling;

use super::answers;
use super::answers::AdapterWeights;
use super::answers::EvalOutcome;
use super::answers::EvaluationTools;
use super::answers::JUDGE_VERSION;
use super::answers::UnjudgeableTask;
use super::error::EvaluationError;
use super::modules::PackageModules;
use super::statistics::score;
use super::strategy::AnswerStrategy;
use super::strategy::StrategyTools;
use super::suite::TaskSuite;

/// Who is measured beside the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasuredAdapters {
    /// These; one that does not fit the model is an error.
    These(Vec<AdapterId>),
    /// Those of them that were made on the model's weights.
    ThoseThatFit(Vec<AdapterId>),
}

/// How answers are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyKind {
    /// One answer of the model.
    Completions,
    /// Answers until one passes the tests that may be seen.
    BestOfN,
    /// All that `rune run` does.
    Pipeline,
}

/// How is measured.
#[derive(Debug, Clone)]
pub struct MeasureOptions {
    /// How answers are had.
    pub strategy: StrategyKind,
    /// The part of the suite, as the registry names it.
    pub split: String,
    /// The folder that the pipeline's tests may import from.
    pub lib: Option<PathBuf>,
    /// How single answers are drawn.
    pub sampling: Sampling,
    /// Answers to each task, at least 1.
    pub n_samples: u32,
    /// Whether what was asked before is asked again.
    pub is_fresh: bool,
}

impl Default for MeasureOptions {
    /// One greedy answer of 160 tokens to each task.
    fn default() -> Self {
        Self {
            strategy: StrategyKind::Completions,
            split: "all".to_owned(),
            lib: None,
            sampling: Sampling { max_tokens: 160, ..Sampling::default() },
            n_samples: 1,
            is_fresh: false,
        }
    }
}

/// Outcomes of the base, and of every adapter, on the same tasks.
#[derive(Debug, Default)]
pub struct MeasuredOutcomes {
    /// The base's.
    pub base: Vec<EvalOutcome>,
    /// The adapters'.
    pub adapters: Vec<(AdapterId, Vec<EvalOutcome>)>,
    /// Tasks that can't be judged here; nobody has an outcome of them.
    pub voids: Vec<UnjudgeableTask>,
}

impl MeasuredOutcomes {
    /// Leaves out what somebody's answers could not be judged on, so that all are measured on the
    /// same tasks.
    fn without_voids(mut self) -> Self {
        self.voids.sort_by(|one, other| one.id.cmp(&other.id));
        self.voids.dedup_by(|one, other| one.id == other.id);
        let voids = &self.voids;
        let counts = |outcome: &EvalOutcome| voids.iter().all(|void| void.id != outcome.id);
        self.base.retain(counts);
        self.adapters.iter_mut().for_each(|(_, outcomes)| outcomes.retain(counts));
        self
    }

    /// What could not be judged, in words; `None` when that is nothing.
    fn void_words(&self) -> Option<String> {
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
    /// The adapters that `words` stand for, ids or `all` or `none`, none of which has seen the
    /// suite's families. Of `all`, those that have are left out with a word.
    ///
    /// # Errors
    /// [`EvaluationError::SeenBefore`] for one that is named; [`RegistryError::NotFound`];
    /// [`EvaluationError::Adapter`].
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

    fn ids(
        &self,
        registry: &Registry,
        base_digest: &str,
    ) -> Result<Vec<&AdapterId>, RegistryError> {
        let ids = match self {
            Self::These(ids) => return Ok(ids.iter().collect()),
            Self::ThoseThatFit(ids) => ids,
        };
        let mut fit = Vec::new();
        for id in ids {
            if registry.adapter(id)?.base_digest == base_digest {
                fit.push(id);
            }
        }
        Ok(fit)
    }
}

/// An adapter that has seen a family of the suite would show its memory of it.
fn refuse_seen(suite: &TaskSuite, train_families: &[String]) -> Result<(), EvaluationError> {
    let is_seen = |family: &&str| train_families.binary_search(&family_digest(family)).is_ok();
    match suite.families().find(is_seen) {
        Some(family) => Err(EvaluationError::SeenBefore { family: family.to_owned() }),
        None => Ok(()),
    }
}

/// Asks the base and adapters all tasks of a suite, judges the answers and stores the scores.
///
/// # Errors
/// [`EvaluationError`]. Every answer that was judged is kept, and found by the next call.
pub async fn measure(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    what: (&TaskSuite, &PackageModules),
    who: &MeasuredAdapters,
    how: &MeasureOptions,
) -> Result<MeasuredOutcomes, EvaluationError> {
    services.shutdown.or_stop(all((services, sandbox), what, who, how)).await?
}

async fn all(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    (suite, modules): (&TaskSuite, &PackageModules),
    who: &MeasuredAdapters,
    how: &MeasureOptions,
) -> Result<MeasuredOutcomes, EvaluationError> {
    let interpreter = sandbox.interpreter(services.python())?;
    let limits = Limits::from(&services.config.sandbox);
    let judge = FunctionJudge::start(sandbox, &interpreter, limits).await?;
    let provider = services.models.open(&services.config, &*services.reporter).await?;
    let store = AdapterStore::open(&services.registry, &services.home)?;
    let mut subjects = Vec::new();
    for id in who.ids(&services.registry, &provider.base().base_digest)? {
        provider.load_adapter(id, &store.path(id))?;
        subjects
            .push(AdapterWeights { id: id.clone(), sha256: services.registry.adapter(id)?.sha256 });
    }
    let scratch = tempfile::tempdir()
        .map_err(|source| EvaluationError::Files { path: std::env::temp_dir(), source })?;
    let mut visible = Judge::new(sandbox, &interpreter);
    visible.limits = limits;
    visible.libs.extend(library_mounts(how.lib.as_slice())?);
    let settings = SessionSettings::new(&services.config);
    let pipeline = StrategyTools::new(visible, settings, &scratch.path().join("rune.db"))?;
    let via = match how.strategy {
        StrategyKind::Completions => AnswerStrategy::Completions(&how.sampling),
        StrategyKind::BestOfN => AnswerStrategy::BestOfN(&pipeline),
        StrategyKind::Pipeline => AnswerStrategy::Pipeline(&pipeline),
    };
    let asking = EvaluationTools {
        provider: &provider,
        judge: &judge,
        suites: &pipeline.judge,
        modules,
        via,
        registry: &services.registry,
        is_fresh: how.is_fresh,
        seed: services.config.run.seed,
        n_samples: how.n_samples,
    };
    let measured = ask_all(&*services.reporter, &asking, suite, &subjects).await?.without_voids();
    keep(&asking, suite, (None, &how.split), &measured.base)?;
    for (subject, (_, outcomes)) in subjects.iter().zip(&measured.adapters) {
        keep(&asking, suite, (Some(subject), &how.split), outcomes)?;
    }
    if let Some(words) = measured.void_words() {
        services.notice(words);
    }
    Ok(measured)
}

/// Asks the base, then one adapter after the other.
async fn ask_all(
    reporter: &dyn Reporter,
    asking: &EvaluationTools<'_>,
    suite: &TaskSuite,
    subjects: &[AdapterWeights],
) -> Result<MeasuredOutcomes, EvaluationError> {
    let n_tasks = suite.tasks().iter().filter(|task| asking.via.takes(task)).count();
    let n_total = n_tasks * asking.n_samples as usize * (1 + subjects.len());
    let n_done = AtomicUsize::new(0);
    let tell = |subject: Option<&AdapterWeights>, outcome: &EvalOutcome| {
        let event = Event::EvaluationAnswered {
            adapter_id: subject.map(|subject| subject.id.clone()),
            task: outcome.id.clone(),
            passed: outcome.passed,
            n_done: n_done.fetch_add(1, Relaxed) + 1,
            n_total,
        };
        reporter.report("", &event);
    };
    let base = answers::run(asking, suite, None, &|outcome| tell(None, outcome)).await?;
    let mut measured =
        MeasuredOutcomes { base: base.outcomes, adapters: Vec::new(), voids: base.voids };
    for subject in subjects {
        let on_each = |outcome: &EvalOutcome| tell(Some(subject), outcome);
        let one = answers::run(asking, suite, Some(subject), &on_each).await?;
        measured.adapters.push((subject.id.clone(), one.outcomes));
        measured.voids.extend(one.voids);
    }
    Ok(measured)
}

/// Stores the scores: one row for the tasks that need the library, and one for the controls.
fn keep(
    asking: &EvaluationTools<'_>,
    suite: &TaskSuite,
    (adapter, split): (Option<&AdapterWeights>, &str),
    outcomes: &[EvalOutcome],
) -> Result<(), RegistryError> {
    let (controls, tasks): (Vec<&EvalOutcome>, Vec<&EvalOutcome>) =
        outcomes.iter().partition(|outcome| outcome.is_control);
    for (split, outcomes) in [(split.to_owned(), tasks), (format!("{split}-control"), controls)] {
        if outcomes.is_empty() {
            continue;
        }
        let score = score(&outcomes);
        asking.registry.insert_evaluation(&Evaluation {
            id: new_id()?,
            adapter_id: adapter.map(|subject| subject.id.clone()),
            base_digest: asking.provider.base().base_digest,
            suite: suite.name.clone(),
            suite_digest: suite.digest.clone(),
            split,
            via: asking.via.as_str().to_owned(),
            n_tasks: score.n_tasks,
            n_samples: score.n_samples,
            passed: score.passed,
            pass_at_1: score.share,
            ci_low: score.interval.0,
            ci_high: score.interval.1,
            fitness: Some(score.fitness),
            sampling: json!({ "drawn": asking.via.sampling(), "seed": asking.seed }),
            judge_version: JUDGE_VERSION.to_owned(),
            provider: asking.provider.name().to_owned(),
            at: timestamp(SystemTime::now()),
        })?;
    }
    Ok(())
}
