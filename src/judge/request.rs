//! Judging code that lies on disk by tests that lie on disk.

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

/// Where the user's own packages lie in the jail; a number follows for all but the first.
const LIBRARY: &str = "/opt/lib";
/// Where pytest lies in the jail when Rune brings its own.
const PYTEST: &str = "/opt/pytest";

/// A solution, the tests that decide about it, and how they are run.
#[derive(Debug, Clone)]
pub struct JudgeRequest {
    /// A file, or a folder whose content is put on the path.
    pub solution: PathBuf,
    /// A test file or a folder of them.
    pub tests: PathBuf,
    /// Folders of packages that tests and solution may import.
    pub libs: Vec<PathBuf>,
    /// The Python that runs them; `None` for the first of the search path.
    pub python: Option<PathBuf>,
    /// What one run may use.
    pub limits: Limits,
    /// Where pytest comes from when the tests need it and there is none.
    pub pytest: PytestSource,
}

/// Where pytest is installed to, and by which Python's pip.
#[derive(Debug, Clone)]
pub struct PytestSource {
    /// Rune's home.
    pub home: Home,
    /// The Python whose pip fetches it.
    pub python: PathBuf,
}

/// A verdict, and what the tests had to do without.
#[derive(Debug, Clone)]
pub struct JudgeReport {
    /// The verdict.
    pub verdict: Verdict,
    /// What lies among the tests but could not be brought along.
    pub left_out: Vec<OmittedFile>,
}

impl JudgeRequest {
    /// Reads tests and solution and judges them in `sandbox`.
    /// # Errors
    /// [`RequestError`]: never for what the solution did.
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

    /// The work directory holds the solution, and has to have room for what tests write.
    fn solution_limits(&self) -> FileLimits {
        FileLimits { n_files: 1_000, n_bytes: self.limits.disk_bytes / 2 }
    }
}

/// Whether there is a program at `path`; a bare name is looked for in the search path later.
fn is_there(path: &Path) -> bool {
    path.components().count() == 1 || path.exists()
}

/// Runs `suite` against `solution`; where that takes pytest and there is none, `source` is
/// installed and added to `judge` first.
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

/// The user's own packages, as the jail has them.
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
