//! Records of the judge's coordinator about its processes: one line of JSON each.

use serde::Deserialize;

use super::collected::TestFramework;
use super::verdict::TestStatus;

/// The process that a record is about. The coordinator sets it, so it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordAuthor {
    Collector,
    /// Tests and solution together: its records may be forged.
    Same,
    Tester,
    Worker,
    Screen,
}

/// One record of the coordinator.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum CoordinatorRecord {
    /// The suite needs pytest, which is not installed.
    PytestMissing,
    /// The framework that runs the tests.
    Framework { name: TestFramework },
    /// Ids of collected tests.
    Collected { who: RecordAuthor, ids: Vec<String> },
    /// Whether the collected tests are independent of the solution.
    CollectedWhole { whole: bool },
    /// The start of a test.
    Begin { who: RecordAuthor, id: String },
    /// The end of a test.
    Test {
        who: RecordAuthor,
        id: String,
        status: TestStatus,
        message: String,
        trace: String,
        seconds: f64,
        /// Whether an exception other than a failed assertion ended it.
        raised: bool,
        /// The limit that the exception indicates: `memory`, `processes`, or empty.
        limit: String,
    },
    /// The process has run all tests.
    End { who: RecordAuthor },
    /// The tests need something that remote objects cannot provide.
    GivenUp { reason: String },
    /// An object of the solution was caught in a false claim about itself.
    Lie { reason: String },
    /// A line that is not a valid record.
    Garbled { who: RecordAuthor },
    /// The end of a process.
    Ended {
        who: RecordAuthor,
        /// The reason for which it was killed: `wall`, `cpu`, `output`, `over`; empty if it ended
        /// by itself.
        why: String,
        signal: i32,
        code: i32,
        cpu: f64,
        wall: f64,
        stdout: String,
        stderr: String,
    },
    /// Constructs of the solution that could deceive its tests: path, line, description.
    Screen { findings: Vec<(String, u32, String)> },
}

/// Parses all records. Ignores an incomplete last line, which a crash leaves behind.
/// # Errors
/// A description of the first invalid line from a process that holds no judged code.
pub(super) fn records(channel: &[u8]) -> Result<Vec<CoordinatorRecord>, String> {
    let mut lines: Vec<&[u8]> = channel.split(|byte| *byte == b'\n').collect();
    // Empty if the last line is complete.
    lines.pop();
    lines.into_iter().map(record).collect()
}

/// The author of a line whose other fields are invalid.
#[derive(Deserialize)]
struct SignedLine {
    who: RecordAuthor,
}

fn record(line: &[u8]) -> Result<CoordinatorRecord, String> {
    // The solution can write anything in the name of `same`; from any other process an invalid
    // record is a bug of ours.
    serde_json::from_slice(line).or_else(|error| match serde_json::from_slice(line) {
        Ok(SignedLine { who: RecordAuthor::Same }) => {
            Ok(CoordinatorRecord::Garbled { who: RecordAuthor::Same })
        }
        _ => Err(format!("{error} in {}", String::from_utf8_lossy(&line[..line.len().min(200)]))),
    })
}
