//! The judge accepts honest solutions and no cheats.

mod cases;
mod cheats;
mod functions;
mod honest;
mod inspection;
mod screen;

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use rune::home::Home;
use rune::judge::Judge;
use rune::judge::TestSuite;
use rune::judge::Verdict;
use rune::sandbox::Interpreter;
use rune::sandbox::Limits;
use rune::sandbox::Mount;
use rune::sandbox::Sandbox;
use rune::task::SourceFile;

/// A sandbox and an interpreter for one test.
struct Bench {
    sandbox: Arc<Sandbox>,
    interpreter: Arc<Interpreter>,
}

/// Variable that is set if tests have to run without namespaces.
pub(super) const BARE: &str = "RUNE_TEST_BARE";

/// Variable with the path of the Python to judge with, if it is not the one on `PATH`.
const OTHER_PYTHON: &str = "RUNE_TEST_PYTHON";

/// The sandbox of this machine, or one without namespaces.
fn sandbox() -> Arc<Sandbox> {
    let binary = crate::sandbox::binary();
    if std::env::var_os(BARE).is_some() {
        Arc::new(Sandbox::without_namespaces(&binary).unwrap())
    } else {
        Arc::new(Sandbox::start(&binary).unwrap())
    }
}

fn interpreter(sandbox: &Sandbox) -> Arc<Interpreter> {
    let other = std::env::var_os(OTHER_PYTHON).map(PathBuf::from);
    sandbox.interpreter(other.as_deref()).unwrap()
}

#[test]
fn verdicts_are_the_same_without_namespaces() {
    if std::env::var_os(BARE).is_some() || std::env::var_os(OTHER_PYTHON).is_some() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["judge::", "--test-threads=2"]).env(BARE, "1").output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("no_cheat_passes_questions ... ok"), "{stdout}");
}

/// Commands of the Python versions that Rune supports.
const PYTHONS: [&str; 5] = ["python3.9", "python3.10", "python3.11", "python3.12", "python3.13"];

/// Lists the supported Pythons of this machine: on `PATH`, and installed by pyenv.
fn pythons() -> Vec<PathBuf> {
    let pyenv = std::env::home_dir().unwrap().join(".pyenv/versions");
    let versions = fs::read_dir(pyenv).into_iter().flatten().map(|entry| entry.unwrap().path());
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::env::split_paths(&path).chain(versions.map(|folder| folder.join("bin")));
    // A pyenv shim exists even for versions that are not selected here.
    let folders: Vec<PathBuf> = folders.filter(|folder| !folder.ends_with("shims")).collect();
    let found = |name| folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    PYTHONS.into_iter().filter_map(found).collect()
}

#[test]
fn verdicts_are_the_same_on_every_supported_python() {
    if std::env::var_os(BARE).is_some() || std::env::var_os(OTHER_PYTHON).is_some() {
        return;
    }
    for python in pythons() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "judge::honest",
            "judge::inspection",
            "judge::functions",
            "--test-threads=2",
        ]);
        let output = command.env(OTHER_PYTHON, &python).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {stdout}", python.display());
        assert!(stdout.contains("pytest_suites_run_with_the_real_pytest ... ok"), "{stdout}");
    }
}

impl Bench {
    fn open() -> Self {
        let sandbox = sandbox();
        let interpreter = interpreter(&sandbox);
        Self { sandbox, interpreter }
    }

    fn judge(&self) -> Judge {
        let limits = Limits {
            cpu: Duration::from_secs(2),
            wall: Duration::from_secs(20),
            ..Limits::default()
        };
        Judge { limits, ..Judge::new(&self.sandbox, &self.interpreter) }
    }

    /// A judge with the pytest that `rune judge` has installed in Rune's home.
    fn judge_with_pytest(&self) -> Judge {
        let mut judge = self.judge();
        let mut host = pytest();
        if !self.sandbox.can_show(&host) {
            host = shown_to_all(&host);
        }
        judge.libs.push(Mount { jail: host.clone(), host });
        judge
    }
}

/// Variable with the path of a folder with pytest that every user may read.
pub(super) const PYTEST: &str = "TESTS_OF_RUNE_PYTEST";

/// The folder with pytest that the README's test command has installed.
fn pytest() -> PathBuf {
    if let Some(folder) = std::env::var_os(PYTEST) {
        return folder.into();
    }
    let home = std::env::home_dir().unwrap().join(".rune");
    rune::hub::pytest_path(&Home::new(home))
        .expect("the README's command for the tests fetches pytest")
}

/// As [`pytest`], where every user may read it.
pub(super) fn pytest_for_all() -> PathBuf {
    shown_to_all(&pytest())
}

/// A copy that every user may read: without namespaces, root's programs run as another user.
fn shown_to_all(folder: &Path) -> PathBuf {
    static COPY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let copy = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir();
        let copy = copy.unwrap();
        let done = Command::new("cp").arg("-rL").arg(folder.join(".")).arg(copy.path()).status();
        assert!(done.unwrap().success());
        copy
    });
    copy.path().to_owned()
}

/// Creates files from pairs of path and text.
fn files(parts: &[(&str, &str)]) -> Vec<SourceFile> {
    parts.iter().map(|(path, text)| SourceFile::new(*path, *text)).collect()
}

/// Formats the outcome, then each test with its status and message.
fn show(verdict: &Verdict) -> String {
    let mut shown = verdict.summary();
    for test in &verdict.tests {
        let message = test.message.replace('\n', " | ");
        shown += format!("\n{} {:?} {message}", test.id, test.status).trim_end();
    }
    shown
}

/// Judges one solution file `primes.py`.
async fn run(judge: &Judge, suite: &TestSuite, solution: &str) -> Verdict {
    judge.run_suite(suite, &files(&[("primes.py", solution)])).await.unwrap()
}
