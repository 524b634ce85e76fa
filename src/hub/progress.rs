//! What happens during a pull, and who is told.

use std::sync::Arc;

/// What happens during a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another process is pulling the same model; this one waits for it.
    Waiting,
    /// A source is tried.
    Trying {
        /// `hub`, `mirror` or `file`.
        source: &'static str,
    },
    /// So much is here.
    Bytes {
        /// Bytes of the file that are here.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// All is here and its digest is being checked.
    Verifying,
    /// A source did not have it.
    Failed {
        /// `hub`, `mirror` or `file`.
        source: &'static str,
        /// Why, in one line.
        reason: String,
    },
    /// The file is in its place.
    Placed {
        /// `hub`, `mirror`, `file`, or `here` when it was there already.
        source: &'static str,
    },
}

/// Is told of progress, from any thread.
pub type Reporter = Arc<dyn Fn(Progress) + Send + Sync>;
