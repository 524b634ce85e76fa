//! Exit codes and hints: maps the errors of all modules to a number and to advice.

use std::error::Error;
use std::io;

use crate::adapter::InvalidAdapterId;
use crate::bench::BenchError;
use crate::config::ConfigError;
use crate::error_class::ErrorClass;
use crate::evaluation::EvaluationError;
use crate::evolution::EvolutionError;
use crate::hub::HubError;
use crate::judge::JudgeError;
use crate::judge::RequestError;
use crate::judge::SuiteError;
use crate::memory::MemoryError;
use crate::merge::MergeError;
use crate::model::ModelError;
use crate::parking::ParkError;
use crate::peft::PeftError;
use crate::pipeline::PipelineError;
use crate::pipeline::SessionError;
use crate::pipeline::TaskFileError;
use crate::provider::ProviderError;
use crate::registry::RecordKind;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::shutdown::StoppedEarly;
use crate::swarm::SwarmError;
use crate::training::TrainingError;

/// Exit code for wrong arguments.
pub(super) const USAGE: u8 = 2;

/// An error of the command line itself, with advice on a separate line.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct HintedError {
    message: String,
    hint: String,
    class: ErrorClass,
}

impl HintedError {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), class: ErrorClass::Environment }
    }

    /// Creates the error of a command line that contradicts itself.
    pub(super) fn of_usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { class: ErrorClass::Usage, ..Self::new(message, hint) }
    }

    fn class(&self) -> ErrorClass {
        self.class
    }
}

/// Table at the end of `rune --help`.
pub(super) const HELP: &str = "\
Exit codes:
    0    success: the task is solved and verified, or the command is done
    1    not solved; the best candidate is kept
    2    usage error
    3    configuration or environment error: see `rune doctor`
    4    provider unreachable, or prompt longer than the context window
    5    sandbox unavailable: nothing was executed
    6    budget exhausted
    7    conflict: already exists, in use, or dirty tree
  130    interrupted: resume with `rune run --resume`
  143    terminated: resume with `rune run --resume`";

/// Returns the exit code of the first error in the chain that has a class.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(class).unwrap_or(ErrorClass::Environment).exit_code()
}

/// Returns the class of `error`, if its type is known.
fn class(error: &(dyn Error + 'static)) -> Option<ErrorClass> {
    if let Some(StoppedEarly(reason)) = error.downcast_ref() {
        return Some(ErrorClass::Stopped(*reason));
    }
    macro_rules! first_of {
        ($($kind:ty),+) => { None$(.or_else(|| Some(error.downcast_ref::<$kind>()?.class())))+ };
    }
    first_of!(
        HintedError,
        SessionError,
        TrainingError,
        EvaluationError,
        EvolutionError,
        SwarmError,
        TaskFileError,
        ParkError,
        PipelineError,
        RequestError,
        JudgeError,
        ProviderError,
        RegistryError,
        PeftError,
        SandboxError,
        BenchError
    )
}

/// Finds an error of type `E` in the chain, also inside transparent wrappers.
fn cause<E: Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| unwrapped(cause).downcast_ref())
}

/// Returns the innermost error of `#[error(transparent)]` wrappers, which `source` skips.
fn unwrapped<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    macro_rules! look_into {
        ($($outer:ident: $($variant:ident)|+;)+) => {
            $($(if let Some($outer::$variant(inner)) = error.downcast_ref() {
                return unwrapped(inner);
            })+)+
        };
    }
    look_into! {
        SessionError: Adapter | Pipeline | Provider | Judge | Request | Sandbox | Registry | Memory;
        TrainingError: Provider | Registry | Model;
        EvaluationError: Adapter | Provider | Judge | Pipeline | Registry | Sandbox | Request | Memory;
        EvolutionError: Merge | Peft | Registry | Evaluation;
        SwarmError: TaskFile | Evaluation | Provider | Registry;
        MemoryError: Registry | Provider;
        ParkError: Provider | Registry;
        PipelineError: Provider | Judge | Registry;
        RequestError: Suite | Judge | Hub;
        ProviderError: Hub | Model;
        BenchError: Provider | Sandbox | Judge | Model | Training | Evaluation | Registry;
    }
    error
}

/// Returns advice on how to fix an error, if there is any.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(HintedError { hint, .. }) = error.downcast_ref() {
        return Some(hint.clone());
    }
    let hint = cause::<SessionError>(error)
        .and_then(SessionError::hint)
        .or_else(|| cause::<TrainingError>(error)?.hint())
        .or_else(|| cause::<EvaluationError>(error)?.hint().map(str::to_owned))
        .or_else(|| cause::<EvolutionError>(error)?.hint().map(str::to_owned))
        .or_else(|| cause::<SwarmError>(error)?.hint())
        .or_else(|| cause::<TaskFileError>(error)?.hint())
        .or_else(|| cause::<MergeError>(error)?.hint().map(str::to_owned))
        .or_else(|| cause::<ParkError>(error)?.hint().map(str::to_owned))
        .or_else(|| cause::<PipelineError>(error)?.hint().map(str::to_owned))
        .or_else(|| cause::<ProviderError>(error)?.hint().map(str::to_owned))
        .or_else(|| cause::<SandboxError>(error)?.hint().map(str::to_owned));
    hint.or_else(|| fixed_hint(error).map(str::to_owned))
}

/// Returns advice for errors of modules that have no hints of their own.
fn fixed_hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(SuiteError::TooLarge { .. }) = cause(error) {
        return Some("pass the test file or test folder itself, or move large data out of it");
    }
    if let Some(error) = cause::<HubError>(error) {
        return match error {
            HubError::UnknownModel { .. } => Some("`rune models list` lists all models"),
            HubError::AllFailed { .. } | HubError::Unreachable { .. } | HubError::Pip { .. } => {
                Some(
                    "download the file elsewhere and import it with `rune models pull NAME --file PATH`",
                )
            }
            _ => None,
        };
    }
    if let Some(error) = cause::<ModelError>(error) {
        return model_hint(error);
    }
    if cause::<InvalidAdapterId>(error).is_some() {
        return Some(InvalidAdapterId::HINT);
    }
    match cause(error) {
        Some(RegistryError::TooNew { .. }) => return Some("install a newer version of rune"),
        Some(RegistryError::NotFound { kind, .. }) => {
            return Some(match kind {
                RecordKind::Session => "`rune sessions list` lists all sessions",
                RecordKind::TrainingRun => "`rune train runs` lists all training runs",
                RecordKind::Adapter => "`rune adapters list` lists all adapters",
                RecordKind::Swarm => "`rune swarm list` lists all swarms",
                RecordKind::Job => "`rune jobs list` lists all jobs",
                RecordKind::Lease => "`rune lease show` lists all servers",
            });
        }
        Some(registry) if registry.is_of_disk() => {
            return Some(
                "check for free space: `rune doctor` shows it for the disk of Rune's home",
            );
        }
        _ => {}
    }
    error.downcast_ref::<ConfigError>().map(|_| "`rune config keys` describes every setting")
}

/// Returns advice for a model that cannot be run.
fn model_hint(error: &ModelError) -> Option<&'static str> {
    match error {
        ModelError::Malformed { .. } | ModelError::NotFinite => {
            Some("download the file again: `rune models pull NAME`")
        }
        ModelError::Unsupported { .. } => Some(
            "Rune runs GGUF files of the llama and qwen2 architectures; `rune models list` lists \
             models that work",
        ),
        _ => None,
    }
}

/// Whether the error is a write to a closed pipe: the reader of our output is gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>()?;
        Some(error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().filter_map(io_error).any(|is_broken| is_broken)
}
