//! [`RegistryError`]: the errors of the registry.

use std::fmt;
use std::path::PathBuf;

use crate::adapter::AdapterId;
use crate::error_class::ErrorClass;
use crate::job::JobState;
use crate::lease::LeaseState;
use crate::trajectory::SessionStatus;

/// A kind of row that users name by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A row of the table `session`.
    Session,
    /// A row of the table `training_run`.
    TrainingRun,
    /// A row of the table `adapter`.
    Adapter,
    /// A row of the table `swarm_run`.
    Swarm,
    /// A row of the table `job`.
    Job,
    /// A row of the table `gpu_lease`.
    Lease,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::TrainingRun => "training run",
            Self::Adapter => "adapter",
            Self::Swarm => "swarm",
            Self::Job => "job",
            Self::Lease => "server",
        })
    }
}

/// An error of the registry: a rejected request, or a failure of the database or the disk.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file cannot be opened or is not a database.
    #[error("cannot open registry `{}`", path.display())]
    Open {
        /// Path of the database file.
        path: PathBuf,
        /// Error that SQLite reported.
        #[source]
        source: rusqlite::Error,
    },
    /// The database belongs to another program.
    #[error("`{}` is not a Rune registry (application id {application_id:#x})", path.display())]
    Foreign {
        /// Path of the database file.
        path: PathBuf,
        /// SQLite application id of the other program; 0 when it has none.
        application_id: u32,
    },
    /// A newer version of Rune wrote the database.
    #[error("registry `{}` has schema version {found}, but this rune supports only up to {known}", path.display())]
    TooNew {
        /// Path of the database file.
        path: PathBuf,
        /// Schema version of the file.
        found: u32,
        /// Newest schema version that this binary supports.
        known: u32,
    },
    /// A server does not go from one of these states to the other.
    #[error("{server} is {} and cannot become {}", from.as_str(), to.as_str())]
    LeaseState {
        /// URL of the server.
        server: String,
        /// State that it has.
        from: LeaseState,
        /// State that was refused.
        to: LeaseState,
    },
    /// No row has this id.
    #[error("no {kind} `{id}`")]
    NotFound {
        /// Kind of the missing row.
        kind: RecordKind,
        /// Id that was looked up.
        id: String,
    },
    /// The id is taken. Ids are never reused.
    #[error("{kind} `{id}` already exists")]
    AlreadyExists {
        /// Kind of the existing row.
        kind: RecordKind,
        /// Id of the existing row.
        id: String,
    },
    /// Another holder has a valid claim on the row.
    #[error("{kind} `{id}` is in use by {holder}")]
    Busy {
        /// Kind of the claimed row.
        kind: RecordKind,
        /// Id of the claimed row.
        id: String,
        /// Description of the current holder, such as `process 12`.
        holder: String,
    },
    /// Another holder has claimed the row since, so this claim no longer permits writes.
    #[error("{kind} `{id}` was taken over by {holder}")]
    ClaimLost {
        /// Kind of the claimed row.
        kind: RecordKind,
        /// Id of the claimed row.
        id: String,
        /// Description of the new holder, such as `process 12`.
        holder: String,
    },
    /// The claim was already released.
    #[error("{kind} `{id}` has already ended")]
    Ended {
        /// Kind of the row that was claimed.
        kind: RecordKind,
        /// Id of the row that was claimed.
        id: String,
    },
    /// The status of the session does not allow the operation.
    #[error("session `{id}` is {}", status.as_str())]
    WrongStatus {
        /// Id of the session.
        id: String,
        /// Current status of the session.
        status: SessionStatus,
    },
    /// The state of the job does not allow the operation.
    #[error("job `{id}` is {}", state.as_str())]
    WrongJobState {
        /// Id of the job.
        id: String,
        /// Current state of the job.
        state: JobState,
    },
    /// The swarm is completed and cannot be resumed.
    #[error("swarm `{0}` is completed")]
    SwarmCompleted(String),
    /// An attempt does not have the next number of its session.
    #[error("attempt {found} of session `{id}` is out of order: expected attempt {next}")]
    OutOfOrder {
        /// Id of the session.
        id: String,
        /// Number of the rejected attempt.
        found: u32,
        /// Number of the next attempt.
        next: u32,
    },
    /// The training run is completed and cannot be resumed.
    #[error("training run `{0}` is completed")]
    TrainingCompleted(String),
    /// The adapter was trained for another base model.
    #[error("adapter `{id}` was not made for `{base_model}`")]
    DoesNotFit {
        /// Id of the adapter.
        id: AdapterId,
        /// Base model that it was to be used with, `id@digest`.
        base_model: String,
    },
    /// The adapter is already stored, under this id.
    #[error("adapter `{0}` already exists")]
    AdapterExists(AdapterId),
    /// The adapter is already archived.
    #[error("adapter `{0}` is archived")]
    AlreadyArchived(AdapterId),
    /// The adapter cannot be restored because it is not archived.
    #[error("adapter `{0}` is not archived")]
    NotArchived(AdapterId),
    /// A file or folder of an adapter cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Files {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error that the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// A stored value cannot be decoded.
    #[error("cannot decode column `{column}` of the registry: {text}")]
    Unreadable {
        /// Table and column of the value, separated by a dot.
        column: &'static str,
        /// The stored text, or the error of the decoder.
        text: String,
    },
    /// The kernel did not provide random bytes for a new id, or the start time of this process.
    #[error("cannot read from /dev/urandom or /proc")]
    Kernel(#[from] std::io::Error),
    /// SQLite reported an error.
    #[error("registry database error")]
    Database(#[from] rusqlite::Error),
}

impl RegistryError {
    /// Creates a [`Self::NotFound`] for a row.
    pub(super) fn not_found(kind: RecordKind, id: impl Into<String>) -> Self {
        Self::NotFound { kind, id: id.into() }
    }

    /// Returns the class of the error, which determines the exit code.
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
            | Self::SwarmCompleted(_)
            | Self::LeaseState { .. }
            | Self::WrongJobState { .. }
            | Self::WrongStatus { .. } => ErrorClass::Conflict,
            _ => ErrorClass::Environment,
        }
    }

    /// Whether the disk is the cause: full, read-only or broken.
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
