//! Errors of judging files on disk.

use std::io;
use std::path::PathBuf;

use super::harness::JudgeError;
use super::suite::SuiteError;
use crate::error_class::ErrorClass;
use crate::hub::HubError;
use crate::sandbox::SandboxError;

/// A request that could not be judged. A solution that fails is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The path of the solution does not exist, or holds no files.
    #[error("no solution file or folder at `{0}`")]
    NoSolution(PathBuf),
    /// The requested interpreter does not exist.
    #[error("no Python at `{0}`")]
    NoPython(PathBuf),
    /// A requested folder of packages does not exist or cannot be accessed.
    #[error("cannot find the library folder `{path}`")]
    NoLibrary {
        /// The path as the user gave it.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The tests or the solution cannot be read.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// The tests cannot be run.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// pytest cannot be installed.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl RequestError {
    /// The class that decides the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Judge(error) => error.class(),
            _ => ErrorClass::Environment,
        }
    }
}

impl From<SandboxError> for RequestError {
    fn from(error: SandboxError) -> Self {
        Self::Judge(error.into())
    }
}
