//! Runs the tasks of a suite and judges every answer.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::digest::sha256;
use crate::event::Event;
use crate::event::Reporter;
use crate::event::timestamp;
use crate::judge;
use crate::judge::FunctionJudge;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::judge::PreparedCheck;
use crate::judge::Verdict;
use crate::memory::ShownMemory;
use crate::provider::Provider;
use crate::registry::AnswerCost;
use crate::registry::OutcomeRow;
use crate::registry::Registry;
use crate::task::SourceFile;
use crate::trajectory::Assurance;

use super::error::EvaluationError;
use super::memory::SuiteMemory;
use super::modules::PackageModules;
use super::strategy::AnswerStrategy;
use super::strategy::TaskQuestion;
use super::suite::TaskSuite;
use super::task::EvalTask;

/// Version of the judge in stored evaluations. It changes whenever a verdict could change.
pub const JUDGE_VERSION: &str = "function-3";

/// Backends and options of an evaluation.
pub struct EvaluationTools<'a> {
    /// The backend that answers the tasks.
    pub provider: &'a Provider,
    /// Judge of functions, with the oracle out of process.
    pub judge: &'a FunctionJudge,
    /// Judge of modules that are tested by a test file.
    pub suites: &'a Judge,
    /// Packages that answers may import.
    pub modules: &'a PackageModules,
    /// The strategy by which answers are obtained.
    pub strategy: AnswerStrategy<'a>,
    /// Stores outcomes, and finds those of earlier runs.
    pub registry: &'a Registry,
    /// Whether to ignore cached outcomes.
    pub is_fresh: bool,
    /// Seed of the first answer to each task; sample `i` uses `seed + i`.
    pub seed: u64,
    /// Number of answers per task, at least 1.
    pub n_samples: u32,
    /// Records of earlier sessions, and passages, to show.
    pub memory: SuiteMemory,
}

/// Identity of a measured adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterWeights {
    /// The id of the adapter.
    pub id: AdapterId,
    /// sha256 of the adapter's weights.
    pub sha256: String,
    /// Whether the registry has the adapter; outcomes of any other are stored without its id.
    pub is_stored: bool,
}

/// Outcome of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOutcome {
    /// Id of the task.
    pub id: String,
    /// Group of the task, a row in the score table.
    pub group: String,
    /// Whether the task is a control, on which adapters should change nothing.
    pub is_control: bool,
    /// Family of the task.
    pub family: String,
    /// Index among the answers to the task, from 0.
    pub sample: u32,
    /// Whether the answer passed.
    pub passed: bool,
    /// How a pass was confirmed.
    pub assurance: Option<Assurance>,
    /// Text of the answer.
    pub answer: String,
    /// What the model spent on it; `None` when an earlier version asked.
    pub cost: Option<AnswerCost>,
    /// Code of the answer as a complete module.
    pub module: String,
    /// One-line summary of the verdict.
    pub summary: String,
}

/// Outcomes of a suite.
#[derive(Debug, Default)]
pub struct SuiteOutcomes {
    /// Outcomes in the order of the tasks.
    pub outcomes: Vec<EvalOutcome>,
    /// Tasks that measure nothing here, which do not count as failures: the reference answer fails,
    /// or a stub passes.
    pub voids: Vec<UnjudgeableTask>,
}

/// Task that cannot be judged on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnjudgeableTask {
    /// Id of the task.
    pub id: String,
    /// Reason, such as a reference answer that fails.
    pub reason: String,
}

/// Reports answers as they come in, with their number.
pub struct AnswerCounter<'a> {
    reporter: &'a dyn Reporter,
    n_done: AtomicUsize,
    n_total: usize,
}

impl<'a> AnswerCounter<'a> {
    /// Creates a counter of `n_total` answers.
    pub fn new(reporter: &'a dyn Reporter, n_total: usize) -> Self {
        Self { reporter, n_done: AtomicUsize::new(0), n_total }
    }

    /// Reports an answer of the base or of an adapter.
    pub fn report(&self, subject: Option<&AdapterWeights>, outcome: &EvalOutcome) {
        let event = Event::EvaluationAnswered {
            adapter_id: subject.map(|subject| subject.id.clone()),
            task: outcome.id.clone(),
            passed: outcome.passed,
            n_done: self.n_done.fetch_add(1, Relaxed) + 1,
            n_total: self.n_total,
        };
        self.reporter.report("", &event);
    }
}

