//! Reads a solution from disk and separates it from its tests.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::error::RequestError;
use super::suite::FileCollector;
use super::suite::FileLimits;
use super::suite::SuiteError;
use super::suite::TestSuite;
use super::suite::canonical;
use super::suite::is_python;
use super::suite::is_support;
use crate::task::SourceFile;

/// Reads the solution at `path`, a file or a folder. A file that belongs to both folders is
/// assigned to one: tests and their support files stay in `suite`, other modules are removed from
/// it.
pub(super) fn load_solution(
    path: &Path,
    suite: &mut TestSuite,
    limits: FileLimits,
) -> Result<Vec<SourceFile>, RequestError> {
    let found = fs::metadata(path).map_err(|_| RequestError::NoSolution(path.to_owned()))?;
    let real = canonical(path)?;
    let (folder, mut files) = if found.is_dir() {
        let mut collector = FileCollector::new(&real, []).with_limits(limits);
        collector.add_tree(&real)?;
        (real.clone(), collector)
    } else {
        let absolute = std::path::absolute(path).map_err(|error| SuiteError::io(path, error))?;
        let folder = canonical(absolute.parent().unwrap_or(Path::new("/")))?;
        let mut collector = FileCollector::new(&folder, []).with_limits(limits);
        collector.add_named_file(&folder.join(absolute.file_name().unwrap_or_default()))?;
        (folder, collector)
    };
    // The user may name one folder as both tests and solution, or one inside the other.
    let tests = TestPlaces::of(suite, &folder);
    if found.is_dir() {
        files.keep(|path| !tests.owns(path));
    }
    let (solution, _data_out_of_reach) = files.read()?;
    if solution.is_empty() {
        return Err(RequestError::NoSolution(path.to_owned()));
    }
    suite.drop_files(|file| tests.is_of_solution(file, &real, &solution));
    Ok(solution)
}

/// The places of tests on disk: decides which files belong to the tests.
struct TestPlaces {
    /// The project root of the tests.
    root: Option<PathBuf>,
    /// The folder of the tests, unless the solution is in it as well.
    folder: Option<PathBuf>,
    /// The folder of the tests, whether or not the solution is in it.
    shared: Option<PathBuf>,
    /// Paths of test files relative to the root.
    tests: Vec<String>,
}

impl TestPlaces {
    fn of(suite: &TestSuite, solution: &Path) -> Self {
        let shared = suite.tests_folder();
        Self {
            root: suite.folder().map(Path::to_owned),
            folder: shared.clone().filter(|folder| !solution.starts_with(folder)),
            shared,
            tests: suite.test_paths().into_iter().map(str::to_owned).collect(),
        }
    }

    /// Whether the file at `path` in the solution's folder belongs to the tests alone.
    fn owns(&self, path: &Path) -> bool {
        let name = self.root.as_ref().and_then(|root| path.strip_prefix(root).ok());
        let is_test = name.and_then(Path::to_str).is_some_and(|name| self.is_test(name));
        is_test || self.folder.as_ref().is_some_and(|folder| path.starts_with(folder))
    }

    fn is_test(&self, name: &str) -> bool {
        self.tests.iter().any(|test| test == name) || name.ends_with("conftest.py")
    }

    /// Whether a file of the suite belongs to the solution at `real`, or would shadow one of its
    /// modules.
    fn is_of_solution(&self, file: &SourceFile, real: &Path, solution: &[SourceFile]) -> bool {
        if self.is_test(&file.path) || !is_python(&file.path) {
            return false;
        }
        let Some(root) = &self.root else { return false };
        let path = root.join(&file.path);
        let is_same = path.starts_with(real) && !self.owns(&path);
        // A module beside the tests with the name of a module of the solution: on the import path
        // of the tests it would win.
        let inside = self.shared.as_ref().and_then(|folder| path.strip_prefix(folder).ok());
        let inside = inside.and_then(Path::to_str).filter(|name| !is_support(name));
        let is_hiding = inside.is_some_and(|name| solution.iter().any(|file| file.path == name));
        is_same || is_hiding
    }
}
