//! A suite is asked of a model, and every answer is judged.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::digest::sha256;
use crate::event::timestamp;
use crate::judge;
use crate::judge::FunctionJudge;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::judge::PreparedCheck;
use crate::judge::Verdict;
use crate::provider::Provider;
use crate::registry::OutcomeRow;
use crate::registry::Registry;
use crate::task::SourceFile;
use crate::trajectory::Assurance;

use super::error::EvaluationError;
use super::modules::PackageModules;
use super::strategy::AnswerStrategy;
use super::strategy::TaskQuestion;
use super::suite::TaskSuite;
use super::task;
use super::task::EvalTask;

/// The judge's version, as evaluations carry it: it changes when a verdict could.
pub const JUDGE_VERSION: &str = "function-2";

/// What an evaluation needs.
pub struct EvaluationTools<'a> {
    /// Who answers.
    pub provider: &'a Provider,
    /// Who judges functions.
    pub judge: &'a FunctionJudge,
    /// Who judges modules by a file of tests.
    pub suites: &'a Judge,
    /// What answers may import.
    pub modules: &'a PackageModules,
    /// How answers are had.
    pub via: AnswerStrategy<'a>,
    /// Where outcomes are kept, and found again.
    pub registry: &'a Registry,
    /// Whether outcomes that are there count.
    pub is_fresh: bool,
    /// Seed of the first answer to each task; the further ones follow.
    pub seed: u64,
    /// Answers to each task, at least 1.
    pub n_samples: u32,
}

/// Who answers: an adapter, and the digest of its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterWeights {
    /// Its id.
    pub id: AdapterId,
    /// sha256 of its weights.
    pub sha256: String,
}

/// What came of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOutcome {
    /// The task.
    pub id: String,
    /// The row of a table that it counts in.
    pub group: String,
    /// Whether it is a control.
    pub is_control: bool,
    /// Its family.
    pub family: String,
    /// Which of the answers to the task, from 0.
    pub sample: u32,
    /// Whether the answer passed.
    pub passed: bool,
    /// Where it was decided that it passed.
    pub assurance: Option<Assurance>,
    /// The answer.
    pub answer: String,
    /// Its code, as a user would save it.
    pub module: String,
    /// What the judge said, in one line.
    pub summary: String,
}

/// What came of a suite.
#[derive(Debug, Default)]
pub struct SuiteOutcomes {
    /// In the order of the tasks.
    pub outcomes: Vec<EvalOutcome>,
    /// Tasks that say nothing, which are no failures: their own answer does not pass here, or one
    /// that does nothing does.
    pub voids: Vec<UnjudgeableTask>,
}

/// A task that can't be judged here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnjudgeableTask {
    /// The task.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// Asks all tasks of `suite` that can be asked in this way of the base, or of `adapter`, and judges
/// the answers; `on_each` is told of each as it ends. What was asked before is not asked again, so
/// that a run that was broken off goes on where it was.
///
/// # Errors
/// [`EvaluationError`]: never for what an answer does; [`EvaluationError::BadCheck`] when none of
/// the tasks can be judged.
pub async fn run(
    tools: &EvaluationTools<'_>,
    suite: &TaskSuite,
    adapter: Option<&AdapterWeights>,
    on_each: &(dyn Fn(&EvalOutcome) + Sync),
) -> Result<SuiteOutcomes, EvaluationError> {
    let tasks: Vec<&EvalTask> = suite.tasks.iter().filter(|task| tools.via.takes(task)).collect();
    if tasks.is_empty() {
        return Err(EvaluationError::NoWork(suite.name.clone()));
    }
    let who = who(tools, adapter);
    let checks = CheckCache { tools, read: Mutex::default() };
    let one = async |(task, sample): (&EvalTask, u32)| {
        let outcome = outcome(tools, &checks, (task, sample), (adapter, &who)).await?;
        on_each(&outcome);
        Ok(outcome)
    };
    let all = tasks.into_iter().flat_map(|task| (0..tools.n_samples).map(move |n| (task, n)));
    let parallel = tools.provider.capabilities().parallel.max(1);
    let outcomes: Vec<Result<EvalOutcome, EvaluationError>> =
        stream::iter(all).map(one).buffered(parallel).collect().await;
    evaluated(outcomes)
}

