//! The evaluation workflow: measures the base and adapters on the same tasks and seeds, and stores
//! their scores in the registry.

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
use crate::provider::Provider;
use crate::registry::AdapterFilter;
use crate::registry::AdapterStore;
use crate::registry::Evaluation;
use crate::registry::MeasuredGain;
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
use super::memory::SuiteMemory;
use super::modules::PackageModules;
use super::statistics::compare;
use super::statistics::score;
use super::strategy::AnswerStrategy;
use super::strategy::StrategyTools;
use super::suite::TaskSuite;

/// Adapters to measure beside the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasuredAdapters {
    /// All of these; one that does not fit the model is an error.
    These(Vec<AdapterId>),
    /// Those of them that were trained on the weights of the model.
    ThoseThatFit(Vec<AdapterId>),
}

/// How answers to tasks are obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyKind {
    /// One completion of the model.
    Completions,
    /// Completions until one passes the visible tests.
    BestOfN,
    /// The whole pipeline of `rune run`.
    Pipeline,
}

/// Options of a measurement.
#[derive(Debug, Clone)]
pub struct MeasureOptions {
    /// How answers to tasks are obtained.
    pub strategy: StrategyKind,
    /// Label of the measured part of the suite in the registry.
    pub split: String,
    /// Folder of packages that the visible tests may import.
    pub lib: Option<PathBuf>,
    /// Sampling of single completions.
    pub sampling: Sampling,
    /// Number of answers per task, at least 1.
    pub n_samples: u32,
    /// Whether to ignore cached answers.
    pub is_fresh: bool,
    /// Whether the scores are recorded, for [`crate::selection`] to choose adapters by. Benchmarks
    /// measure their own adapters on tasks of their own, which say nothing about a user's tasks.
    pub is_recorded: bool,
    /// Whether prompts show the nearest records of earlier sessions, and passages about the
    /// packages that a task names.
    pub shows_records: bool,
}

impl Default for MeasureOptions {
    /// One greedy completion of at most 160 tokens per task.
    fn default() -> Self {
        Self {
            strategy: StrategyKind::Completions,
            split: "all".to_owned(),
            lib: None,
            sampling: Sampling { max_tokens: 160, ..Sampling::default() },
            n_samples: 1,
            is_fresh: false,
            is_recorded: true,
            shows_records: false,
        }
    }
}

impl MeasureOptions {
    async fn memory(
        &self,
        tools: (&Services, &Provider, &Judge),
        suite: &TaskSuite,
    ) -> Result<SuiteMemory, EvaluationError> {
        if !self.shows_records {
            return Ok(SuiteMemory::default());
        }
        SuiteMemory::recall(tools, self.lib.as_slice(), suite).await
    }

    /// Names the measured part of the suite in the registry. With records, scores say something
    /// else, so they are kept apart from those without.
    fn label(&self) -> String {
        let with = if self.shows_records { ", with records" } else { "" };
        format!("{}{with}", self.split)
    }
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

/// Fails if an adapter was trained on a family of the suite: its score would only show what it
/// memorized.
fn refuse_seen(suite: &TaskSuite, train_families: &[String]) -> Result<(), EvaluationError> {
    let is_seen = |family: &&str| train_families.binary_search(&family_digest(family)).is_ok();
    match suite.families().find(is_seen) {
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
    let interpreter = sandbox.interpreter(services.python())?;
    let limits = Limits::from(&services.config.sandbox);
    let judge = FunctionJudge::start(sandbox, &interpreter, limits).await?;
    let provider = services.models.open(&services.config, &*services.reporter).await?;
    let store = AdapterStore::open(&services.registry, &services.home)?;
    let mut subjects = Vec::new();
    for id in adapters.ids(&services.registry, &provider.base().base_digest)? {
        provider.load_adapter(id, &store.path(id))?;
        subjects
            .push(AdapterWeights { id: id.clone(), sha256: services.registry.adapter(id)?.sha256 });
    }
    // Sessions of an evaluation must never become training data, so their registry is temporary.
    let scratch = tempfile::tempdir()
        .map_err(|source| EvaluationError::Files { path: std::env::temp_dir(), source })?;
    let mut visible = Judge::new(sandbox, &interpreter);
    visible.limits = limits;
    visible.libs.extend(library_mounts(options.lib.as_slice())?);
    let settings = SessionSettings::new(&services.config);
    let pipeline = StrategyTools::new(visible, settings, &scratch.path().join("rune.db"))?;
    let strategy = match options.strategy {
        StrategyKind::Completions => AnswerStrategy::Completions(&options.sampling),
        StrategyKind::BestOfN => AnswerStrategy::BestOfN(&pipeline),
        StrategyKind::Pipeline => AnswerStrategy::Pipeline(&pipeline),
    };
    let tools = EvaluationTools {
        provider: &provider,
        judge: &judge,
        suites: &pipeline.judge,
        modules,
        strategy,
        registry: &services.registry,
        is_fresh: options.is_fresh,
        seed: services.config.run.seed,
        n_samples: options.n_samples,
        memory: options.memory((services, &provider, &pipeline.judge), suite).await?,
    };
    let measured = ask_all(&*services.reporter, &tools, suite, &subjects).await?.without_voids();
    if options.is_recorded {
        store_scores(&tools, suite, &options.label(), (&measured, &subjects))?;
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
    let n_done = AtomicUsize::new(0);
    let report = |subject: Option<&AdapterWeights>, outcome: &EvalOutcome| {
        let event = Event::EvaluationAnswered {
            adapter_id: subject.map(|subject| subject.id.clone()),
            task: outcome.id.clone(),
            passed: outcome.passed,
            n_done: n_done.fetch_add(1, Relaxed) + 1,
            n_total,
        };
        reporter.report("", &event);
    };
    let base = answers::run(tools, suite, None, &|outcome| report(None, outcome)).await?;
    let mut measured =
        MeasuredOutcomes { base: base.outcomes, adapters: Vec::new(), voids: base.voids };
    for subject in subjects {
        let on_each = |outcome: &EvalOutcome| report(Some(subject), outcome);
        let adapted = answers::run(tools, suite, Some(subject), &on_each).await?;
        measured.adapters.push((subject.id.clone(), adapted.outcomes));
        measured.voids.extend(adapted.voids);
    }
    Ok(measured)
}

/// Stores the scores of the base and of every adapter beside it.
fn store_scores(
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
