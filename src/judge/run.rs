//! Runs a suite against a solution.

use serde_json::Value;
use serde_json::json;

use super::channel;
use super::channel::Key;
use super::channel::Record;
use super::collect::Collected;
use super::collect::Kind;
use super::decide::Evidence;
use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::Program;
use super::harness::random;
use super::suite::Suite;
use super::verdict::Outcome;
use super::verdict::Verdict;
use crate::task::SourceFile;

impl Judge<'_> {
    /// Runs `suite` against `solution`, whose files lie in the work directory. Two runs of Python the first
    /// time a suite is seen, one after that. A suite that checks nothing is not run.
    /// # Errors
    /// [`JudgeError`]: never for what the solution did.
    pub async fn run_suite(
        &self,
        suite: &Suite,
        solution: &[SourceFile],
    ) -> Result<Verdict, JudgeError> {
        let collected = self.collect(suite).await?;
        if collected.expected().all(|test| test.vacuous) {
            return Ok(Verdict::of_nothing());
        }
        let key: Key = random()?;
        let canary = channel::hex(&random::<12>()?);
        let plan = self.plan(suite, collected, &key, &canary);
        let run = self.start(Program::Run, (suite.files(), solution), &plan).await?;
        let records = channel::read(&key, &run.channel);
        if let Ok([Record::PytestMissing]) = records.as_deref() {
            return Err(JudgeError::PytestMissing);
        }
        Ok(Evidence { collected, records, canary: &canary, run: &run }.decide())
    }

    /// Whether `suite` is worthless because it passes on a stub of `solution`, which does nothing.
    /// # Errors
    /// [`JudgeError`].
    pub async fn passes_on_a_stub(
        &self,
        suite: &Suite,
        solution: &[SourceFile],
    ) -> Result<bool, JudgeError> {
        for kind in super::StubKind::ALL {
            let stub = self.stub_of(solution, kind).await?;
            let verdict = self.run_suite(suite, &stub).await?;
            if verdict.passed() || verdict.outcome == Outcome::NoTests {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn plan(&self, suite: &Suite, collected: &Collected, key: &Key, canary: &str) -> Value {
        let files = collected.files.iter().filter(|file| file.kind != Kind::None);
        let files: Vec<Value> = files
            .map(|file| {
                let ids: Vec<&str> = file.tests.iter().map(|test| test.id.as_str()).collect();
                json!({ "path": file.path, "kind": file.kind, "ids": ids, "imports": file.imports })
            })
            .collect();
        json!({
            "key": channel::hex(key),
            "canary": canary,
            "files": files,
            "sources": suite.python_paths(),
            "libs": self.lib_paths(),
        })
    }
}