/// Asks the base or `adapter` all tasks of `suite` that the strategy supports, and judges the
/// answers. `on_each` gets every outcome as it ends. Outcomes are cached in the registry, so an
/// interrupted run resumes where it stopped.
///
/// # Errors
/// [`EvaluationError`], never because of a wrong answer; [`EvaluationError::BadCheck`] if none of
/// the tasks can be judged.
pub async fn run(
    tools: &EvaluationTools<'_>,
    suite: &TaskSuite,
    adapter: Option<&AdapterWeights>,
    on_each: &(dyn Fn(&EvalOutcome) + Sync),
) -> Result<SuiteOutcomes, EvaluationError> {
    let tasks: Vec<&EvalTask> =
        suite.tasks.iter().filter(|task| tools.strategy.supports(task)).collect();
    if tasks.is_empty() {
        return Err(EvaluationError::NoWork(suite.name.clone()));
    }
    let cache_key = cache_key(tools, adapter);
    let checks = CheckCache { tools, read: Mutex::default() };
    let answer = async |(task, sample): (&EvalTask, u32)| {
        let outcome = outcome(tools, &checks, (task, sample), (adapter, &cache_key)).await?;
        on_each(&outcome);
        Ok(outcome)
    };
    let samples = tasks.into_iter().flat_map(|task| (0..tools.n_samples).map(move |n| (task, n)));
    let parallel = tools.provider.capabilities().parallel.max(1);
    let outcomes: Vec<Result<EvalOutcome, EvaluationError>> =
        stream::iter(samples).map(answer).buffered(parallel).collect().await;
    separate_voids(outcomes)
}

/// Separates outcomes from tasks that cannot be judged. Any other error is returned.
fn separate_voids(
    outcomes: Vec<Result<EvalOutcome, EvaluationError>>,
) -> Result<SuiteOutcomes, EvaluationError> {
    let (mut evaluated, mut broken) = (SuiteOutcomes::default(), None);
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => evaluated.outcomes.push(outcome),
            // A broken check says nothing about the model, so the task must not count as failed.
            Err(EvaluationError::BadCheck { id, source: source @ JudgeError::BrokenCheck(_) }) => {
                evaluated
                    .voids
                    .push(UnjudgeableTask { id: id.clone(), reason: source.to_string() });
                broken.get_or_insert(EvaluationError::BadCheck { id, source });
            }
            Err(error) => return Err(error),
        }
    }
    evaluated.voids.dedup_by(|one, other| one.id == other.id);
    match broken {
        Some(error) if evaluated.outcomes.is_empty() => Err(error),
        _ => Ok(evaluated),
    }
}

/// Check of a task that was proven to tell a right answer from a stub.
#[derive(Clone)]
enum ReadyCheck {
    Function(PreparedCheck),
    /// Test files, and the path that they expect the answer at.
    Suite(judge::TestSuite, String),
}

/// Checks of tasks, each prepared on first use. Every check proves that it can be passed by the
/// task's reference answer, if there is one, and that a stub does not pass.
struct CheckCache<'a> {
    tools: &'a EvaluationTools<'a>,
    read: Mutex<HashMap<String, ReadyCheck>>,
}

impl CheckCache<'_> {
    /// Returns the check of a task with this digest: two suites may use the same id.
    async fn get(&self, task: &EvalTask, digest: &str) -> Result<ReadyCheck, EvaluationError> {
        let known = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = known().get(digest) {
            return Ok(ready.clone());
        }
        let bad = |source| EvaluationError::BadCheck { id: task.id.clone(), source };
        let ready = self.prove(task).await.map_err(bad)?;
        known().insert(digest.to_owned(), ready.clone());
        Ok(ready)
    }

    async fn prove(&self, task: &EvalTask) -> Result<ReadyCheck, JudgeError> {
        let EvaluationTools { judge, modules, .. } = self.tools;
        let reference = (!task.answer.is_empty()).then(|| task.program(&task.answer, modules));
        let (reference, stub) = (reference.as_deref(), task.stub(modules));
        if let Some(question) = task.question() {
            let check = judge.read(question).await?;
            return Ok(ReadyCheck::Function(judge.prove(check, reference, &stub).await?));
        }
        let Some((suite, path)) = task.test_suite() else {
            return Err(JudgeError::BrokenCheck("it has no tests".to_owned()));
        };
        let ready = ReadyCheck::Suite(suite, path.to_owned());
        if let Some(reference) = reference {
            let verdict = self.run(&ready, reference, 0).await.map_err(as_void)?;
            if !verdict.passed() {
                let reason = format!("its reference: {}", verdict.summary());
                return Err(JudgeError::BrokenCheck(reason));
            }
        }
        if self.run(&ready, &stub, 0).await.map_err(as_void)?.passed() {
            return Err(JudgeError::BrokenCheck("it passes on a stub".to_owned()));
        }
        Ok(ready)
    }

    async fn run(&self, ready: &ReadyCheck, code: &str, seed: u64) -> Result<Verdict, JudgeError> {
        match ready {
            ReadyCheck::Function(check) => self.tools.judge.run(check, code, seed).await,
            ReadyCheck::Suite(suite, path) => {
                let files = [SourceFile::new(path, code)];
                self.tools.suites.run_suite(suite, &files).await
            }
        }
    }
}

