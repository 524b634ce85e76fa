//! Session lifecycle: start or resume, solve, write files, and end with a recorded status.

mod active;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use serde_json::Value;

use crate::adapter::InvalidAdapterId;
use crate::config::Config;
use crate::config::ConfigLayer;
use crate::documents::Document;
use crate::error_class::ErrorClass;
use crate::judge;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::judge::OmittedFile;
use crate::judge::PytestSource;
use crate::judge::RequestError;
use crate::judge::TestSuite;
use crate::judge::VerdictOutcome;
use crate::memory::MemoryError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::services::Services;
use crate::shutdown::StopReason;
use crate::shutdown::StoppedEarly;
use crate::task::Task;
use crate::trajectory::Session;

use super::PipelineError;
use super::Solution;
use super::requirements::Assignment;
use active::ActiveSession;

/// Request for a new session, or to resume one.
#[derive(Debug, Clone)]
pub enum SessionRequest {
    /// Start a session for a task.
    New {
        /// Task with its tests.
        task: Task,
        /// Files near the tests that were not loaded, to warn about.
        left_out: Vec<OmittedFile>,
        /// Documents to show passages of.
        documents: Vec<Document>,
        /// Job of a swarm that the session belongs to.
        job_id: Option<String>,
    },
    /// Resume a session that stopped: see [`crate::registry::Registry::resumable`].
    Resume(Box<Session>),
}

/// Folder that a solution is written to.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    /// Path of the folder, which is created if necessary.
    pub folder: PathBuf,
    /// Whether to overwrite existing files.
    pub force: bool,
}

/// Outcome of a session that ran to its end.
#[derive(Debug, Clone)]
pub struct SessionOutcome {
    /// The id of the session.
    pub id: String,
    /// The solution, or the best candidate.
    pub solution: Solution,
    /// Written files: in the output folder if solved, else in Rune's home.
    pub paths: Vec<PathBuf>,
    /// Class that determines the exit code; `None` if solved.
    pub class: Option<ErrorClass>,
}

/// Plan of a session that was not run.
#[derive(Debug, Clone)]
pub struct SessionPlan {
    /// Files that the session would write.
    pub paths: Vec<String>,
    /// Test files that would decide.
    pub tests: Vec<String>,
}

/// Errors that end a session. Failing code is not an error but an unsolved task.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A phase of the pipeline failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The model could not be found, downloaded or loaded.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The tests could not be run.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The tests could not be run with the given libraries or pytest.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The sandbox or the Python interpreter is unavailable.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The session could not be recorded or resumed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Records of earlier sessions could not be found.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The requested adapter id is invalid.
    #[error(transparent)]
    Adapter(#[from] InvalidAdapterId),
    /// No test can fail.
    #[error("the test files contain no test that can fail")]
    NothingChecked,
    /// The tests pass without a solution.
    #[error("the tests pass without any solution")]
    PassesOnNothing,
    /// A file of the solution already exists in the output folder.
    #[error("`{}` already exists", .0.display())]
    InTheWay(PathBuf),
    /// A file of the solution could not be written.
    #[error("cannot write `{}`", path.display())]
    Files {
        /// Path of the file.
        path: PathBuf,
        /// Cause reported by the system.
        source: io::Error,
    },
    /// A signal stopped the session.
    #[error("{}", if id.is_some() { "interrupted" } else { "interrupted before a session started" })]
    Stopped {
        /// Session id, unless the signal came before the session started.
        id: Option<String>,
        /// Signal that stopped it.
        reason: StopReason,
    },
}

impl SessionError {
    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NothingChecked => "add a test that fails until the task is solved",
            Self::PassesOnNothing => {
                "add a test that fails without a solution: these cannot verify one"
            }
            Self::InTheWay(_) => {
                "choose another folder with --out, or overwrite the file with --force"
            }
            Self::Stopped { id: Some(id), .. } => {
                return Some(format!("resume with `rune run --resume {id}`"));
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Pipeline(error) => error.class(),
            Self::Provider(error) => error.class(),
            Self::Judge(error) => error.class(),
            Self::Request(error) => error.class(),
            Self::Sandbox(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Memory(error) => error.class(),
            Self::InTheWay(_) => ErrorClass::Conflict,
            Self::Stopped { reason, .. } => ErrorClass::Stopped(*reason),
            Self::Adapter(_)
            | Self::NothingChecked
            | Self::PassesOnNothing
            | Self::Files { .. } => ErrorClass::Environment,
        }
    }
}

