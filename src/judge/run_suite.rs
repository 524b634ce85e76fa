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

/// The confirming run may take this many times as long as the first: every call crosses from one
/// process to another there.
const APART: u32 = 4;

/// Additional address space for the stacks and heaps of threads, in bytes.
const THREADS: u64 = 16 << 30;
/// Memory of the coordinator itself with a test framework loaded, in bytes.
const OWN_MEMORY: u64 = 256 << 20;

impl Judge {
    /// Runs `suite` against `solution`. The files of both are put into the work directory.
    /// # Errors
    /// [`JudgeError`], never because of what the solution does.
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
        // A run that was interrupted, or never started, reports only some of the tests. The rest is
        // known from a collection without the solution.
        if !evidence.is_whole() || evidence.has_broken_file() {
            let collected = self.collect(suite, solution).await?;
            evidence.expect(&collected.ids, collected.is_whole);
        }
        Ok(evidence.decide())
    }

    /// Whether `suite` is useless, because it passes on a stub of `solution` or tests nothing.
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

    /// Limits of all processes of one verdict together: two runs one after the other, and the
    /// copies of their files.
    fn limits_of_all(&self, job: &ExecRequest) -> Limits {
        // Up to four processes have a copy of every file; a file takes at most a page more than its
        // content.
        let n_bytes: usize = job.inputs.iter().map(|(_, content)| content.len() + 4096).sum();
        let n_bytes = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        let n_files = u32::try_from(4 * job.inputs.len()).unwrap_or(u32::MAX);
        Limits {
            files: self.limits.files.saturating_add(n_files),
            // `same`, `screen`, and tester and worker side by side.
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
        // pytest finds the files below its targets itself; the other runners are given each file.
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
                // Address space for threads is reserved, not used. The memory that is used is
                // capped for all processes together.
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
