//! [`Home`]: the folder for all data of Rune, and its layout.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

/// Rune's home folder, `~/.rune` by default. Subfolders are created when they are first needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// Creates the handle of the home at `folder`; touches no files.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Creates the folder with mode 0700, unless it exists.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Path of the user's configuration file.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Path of the registry database.
    pub fn registry(&self) -> PathBuf {
        self.0.join("rune.db")
    }

    /// Folder of the adapters, one subfolder each.
    pub fn adapters(&self) -> PathBuf {
        self.0.join("adapters")
    }

    /// Folder of the models, one GGUF file each.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// Folder of the Python packages that Rune installs for the judge.
    pub fn python(&self) -> PathBuf {
        self.0.join("python")
    }

    /// Folder of the rehearsal answers, one file per base model.
    pub fn rehearsal(&self) -> PathBuf {
        self.0.join("rehearsal")
    }

    /// Folder of a session's best candidate, solved or not.
    pub fn session(&self, id: &str) -> PathBuf {
        self.0.join("sessions").join(id)
    }

    /// Folder of the task suites, one file each.
    pub fn suites(&self) -> PathBuf {
        self.0.join("suites")
    }

    /// Folder of the unfinished training runs, one subfolder each.
    pub fn training(&self) -> PathBuf {
        self.0.join("training")
    }
}
