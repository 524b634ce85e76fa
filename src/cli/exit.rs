//! Exit codes: what happened, in one number.

use std::io;

use crate::bench::BenchError;
use crate::cli::run::outcome::InTheWay;
use crate::config::ConfigError;
use crate::evaluation::EvaluationError;
use crate::hub::HubError;
use crate::judge::RequestError;
use crate::judge::SuiteError;
use crate::pipeline::PipelineError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::training::TrainingError;

/// Solved and verified.
pub(super) const SOLVED: u8 = 0;
/// Not solved.
pub(super) const UNSOLVED: u8 = 1;
/// Wrong arguments.
pub(super) const USAGE: u8 = 2;
/// Wrong configuration, or something missing on this machine.
pub(super) const ENVIRONMENT: u8 = 3;
/// No answer from the provider, or a prompt that does not fit.
pub(super) const PROVIDER: u8 = 4;
/// No jail: nothing was run.
pub(super) const SANDBOX: u8 = 5;
/// A budget is used up.
pub(super) const BUDGET: u8 = 6;
/// Something is taken, or somebody else is at work on it.
pub(super) const CONFLICT: u8 = 7;

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

/// The code for an error.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<InTheWay>() {
        return CONFLICT;
    }
    if let Some(PipelineError::Provider(_)) = error.downcast_ref() {
        return PROVIDER;
    }
    if let Some(
        ProviderError::ContextOverflow { .. }
        | ProviderError::Unreachable { .. }
        | ProviderError::Refused { .. },
    ) = cause(error)
    {
        return PROVIDER;
    }
    match cause::<SandboxError>(error) {
        Some(SandboxError::NoInterpreter(_)) => return ENVIRONMENT,
        Some(_) => return SANDBOX,
        None => {}
    }
    if let Some(
        TrainingError::BadRecord { .. } | TrainingError::NoData(_) | TrainingError::BadOption(_),
    ) = cause(error)
    {
        return USAGE;
    }
    match error.downcast_ref() {
        Some(
            EvaluationError::BadK { .. }
            | EvaluationError::NoSuite(_)
            | EvaluationError::BadName(_)
            | EvaluationError::BadTask { .. }
            | EvaluationError::Empty(_)
            | EvaluationError::NoWork(_),
        ) => return USAGE,
        Some(
            EvaluationError::SuiteExists(_)
            | EvaluationError::Changed(_)
            | EvaluationError::SeenBefore { .. },
        ) => return CONFLICT,
        _ => {}
    }
    match cause(error) {
        Some(
            RegistryError::NotFound(_) | RegistryError::NoAdapter(_) | RegistryError::NoTraining(_),
        ) => USAGE,
        Some(
            RegistryError::AlreadyExists(_)
            | RegistryError::AdapterExists(_)
            | RegistryError::AlreadyArchived(_)
            | RegistryError::NotArchived(_)
            | RegistryError::Busy { .. }
            | RegistryError::DoesNotFit { .. }
            | RegistryError::TrainingCompleted(_)
            | RegistryError::WrongStatus { .. },
        ) => CONFLICT,
        _ => ENVIRONMENT,
    }
}

/// The error itself, or one that it hands through, of type `E`.
fn cause<E: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    let of_pipeline: Option<&dyn std::error::Error> = match error.downcast_ref() {
        Some(PipelineError::Provider(inner)) => Some(inner),
        Some(PipelineError::Judge(inner)) => Some(inner),
        Some(PipelineError::Registry(inner)) => Some(inner),
        Some(PipelineError::Template(inner)) => Some(inner),
        Some(PipelineError::Budget { .. } | PipelineError::MissingPackages(_)) | None => None,
    };
    let of_request: Option<&dyn std::error::Error> = match error.downcast_ref() {
        Some(RequestError::Suite(inner)) => Some(inner),
        Some(RequestError::Judge(inner)) => Some(inner),
        Some(RequestError::Hub(inner)) => Some(inner),
        _ => None,
    };
    let inner = match error.downcast_ref() {
        Some(BenchError::Provider(inner)) => Some(inner as &dyn std::error::Error),
        Some(BenchError::Sandbox(inner)) => Some(inner as &dyn std::error::Error),
        _ => of_pipeline.or(of_request),
    };
    let inner = inner.or(match error.downcast_ref() {
        Some(EvaluationError::Provider(inner)) => Some(inner),
        Some(EvaluationError::Judge(inner)) => Some(inner),
        Some(EvaluationError::Registry(inner)) => Some(inner),
        _ => None,
    });
    let handed_through = inner.and_then(<dyn std::error::Error>::downcast_ref);
    handed_through.or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

/// What the user can do about an error, where that is known.
pub(super) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(PipelineError::MissingPackages(_)) = error.downcast_ref() {
        return Some(
            "show their folder with `--lib DIR`, or install them for the Python of `sandbox.python`; a module that is \
             to be written has to be named in the task",
        );
    }
    if let Some(SuiteError::TooLarge { .. }) = cause(error) {
        return Some("name the tests' own file or folder, or move large data out of it");
    }
    if let Some(error) = error.downcast_ref::<HubError>() {
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
    match cause(error) {
        Some(RegistryError::NotFound(_)) => return Some("`rune sessions list` shows all sessions"),
        Some(RegistryError::NoTraining(_)) => return Some("`rune train runs` shows all runs"),
        Some(RegistryError::NoAdapter(_)) => {
            return Some("`rune adapters list` shows all adapters");
        }
        Some(registry) if registry.is_of_disk() => {
            return Some("is the disk of Rune's home full? `rune doctor` tells how much is free");
        }
        _ => {}
    }
    error.downcast_ref::<ConfigError>().map(|_| "`rune config keys` describes every setting")
}

/// Whether nobody reads our output any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>()?;
        Some(error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().filter_map(io_error).any(|is_broken| is_broken)
}
