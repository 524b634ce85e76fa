//! Vocabulary of the queue: [`JobKind`] and [`JobState`].

use serde::Deserialize;
use serde::Serialize;

/// Kind of work that a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// One session about a task.
    Solve,
    /// An adapter from sessions.
    Train,
    /// The scores of base and incumbent on tasks that nothing is trained or selected on.
    Evaluate,
    /// Decisions about a project's adapters.
    Evolve,
}

impl JobKind {
    /// Every kind of job.
    pub const ALL: [Self; 4] = [Self::Solve, Self::Train, Self::Evaluate, Self::Evolve];

    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Solve => "solve",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Evolve => "evolve",
        }
    }

    /// Returns the number of attempts after which a job of this kind is discarded.
    pub fn max_attempts(self) -> u32 {
        match self {
            Self::Solve => 3,
            Self::Train | Self::Evaluate | Self::Evolve => 5,
        }
    }
}

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waiting to be claimed.
    Queued,
    /// Claimed. If its process is dead, it goes back to the queue.
    Leased,
    /// Its effect is in the registry.
    Done,
    /// Ended by an error that another attempt would meet again.
    Failed,
    /// Ended after its last attempt failed.
    Discarded,
    /// Ended by the user before it was done.
    Cancelled,
}

impl JobState {
    /// Every state of a job.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Leased, Self::Done, Self::Failed, Self::Discarded, Self::Cancelled];

    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job may still be done.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Leased)
    }
}
