//! Test collection: the framework of a suite and the ids of its tests, determined without the
//! solution.

use serde_json::Value;

use super::collected::CollectedTests;
use super::collected::TestFramework;
use super::harness::CoordinatorMode;
use super::harness::Judge;
use super::harness::JudgeError;
use super::record::CoordinatorRecord;
use super::record::records;
use super::suite::TestSuite;
use super::suite::is_python;
use crate::task::SourceFile;

/// Files that may configure pytest.
const CONFIGURATIONS: &[&str] =
    &["conftest.py", "pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml"];

/// Whether the files themselves show that the suite is for pytest.
fn names_pytest(suite: &TestSuite) -> bool {
    suite.files().iter().any(|file| {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let is_configuration = match name {
            "conftest.py" | "pytest.ini" => true,
            // The other files configure many tools.
            _ => CONFIGURATIONS.contains(&name) && file.text.contains("pytest"),
        };
        is_configuration || (is_python(&file.path) && imports_pytest(&file.text))
    })
}

fn imports_pytest(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        let rest = line.strip_prefix("import ").or_else(|| line.strip_prefix("from "));
        rest.is_some_and(|rest| rest.starts_with("pytest"))
    })
}

impl Judge {
    /// Returns the framework of `suite` if its files show it or it has been collected before.
    pub(super) fn known_framework(suite: &TestSuite) -> Option<TestFramework> {
        match suite.collected.get() {
            Some(collected) => Some(collected.framework),
            None => names_pytest(suite).then_some(TestFramework::Pytest),
        }
    }

    /// Collects the tests of `suite`, once per suite. The module names of `solution` are replaced
    /// by stand-ins during the collection.
    /// # Errors
    /// [`JudgeError::PytestMissing`], [`JudgeError::BrokenTest`], and those of the sandbox.
    pub(super) async fn collect<'s>(
        &self,
        suite: &'s TestSuite,
        solution: &[SourceFile],
    ) -> Result<&'s CollectedTests, JudgeError> {
        suite.collected.get_or_try_init(|| self.find_tests(suite, solution)).await
    }

    async fn find_tests(
        &self,
        suite: &TestSuite,
        solution: &[SourceFile],
    ) -> Result<CollectedTests, JudgeError> {
        let hint = Self::known_framework(suite).unwrap_or(TestFramework::Auto);
        let collected = self.find_tests_by(suite, solution, hint).await?;
        // The first pass did not load pytest, and only pytest itself knows the ids of its tests.
        if hint == TestFramework::Auto && collected.framework == TestFramework::Pytest {
            return self.find_tests_by(suite, solution, TestFramework::Pytest).await;
        }
        Ok(collected)
    }

    async fn find_tests_by(
        &self,
        suite: &TestSuite,
        solution: &[SourceFile],
        framework: TestFramework,
    ) -> Result<CollectedTests, JudgeError> {
        let run = self.coordinate(CoordinatorMode::Collect, suite, solution, framework).await?;
        let mut collected = CollectedTests { framework, ids: Vec::new(), is_whole: false };
        let mut stderr_tail = String::new();
        for record in records(&run.channel).map_err(|message| JudgeError::broken(&run, &message))? {
            match record {
                CoordinatorRecord::PytestMissing => return Err(JudgeError::PytestMissing),
                CoordinatorRecord::Framework { name } => collected.framework = name,
                CoordinatorRecord::Collected { ids, .. } => collected.ids.extend(ids),
                CoordinatorRecord::CollectedWhole { whole } => collected.is_whole = whole,
                CoordinatorRecord::Test { id, message, .. } => broken_test(suite, &id, &message)?,
                CoordinatorRecord::Ended { stderr, .. } => stderr_tail = stderr,
                // Nothing else is of interest here: no test was run.
                _ => {}
            }
        }
        if collected.framework == TestFramework::Auto {
            let message = format!("no test framework was detected: {stderr_tail}");
            return Err(JudgeError::broken(&run, &message));
        }
        Ok(collected)
    }
}

/// Returns [`JudgeError::BrokenTest`] if `message` reports a syntax error in a test file.
fn broken_test(suite: &TestSuite, id: &str, message: &str) -> Result<(), JudgeError> {
    // Any other failure may be due to the missing solution, and is no fault of the suite.
    let is_syntax = message.contains("SyntaxError: ") || message.contains("IndentationError: ");
    let path = suite.files().iter().map(|file| &file.path).find(|path| id.starts_with(*path));
    let Some(path) = path.filter(|_| is_syntax) else { return Ok(()) };
    // Both traceback and pytest write `File "...", line 3`, then the code and `SyntaxError: ...`.
    let line = message
        .split("line ")
        .nth(1)
        .and_then(|rest| rest.split(|found: char| !found.is_ascii_digit()).next()?.parse().ok());
    let last = message.lines().last().unwrap_or(message).trim();
    let message = last.split_once("Error: ").map_or(last, |(_, rest)| rest).to_owned();
    Err(JudgeError::BrokenTest { path: path.clone(), line: line.unwrap_or(0), message })
}

/// Lists the top-level names of the modules among `files`, sorted, for the coordinator's plan.
pub(super) fn modules_of(files: &[SourceFile]) -> Vec<Value> {
    let mut names: Vec<&str> = files
        .iter()
        .filter(|file| is_python(&file.path))
        .map(|file| {
            let top = file.path.split('/').next().unwrap_or(&file.path);
            top.strip_suffix(".py").unwrap_or(top)
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(Value::from).collect()
}
