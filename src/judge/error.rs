//! [`RequestError`].

use std::io;
use std::path::PathBuf;

use super::harness::JudgeError;
use super::suite::SuiteError;
use crate::error_class::ErrorClass;
use crate::hub::HubError;
use crate::sandbox::SandboxError;

/// Why a request can't be judged. A solution that fails is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no file at the path of the solution.
    #[error("no solution file or folder at `{0}`")]
    NoSolution(PathBuf),
    /// There is no Python at the path.
    #[error("no Python at `{0}`")]
    NoPython(PathBuf),
    /// There is no folder of packages at the path.
    #[error("cannot find the library folder `{path}`")]
    NoLibrary {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tests, or the solution, can't be read.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// They can't be run.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// pytest can't be fetched.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl RequestError {
    /// Its class.
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
