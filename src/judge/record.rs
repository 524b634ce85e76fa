//! What the judge's coordinator says of its processes, a line of JSON each.

use serde::Deserialize;

use super::collected::TestFramework;
use super::verdict::TestStatus;

/// A process of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordAuthor {
    Collector,
    /// Tests and solution together: it may say anything.
    Same,
    Tester,
    Worker,
    Screen,
}

/// A line of the coordinator.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum CoordinatorRecord {
    /// The suite needs pytest, and there is none.
    PytestMissing,
    /// What runs the tests.
    Framework { name: TestFramework },
    /// Tests that were found.
    Collected { who: RecordAuthor, ids: Vec<String> },
    /// Whether these depend on nothing that the solution decides.
    CollectedWhole { whole: bool },
    /// A test begins.
    Begin { who: RecordAuthor, id: String },
    /// A test ended.
    Test {
        who: RecordAuthor,
        id: String,
        status: TestStatus,
        message: String,
        trace: String,
        seconds: f64,
        /// Whether an exception other than a failed check ended it.
        raised: bool,
        /// A limit that the exception stands for.
        limit: String,
    },
    /// All tests were run.
    End { who: RecordAuthor },
    /// What the tests want cannot be had from another process.
    GivenUp { reason: String },
    /// An object of the solution was caught claiming what is not so.
    Lie { reason: String },
    /// A line that is no record.
    Garbled { who: RecordAuthor },
    /// A process ended.
    Ended {
        who: RecordAuthor,
        /// What ended it: `wall`, `cpu`, `output`, `over`; empty when it ended by itself.
        why: String,
        signal: i32,
        code: i32,
        cpu: f64,
        wall: f64,
        stdout: String,
        stderr: String,
    },
    /// Constructs of the solution that could deceive its tests: path, line, what.
    Screen { findings: Vec<(String, u32, String)> },
}

/// Reads the lines. A last line without its end is the trace of a crash and is left out.
/// # Errors
/// What is wrong with a line of a process of ours, in words.
pub(super) fn records(channel: &[u8]) -> Result<Vec<CoordinatorRecord>, String> {
    let mut lines: Vec<&[u8]> = channel.split(|byte| *byte == b'\n').collect();
    lines.pop();
    lines.into_iter().map(record).collect()
}

/// A line whose author may be the solution itself.
#[derive(Deserialize)]
struct SignedLine {
    who: RecordAuthor,
}

fn record(line: &[u8]) -> Result<CoordinatorRecord, String> {
    serde_json::from_slice(line).or_else(|error| match serde_json::from_slice(line) {
        Ok(SignedLine { who: RecordAuthor::Same }) => {
            Ok(CoordinatorRecord::Garbled { who: RecordAuthor::Same })
        }
        _ => Err(format!("{error} in {}", String::from_utf8_lossy(&line[..line.len().min(200)]))),
    })
}