/// Starts or resumes a session, and writes the solution to `target`, or the best candidate to
/// Rune's home.
///
/// ```no_run
/// # use std::sync::Arc;
/// use rune::pipeline::{self, OutputFolder, SessionError, SessionRequest};
/// use rune::sandbox::Sandbox;
/// use rune::services::Services;
/// use rune::task::{SourceFile, Task, TaskId, TaskType};
///
/// async fn solve_one(services: &Services) -> Result<(), SessionError> {
///     // Start the sandbox before the process has other threads.
///     let sandbox = Arc::new(Sandbox::start(&services.executable)?);
///     let tests = "from primes import is_prime\n\nassert is_prime(7) and not is_prime(9)\n";
///     let task = Task {
///         id: TaskId("primes".to_owned()),
///         text: "Write primes.py with is_prime(n).".to_owned(),
///         task_type: TaskType::default(),
///         family: None,
///         tests: vec![SourceFile::new("test_primes.py", tests)],
///         test_targets: Vec::new(),
///     };
///     let (left_out, documents) = (Vec::new(), Vec::new());
///     let request = SessionRequest::New { task, left_out, documents, job_id: None };
///     let target = OutputFolder { folder: "out".into(), force: false };
///     let outcome = pipeline::run_session((services, &sandbox), request, &target).await?;
///     println!("{}: {}", outcome.id, outcome.solution.summary());
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`SessionError`]. A session that had started is ended, and can be resumed. After
/// [`SessionError::InTheWay`] on a solved session, the solution is in Rune's home.
pub async fn run_session(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    request: SessionRequest,
    target: &OutputFolder,
) -> Result<SessionOutcome, SessionError> {
    let active = ActiveSession { services, sandbox, target, claim: OnceLock::new() };
    // A signal drops the future of `run`: generations are cancelled and jails die with it.
    match services.shutdown.or_stop(Box::pin(active.run(request))).await {
        Ok(result) => result.inspect_err(|error| active.end_failed(error)),
        Err(StoppedEarly(reason)) => Err(active.end_stopped(reason)),
    }
}

/// Returns what [`run_session`] would do with a task, without loading a model.
///
/// # Errors
/// Those of the sandbox and of the tests.
pub async fn plan_session(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    task: Task,
) -> Result<SessionPlan, SessionError> {
    let mut judge = judge_of(services, sandbox)?;
    let assignment = Assignment::of_new_task(&judge, task).await?;
    prepare_suite(services, &mut judge, assignment.suite.as_ref()).await?;
    let tests = assignment.suite.iter().flat_map(TestSuite::test_paths).map(Into::into).collect();
    Ok(SessionPlan { paths: assignment.paths().map(Into::into).collect(), tests })
}

/// Returns the settings that a session or a swarm was started with, except keys that no longer
/// exist. Resuming needs them: other settings ask other questions, for which there are no recorded
/// answers.
pub fn recorded_settings(recorded: &Value, current: &Config) -> ConfigLayer {
    ConfigLayer::from_flags(current.entries().filter_map(|entry| {
        let (section, name) = entry.key.split_once('.')?;
        let value = recorded.get(section)?.get(name)?;
        Some((entry.key, toml::Value::try_from(value).ok()?))
    }))
}

/// Creates a judge with the configured limits and library.
fn judge_of(services: &Services, sandbox: &Arc<Sandbox>) -> Result<Judge, SessionError> {
    let mut judge = Judge::new(sandbox, &sandbox.interpreter(services.python())?);
    judge.limits = Limits::from(&services.config.sandbox);
    let lib = &services.config.run.lib;
    if !lib.is_empty() {
        judge.libs.extend(judge::library_mounts(&[lib])?);
    }
    Ok(judge)
}

/// Checks that the suite can run and can fail; downloads pytest if the suite needs it.
async fn prepare_suite(
    services: &Services,
    judge: &mut Judge,
    suite: Option<&TestSuite>,
) -> Result<(), SessionError> {
    let Some(suite) = suite else { return Ok(()) };
    let source =
        PytestSource { home: services.home.clone(), python: services.models.pull.python.clone() };
    let verdict = judge::run_with_pytest(judge, suite, &[], &source).await?;
    let is_hopeless = verdict.tests.is_empty() || suite.is_blank();
    if verdict.outcome == VerdictOutcome::NoTests && is_hopeless {
        return Err(SessionError::NothingChecked);
    }
    if verdict.passed() {
        return Err(SessionError::PassesOnNothing);
    }
    Ok(())
}
