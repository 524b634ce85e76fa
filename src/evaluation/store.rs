//! Stored suites.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::durable;
use crate::home::Home;
use crate::registry::Registry;

use super::error::EvaluationError;
use super::families;
use super::sessions::session_suite;
use super::suite::TaskSuite;
use super::task::EvalTask;
use super::task::SESSIONS_SUITE;

/// Suites in Rune's home: `suites/<name>.jsonl`, which are never changed.
#[derive(Debug)]
pub struct SuiteStore {
    folder: PathBuf,
}

impl SuiteStore {
    /// Opens the folder `suites` of `home`.
    ///
    /// # Errors
    /// [`EvaluationError::Files`] if the folder cannot be created.
    pub fn open(home: &Home) -> Result<Self, EvaluationError> {
        let folder = home.suites();
        fs::create_dir_all(&folder).map_err(files(&folder))?;
        Ok(Self { folder })
    }

    /// Stores tasks as the suite `name`, with near-duplicates joined into families.
    ///
    /// # Errors
    /// [`EvaluationError::SuiteExists`]; [`EvaluationError::BadName`]; [`EvaluationError::Files`].
    pub fn add(
        &self,
        name: &str,
        (license, source): (&str, &str),
        mut tasks: Vec<EvalTask>,
    ) -> Result<TaskSuite, EvaluationError> {
        let path = self.path(name)?;
        families::join(&mut tasks);
        let suite = TaskSuite::new(name, tasks).with_origin(license, source);
        match durable::create(&path, suite.to_lines().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(EvaluationError::SuiteExists(name.to_owned()))
            }
            written => written.map(|()| suite).map_err(files(&path)),
        }
    }

    /// Finds a stored suite by name, reads the file at a path that ends in `.jsonl`, or builds the
    /// suite `sessions` of `project`. Any other suite that was measured before must have the same
    /// tasks as then.
    ///
    /// # Errors
    /// [`EvaluationError::Changed`]; those of [`Self::read`] and [`session_suite`].
    pub fn find(
        &self,
        (registry, project): (&Registry, &str),
        name: &Path,
    ) -> Result<TaskSuite, EvaluationError> {
        if name == Path::new(SESSIONS_SUITE) {
            return Ok(session_suite(registry, project)?);
        }
        let is_file = name.extension().is_some_and(|extension| extension == "jsonl");
        let suite =
            if is_file { TaskSuite::read(name)? } else { self.read(&name.to_string_lossy())? };
        match registry.measured_suite(&suite.name)? {
            Some(digest) if digest != suite.digest => Err(EvaluationError::Changed(suite.name)),
            _ => Ok(suite),
        }
    }

    /// Reads the stored suite `name`.
    ///
    /// # Errors
    /// [`EvaluationError::NoSuite`]; those of [`TaskSuite::read`].
    pub fn read(&self, name: &str) -> Result<TaskSuite, EvaluationError> {
        let path = self.path(name)?;
        if !path.exists() {
            return Err(EvaluationError::NoSuite(name.to_owned()));
        }
        TaskSuite::read(&path)
    }

    /// Lists the names of all stored suites, sorted.
    ///
    /// # Errors
    /// [`EvaluationError::Files`].
    pub fn names(&self) -> Result<Vec<String>, EvaluationError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(files(&self.folder))? {
            let name = entry.map_err(files(&self.folder))?.file_name();
            names.extend(name.to_string_lossy().strip_suffix(".jsonl").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> Result<PathBuf, EvaluationError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        let is_reserved = name == SESSIONS_SUITE || name.is_empty() || name.starts_with('.');
        let is_good = name.chars().all(is_plain) && !is_reserved;
        if is_good {
            Ok(self.folder.join(format!("{name}.jsonl")))
        } else {
            Err(EvaluationError::BadName(name.to_owned()))
        }
    }
}

fn files(path: &Path) -> impl FnOnce(io::Error) -> EvaluationError {
    let path = path.to_owned();
    move |source| EvaluationError::Files { path, source }
}
