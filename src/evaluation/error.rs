//! [`EvaluationError`].

use std::path::PathBuf;

use crate::adapter::InvalidAdapterId;
use crate::error_class::ErrorClass;
use crate::judge::JudgeError;
use crate::judge::RequestError;
use crate::pipeline::PipelineError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::shutdown::StoppedEarly;

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
    /// A suite's tasks are not what they were.
    #[error("`{}` is damaged: its tasks do not match the digest in its first line", .0.display())]
    Damaged(PathBuf),
    /// There is a suite of this name.
    #[error("suite `{0}` already exists")]
    SuiteExists(String),
    /// There is none.
    #[error("no suite `{0}`")]
    NoSuite(String),
    /// A suite can't be called so.
    #[error("invalid suite name `{0}`")]
    BadName(String),
    /// pass@k of more answers than there are.
    #[error("cannot compute pass@{k} from {n} answers per task")]
    BadK {
        /// Answers that would be drawn.
        k: u32,
        /// Answers a task.
        n: u32,
    },
    /// A suite's name stands for other tasks than those that were measured.
    #[error("suite `{0}` has changed since it was measured")]
    Changed(String),
    /// There are no tasks.
    #[error("`{}` has no tasks", .0.display())]
    Empty(PathBuf),
    /// The adapter was trained on tasks of the suite.
    #[error("the adapter was trained on families of this suite, such as `{family}`")]
    SeenBefore {
        /// One of them.
        family: String,
    },
    /// A task's own answer fails its check.
    #[error("task `{id}` cannot be judged")]
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
    /// The registry fails, or has no such adapter.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no jail, or no Python.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A folder of packages can't be shown.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An adapter can't be called so.
    #[error(transparent)]
    Adapter(#[from] InvalidAdapterId),
    /// It was told to stop; what was answered is kept.
    #[error(transparent)]
    Stopped(#[from] StoppedEarly),
    /// None of the tasks can be given to the pipeline.
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
                "measure it on other families: here its score would only show what it memorized"
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
            Self::Sandbox(error) => error.class(),
            Self::Request(error) => error.class(),
            Self::Stopped(StoppedEarly(reason)) => ErrorClass::Stopped(*reason),
            Self::Files { .. } | Self::Damaged(_) | Self::Adapter(_) => ErrorClass::Environment,
        }
    }
}
