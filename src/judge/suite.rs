//! A user's tests as files, with everything that they need to run.
//!
//! ```text
//! project root      nearest folder with a pytest configuration, setup.py or .git
//! ├── pytest.ini    included, as is every conftest.py and __init__.py on the way down
//! └── tests         the target of the test framework: included whole, or a single file with
//!     ├── test_a.py     the modules that it imports, and the data files of its folder
//!     └── cases.json
//! ```

mod collector;
mod data;
mod error;
mod imports;
mod limits;
mod load;
mod reach;
mod root;

use std::path::Path;
use std::path::PathBuf;

use tokio::sync::OnceCell;

pub(super) use collector::FileCollector;
pub(super) use collector::canonical;
pub use error::OmittedFile;
pub use error::SuiteError;
pub use imports::needed_modules;
pub use limits::FileLimits;

use super::collected::CollectedTests;
use crate::task::SourceFile;
use crate::task::Task;

/// Test files with their helpers and data. The tests in them are collected once, when they are
/// first needed.
///
/// ```
/// use rune::judge::TestSuite;
/// use rune::task::SourceFile;
///
/// let file = |path| SourceFile::new(path, "");
/// let suite = TestSuite::new(vec![file("test_cart.py"), file("helpers.py"), file("cases.json")]);
/// assert_eq!(suite.targets(), ["test_cart.py"]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TestSuite {
    files: Vec<SourceFile>,
    targets: Vec<String>,
    left_out: Vec<OmittedFile>,
    /// The project root, if the files were loaded from disk.
    folder: Option<PathBuf>,
    pub(super) collected: OnceCell<CollectedTests>,
}

impl TestSuite {
    /// Creates a suite of `files`. Those named `test_*.py`, `*_test.py`, `test.py` or `tests.py`
    /// hold the tests, or all Python files if there are none; the others are support files.
    pub fn new(files: Vec<SourceFile>) -> Self {
        let targets = tests_among(files.iter().map(|file| file.path.as_str()));
        let targets = targets.into_iter().map(str::to_owned).collect();
        Self::with_targets(files, targets)
    }

    /// Creates a suite of `files`, of which the test framework runs `targets`: paths of files or
    /// folders.
    pub fn with_targets(files: Vec<SourceFile>, targets: Vec<String>) -> Self {
        Self { files, targets, ..Self::default() }
    }

    /// Creates the suite that accepts solutions of `task`; `None` if it has no tests.
    pub fn of_task(task: &Task) -> Option<Self> {
        let files = || task.tests.clone();
        match (task.tests.is_empty(), task.test_targets.is_empty()) {
            (true, _) => None,
            (false, true) => Some(Self::new(files())),
            (false, false) => Some(Self::with_targets(files(), task.test_targets.clone())),
        }
    }

    /// All files by their paths relative to the project root, helpers and data included.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The paths of files or folders that the test framework runs; `.` is the project root.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Files beside the tests that could not be included.
    pub fn left_out(&self) -> &[OmittedFile] {
        &self.left_out
    }

    /// The project root, if the files were loaded from disk.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The folder on disk that contains the first target, or that is the first target.
    pub(super) fn tests_folder(&self) -> Option<PathBuf> {
        let target = self.folder.as_ref()?.join(self.targets.first()?);
        let folder = if target.is_dir() { target.as_path() } else { target.parent()? };
        folder.canonicalize().ok()
    }

    /// Removes the files for which `is_dropped` holds.
    pub fn drop_files(&mut self, is_dropped: impl Fn(&SourceFile) -> bool) {
        self.files.retain(|file| !is_dropped(file));
        // Other files may hold other tests.
        self.collected = OnceCell::new();
    }

    /// Returns the files and targets, which are the parts that a task stores.
    pub fn into_parts(self) -> (Vec<SourceFile>, Vec<String>) {
        (self.files, self.targets)
    }

    /// Whether no test file contains a function, a class or an assertion, so that there is nothing
    /// to run, whatever the solution.
    pub fn is_blank(&self) -> bool {
        let tests = self.test_paths();
        let mut files = self.files.iter().filter(|file| tests.contains(&file.path.as_str()));
        // A textual test can only err on the safe side: a word in a comment makes the suite run.
        let words: [&[u8]; 3] = [b"assert", b"def ", b"class "];
        let has = |file: &SourceFile, word: &[u8]| {
            file.bytes().windows(word.len()).any(|found| found == word)
        };
        files.all(|file| !words.iter().any(|word| has(file, word)))
    }

    /// Paths of the files that hold the tests: the targets themselves, and the test files below
    /// targets that are folders.
    pub fn test_paths(&self) -> Vec<&str> {
        let of_target = |target: &String| {
            let inside = self.files.iter().map(|file| file.path.as_str());
            match self.files.iter().find(|file| file.path == *target) {
                Some(file) => vec![file.path.as_str()],
                None => tests_among(inside.filter(|path| lies_below(path, target))),
            }
        };
        let mut paths: Vec<&str> = Vec::new();
        for path in self.targets.iter().flat_map(of_target) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }
}

/// Whether `path` is below the folder `target`.
fn lies_below(path: &str, target: &str) -> bool {
    target == "."
        || path.strip_prefix(target.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// Selects the paths with names of test files; if there are none, all Python files that are not
/// support files.
fn tests_among<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let python: Vec<&str> = paths.filter(|path| is_python(path)).collect();
    let named: Vec<&str> = python.iter().copied().filter(|path| is_test_name(path)).collect();
    if named.is_empty() {
        python.into_iter().filter(|path| !is_support(path)).collect()
    } else {
        named
    }
}

pub(super) fn is_python(path: impl AsRef<Path>) -> bool {
    path.as_ref().extension().is_some_and(|extension| extension == "py")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_test_name(path: &str) -> bool {
    let name = file_name(path);
    name.starts_with("test_")
        || name.ends_with("_test.py")
        || name == "test.py"
        || name == "tests.py"
}

pub(super) fn is_support(path: &str) -> bool {
    matches!(file_name(path), "conftest.py" | "__init__.py")
}
