//! What can go wrong with the registry.

use std::path::PathBuf;

use crate::adapter::AdapterId;
use crate::error_class::ErrorClass;
use crate::trajectory::Status;

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
    /// There is no such session.
    #[error("no session `{0}`")]
    NotFound(String),
    /// A session's id is taken for ever.
    #[error("session `{0}` already exists")]
    AlreadyExists(String),
    /// Another process is at work on the session or training run.
    #[error("{what} `{id}` is run by process {pid}")]
    Busy {
        /// "session" or "training run".
        what: &'static str,
        /// Its id.
        id: String,
        /// The process.
        pid: u32,
    },
    /// The session is not in a state in which that can be done.
    #[error("session `{id}` is {}", status.as_str())]
    WrongStatus {
        /// The session.
        id: String,
        /// How it stands.
        status: Status,
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
    /// There is no such training run.
    #[error("no training run `{0}`")]
    NoTraining(String),
    /// The training run has its adapter.
    #[error("training run `{0}` is completed")]
    TrainingCompleted(String),
    /// There is no such adapter.
    #[error("no adapter `{0}`")]
    NoAdapter(String),
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
    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) | Self::NoAdapter(_) | Self::NoTraining(_) => ErrorClass::NotFound,
            Self::AlreadyExists(_)
            | Self::AdapterExists(_)
            | Self::AlreadyArchived(_)
            | Self::NotArchived(_)
            | Self::Busy { .. }
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
