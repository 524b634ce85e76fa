//! The judge takes honest solutions and no cheat.

mod cheats;
mod functions;
mod honest;
mod inspection;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rune::judge::Judge;
use rune::judge::TestSuite;
use rune::judge::Verdict;
use rune::sandbox::Interpreter;
use rune::sandbox::Limits;
use rune::sandbox::Mount;
use rune::sandbox::Sandbox;
use rune::task::SourceFile;

/// A sandbox and an interpreter, for the length of one test.
struct Bench {
    sandbox: Sandbox,
    interpreter: Interpreter,
}

/// Says that a test shall do without namespaces.
pub(super) const BARE: &str = "RUNE_TEST_BARE";

/// The sandbox of this machine, or one without namespaces.
fn sandbox() -> Sandbox {
    let binary = crate::sandbox::binary();
    if std::env::var_os(BARE).is_some() {
        Sandbox::without_namespaces(&binary).unwrap()
    } else {
        Sandbox::start(&binary).unwrap()
    }
}

#[test]
fn the_judge_is_the_same_without_namespaces() {
    if std::env::var_os(BARE).is_some() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["judge::", "--test-threads=2"]).env(BARE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("no_cheat_passes_questions ... ok"), "{said}");
}

impl Bench {
    fn open() -> Self {
        let sandbox = sandbox();
        let interpreter = sandbox.interpreter(None).unwrap();
        Self { sandbox, interpreter }
    }

    fn judge(&self) -> Judge<'_> {
        let limits = Limits {
            cpu: Duration::from_secs(2),
            wall: Duration::from_secs(20),
            ..Limits::default()
        };
        Judge { limits, ..Judge::new(&self.sandbox, &self.interpreter) }
    }

    /// A judge with the pytest that `RUNE_TEST_PYTEST` (a folder of packages) names, or the interpreter's
    /// own; `None`, with a word on why, when there is none.
    async fn judge_with_pytest(&self) -> Option<Judge<'_>> {
        let mut judge = self.judge();
        if let Some(folder) = option_env!("RUNE_TEST_PYTEST") {
            let folder = PathBuf::from(folder);
            judge.libs.push(Mount { host: folder.clone(), jail: folder });
        }
        let is_shown = judge.libs.iter().all(|lib| self.sandbox.can_show(&lib.host));
        if is_shown && judge.pytest_version().await.unwrap().is_some() {
            return Some(judge);
        }
        eprintln!(
            "skipped: no pytest to be shown here; RUNE_TEST_PYTEST may name a folder with it"
        );
        None
    }
}

/// Files from `(path, text)`.
fn files(parts: &[(&str, &str)]) -> Vec<SourceFile> {
    parts.iter().map(|(path, text)| SourceFile::new(*path, *text)).collect()
}

/// Outcome, then each test with its status and message.
fn show(verdict: &Verdict) -> String {
    let mut shown = verdict.summary();
    for test in &verdict.tests {
        let message = test.message.replace('\n', " | ");
        shown += format!("\n{} {:?} {message}", test.id, test.status).trim_end();
    }
    shown
}

/// Judges one solution file `primes.py`.
async fn run(judge: &Judge<'_>, suite: &TestSuite, solution: &str) -> Verdict {
    judge.run_suite(suite, &files(&[("primes.py", solution)])).await.unwrap()
}
