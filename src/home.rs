//! [`Home`]: the folder in which Rune keeps everything, and what lies where in it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

/// Rune's home, `~/.rune` unless another is named. Nothing here is made before it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The home in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Makes the folder, readable by its owner alone, unless it is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The user's settings.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The registry's database.
    pub fn registry(&self) -> PathBuf {
        self.0.join("rune.db")
    }

    /// Adapters, a folder each.
    pub fn adapters(&self) -> PathBuf {
        self.0.join("adapters")
    }

    /// Models, a GGUF file each.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// Python packages that Rune fetches for the judge.
    pub fn python(&self) -> PathBuf {
        self.0.join("python")
    }

    /// The base's own answers that training rehearses, a file for each base.
    pub fn rehearsal(&self) -> PathBuf {
        self.0.join("rehearsal")
    }

    /// What a session left: its files, solved or not.
    pub fn session(&self, id: &str) -> PathBuf {
        self.0.join("sessions").join(id)
    }

    /// Suites of tasks, a file each.
    pub fn suites(&self) -> PathBuf {
        self.0.join("suites")
    }

    /// Training runs that have no adapter yet, a folder each.
    pub fn training(&self) -> PathBuf {
        self.0.join("training")
    }
}
