//! [`BenchError`].

use std::io;
use std::path::PathBuf;

use crate::error_class::ErrorClass;
use crate::evaluation::EvaluationError;
use crate::judge::JudgeError;
use crate::model::ModelError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::training::TrainingError;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The in-process engine failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The peer's server failed, or isn't there.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The sandbox could not run a program.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The judge came to no verdict.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// A training run of the benchmark failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// An evaluation of the benchmark failed.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The registry could not be read or written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A canonical solution did not pass.
    #[error("a canonical solution did not pass: {0}")]
    NotPassed(String),
    /// The context window is too small for the prompts.
    #[error("the context window has {limit} tokens, the bench needs {needed}")]
    Context {
        /// Tokens of the window.
        limit: usize,
        /// Context length that the benchmark needs, in tokens.
        needed: usize,
    },
    /// The peer's program can't be started.
    #[error("cannot start the peer `{}`", path.display())]
    PeerStart {
        /// Path of the peer's program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The peer ended before it was ready.
    #[error("the peer `{}` ended before it was ready ({status}): {last}", path.display())]
    PeerEnded {
        /// Path of the peer's program.
        path: PathBuf,
        /// Its exit status, in words.
        status: String,
        /// The last lines that it wrote.
        last: String,
    },
    /// The peer did not become ready in time.
    #[error("the peer `{peer}` was not ready after {seconds} s: {last}")]
    PeerSlow {
        /// The peer's program, or the address of its server.
        peer: String,
        /// The time that it had.
        seconds: u64,
        /// The last lines that it wrote.
        last: String,
    },
    /// A process or file of the system can't be examined.
    #[error("cannot examine {what}")]
    Examine {
        /// What was looked at.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl BenchError {
    /// The class of the error, which decides the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Provider(error) => error.class(),
            Self::Sandbox(error) => error.class(),
            Self::Judge(error) => error.class(),
            Self::Training(error) => error.class(),
            Self::Evaluation(error) => error.class(),
            Self::Registry(error) => error.class(),
            _ => ErrorClass::Environment,
        }
    }

    /// Wraps what the system said of `what`.
    pub(super) fn examine(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Examine { what, source }
    }
}
