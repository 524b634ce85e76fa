//! A suite is asked of a model, and every answer is judged.

use std::collections::HashMap;
use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use crate::adapter::AdapterId;
use crate::judge::Check;
use crate::judge::FunctionJudge;
use crate::judge::JudgeError;
use crate::pipeline::PipelineError;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::registry::RegistryError;

use super::modules::Modules;
use super::suite::Suite;
use super::task::Task;
use super::via::Via;

/// Why an evaluation can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file can't be read or written.
    #[error("`{}`", path.display())]
    Files {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of a suite is no task.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BadTask {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There are no tasks.
    #[error("`{}` has no tasks", .0.display())]
    Empty(PathBuf),
    /// The adapter was trained on tasks of the suite.
    #[error(
        "the adapter was trained on families of this suite, such as `{family}`: that would measure its memory of them"
    )]
    SeenBefore {
        /// One of them.
        family: String,
    },
    /// A task's own answer fails its check.
    #[error("the task `{id}` cannot be judged: {source}")]
    BadCheck {
        /// The task.
        id: String,
        /// Why.
        source: JudgeError,
    },
    /// The jail failed.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The model failed.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The pipeline failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The pipeline's sessions can't be recorded.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// None of the tasks can be given to the pipeline.
    #[error("suite `{0}` has no tasks for the pipeline: they are asked with --via completions")]
    NoWork(String),
}

/// What an evaluation needs.
pub struct EvaluationTools<'a> {
    /// Who answers.
    pub provider: &'a Provider,
    /// Who judges.
    pub judge: &'a FunctionJudge<'a>,
    /// What answers may import.
    pub modules: &'a Modules,
    /// How answers are had.
    pub via: Via<'a>,
    /// Seed of the judge's order of questions.
    pub seed: u64,
}

/// What came of one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The task.
    pub id: String,
    /// The row of a table that it counts in.
    pub group: String,
    /// Whether it is a control.
    pub is_control: bool,
    /// Its family.
    pub family: String,
    /// Whether the answer passed.
    pub passed: bool,
    /// The answer.
    pub answer: String,
    /// What the judge said, in one line.
    pub summary: String,
}

/// Asks all tasks of `suite` that can be asked in this way of the base, or of `adapter`, and judges the answers; `on_each` is told of each as it ends.
/// The outcomes are in the order of the tasks.
///
/// # Errors
/// [`EvaluationError`]: never for what an answer does.
pub async fn run(
    tools: &EvaluationTools<'_>,
    suite: &Suite,
    adapter: Option<&AdapterId>,
    on_each: &(dyn Fn(&Outcome) + Sync),
) -> Result<Vec<Outcome>, EvaluationError> {
    let tasks: Vec<&Task> = suite.tasks.iter().filter(|task| tools.via.takes(task)).collect();
    if tasks.is_empty() {
        return Err(EvaluationError::NoWork(suite.name.clone()));
    }
    let checks = &checks(tools, &tasks).await?;
    let one = async |task| {
        let outcome = outcome(tools, checks, task, adapter).await?;
        on_each(&outcome);
        Ok(outcome)
    };
    let parallel = tools.provider.capabilities().parallel.max(1);
    let outcomes: Vec<Result<Outcome, EvaluationError>> =
        stream::iter(tasks).map(one).buffered(parallel).collect().await;
    outcomes.into_iter().collect()
}

/// The checks of all tasks, each read once; the first of every kind proves with the task's own answer that it can be
/// passed, and that nothing passes it which does nothing.
async fn checks(
    tools: &EvaluationTools<'_>,
    tasks: &[&Task],
) -> Result<HashMap<String, Check>, EvaluationError> {
    let mut checks = HashMap::new();
    for task in tasks {
        let bad = |source| EvaluationError::BadCheck { id: task.id.clone(), source };
        let check = tools.judge.read(task.question()).await.map_err(bad)?;
        let reference = task.program(&task.answer, tools.modules);
        let stub = task.stub(tools.modules);
        let check = tools.judge.prove(check, &reference, &stub).await.map_err(bad)?;
        checks.insert(task.id.clone(), check);
    }
    Ok(checks)
}

async fn outcome(
    tools: &EvaluationTools<'_>,
    checks: &HashMap<String, Check>,
    task: &Task,
    adapter: Option<&AdapterId>,
) -> Result<Outcome, EvaluationError> {
    let answer = tools.via.answer(tools.provider, task, adapter).await?;
    let code = task.program(&answer, tools.modules);
    let verdict = tools.judge.run(&checks[&task.id], &code, tools.seed).await?;
    Ok(Outcome {
        id: task.id.clone(),
        group: task.group.clone(),
        is_control: task.is_control,
        family: task.family.clone(),
        passed: verdict.passed(),
        answer,
        summary: verdict.summary(),
    })
}
