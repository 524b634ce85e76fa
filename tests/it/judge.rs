//! The judge takes honest solutions and no cheat.

mod cheats;
mod functions;
mod honest;
mod inspection;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rune::judge::Judge;
use rune::judge::Suite;
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

impl Bench {
    fn open() -> Self {
        let sandbox = Sandbox::start(Path::new(env!("CARGO_BIN_EXE_rune"))).unwrap();
        Self { sandbox, interpreter: Interpreter::find(None).unwrap() }
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
        if judge.pytest_version().await.unwrap().is_none() {
            eprintln!(
                "skipped: this Python has no pytest; RUNE_TEST_PYTEST may name a folder with it"
            );
            return None;
        }
        Some(judge)
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
async fn run(judge: &Judge<'_>, suite: &Suite, solution: &str) -> Verdict {
    judge.run_suite(suite, &files(&[("primes.py", solution)])).await.unwrap()
}
