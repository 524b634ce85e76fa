//! Errors of the pipeline.

use crate::error_class::ErrorClass;
use crate::judge::JudgeError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::template::TemplateError;

/// Errors that end the pipeline. Failing code is not an error but an unsolved task.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The model gave no answer, or a prompt does not fit the context window even when cut.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// Code could not be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The session could not be recorded.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A prompt could not be rendered.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tests import packages that are not installed and that the task does not ask for.
    #[error("the tests import {}, which this Python does not have", quoted(.0))]
    MissingPackages(Vec<String>),
    /// A budget is exhausted; the best candidate so far is kept.
    #[error("the budget of {limit} {unit} is used up")]
    Budget {
        /// Size of the budget, in `unit`.
        limit: u64,
        /// Unit of the budget: `generated tokens` or `seconds`.
        unit: &'static str,
    },
}

impl PipelineError {
    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::MissingPackages(_)).then_some(
            "pass their folder with `--lib DIR`, or install them for the Python of \
             `sandbox.python`; a module that Rune should write must be named in the task",
        )
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Provider(_) => ErrorClass::Provider,
            Self::Judge(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Budget { .. } => ErrorClass::Budget,
            Self::Template(_) | Self::MissingPackages(_) => ErrorClass::Environment,
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
