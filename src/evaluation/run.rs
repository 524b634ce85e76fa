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
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::provider::Request;
use crate::trajectory::Sampling;

use super::library::Task;
use super::library::Template;
use super::modules::Modules;
use super::suite::Suite;

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
}

/// What an evaluation needs.
pub struct EvaluationTools<'a> {
    /// Who answers.
    pub provider: &'a Provider,
    /// Who judges.
    pub judge: &'a FunctionJudge<'a>,
    /// What answers may import.
    pub modules: &'a Modules,
    /// How answers are drawn.
    pub sampling: &'a Sampling,
}

/// What came of one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The task.
    pub id: String,
    /// Its template.
    pub template: Template,
    /// Its family.
    pub family: String,
    /// Whether the answer passed.
    pub passed: bool,
    /// The answer.
    pub answer: String,
    /// What the judge said, in one line.
    pub summary: String,
}

/// Asks all tasks of `suite` of the base, or of `adapter`, and judges the answers; `on_each` is told of each as it ends.
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
    let checks = checks(tools, suite).await?;
    let checks = &checks;
    let one = async |task| {
        let outcome = outcome(tools, checks, task, adapter).await?;
        on_each(&outcome);
        Ok(outcome)
    };
    let parallel = tools.provider.capabilities().parallel.max(1);
    let outcomes: Vec<Result<Outcome, EvaluationError>> =
        stream::iter(&suite.tasks).map(one).buffered(parallel).collect().await;
    outcomes.into_iter().collect()
}

/// The checks of all tasks, each read once; the first of every kind proves with the task's own answer that it can be
/// passed, and that nothing passes it which does nothing.
async fn checks(
    tools: &EvaluationTools<'_>,
    suite: &Suite,
) -> Result<HashMap<String, Check>, EvaluationError> {
    let mut checks = HashMap::new();
    for task in &suite.tasks {
        let bad = |source| EvaluationError::BadCheck { id: task.id.clone(), source };
        let check = tools.judge.read(task.question()).await.map_err(bad)?;
        let reference = task.as_function(&task.answer, tools.modules);
        let stub = task.as_function("pass", tools.modules);
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
    let request = Request { adapter, ..Request::new(&task.messages, tools.sampling) };
    let completion = tools.provider.generate(&request, &mut |_| {}).await?;
    let code = task.as_function(&completion.text, tools.modules);
    let verdict = tools.judge.run(&checks[&task.id], &code, tools.sampling.seed).await?;
    Ok(Outcome {
        id: task.id.clone(),
        template: task.template,
        family: task.family.clone(),
        passed: verdict.passed(),
        answer: completion.text,
        summary: verdict.summary(),
    })
}
