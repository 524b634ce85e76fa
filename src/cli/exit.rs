//! Exit codes: what happened, in one number.

use std::error::Error;
use std::io;

use crate::adapter::InvalidAdapterId;
use crate::bench::BenchError;
use crate::config::ConfigError;
use crate::error_class::ErrorClass;
use crate::evaluation::EvaluationError;
use crate::hub::HubError;
use crate::judge::JudgeError;
use crate::judge::RequestError;
use crate::judge::SuiteError;
use crate::model::ModelError;
use crate::peft::PeftError;
use crate::pipeline::PipelineError;
use crate::pipeline::SessionError;
use crate::provider::ProviderError;
use crate::registry::RecordKind;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::shutdown::StoppedEarly;
use crate::training::TrainingError;

/// Wrong arguments.
pub(super) const USAGE: u8 = 2;

/// The table at the end of `rune --help`.
pub(super) const HELP: &str = "\
Exit codes:
    0    solved and verified; or the command did what it was asked to
    1    ran, not solved; the best candidate is kept
    2    wrong usage
    3    configuration or environment: `rune doctor` says more
    4    provider unreachable, or context overflow
    5    sandbox unavailable: nothing was executed
    6    budget used up
    7    conflict: duplicate, busy, or dirty tree
  130    interrupted; `rune run --resume` goes on
  143    terminated; `rune run --resume` goes on";

/// The code for an error: that of the first of its causes that has a class.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(class).unwrap_or(ErrorClass::Environment).exit_code()
}

/// The class of an error of one of the workflows.
fn class(error: &(dyn Error + 'static)) -> Option<ErrorClass> {
    if let Some(StoppedEarly(reason)) = error.downcast_ref() {
        return Some(ErrorClass::Stopped(*reason));
    }
    macro_rules! first_of {
        ($($kind:ty),+) => { None$(.or_else(|| Some(error.downcast_ref::<$kind>()?.class())))+ };
    }
    first_of!(
        SessionError,
        TrainingError,
        EvaluationError,
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

/// The error itself, or one that it speaks for or was caused by, of type `E`.
fn cause<E: Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| spoken_for(cause).downcast_ref())
}

/// The innermost of errors that speak for each other: as causes of one another they do not show.
fn spoken_for<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    macro_rules! look_into {
        ($($outer:ident: $($variant:ident)|+;)+) => {
            $($(if let Some($outer::$variant(inner)) = error.downcast_ref() {
                return spoken_for(inner);
            })+)+
        };
    }
    look_into! {
        SessionError: Adapter | Pipeline | Provider | Judge | Request | Sandbox | Registry;
        TrainingError: Provider | Registry | Model;
        EvaluationError: Adapter | Provider | Judge | Pipeline | Registry | Sandbox | Request;
        PipelineError: Provider | Judge | Registry;
        RequestError: Suite | Judge | Hub;
        ProviderError: Hub | Model;
        BenchError: Provider | Sandbox | Judge | Model | Training | Evaluation | Registry;
    }
    error
}

/// What the user can do about an error, where that is known.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) = cause::<TrainingError>(error).and_then(TrainingError::hint) {
        return Some(hint);
    }
    if let Some(hint) = cause::<SandboxError>(error).and_then(SandboxError::hint) {
        return Some(hint.to_owned());
    }
    fixed_hint(error).map(str::to_owned)
}

fn fixed_hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(PipelineError::MissingPackages(_)) = cause(error) {
        return Some(
            "show their folder with `--lib DIR`, or install them for the Python of `sandbox.python`; a module that is \
             to be written has to be named in the task",
        );
    }
    if let Some(SuiteError::TooLarge { .. }) = cause(error) {
        return Some("name the tests' own file or folder, or move large data out of it");
    }
    if let Some(error) = cause::<HubError>(error) {
        return match error {
            HubError::UnknownModel { .. } => Some("`rune models list` shows all models"),
            HubError::AllFailed { .. } | HubError::Unreachable { .. } | HubError::Pip { .. } => {
                Some(
                    "fetch the file elsewhere and give it with `rune models pull NAME --file PATH`",
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
                RecordKind::Session => "`rune sessions list` shows all sessions",
                RecordKind::TrainingRun => "`rune train runs` shows all runs",
                RecordKind::Adapter => "`rune adapters list` shows all adapters",
            });
        }
        Some(registry) if registry.is_of_disk() => {
            return Some("is the disk of Rune's home full? `rune doctor` tells how much is free");
        }
        _ => {}
    }
    error.downcast_ref::<ConfigError>().map(|_| "`rune config keys` describes every setting")
}

/// What the user can do about a model that can't be run.
fn model_hint(error: &ModelError) -> Option<&'static str> {
    match error {
        ModelError::Malformed { .. } | ModelError::NotFinite => {
            Some("download the file again: `rune models pull NAME`")
        }
        ModelError::Unsupported { .. } => Some(
            "Rune runs GGUF files of the llama and qwen2 architectures; `rune models list` shows \
             models that work",
        ),
        _ => None,
    }
}

/// Whether nobody reads our output any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>()?;
        Some(error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().filter_map(io_error).any(|is_broken| is_broken)
}
