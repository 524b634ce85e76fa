//! What can be wrong with files, and what was left out.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::limits::FileLimits;

/// A file or folder that could not be brought along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OmittedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Why it was left out.
    pub reason: String,
}

impl fmt::Display for OmittedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.reason)
    }
}

/// What is wrong with a suite's files.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// There is nothing at the path.
    #[error("no test file or folder at `{0}`")]
    NotFound(PathBuf),
    /// There is something that can't be read to an end.
    #[error("`{path}` is {kind}, not a file or a folder")]
    NotAFile {
        /// Where it lies.
        path: PathBuf,
        /// Such as `a named pipe`.
        kind: &'static str,
    },
    /// There is no Python file.
    #[error("no Python test file in `{0}`")]
    NoTests(PathBuf),
    /// There is too much.
    #[error(
        "`{path}` holds {n_files} files of {}, more than the {} files of {} that fit in the sandbox; \
         its largest parts: {largest}",
        size_text(*n_bytes), limits.n_files, size_text(limits.n_bytes)
    )]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// Files that were counted.
        n_files: usize,
        /// Their bytes.
        n_bytes: u64,
        /// What fits.
        limits: FileLimits,
        /// What takes most of it, such as `data (70.1 MiB in 5 files)`.
        largest: String,
    },
    /// A file can't be read.
    #[error("cannot read `{path}`")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SuiteError {
    pub(in crate::judge) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// A number of bytes for a reader: `512 bytes`, `70.1 MiB`.
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
