//! What the judge says: the verdict on a solution and on each test.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

pub use crate::trajectory::Assurance;

/// What a solution came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOutcome {
    /// Every expected test was reported passed, exactly once, on a complete channel.
    Pass,
    /// A check failed.
    Wrong,
    /// The code raised, could not be imported, or its process died.
    Exception,
    /// The processor time ran out.
    CpuLimit,
    /// The clock ran out.
    WallLimit,
    /// The memory cap was reached.
    MemoryLimit,
    /// It wrote without end.
    OutputLimit,
    /// It started more processes and threads than it may.
    ProcessLimit,
    /// The stack was full: it recursed too deeply in compiled code.
    StackLimit,
    /// It returned what is no plain data: only values of exactly the built-in types can be
    /// compared.
    Opaque,
    /// Asked the same again it said something else.
    Flaky,
    /// The suite checks nothing: no tests, none that could fail, or all skipped.
    NoTests,
    /// Every test passed beside the solution, but not with the solution in a process of its own,
    /// and the solution contains a construct that could deceive its tests. The reason names the
    /// construct.
    Unconfirmed(String),
    /// The reports can't be trusted, for this reason: forged or incomplete.
    HarnessVoid(String),
}

impl VerdictOutcome {
    /// The word used in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Wrong => "wrong",
            Self::Exception => "exception",
            Self::CpuLimit => "cpu_limit",
            Self::WallLimit => "wall_limit",
            Self::MemoryLimit => "memory_limit",
            Self::OutputLimit => "output_limit",
            Self::ProcessLimit => "process_limit",
            Self::StackLimit => "stack_limit",
            Self::Opaque => "opaque",
            Self::Flaky => "flaky",
            Self::NoTests => "no_tests",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::HarnessVoid(_) => "harness_void",
        }
    }
}

impl fmt::Display for VerdictOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "passed",
            Self::Wrong => "wrong",
            Self::Exception => "raised an exception",
            Self::CpuLimit => "out of processor time",
            Self::WallLimit => "out of time",
            Self::MemoryLimit => "out of memory",
            Self::OutputLimit => "wrote too much",
            Self::ProcessLimit => "started too many processes or threads",
            Self::StackLimit => "recursed too deeply",
            Self::Opaque => "returned no plain data",
            Self::Flaky => "not the same twice",
            Self::NoTests => "nothing was tested",
            Self::Unconfirmed(reason) => return write!(f, "unconfirmed: {reason}"),
            Self::HarnessVoid(reason) => return write!(f, "void: {reason}"),
        })
    }
}

/// What became of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStatus {
    /// It ran and held.
    Passed,
    /// A check failed.
    Failed,
    /// Something else was raised.
    Error,
    /// It did not run, by its own word.
    Skipped,
    /// It failed, as the suite says it should.
    ExpectedFailure,
    /// Nothing was heard of it.
    Missing,
}

impl TestStatus {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Skipped => "skipped",
            Self::ExpectedFailure => "expected_failure",
            Self::Missing => "missing",
        }
    }
}

/// One test of a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// `file::test`, `file::Class::test`, or the file alone for a script of asserts; pytest's
    /// `[case]` follows.
    pub id: String,
    /// What became of it.
    pub status: TestStatus,
    /// Why it did not pass: assertion with values, or exception; for the model's eyes.
    pub message: String,
    /// Frames of the solution's and the tests' code, innermost last, at most 30 lines.
    pub trace: String,
    /// Wall time of the test in seconds; 0 where it is not known.
    #[serde(default)]
    pub seconds: f64,
}

/// The judge's word on a solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it came to.
    pub outcome: VerdictOutcome,
    /// Where a pass was decided; `None` for any other outcome.
    #[serde(default)]
    pub assurance: Option<Assurance>,
    /// Why a pass is not [`Assurance::Separate`], or what gave a wrong solution away whose tests
    /// all passed; else empty.
    #[serde(default)]
    pub reason: String,
    /// Every test, in the suite's order; those reported before a crash keep their status.
    pub tests: Vec<TestResult>,
    /// Tests that passed.
    pub n_passed: usize,
    /// Tests that had to pass.
    pub n_total: usize,
    /// Processor time of the run.
    pub cpu: Duration,
    /// Time on the clock.
    pub wall: Duration,
    /// The end of standard output.
    pub stdout: String,
    /// The end of standard error.
    pub stderr: String,
}

impl Verdict {
    /// Whether the solution is accepted.
    pub fn passed(&self) -> bool {
        self.outcome == VerdictOutcome::Pass
    }

    /// The part of tests that passed, `0.0..=1.0`; `1.0` only for a pass, `0.0` for a void run.
    pub fn score(&self) -> f64 {
        match self.outcome {
            VerdictOutcome::Pass => 1.0,
            VerdictOutcome::HarnessVoid(_) | VerdictOutcome::NoTests => 0.0,
            _ => {
                let counted = u32::try_from(self.n_passed).unwrap_or(u32::MAX);
                let total = u32::try_from(self.n_total.max(1)).unwrap_or(u32::MAX);
                (f64::from(counted) / f64::from(total)).min(0.99)
            }
        }
    }

    /// Tests that ended so.
    pub fn count(&self, status: TestStatus) -> usize {
        self.tests.iter().filter(|test| test.status == status).count()
    }

    /// As [`Self::reason`], or why there is no verdict that counts.
    pub fn why(&self) -> &str {
        match &self.outcome {
            VerdictOutcome::Unconfirmed(reason) | VerdictOutcome::HarnessVoid(reason) => reason,
            _ => &self.reason,
        }
    }

    /// The first test that did not pass.
    pub fn first_failure(&self) -> Option<&TestResult> {
        self.tests
            .iter()
            .find(|test| !matches!(test.status, TestStatus::Passed | TestStatus::Skipped))
    }

    /// One line, such as `3 of 5 tests passed: wrong (test_x.py::test_two)`.
    pub fn summary(&self) -> String {
        let counts = format!("{} of {} tests passed", self.n_passed, self.n_total);
        match (&self.outcome, self.first_failure()) {
            (VerdictOutcome::Pass, _) => counts,
            (outcome, Some(test)) => format!("{counts}: {outcome} ({})", test.id),
            (outcome, None) => format!("{counts}: {outcome}"),
        }
    }
}
