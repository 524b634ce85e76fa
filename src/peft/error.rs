//! [`PeftError`]: why a PEFT folder cannot be read or written.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::error_class::ErrorClass;

/// A PEFT folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The folder contains no LoRA adapter, or one with unsupported features.
    #[error("the adapter `{}` cannot be used: {reason}", path.display())]
    Unusable {
        /// Path of the folder.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
}

impl PeftError {
    /// Returns a function that creates a [`Self::Read`] for `path`.
    pub(super) fn read(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Read { path: path.clone(), source }
    }

    /// Returns a function that creates a [`Self::Write`] for `path`.
    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write { path: path.clone(), source }
    }

    /// Returns a function that creates a [`Self::Unusable`] for `path`.
    pub(super) fn unusable(path: &Path) -> impl Fn(String) -> Self + use<> {
        let path = path.to_owned();
        move |reason| Self::Unusable { path: path.clone(), reason }
    }

    /// Returns the class of the error, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::Unusable { .. } => {
                ErrorClass::Environment
            }
        }
    }

    /// Returns the error of the file system that caused it, if any.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Unusable { .. } => None,
        }
    }
}
