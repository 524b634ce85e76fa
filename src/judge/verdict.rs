//! The verdict on a solution, and the result of each test.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

pub use crate::trajectory::Assurance;

/// The outcome of judging a solution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOutcome {
    /// Every expected test was reported as passed, exactly once, on a complete channel.
    Pass,
    /// An assertion of a test failed.
    Wrong,
    /// The code raised an exception, could not be imported, or its process died.
    Exception,
    /// The CPU time limit was reached.
    CpuLimit,
    /// The wall time limit was reached.
    WallLimit,
    /// The memory limit was reached.
    MemoryLimit,
    /// The output limit was reached.
    OutputLimit,
    /// The limit on processes and threads was exceeded.
    ProcessLimit,
    /// The stack overflowed: too deep a recursion in compiled code.
    StackLimit,
    /// The function returned a value that is not plain data. Only values of exactly the built-in
    /// types can be compared.
    Opaque,
    /// The function gave different answers to the same question.
    Flaky,
    /// The suite checks nothing: no tests, none that could fail, or all skipped.
    NoTests,
    /// Every test passed in the process that also holds the solution, but not with the solution in
    /// another process, and the solution contains a construct that could deceive its tests. The
    /// reason names the construct.
    Unconfirmed(String),
    /// The reports are forged or incomplete and cannot be trusted, for this reason.
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
            Self::Opaque => "returned a value that is not plain data",
            Self::Flaky => "gave different answers to the same call",
            Self::NoTests => "nothing was tested",
            Self::Unconfirmed(reason) => return write!(f, "unconfirmed: {reason}"),
            Self::HarnessVoid(reason) => return write!(f, "void: {reason}"),
        })
    }
}

/// The status of a test after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStatus {
    /// The test ran and passed.
    Passed,
    /// An assertion of the test failed.
    Failed,
    /// The test raised another exception.
    Error,
    /// The test skipped itself.
    Skipped,
    /// The test failed, as the suite expects it to.
    ExpectedFailure,
    /// The test was not reported.
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

/// The result of one test of a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// `file::test`, `file::Class::test`, or the file alone for a script of asserts; pytest's
    /// `[case]` follows.
    pub id: String,
    /// Whether the test passed.
    pub status: TestStatus,
    /// Why the test did not pass, in a form to show to the model: the assertion with its values, or
    /// the exception.
    pub message: String,
    /// Frames of the solution's and the tests' code, innermost last, at most 30 lines.
    pub trace: String,
    /// Wall time of the test in seconds; 0 if unknown.
    #[serde(default)]
    pub seconds: f64,
}

/// The verdict on a solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The outcome that decides whether the solution is accepted.
    pub outcome: VerdictOutcome,
    /// Whether a pass was decided in a separate process; `None` for any other outcome.
    #[serde(default)]
    pub assurance: Option<Assurance>,
    /// Why a pass is not [`Assurance::Separate`], or how a wrong solution whose tests all passed
    /// was caught; otherwise empty.
    #[serde(default)]
    pub reason: String,
    /// All tests, in the suite's order. Tests reported before a crash keep their status.
    pub tests: Vec<TestResult>,
    /// Number of tests that passed.
    pub n_passed: usize,
    /// Number of tests that had to pass: all but skipped tests and expected failures.
    pub n_total: usize,
    /// CPU time of the run.
    pub cpu: Duration,
    /// Wall time of the run.
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

    /// The share of tests that passed, `0.0..=1.0`: `1.0` only for a pass, `0.0` for a void run.
    pub fn score(&self) -> f64 {
        match self.outcome {
            VerdictOutcome::Pass => 1.0,
            VerdictOutcome::HarnessVoid(_) | VerdictOutcome::NoTests => 0.0,
            _ => {
                let counted = u32::try_from(self.n_passed).unwrap_or(u32::MAX);
                let total = u32::try_from(self.n_total.max(1)).unwrap_or(u32::MAX);
                // All tests may have passed in a run that is not a pass, such as an unconfirmed
                // one.
                (f64::from(counted) / f64::from(total)).min(0.99)
            }
        }
    }

    /// Number of tests with this status.
    pub fn count(&self, status: TestStatus) -> usize {
        self.tests.iter().filter(|test| test.status == status).count()
    }

    /// The reason of an unconfirmed or void outcome, otherwise [`Self::reason`].
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

    /// Summarizes the verdict in one line, such as `3 of 5 tests passed: wrong
    /// (test_x.py::test_two)`.
    pub fn summary(&self) -> String {
        let counts = format!("{} of {} tests passed", self.n_passed, self.n_total);
        match (&self.outcome, self.first_failure()) {
            // A pass may still have expected failures, which are not worth a mention.
            (VerdictOutcome::Pass, _) => counts,
            (outcome, Some(test)) => format!("{counts}: {outcome} ({})", test.id),
            (outcome, None) => format!("{counts}: {outcome}"),
        }
    }
}
