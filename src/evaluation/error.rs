//! Errors of evaluations and suites.

use std::path::PathBuf;

use crate::adapter::InvalidAdapterId;
use crate::error_class::ErrorClass;
use crate::judge::JudgeError;
use crate::judge::RequestError;
use crate::memory::MemoryError;
use crate::pipeline::PipelineError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::shutdown::StoppedEarly;

use super::task::SESSIONS_SUITE;

/// Errors of evaluations and suites.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Files {
        /// Path of the file.
        path: PathBuf,
        /// Cause reported by the system.
        #[source]
        source: std::io::Error,
    },
    /// A line of a suite is not a valid task.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BadTask {
        /// Path of the suite.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Message of the parser.
        reason: String,
    },
    /// The tasks of a suite do not match its recorded digest.
    #[error("`{}` is damaged: its tasks do not match the digest in its first line", .0.display())]
    Damaged(PathBuf),
    /// A suite with this name is already stored.
    #[error("suite `{0}` already exists")]
    SuiteExists(String),
    /// No suite with this name is stored.
    #[error("no suite `{0}`")]
    NoSuite(String),
    /// The name of a suite has characters that are not allowed.
    #[error("invalid suite name `{0}`")]
    BadName(String),
    /// pass@k was requested for more answers than there are.
    #[error("cannot compute pass@{k} from {n} answers per task")]
    BadK {
        /// The k of the requested pass@k.
        k: u32,
        /// Number of answers per task.
        n: u32,
    },
    /// A suite has the name of a measured one, but other tasks.
    #[error("suite `{0}` has changed since it was measured")]
    Changed(String),
    /// A suite, split or file has no tasks.
    #[error("`{}` has no tasks", .0.display())]
    Empty(PathBuf),
    /// The adapter was trained on tasks of the suite.
    #[error("the adapter was trained on families of this suite, such as `{family}`")]
    SeenBefore {
        /// One of those families.
        family: String,
    },
    /// The check of a task is broken: its reference answer fails, or a stub passes.
    #[error("task `{id}` cannot be judged")]
    BadCheck {
        /// Id of the task.
        id: String,
        /// Cause reported by the judge.
        source: JudgeError,
    },
    /// The judge failed, which is not a failed answer.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The model could not be loaded or gave no answer.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The pipeline failed, which is not an unsolved task.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The registry failed, or does not have the adapter.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Records of earlier sessions could not be found.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The sandbox or the Python interpreter is unavailable.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A folder of packages cannot be mounted in the sandbox.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An adapter id is invalid.
    #[error(transparent)]
    Adapter(#[from] InvalidAdapterId),
    /// A signal stopped the evaluation; judged answers are stored.
    #[error(transparent)]
    Stopped(#[from] StoppedEarly),
    /// The strategy cannot answer any task of the suite.
    #[error("suite `{0}` has no tasks for this strategy")]
    NoWork(String),
}

impl EvaluationError {
    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoSuite(_) => {
                "`rune eval suites list` lists all suites; `pull` and `import` add more"
            }
            Self::BadName(_) => {
                "use letters, digits, `.`, `_`, `-` and `+`, and do not start with a dot"
            }
            Self::BadK { .. } => "--k must be between 1 and --n, the number of answers per task",
            Self::Changed(_) => "give the new version another name",
            Self::SeenBefore { .. } => {
                "measure it on other families, such as `--split dev`: here its score would only \
                 show what it memorized"
            }
            Self::Empty(name) if name.as_os_str() == SESSIONS_SUITE => {
                "`rune run --tests FILE` gives it tasks: each session with your tests is one"
            }
            Self::NoWork(_) => "use --strategy completion",
            _ => return None,
        })
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::BadK { .. }
            | Self::NoSuite(_)
            | Self::BadName(_)
            | Self::BadTask { .. }
            | Self::Empty(_)
            | Self::NoWork(_) => ErrorClass::Usage,
            Self::SuiteExists(_) | Self::Changed(_) | Self::SeenBefore { .. } => {
                ErrorClass::Conflict
            }
            Self::BadCheck { source: error, .. } | Self::Judge(error) => error.class(),
            Self::Provider(error) => error.class(),
            Self::Pipeline(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Memory(error) => error.class(),
            Self::Sandbox(error) => error.class(),
            Self::Request(error) => error.class(),
            Self::Stopped(StoppedEarly(reason)) => ErrorClass::Stopped(*reason),
            Self::Files { .. } | Self::Damaged(_) | Self::Adapter(_) => ErrorClass::Environment,
        }
    }
}
