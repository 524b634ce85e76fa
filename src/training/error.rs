//! [`TrainingError`] and [`FailureKind`]: why training cannot start, or fails.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::error_class::ErrorClass;
use crate::model::ModelError;
use crate::peft::PeftError;
use crate::provider::ProviderError;
use crate::registry::RegistryError;
use crate::shutdown::StopReason;
use crate::shutdown::StoppedEarly;

/// An error of training, in this process or in the worker.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A line of a chat file is not a valid record.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BadRecord {
        /// Path of the chat file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Description of the mistake.
        reason: String,
    },
    /// The request names no source of training data.
    #[error("no training data given")]
    NoSource,
    /// No training examples are left.
    #[error("no training data: {0}")]
    NoData(String),
    /// An option is invalid or out of range.
    #[error("{0}")]
    BadOption(String),
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Files {
        /// Path of the file.
        path: PathBuf,
        /// Error that the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// A run cannot be resumed from its checkpoint.
    #[error("cannot resume from checkpoint `{}`: {reason}", path.display())]
    BadCheckpoint {
        /// Path of the checkpoint.
        path: PathBuf,
        /// Description of the mismatch or damage.
        reason: String,
    },
    /// The loss or the gradient norm is infinite or NaN.
    #[error("loss or gradient is not finite at step {step}")]
    NotFinite {
        /// Step number, from 1.
        step: u32,
    },
    /// No validation was better than the one before the first step.
    #[error(
        "no improvement on the held-out families: the validation loss started at {loss:.4} and never decreased"
    )]
    NoGain {
        /// Validation loss before the first step, in nats per token.
        loss: f64,
    },
    /// The run needs more memory than is available.
    #[error(
        "training needs about {needed_mib} MiB of memory, but only {available_mib} MiB are available"
    )]
    Memory {
        /// Estimated memory of the run.
        needed_mib: u64,
        /// Available memory of the machine.
        available_mib: u64,
    },
    /// libtorch reported an error, or this binary was built without it.
    #[error("libtorch: {0}")]
    Device(String),
    /// The worker was asked to stop, and has written a checkpoint.
    #[error("interrupted after step {step}")]
    Interrupted {
        /// Number of steps done.
        step: u32,
    },
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An adapter folder cannot be read or written.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The model cannot be found or downloaded, or does not answer.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The registry reported an error.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Training was stopped before a run was created.
    #[error(transparent)]
    Stopped(#[from] StoppedEarly),
    /// The worker of a run failed. The run and its checkpoint are kept.
    #[error("training failed ({}): {detail}", kind.as_str())]
    Failed {
        /// Id of the training run.
        id: String,
        /// Kind of the failure.
        kind: FailureKind,
        /// Error message of the worker.
        detail: String,
        /// The reason to stop, if this process asked the worker to.
        stopped: Option<StopReason>,
    },
    /// The stored configuration of a run cannot be decoded.
    #[error("cannot read the configuration of this run: another version of rune started it")]
    OtherVersion(#[source] serde_json::Error),
    /// The model file is not the one that the run was started with.
    #[error("`{}` has changed since this run started", .0.display())]
    ModelChanged(PathBuf),
}

impl TrainingError {
    /// Returns a function that turns an I/O error at `path` into [`Self::Files`].
    pub(super) fn files(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Files { path, source }
    }

    /// Returns the kind of the failure, as stored in the registry and reported by the worker.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Memory { .. } => FailureKind::Oom,
            Self::NotFinite { .. } => FailureKind::Nan,
            Self::NoGain { .. } => FailureKind::NoGain,
            Self::Interrupted { .. } | Self::Stopped(_) => FailureKind::Interrupted,
            Self::Files { source, .. } if is_of_disk(source) => FailureKind::Disk,
            Self::Files { .. } => FailureKind::Files,
            Self::NoSource | Self::NoData(_) | Self::BadRecord { .. } => FailureKind::Data,
            // libtorch reports all errors as text.
            Self::Device(reason) if reason.contains("out of memory") => FailureKind::Oom,
            Self::Failed { kind, .. } => *kind,
            Self::Peft(error) if error.io().is_some_and(is_of_disk) => FailureKind::Disk,
            Self::Peft(error) if error.io().is_some() => FailureKind::Files,
            Self::Device(_)
            | Self::BadOption(_)
            | Self::BadCheckpoint { .. }
            | Self::Model(_)
            | Self::Peft(_)
            | Self::Provider(_)
            | Self::Registry(_)
            | Self::OtherVersion(_)
            | Self::ModelChanged(_) => FailureKind::Setup,
        }
    }

    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<String> {
        let Self::Failed { id, kind, .. } = self else {
            let sources = "use `--session ID`, `--sessions FILTER` or `--dataset FILE.jsonl`";
            return matches!(self, Self::NoSource).then(|| sources.to_owned());
        };
        let resume = format!("`rune train --resume {id}` resumes from the last checkpoint");
        match kind {
            // Resuming would fail in the same way: the same seed gives the same steps.
            FailureKind::Nan => Some("use a lower learning rate".to_owned()),
            FailureKind::NoGain => Some(
                "use more data, a lower learning rate, or `--validation 0` to skip validation"
                    .to_owned(),
            ),
            FailureKind::Data | FailureKind::Setup => None,
            FailureKind::Oom => Some(format!(
                "use `--checkpointing`, a lower `--max-length` or a smaller model; if memory was \
                 taken by other programs, {resume}"
            )),
            FailureKind::Disk
            | FailureKind::Files
            | FailureKind::Interrupted
            | FailureKind::Crash => Some(resume),
        }
    }

    /// Returns the class of the error, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Peft(error) => error.class(),
            Self::Provider(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Stopped(StoppedEarly(reason)) | Self::Failed { stopped: Some(reason), .. } => {
                ErrorClass::Stopped(*reason)
            }
            Self::BadRecord { .. }
            | Self::NoSource
            | Self::NoData(_)
            | Self::BadOption(_)
            | Self::Failed { kind: FailureKind::Data, .. } => ErrorClass::Usage,
            Self::Failed { kind: FailureKind::Nan | FailureKind::NoGain, .. } => {
                ErrorClass::Unsolved
            }
            _ => ErrorClass::Environment,
        }
    }
}

/// Whether the disk is the cause: full or read-only.
fn is_of_disk(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::QuotaExceeded
    )
}

/// The kind of a training failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// Out of memory, or killed by the kernel's OOM killer.
    Oom,
    /// The loss or a gradient is infinite or NaN.
    Nan,
    /// The validation loss never decreased.
    #[serde(rename = "no_gain")]
    NoGain,
    /// The training data is missing or invalid.
    Data,
    /// The disk is full or read-only.
    Disk,
    /// A file cannot be read or written.
    Files,
    /// The worker was asked to stop.
    Interrupted,
    /// The options, the model or the checkpoint cannot be used.
    Setup,
    /// The worker exited without a report.
    Crash,
}

impl FailureKind {
    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oom => "oom",
            Self::Nan => "nan",
            Self::NoGain => "no_gain",
            Self::Data => "data",
            Self::Disk => "disk",
            Self::Files => "files",
            Self::Interrupted => "interrupted",
            Self::Setup => "setup",
            Self::Crash => "crash",
        }
    }
}
