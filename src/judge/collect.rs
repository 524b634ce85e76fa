//! Which tests a suite holds, read from its syntax where no solution can lie about it.

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::Program;
use super::suite::Suite;

/// How a file is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// `unittest.TestCase` classes, plain functions beside them.
    Unittest,
    /// `def test_*` and `class Test*` without pytest's fixtures.
    Functions,
    /// Whatever needs the real pytest.
    Pytest,
    /// A script of asserts: one test.
    Asserts,
    /// No tests.
    None,
}

/// A test that has to be reported.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Expected {
    pub(super) id: String,
    /// The suite itself says that it may be skipped, or fails as expected.
    pub(super) optional: bool,
    /// It checks nothing that depends on the solution.
    pub(super) vacuous: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct TestFile {
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) tests: Vec<Expected>,
    /// Top-level modules that it imports.
    pub(super) imports: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Fault {
    path: String,
    line: u32,
    message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Collected {
    pub(super) files: Vec<TestFile>,
    /// Whether the tests only call functions of the solution, with plain values in and out: then the solution can run in
    /// another process.
    pub(super) separable: bool,
    faults: Vec<Fault>,
}

impl Collected {
    pub(super) fn expected(&self) -> impl Iterator<Item = &Expected> {
        self.files.iter().flat_map(|file| &file.tests)
    }

    /// How many canaries the runner plants: one a way of testing, `run.py` and `with_pytest.py`.
    pub(super) fn n_canaries(&self) -> usize {
        let any = |wanted: &[Kind]| self.files.iter().any(|file| wanted.contains(&file.kind));
        usize::from(any(&[Kind::Unittest, Kind::Functions, Kind::Asserts]))
            + usize::from(any(&[Kind::Unittest]))
            + usize::from(any(&[Kind::Pytest]))
    }
}

impl Judge<'_> {
    /// Reads the tests of `suite`, once.
    pub(super) async fn collect<'s>(&self, suite: &'s Suite) -> Result<&'s Collected, JudgeError> {
        suite.collected.get_or_try_init(|| self.read_tests(suite)).await
    }

    async fn read_tests(&self, suite: &Suite) -> Result<Collected, JudgeError> {
        let plan = json!({ "sources": suite.python_paths(), "tests": suite.test_paths() });
        let collected: Collected = self.ask(Program::Collect, suite.files(), &plan).await?;
        match collected.faults.first() {
            None => Ok(collected),
            Some(Fault { path, line, message }) => Err(JudgeError::BrokenTest {
                path: path.clone(),
                line: *line,
                message: message.clone(),
            }),
        }
    }
}
