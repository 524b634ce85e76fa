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

    /// The user's configuration file.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The registry database (SQLite).
    pub fn registry(&self) -> PathBuf {
        self.0.join("rune.db")
    }

    /// Adapters, one folder each.
    pub fn adapters(&self) -> PathBuf {
        self.0.join("adapters")
    }

    /// Models, one GGUF file each.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// Python packages that Rune installs for the judge.
    pub fn python(&self) -> PathBuf {
        self.0.join("python")
    }

    /// Rehearsal answers, one file per base model.
    pub fn rehearsal(&self) -> PathBuf {
        self.0.join("rehearsal")
    }

    /// The best candidate of a session, solved or not.
    pub fn session(&self, id: &str) -> PathBuf {
        self.0.join("sessions").join(id)
    }

    /// Adapters in the format of model servers, one file each.
    pub fn served(&self) -> PathBuf {
        self.0.join("served")
    }

    /// Task suites, one file each.
    pub fn suites(&self) -> PathBuf {
        self.0.join("suites")
    }

    /// Locked by the process that evolves adapters.
    pub fn evolve_lock(&self) -> PathBuf {
        self.0.join("evolve.lock")
    }

    /// Locked by the process that runs a swarm.
    pub fn swarm_lock(&self) -> PathBuf {
        self.0.join("swarm.lock")
    }

    /// The tasks, solutions and report of a swarm.
    pub fn swarm(&self, id: &str) -> PathBuf {
        self.0.join("swarm").join(id)
    }

    /// Unfinished training runs, one folder each.
    pub fn training(&self) -> PathBuf {
        self.0.join("training")
    }
}
