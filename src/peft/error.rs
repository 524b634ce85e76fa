//! Why an adapter's folder can't be read or written.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::error_class::ErrorClass;

/// An adapter's folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// A file can't be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file or folder can't be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The folder holds no LoRA adapter, or one that Rune would not compute as PEFT does.
    #[error("the adapter `{}` cannot be used: {reason}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl PeftError {
    /// Names the file that can't be read.
    pub(super) fn read(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Read { path: path.clone(), source }
    }

    /// Names the file that can't be written.
    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write { path: path.clone(), source }
    }

    /// Names the folder that is refused.
    pub(super) fn unusable(path: &Path) -> impl Fn(String) -> Self + use<> {
        let path = path.to_owned();
        move |reason| Self::Unusable { path: path.clone(), reason }
    }

    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::Unusable { .. } => {
                ErrorClass::Environment
            }
        }
    }

    /// The error of the file system behind it, if that is the cause.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Unusable { .. } => None,
        }
    }
}
