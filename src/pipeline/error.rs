//! Why a session breaks off.

use crate::error_class::ErrorClass;
use crate::judge::JudgeError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::template::TemplateError;

/// Why a session breaks off. Code that fails is no error but an unsolved task.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// No answer from the model, or a prompt that cannot be made to fit.
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
    /// The tests import packages that are not there and that the task does not ask for.
    #[error("the tests import {}, which this Python does not have", quoted(.0))]
    MissingPackages(Vec<String>),
    /// A budget is used up; what was reached stands.
    #[error("the budget of {limit} {unit} is used up")]
    Budget {
        /// The budget.
        limit: u64,
        /// What it counts: `generated tokens` or `seconds`.
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
