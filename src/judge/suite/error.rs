//! Errors of loading a suite, and files that were omitted.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::limits::FileLimits;

/// A file or folder that was not included in a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OmittedFile {
    /// Path of the file or folder.
    pub path: PathBuf,
    /// Reason for the omission, such as `a hidden folder`.
    pub reason: String,
}

impl fmt::Display for OmittedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.reason)
    }
}

/// An error while loading the files of a suite.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The path of the tests does not exist.
    #[error("no test file or folder at `{0}`")]
    NotFound(PathBuf),
    /// A pipe, socket or device, which cannot be read to an end.
    #[error("`{path}` is {kind}, not a file or a folder")]
    NotAFile {
        /// Path of the entry.
        path: PathBuf,
        /// Kind of the entry, such as `a named pipe`.
        kind: &'static str,
    },
    /// The path contains no Python file.
    #[error("no Python test file in `{0}`")]
    NoTests(PathBuf),
    /// The files exceed the limits of the sandbox.
    #[error(
        "`{path}` holds {n_files} files of {}, more than the {} files of {} that fit in the sandbox; \
         its largest parts: {largest}",
        size_text(*n_bytes), limits.n_files, size_text(limits.n_bytes)
    )]
    TooLarge {
        /// The folder that was read.
        path: PathBuf,
        /// Number of files counted.
        n_files: usize,
        /// Total size of these files.
        n_bytes: u64,
        /// The limits that are exceeded.
        limits: FileLimits,
        /// The largest entries, such as `data (70.1 MiB in 5 files)`.
        largest: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{path}`")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl SuiteError {
    pub(in crate::judge) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Formats a number of bytes for people: `512 bytes`, `70.1 MiB`.
pub(super) fn size_text(n_bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a size to be read")]
    let size = n_bytes as f64;
    match n_bytes {
        0..1024 => format!("{n_bytes} bytes"),
        1024..0x0010_0000 => format!("{:.1} KiB", size / 1024.0),
        0x0010_0000..0x4000_0000 => format!("{:.1} MiB", size / 1_048_576.0),
        _ => format!("{:.1} GiB", size / 1_073_741_824.0),
    }
}
