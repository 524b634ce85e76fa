//! Runs a suite against a solution.
//!
//! ```text
//!            fails                 not confirmed, screen clean
//! same run ---------> failed    +--------------------------------> passed, same process
//!     | passes                  |
//!     v               not all   |  not confirmed, screen not clean
//! tester + worker --------------+--------------------------------> unconfirmed
//!     | all pass there too
//!     v
//! passed, separate
//! ```

use serde_json::Value;
use serde_json::json;

use super::collect::modules_of;
use super::collected::TestFramework;
use super::decide::Evidence;
use super::harness::CoordinatorMode;
use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::JudgeProgram;
use super::record::CoordinatorRecord;
use super::record::records;
use super::suite::TestSuite;
use super::verdict::Verdict;
use super::verdict::VerdictOutcome;
use crate::sandbox;
use crate::sandbox::ExecRequest;
use crate::sandbox::Limits;
use crate::sandbox::MemoryCap;
use crate::sandbox::NESTED_JAIL;
use crate::sandbox::NestedJail;
use crate::task::SourceFile;

/// How many times as long as the first run the confirmation may take: every call goes from process
/// to process there.
const APART: u32 = 4;

/// Addresses for the stacks and heaps of threads, beside what a process may reserve itself.
const THREADS: u64 = 16 << 30;
/// Memory of the coordinator itself, with a test framework loaded.
const OWN_MEMORY: u64 = 256 << 20;

impl Judge {
    /// Runs `suite` against `solution`, whose files lie in the work directory beside the tests'.
    /// # Errors
    /// [`JudgeError`]: never for what the solution did.
    pub async fn run_suite(
        &self,
        suite: &TestSuite,
        solution: &[SourceFile],
    ) -> Result<Verdict, JudgeError> {
        let framework = match Self::known_framework(suite) {
            Some(framework) => framework,
            None => self.collect(suite, solution).await?.framework,
        };
        let run = self.coordinate(CoordinatorMode::Judge, suite, solution, framework).await?;
        let records =
            records(&run.channel).map_err(|message| JudgeError::broken(&run, &message))?;
        if matches!(records.first(), Some(CoordinatorRecord::PytestMissing)) {
            return Err(JudgeError::PytestMissing);
        }
        let mut evidence = Evidence::new(&records, &run);
        // A run that broke off, or never began, says what it got to; what there is to run, the
        // suite says.
        if !evidence.is_whole() || evidence.has_broken_file() {
            let collected = self.collect(suite, solution).await?;
            evidence.expect(&collected.ids, collected.is_whole);
        }
        Ok(evidence.decide())
    }

    /// Whether `suite` is worthless because it passes on a stub of `solution`, which does nothing.
    /// # Errors
    /// [`JudgeError`].
    pub async fn passes_on_a_stub(
        &self,
        suite: &TestSuite,
        solution: &[SourceFile],
    ) -> Result<bool, JudgeError> {
        for kind in super::StubKind::ALL {
            let stub = self.stub_of(solution, kind).await?;
            let verdict = self.run_suite(suite, &stub).await?;
            if verdict.passed() || verdict.outcome == VerdictOutcome::NoTests {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs the coordinator; see `python/coordinator.py`.
    pub(super) async fn coordinate(
        &self,
        mode: CoordinatorMode,
        suite: &TestSuite,
        solution: &[SourceFile],
        framework: TestFramework,
    ) -> Result<sandbox::ExecOutcome, JudgeError> {
        let plan = self.coordinator_plan(mode, suite, solution, framework)?;
        let mut job = self.job(JudgeProgram::Coordinator, (suite.files(), &[]), &plan);
        job.inputs.push(("rune/jail.py".to_owned(), NESTED_JAIL.into()));
        let files =
            solution.iter().map(|file| (format!("solution/{}", file.path), file.bytes().to_vec()));
        job.inputs.extend(files);
        job.limits = self.limits_of_all(&job);
        Ok(self.sandbox.run_nesting(&job).await?)
    }

    /// What all processes of one judgement may use together: two runs one after the other, and what
    /// is copied.
    fn limits_of_all(&self, job: &ExecRequest) -> Limits {
        let n_bytes: usize = job.inputs.iter().map(|(_, content)| content.len() + 4096).sum();
        let n_bytes = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        let n_files = u32::try_from(4 * job.inputs.len()).unwrap_or(u32::MAX);
        Limits {
            files: self.limits.files.saturating_add(n_files),
            cpu: (2 + 2 * APART) * self.limits.cpu,
            wall: (2 + APART) * self.limits.wall,
            memory_bytes: self.limits.memory_bytes.saturating_add(OWN_MEMORY),
            address_bytes: self.limits.address_bytes.saturating_add(OWN_MEMORY + THREADS),
            disk_bytes: (2 * self.limits.disk_bytes).saturating_add(4 * n_bytes),
            processes: self.limits.processes.saturating_add(16),
            ..self.limits
        }
    }

    fn coordinator_plan(
        &self,
        mode: CoordinatorMode,
        suite: &TestSuite,
        solution: &[SourceFile],
        framework: TestFramework,
    ) -> Result<Value, JudgeError> {
        let facilities = self.sandbox.facilities();
        let jail = NestedJail {
            memory_is_counted: facilities.memory_cap != MemoryCap::Watchdog,
            has_loopback: true,
            files: 1024,
        };
        let mounts = self.mounts();
        let targets = match framework {
            TestFramework::Pytest => suite.targets().iter().map(String::as_str).collect(),
            TestFramework::Auto
            | TestFramework::Unittest
            | TestFramework::Functions
            | TestFramework::Script => suite.test_paths(),
        };
        let files: Vec<&str> = suite.files().iter().map(|file| file.path.as_str()).collect();
        let constructs: Value = serde_json::from_str(include_str!("python/screen.json"))
            .map_err(|error| JudgeError::Random(error.into()))?;
        Ok(json!({
            "mode": mode,
            "framework": framework,
            "targets": targets,
            "files": files,
            "own": modules_of(suite.files()),
            "solution": modules_of(solution),
            "libs": self.lib_paths(),
            "shown": mounts.iter().map(|mount| &mount.jail).collect::<Vec<_>>(),
            "constructs": constructs,
            "jail": jail.plan(facilities, &mounts)?,
            "limits": {
                // Stacks and heaps of threads are reserved, not used; what is used is capped for
                // all together.
                "cpu": self.limits.cpu.as_secs_f64(),
                "wall": self.limits.wall.as_secs_f64(),
                "apart": APART,
                "address_bytes": self.limits.address_bytes.saturating_add(THREADS),
                "disk_bytes": self.limits.disk_bytes.max(4096),
                "file_bytes": self.limits.file_bytes,
                "output_bytes": self.limits.output_bytes,
                "processes": self.limits.processes,
            },
        }))
    }
}
