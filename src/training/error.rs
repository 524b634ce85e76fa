//! Why training can't begin or breaks off.

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

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A line of a dataset is no record.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to train on.
    #[error("there is nothing to train on: {0}")]
    NoData(String),
    /// An option is out of its range.
    #[error("{0}")]
    BadOption(String),
    /// A file can't be read or written.
    #[error("`{}`", path.display())]
    Files {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint can't be gone on from.
    #[error("the checkpoint `{}` cannot be used: {reason}", path.display())]
    BadCheckpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The loss or a gradient is no number.
    #[error("step {step} gave a loss or a gradient that is no number: lower the learning rate")]
    NotFinite {
        /// The step, from 1.
        step: u32,
    },
    /// No validation was better than the one before the first step.
    #[error(
        "nothing was gained on the held-out families, whose loss began at {loss:.4} and never fell: use more data, a lower learning rate or --validation 0"
    )]
    NoGain {
        /// The loss before the first step, in nats a token.
        loss: f64,
    },
    /// The work needs more memory than there is.
    #[error(
        "training takes some {needed_mib} MiB and {available_mib} MiB are free: use --checkpointing, a lower --max-length or a smaller model"
    )]
    Memory {
        /// The estimate.
        needed_mib: u64,
        /// What the system can give.
        available_mib: u64,
    },
    /// libtorch fails, or isn't there.
    #[error("libtorch: {0}")]
    Device(String),
    /// The worker was told to stop; a checkpoint is there.
    #[error("interrupted after step {step}")]
    Interrupted {
        /// Steps done.
        step: u32,
    },
    /// The model can't be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An adapter's folder can't be read or written.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The model can't be had, or does not answer.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The registry fails, or refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Stopped before a run was begun.
    #[error(transparent)]
    Stopped(#[from] StoppedEarly),
    /// A run broke off; what was done is kept.
    #[error("training failed ({}): {detail}", kind.as_str())]
    Failed {
        /// The run.
        id: String,
        /// In a word.
        kind: FailureKind,
        /// In words.
        detail: String,
        /// Why it was told to stop, if it was.
        stopped: Option<StopReason>,
    },
    /// A run's configuration can't be read.
    #[error("this run was asked by another version of rune")]
    OtherVersion(#[source] serde_json::Error),
    /// The file is another model than the one that the run began with.
    #[error("`{}` is not the model any more that the run began with", .0.display())]
    ModelChanged(PathBuf),
}

impl TrainingError {
    /// Names the file that could not be read or written.
    pub(super) fn files(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Files { path, source }
    }

    /// The word for it in the registry and in the worker's messages.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Memory { .. } => FailureKind::Oom,
            Self::NotFinite { .. } => FailureKind::Nan,
            Self::NoGain { .. } => FailureKind::NoGain,
            Self::Interrupted { .. } | Self::Stopped(_) => FailureKind::Interrupted,
            Self::Files { source, .. } if is_of_disk(source) => FailureKind::Disk,
            Self::Files { .. } => FailureKind::Files,
            Self::NoData(_) | Self::BadRecord { .. } => FailureKind::Data,
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

    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Peft(error) => error.class(),
            Self::Provider(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Stopped(StoppedEarly(reason)) | Self::Failed { stopped: Some(reason), .. } => {
                ErrorClass::Stopped(*reason)
            }
            Self::BadRecord { .. }
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

/// Whether the disk is what failed: full or read-only.
fn is_of_disk(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::QuotaExceeded
    )
}

/// How training failed, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// Out of memory.
    Oom,
    /// The loss is no number.
    Nan,
    /// Nothing was learned that holds for what is held out.
    #[serde(rename = "no_gain")]
    NoGain,
    /// Nothing to train on, or no records.
    Data,
    /// The disk is full or read-only.
    Disk,
    /// A file can't be read or written.
    Files,
    /// Told to stop.
    Interrupted,
    /// Options, model or checkpoint can't be used.
    Setup,
    /// The worker ended without a word.
    Crash,
}

impl FailureKind {
    /// The word.
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
