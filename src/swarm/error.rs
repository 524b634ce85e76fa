//! [`SwarmError`]: why a swarm cannot start or go on.

use std::io;
use std::path::PathBuf;

use crate::error_class::ErrorClass;
use crate::evaluation::EvaluationError;
use crate::pipeline::SessionError;
use crate::pipeline::TaskFileError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::shutdown::StopReason;

/// An error of a swarm itself. What goes wrong in a job is recorded with the job.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// Another process runs a swarm on this home.
    #[error("another swarm is at work")]
    Busy,
    /// No task may be trained on.
    #[error("`{0}` has no tasks to solve: all of its families measure adapters")]
    NoTasks(String),
    /// A task cannot be tried.
    #[error("task `{id}`")]
    Task {
        /// Id of the task.
        id: String,
        /// What is wrong with it.
        source: SessionError,
    },
    /// A file of tasks cannot be read.
    #[error(transparent)]
    TaskFile(#[from] TaskFileError),
    /// The suite cannot be read.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The model cannot be opened.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The registry reported an error.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of the swarm cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Files {
        /// Path of the file.
        path: PathBuf,
        /// Cause reported by the system.
        source: io::Error,
    },
    /// The configuration of the swarm cannot be decoded: another version wrote it.
    #[error("this version of rune cannot resume the swarm")]
    OtherVersion(#[source] serde_json::Error),
    /// A signal stopped the swarm.
    #[error("interrupted")]
    Stopped {
        /// Id of the swarm.
        id: String,
        /// Signal that stopped it.
        reason: StopReason,
    },
}

impl SwarmError {
    /// Creates a [`Self::Files`] for `path`.
    pub(super) fn files(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Files { path, source }
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Busy => ErrorClass::Conflict,
            Self::NoTasks(_) => ErrorClass::Usage,
            Self::Files { .. } | Self::OtherVersion(_) => ErrorClass::Environment,
            Self::Task { source, .. } => source.class(),
            Self::TaskFile(error) => error.class(),
            Self::Evaluation(error) => error.class(),
            Self::Provider(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Stopped { reason, .. } => ErrorClass::Stopped(*reason),
        }
    }

    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy => Some("`rune swarm list` lists all swarms".to_owned()),
            Self::Stopped { id, .. } => Some(format!("resume with `rune swarm --resume {id}`")),
            _ => None,
        }
    }
}
