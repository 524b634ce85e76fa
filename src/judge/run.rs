//! Runs a suite against a solution.

use serde_json::Value;
use serde_json::json;
use tokio::net::UnixStream;

use super::channel;
use super::channel::Key;
use super::channel::Record;
use super::collect::Collected;
use super::collect::Kind;
use super::conversation::Conversation;
use super::decide::Evidence;
use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::Program;
use super::harness::random;
use super::suite::Suite;
use super::suite::is_python;
use super::verdict::Outcome;
use super::verdict::Verdict;
use crate::sandbox::Job;
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
        let verdict = Evidence { collected, records, canary: &canary, run: &run }.decide();
        if verdict.passed() && collected.separable && !self.shares_a_library(collected) {
            let apart = self.run_apart(suite, collected, solution).await?;
            return Ok(apart.filter(|apart| !apart.passed()).unwrap_or(verdict));
        }
        Ok(verdict)
    }

    /// Whether the tests import one of the libraries that the solution may import as well: in two processes each would
    /// have its own.
    fn shares_a_library(&self, collected: &Collected) -> bool {
        collected.files.iter().flat_map(|file| &file.imports).any(|name| self.provides(name))
    }

    /// Runs `suite` once more, with the solution in a process of its own of which the tests get plain data only; `None`
    /// where they turn out to want more.
    async fn run_apart(
        &self,
        suite: &Suite,
        collected: &Collected,
        solution: &[SourceFile],
    ) -> Result<Option<Verdict>, JudgeError> {
        let key: Key = random()?;
        let canary = channel::hex(&random::<12>()?);
        let mut plan = self.plan(suite, collected, &key, &canary);
        plan["apart"] = json!(true);
        let stand_ins: Vec<SourceFile> = solution.iter().map(stand_in).collect();
        let job = self.job(Program::Run, (suite.files(), &stand_ins), &plan);
        let (run, tests) = self.sandbox.converse(&job).await?;
        let libs = json!({ "libs": self.lib_paths() });
        let server = Job { channel: false, ..self.job(Program::Serve, (&[], solution), &libs) };
        let (_killed_at_the_end, solution) = self.sandbox.converse(&server).await?;
        let (run, ()) = tokio::join!(run.outcome(), relay(tests, solution));
        let run = run?;
        let records = channel::read(&key, &run.channel);
        let is_inseparable = |records: &Vec<Record>| {
            records.iter().any(|record| matches!(record, Record::Inseparable))
        };
        if records.as_ref().is_ok_and(is_inseparable) {
            return Ok(None);
        }
        Ok(Some(Evidence { collected, records, canary: &canary, run: &run }.decide()))
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
            "apart": false,
        })
    }
}

/// What the tests import in the place of a file of the solution.
fn stand_in(file: &SourceFile) -> SourceFile {
    if !is_python(&file.path) {
        return file.clone();
    }
    let text = "import rune_apart\n\nrune_apart.stand_in(__name__, globals())\n";
    SourceFile::new(file.path.clone(), text)
}

/// Carries questions of the tests to the process with the solution and its answers back, until one of them ends. What
/// comes from there is decoded and encoded anew: only plain data reaches the tests.
async fn relay(tests: UnixStream, solution: UnixStream) {
    let (mut tests, mut solution) = (Conversation::new(tests), Conversation::new(solution));
    while let Some((kind, question)) = tests.receive().await {
        solution.send(kind, &question).await;
        let Some((kind, answer)) = solution.receive().await else { return };
        tests.send(kind, &answer).await;
    }
}