/// Tests that cannot run here make their task void, and do not end the evaluation.
fn as_void(error: JudgeError) -> JudgeError {
    match error {
        JudgeError::PytestMissing | JudgeError::BrokenTest { .. } => {
            JudgeError::BrokenCheck(error.to_string())
        }
        other => other,
    }
}

async fn outcome(
    tools: &EvaluationTools<'_>,
    checks: &CheckCache<'_>,
    (task, sample): (&EvalTask, u32),
    (adapter, cache_key): (Option<&AdapterWeights>, &str),
) -> Result<EvalOutcome, EvaluationError> {
    let seed = tools.seed.wrapping_add(u64::from(sample));
    let task_digest = task.digest();
    let memory = tools.memory.of(task);
    let key = outcome_key(cache_key, (&task_digest, seed), memory);
    let cached = if tools.is_fresh { None } else { tools.registry.outcome(&key)? };
    let row = if let Some(row) = cached {
        row
    } else {
        let id = adapter.map(|subject| &subject.id);
        let check = checks.get(task, &task_digest).await?;
        let ask = TaskQuestion { provider: tools.provider, task, adapter: id, seed, memory };
        let (answer, cost) = tools.strategy.answer(ask).await?;
        let code = task.program(&answer, tools.modules);
        let verdict = checks.run(&check, &code, seed).await?;
        let row = OutcomeRow {
            key,
            adapter_id: adapter.filter(|one| one.is_stored).map(|one| one.id.clone()),
            task_digest,
            seed,
            passed: verdict.passed(),
            assurance: verdict.assurance,
            summary: verdict.summary(),
            answer,
            cost: Some(cost),
            cpu_ms: u64::try_from(verdict.cpu.as_millis()).unwrap_or(u64::MAX),
            at: timestamp(SystemTime::now()),
        };
        tools.registry.insert_outcome(&row)?;
        row
    };
    Ok(EvalOutcome {
        id: task.id.clone(),
        group: task.group.clone(),
        is_control: task.is_control,
        family: task.family.clone(),
        sample,
        passed: row.passed,
        assurance: row.assurance,
        cost: row.cost,
        module: task.module(&row.answer),
        answer: row.answer,
        summary: row.summary,
    })
}

/// Returns a digest of everything that determines the scores of these outcomes, except who answers:
/// the judged tasks, and strategy, sampling, seed, modules, judge and backend. Not the records that
/// are shown: there are more of them with every session, and the base and all adapters that are
/// measured together see the same ones.
pub fn conditions(tools: &EvaluationTools<'_>, outcomes: &[&EvalOutcome]) -> String {
    let answers: Vec<(&str, u32)> =
        outcomes.iter().map(|outcome| (outcome.id.as_str(), outcome.sample)).collect();
    sha256(json!([cache_key(tools, None), tools.seed, answers]).to_string().as_bytes())
}

/// Returns a digest of everything that will determine the outcomes of a suite, except who answers.
pub fn conditions_of(tools: &EvaluationTools<'_>, suite: &TaskSuite) -> String {
    let tasks: Vec<String> = suite.tasks.iter().map(EvalTask::digest).collect();
    let all = json!([cache_key(tools, None), tools.seed, tools.n_samples, tasks]);
    sha256(all.to_string().as_bytes())
}

/// Returns the key of an outcome. Without memory it is that of earlier versions, which showed none.
fn outcome_key(cache_key: &str, (task_digest, seed): (&str, u64), memory: &ShownMemory) -> String {
    let mut parts = vec![json!(cache_key), json!(task_digest), json!(seed)];
    parts.extend(memory.records.iter().map(|record| json!([record.question, record.answer])));
    parts.extend(memory.passages.iter().map(|passage| json!(passage.to_string())));
    sha256(json!(parts).to_string().as_bytes())
}

/// Returns a digest of everything that determines an outcome, except task, seed and memory.
fn cache_key(tools: &EvaluationTools<'_>, adapter: Option<&AdapterWeights>) -> String {
    let parts = json!([
        adapter.map(|subject| &subject.sha256),
        tools.provider.base().base_digest,
        tools.provider.name(),
        tools.strategy.as_str(),
        tools.strategy.sampling(),
        tools.modules.digest(),
        JUDGE_VERSION,
    ]);
    sha256(parts.to_string().as_bytes())
}
