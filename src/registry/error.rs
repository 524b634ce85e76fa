//! What can go wrong with the registry.

use std::fmt;
use std::path::PathBuf;

use crate::adapter::AdapterId;
use crate::error_class::ErrorClass;
use crate::trajectory::SessionStatus;

/// The kinds of rows that have an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A session.
    Session,
    /// A training run.
    TrainingRun,
    /// An adapter.
    Adapter,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::TrainingRun => "training run",
            Self::Adapter => "adapter",
        })
    }
}

/// The registry refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file can't be opened or is no database.
    #[error("cannot open registry `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is another program's.
    #[error("`{}` is not a registry of Rune (application id {application_id:#x})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The other program's id; 0 when it has none.
        application_id: u32,
    },
    /// A newer Rune wrote the database.
    #[error("registry `{}` has version {found}, this rune knows {known}: use a newer rune", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// There is no such row.
    #[error("no {kind} `{id}`")]
    NotFound {
        /// What was looked for.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// The id is taken for ever.
    #[error("{kind} `{id}` already exists")]
    AlreadyExists {
        /// What would have been stored.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// Somebody is at work on it.
    #[error("{kind} `{id}` is run by {holder}")]
    Busy {
        /// What would have been claimed.
        kind: RecordKind,
        /// Its id.
        id: String,
        /// The holder of the claim in words, such as `process 12`.
        holder: String,
    },
    /// Somebody else has claimed it since: what this holder does no longer counts.
    #[error("{kind} `{id}` was taken over by {holder}")]
    ClaimLost {
        /// What was claimed.
        kind: RecordKind,
        /// Its id.
        id: String,
        /// The new holder in words, such as `process 12`.
        holder: String,
    },
    /// The claim was released before: nobody is at work on it.
    #[error("{kind} `{id}` has ended")]
    Ended {
        /// What was claimed.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// The session is not in a state in which that can be done.
    #[error("session `{id}` is {}", status.as_str())]
    WrongStatus {
        /// The session.
        id: String,
        /// How it stands.
        status: SessionStatus,
    },
    /// An attempt is not the next of its session.
    #[error("attempt {found} of session `{id}` is not the next one, {next}")]
    OutOfOrder {
        /// The session.
        id: String,
        /// The attempt's number.
        found: u32,
        /// The number it should have.
        next: u32,
    },
    /// The training run has its adapter.
    #[error("training run `{0}` is completed")]
    TrainingCompleted(String),
    /// The adapter was made for another base model.
    #[error("adapter `{id}` was not made for `{base_model}`")]
    DoesNotFit {
        /// The adapter.
        id: AdapterId,
        /// What it would be used with.
        base_model: String,
    },
    /// The adapter is there already, under this id.
    #[error("adapter `{0}` already exists")]
    AdapterExists(AdapterId),
    /// The adapter was archived before.
    #[error("adapter `{0}` is archived")]
    AlreadyArchived(AdapterId),
    /// The adapter was not archived.
    #[error("adapter `{0}` is not archived")]
    NotArchived(AdapterId),
    /// An adapter's file or folder can't be read or written.
    #[error("`{}`", path.display())]
    Files {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A stored value can't be read.
    #[error("registry holds a value in `{column}` that cannot be read: {text}")]
    Unreadable {
        /// The column.
        column: &'static str,
        /// What stands there, or why it can't be read.
        text: String,
    },
    /// A new id could not be made, or this process not be named.
    #[error("cannot read from the kernel")]
    Kernel(#[from] std::io::Error),
    /// The database failed.
    #[error("registry database")]
    Database(#[from] rusqlite::Error),
}

impl RegistryError {
    /// [`Self::NotFound`] of the `kind` with this `id`.
    pub(super) fn not_found(kind: RecordKind, id: impl Into<String>) -> Self {
        Self::NotFound { kind, id: id.into() }
    }

    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::AlreadyExists { .. }
            | Self::AdapterExists(_)
            | Self::AlreadyArchived(_)
            | Self::NotArchived(_)
            | Self::Busy { .. }
            | Self::ClaimLost { .. }
            | Self::Ended { .. }
            | Self::DoesNotFit { .. }
            | Self::TrainingCompleted(_)
            | Self::WrongStatus { .. } => ErrorClass::Conflict,
            _ => ErrorClass::Environment,
        }
    }

    /// Whether the disk is what failed: full, read-only or broken.
    pub fn is_of_disk(&self) -> bool {
        if let Self::Files { source, .. } = self {
            use std::io::ErrorKind;
            return matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem);
        }
        let (Self::Database(source) | Self::Open { source, .. }) = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(
                rusqlite::ErrorCode::DiskFull
                    | rusqlite::ErrorCode::SystemIoFailure
                    | rusqlite::ErrorCode::ReadOnly
            )
        )
    }
}
