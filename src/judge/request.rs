//! Judges a solution on disk by tests on disk.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::RequestError;
use super::harness::Judge;
use super::harness::JudgeError;
use super::solution::load_solution;
use super::suite::FileLimits;
use super::suite::OmittedFile;
use super::suite::TestSuite;
use super::verdict::Verdict;
use crate::home::Home;
use crate::hub;
use crate::sandbox::Limits;
use crate::sandbox::Mount;
use crate::sandbox::Sandbox;
use crate::task::SourceFile;

/// Mount point of the user's packages in the jail; a number follows for all but the first folder.
const LIBRARY: &str = "/opt/lib";
/// Mount point of pytest in the jail if it was installed by Rune.
const PYTEST: &str = "/opt/pytest";

/// A solution, its tests, and the environment to run them in.
#[derive(Debug, Clone)]
pub struct JudgeRequest {
    /// A file, or a folder whose content is put on the import path.
    pub solution: PathBuf,
    /// A test file, or a folder of test files.
    pub tests: PathBuf,
    /// Folders of packages that tests and solution may import.
    pub libs: Vec<PathBuf>,
    /// The Python interpreter; `None` for the first on the search path.
    pub python: Option<PathBuf>,
    /// Resource limits of one run.
    pub limits: Limits,
    /// The installation of pytest to use if the interpreter has none.
    pub pytest: PytestSource,
}

/// The place that pytest is installed to, and the Python whose pip installs it.
#[derive(Debug, Clone)]
pub struct PytestSource {
    /// Rune's home, below which pytest is installed.
    pub home: Home,
    /// The Python whose pip downloads it.
    pub python: PathBuf,
}

/// A verdict, and the files that were not available to the tests.
#[derive(Debug, Clone)]
pub struct JudgeReport {
    /// The verdict on the solution.
    pub verdict: Verdict,
    /// Files beside the tests that could not be included.
    pub left_out: Vec<OmittedFile>,
}

impl JudgeRequest {
    /// Reads tests and solution, and judges the solution in `sandbox`.
    /// # Errors
    /// [`RequestError`], never because of what the solution does.
    pub async fn judge(&self, sandbox: &Arc<Sandbox>) -> Result<JudgeReport, RequestError> {
        let mut suite = TestSuite::load(&self.tests)?;
        let solution = load_solution(&self.solution, &mut suite, self.solution_limits())?;
        let libs = library_mounts(&self.libs)?;
        if let Some(python) = self.python.as_ref().filter(|python| !is_there(python)) {
            return Err(RequestError::NoPython(python.clone()));
        }
        let interpreter = sandbox.interpreter(self.python.as_deref())?;
        let mut judge = Judge { limits: self.limits, libs, ..Judge::new(sandbox, &interpreter) };
        let verdict = run_with_pytest(&mut judge, &suite, &solution, &self.pytest).await?;
        Ok(JudgeReport { verdict, left_out: suite.left_out().to_vec() })
    }

    /// Limits on the files of the solution.
    fn solution_limits(&self) -> FileLimits {
        // The work directory has to leave space for what the tests write.
        FileLimits { n_files: 1_000, n_bytes: self.limits.disk_bytes / 2 }
    }
}

/// Whether `path` exists. A bare name is accepted: it is looked up on the search path later.
fn is_there(path: &Path) -> bool {
    path.components().count() == 1 || path.exists()
}

/// Runs `suite` against `solution`. If the suite needs pytest and it is missing, first installs it
/// from `source` and adds it to the libraries of `judge`.
/// # Errors
/// [`RequestError::Judge`], [`RequestError::Hub`].
pub async fn run_with_pytest(
    judge: &mut Judge,
    suite: &TestSuite,
    solution: &[SourceFile],
    source: &PytestSource,
) -> Result<Verdict, RequestError> {
    match judge.run_suite(suite, solution).await {
        Err(JudgeError::PytestMissing) => {
            let PytestSource { home, python } = source.clone();
            // Only on demand: most suites need no pytest, or the interpreter has it.
            let install = move || hub::ensure_pytest(&home, &python);
            let host = match tokio::task::spawn_blocking(install).await {
                Ok(installed) => installed?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            judge.libs.push(Mount { host, jail: PYTEST.into() });
            Ok(judge.run_suite(suite, solution).await?)
        }
        other => Ok(other?),
    }
}

/// Adds the pytest that Rune has installed in `home`, if any, to the libraries of `judge`, unless
/// its interpreter has its own.
/// # Errors
/// [`JudgeError`] when the sandbox fails.
pub async fn mount_installed_pytest(judge: &mut Judge, home: &Home) -> Result<(), JudgeError> {
    if judge.pytest_version().await?.is_none()
        && let Some(host) = hub::pytest_path(home)
    {
        judge.libs.push(Mount { host, jail: PYTEST.into() });
    }
    Ok(())
}

/// Builds the mounts of the user's package folders.
/// # Errors
/// [`RequestError::NoLibrary`].
pub fn library_mounts(folders: &[impl AsRef<Path>]) -> Result<Vec<Mount>, RequestError> {
    let mount = |(index, folder): (usize, &_)| {
        let path = AsRef::<Path>::as_ref(folder);
        let host = std::fs::canonicalize(path)
            .map_err(|source| RequestError::NoLibrary { path: path.to_owned(), source })?;
        let number = if index == 0 { String::new() } else { format!("-{}", index + 1) };
        Ok(Mount { host, jail: format!("{LIBRARY}{number}").into() })
    };
    folders.iter().enumerate().map(mount).collect()
}
