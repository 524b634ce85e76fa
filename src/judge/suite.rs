//! A user's tests as files.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use tokio::sync::OnceCell;

use super::collect::Collected;
use crate::task::SourceFile;

/// The most files of a suite.
const MAX_FILES: usize = 500;
/// The most bytes of a suite; the jail's read-only folder holds it in memory.
const MAX_BYTES: u64 = 4 << 20;

/// What is wrong with a suite's files.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// There is nothing at the path.
    #[error("no test file or folder at `{0}`")]
    NotFound(PathBuf),
    /// A test file is not text.
    #[error("`{0}` is not UTF-8")]
    NotUtf8(PathBuf),
    /// There is no Python file.
    #[error("no Python test file in `{0}`")]
    NoTests(PathBuf),
    /// There is too much.
    #[error("`{0}` holds more than {MAX_FILES} files or {MAX_BYTES} bytes")]
    TooLarge(PathBuf),
    /// A file can't be read.
    #[error("cannot read `{path}`")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Test files with their helpers. Which tests they hold is found out once, at the first run.
#[derive(Debug, Clone, Default)]
pub struct Suite {
    files: Vec<SourceFile>,
    left_out: Vec<PathBuf>,
    pub(super) collected: OnceCell<Collected>,
}

impl Suite {
    /// A suite of `files`: those named `test_*.py` or `*_test.py` hold the tests, or all Python files where
    /// none is so named; the others are carried along.
    pub fn new(files: Vec<SourceFile>) -> Self {
        Self { files, ..Self::default() }
    }

    /// Reads a test file (with the `conftest.py` beside it), or a folder of them with all below it.
    /// # Errors
    /// [`SuiteError`], each variant as it says.
    pub fn load(path: &Path) -> Result<Self, SuiteError> {
        let kind = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SuiteError::NotFound(path.to_owned()),
            _ => io_error(path, error),
        })?;
        let (root, mut paths) = if kind.is_dir() {
            (path, Vec::new())
        } else {
            (path.parent().unwrap_or(Path::new("")), beside(path))
        };
        if kind.is_dir() {
            walk(path, &mut paths)?;
        }
        let suite = Self::read(root, &paths)?;
        if suite.test_paths().is_empty() {
            Err(SuiteError::NoTests(path.to_owned()))
        } else {
            Ok(suite)
        }
    }

    fn read(root: &Path, paths: &[PathBuf]) -> Result<Self, SuiteError> {
        let (mut files, mut left_out, mut n_bytes) = (Vec::new(), Vec::new(), 0);
        for path in paths {
            n_bytes += fs::metadata(path).map_err(|error| io_error(path, error))?.len();
            if n_bytes > MAX_BYTES {
                return Err(SuiteError::TooLarge(root.to_owned()));
            }
            let bytes = fs::read(path).map_err(|error| io_error(path, error))?;
            let name = path.strip_prefix(root).unwrap_or(path).to_str();
            match (name, String::from_utf8(bytes)) {
                (Some(name), Ok(text)) => files.push(SourceFile::new(name, text)),
                _ if is_python(path) => return Err(SuiteError::NotUtf8(path.clone())),
                _ => left_out.push(path.clone()),
            }
        }
        Ok(Self { files, left_out, ..Self::default() })
    }

    /// All files, helpers and data included.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Data files that are not text and so were not carried along.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Paths of the files that hold the tests.
    pub(super) fn test_paths(&self) -> Vec<&str> {
        let python =
            || self.files.iter().map(|file| file.path.as_str()).filter(|path| is_python(path));
        let named: Vec<&str> = python().filter(|path| is_test_name(path)).collect();
        if named.is_empty() { python().filter(|path| !is_support(path)).collect() } else { named }
    }

    /// Paths of all Python files.
    pub(super) fn python_paths(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.path.as_str()).filter(|path| is_python(path)).collect()
    }
}

fn io_error(path: &Path, source: io::Error) -> SuiteError {
    SuiteError::Io { path: path.to_owned(), source }
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

fn is_support(path: &str) -> bool {
    matches!(file_name(path), "conftest.py" | "__init__.py")
}

/// The file itself and its `conftest.py`.
fn beside(path: &Path) -> Vec<PathBuf> {
    let conftest = path.with_file_name("conftest.py");
    let mut paths = vec![path.to_owned()];
    if conftest != path && conftest.is_file() {
        paths.push(conftest);
    }
    paths
}

/// Adds the files below `folder`, sorted; hidden folders, caches and symbolic links are passed over.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), SuiteError> {
    let entries = fs::read_dir(folder).map_err(|error| io_error(folder, error))?;
    let mut entries =
        entries.collect::<Result<Vec<_>, _>>().map_err(|error| io_error(folder, error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| io_error(&path, error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || matches!(&*name, "__pycache__" | "node_modules" | "venv") {
            continue;
        }
        if kind.is_dir() {
            walk(&path, paths)?;
        } else if kind.is_file() {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(SuiteError::TooLarge(folder.to_owned()));
        }
    }
    Ok(())
}