fn evaluated(
    outcomes: Vec<Result<EvalOutcome, EvaluationError>>,
) -> Result<SuiteOutcomes, EvaluationError> {
    let (mut evaluated, mut broken) = (SuiteOutcomes::default(), None);
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => evaluated.outcomes.push(outcome),
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

/// A task's check, ready to judge.
#[derive(Clone)]
enum ReadyCheck {
    Function(PreparedCheck),
    Suite(judge::TestSuite),
}

/// The checks of tasks, each read when it is first needed; every one proves with the task's own
/// answer, where one is known, that it can be passed, and that nothing passes it which does
/// nothing.
struct CheckCache<'a> {
    tools: &'a EvaluationTools<'a>,
    read: Mutex<HashMap<String, ReadyCheck>>,
}

impl CheckCache<'_> {
    async fn get(&self, task: &EvalTask) -> Result<ReadyCheck, EvaluationError> {
        let known = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = known().get(&task.id) {
            return Ok(ready.clone());
        }
        let bad = |source| EvaluationError::BadCheck { id: task.id.clone(), source };
        let ready = self.proven(task).await.map_err(bad)?;
        known().insert(task.id.clone(), ready.clone());
        Ok(ready)
    }

    async fn proven(&self, task: &EvalTask) -> Result<ReadyCheck, JudgeError> {
        let EvaluationTools { judge, modules, .. } = self.tools;
        let reference = (!task.answer.is_empty()).then(|| task.program(&task.answer, modules));
        let (reference, stub) = (reference.as_deref(), task.stub(modules));
        if let Some(question) = task.question() {
            let check = judge.read(question).await?;
            return Ok(ReadyCheck::Function(judge.prove(check, reference, &stub).await?));
        }
        let ready = ReadyCheck::Suite(suite_of(task));
        if let Some(reference) = reference {
            let verdict = self.run(&ready, reference, 0).await?;
            if !verdict.passed() {
                let reason = format!("its reference: {}", verdict.summary());
                return Err(JudgeError::BrokenCheck(reason));
            }
        }
        if self.run(&ready, &stub, 0).await?.passed() {
            return Err(JudgeError::BrokenCheck("it passes on a stub".to_owned()));
        }
        Ok(ready)
    }

    async fn run(&self, ready: &ReadyCheck, code: &str, seed: u64) -> Result<Verdict, JudgeError> {
        match ready {
            ReadyCheck::Function(check) => self.tools.judge.run(check, code, seed).await,
            ReadyCheck::Suite(suite) => {
                let files = [SourceFile::new("solution.py", code)];
                self.tools.suites.run_suite(suite, &files).await
            }
        }
    }
}

fn suite_of(task: &EvalTask) -> judge::TestSuite {
    let tests = match &task.check {
        task::AnswerCheck::Suite(check) => check.tests.as_str(),
        _ => "",
    };
    judge::TestSuite::new(vec![SourceFile::new("test_solution.py", tests)])
}

async fn outcome(
    tools: &EvaluationTools<'_>,
    checks: &CheckCache<'_>,
    (task, sample): (&EvalTask, u32),
    (adapter, who): (Option<&AdapterWeights>, &str),
) -> Result<EvalOutcome, EvaluationError> {
    let seed = tools.seed.wrapping_add(u64::from(sample));
    let task_digest = task.digest();
    let key = sha256(json!([who, task_digest, seed]).to_string().as_bytes());
    let found = if tools.is_fresh { None } else { tools.registry.outcome(&key)? };
    let row = if let Some(row) = found {
        row
    } else {
        let id = adapter.map(|subject| &subject.id);
        let check = checks.get(task).await?;
        let ask = TaskQuestion { provider: tools.provider, task, adapter: id, seed };
        let answer = tools.via.answer(ask).await?;
        let code = task.program(&answer, tools.modules);
        let verdict = checks.run(&check, &code, seed).await?;
        let row = OutcomeRow {
            key,
            adapter_id: id.cloned(),
            task_digest,
            seed,
            passed: verdict.passed(),
            assurance: verdict.assurance,
            summary: verdict.summary(),
            answer,
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
        module: task.module(&row.answer),
        answer: row.answer,
        summary: row.summary,
    })
}

/// The digest of all that decides outcomes beside task and seed.
fn who(tools: &EvaluationTools<'_>, adapter: Option<&AdapterWeights>) -> String {
    let parts = json!([
        adapter.map(|subject| &subject.sha256),
        tools.provider.base().base_digest,
        tools.provider.name(),
        tools.via.as_str(),
        tools.via.sampling(),
        tools.modules.digest(),
        JUDGE_VERSION,
    ]);
    sha256(parts.to_string().as_bytes())
}
