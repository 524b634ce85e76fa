//! Turns answers into a verdict.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use super::check::CallQuestion;
use super::check::ExpectedResult;
use super::check::PreparedCheck;
use super::check::QuestionOrder;
use super::process::JudgedAnswer;
use crate::judge::conversation::FrameLog;
use crate::judge::value::PlainValue;
use crate::judge::verdict::Assurance;
use crate::judge::verdict::TestResult;
use crate::judge::verdict::TestStatus;
use crate::judge::verdict::Verdict;
use crate::judge::verdict::VerdictOutcome;
use crate::sandbox::ExitKind;
use crate::sandbox::ForkEnd;

/// Maximum bytes of a value in a message.
const SHOWN: usize = 300;

/// The results of a run so far.
#[derive(Default)]
pub(super) struct RunResults {
    tests: Vec<TestResult>,
    /// The outcome, if it is more specific than a wrong or raising function.
    cause: Option<VerdictOutcome>,
    is_gone: bool,
    is_flaky: bool,
    void: Option<String>,
}

impl RunResults {
    /// Adds a test result: for the answer to a question, or for the answer that ended a check.
    pub(super) fn add(
        &mut self,
        id: String,
        answer: JudgedAnswer,
        expected: Option<&ExpectedResult>,
    ) {
        let (status, message) = match answer {
            JudgedAnswer::Value { value, .. } => match expected {
                Some(expected) if !expected.holds(&value) => {
                    let message =
                        format!("gave {}, wanted {}", ShortValue(&value), ShortValue(expected));
                    (TestStatus::Failed, message)
                }
                Some(_) => (TestStatus::Passed, String::new()),
                // Nothing was asked yet: an answer here is forged by code that runs at import.
                None => (TestStatus::Failed, "it answered before it was loaded".to_owned()),
            },
            JudgedAnswer::Raised { name, message, place } => {
                return self.raised(id, &name, &message, place);
            }
            JudgedAnswer::Opaque(kind) if kind.is_empty() => {
                self.opaque("it changed an argument to a value that is not plain data")
            }
            JudgedAnswer::Opaque(kind) => {
                self.opaque(&format!("it returned an object of type `{kind}`"))
            }
            // Sent only to a check that is run, which continues with them; as the answer to a
            // question they are forged.
            JudgedAnswer::Iterator(_) | JudgedAnswer::Packed(_) => {
                self.opaque("it returned an object")
            }
            JudgedAnswer::Refused(reason) => {
                self.cause.get_or_insert(VerdictOutcome::Opaque);
                (TestStatus::Failed, format!("it sent an invalid value: {reason}"))
            }
            JudgedAnswer::Gone => {
                self.is_gone = true;
                (TestStatus::Missing, String::new())
            }
        };
        self.tests.push(test(id, status, message));
    }

    fn raised(&mut self, id: String, name: &str, message: &str, place: String) {
        if name == "MemoryError" {
            self.cause = Some(VerdictOutcome::MemoryLimit);
        }
        let message = format!("{name}: {message}");
        self.tests.push(TestResult { trace: place, ..test(id, TestStatus::Error, message) });
    }

    fn opaque(&mut self, what: &str) -> (TestStatus, String) {
        self.cause.get_or_insert(VerdictOutcome::Opaque);
        let plain = "only plain values can be compared here (numbers, text, lists, dictionaries)";
        (TestStatus::Failed, format!("{what}, and {plain}"))
    }

    /// Compares `answers` with the expected results of `questions`, asked in the order of
    /// `sequence`. Takes time proportional to their size.
    pub(super) fn compare(
        &mut self,
        questions: &[CallQuestion],
        sequence: &QuestionOrder,
        mut answers: FrameLog<'_>,
    ) {
        let again: HashSet<&usize> = sequence.again.iter().collect();
        let mut first = HashMap::new();
        for index in &sequence.order {
            let answer = JudgedAnswer::read(answers.next());
            if let JudgedAnswer::Value { value, .. } = &answer
                && again.contains(index)
            {
                first.insert(index, value.bytes());
            }
            self.add(format!("{}", index + 1), answer, Some(&questions[*index].expected));
            // Without this all further questions would count as missing one by one.
            if self.is_gone {
                return;
            }
        }
        for index in &sequence.again {
            match (JudgedAnswer::read(answers.next()), first.get(index)) {
                (JudgedAnswer::Gone, _) => return self.is_gone = true,
                (_, None) => {} // it gave no value the first time
                // Bytes are compared, not values: `1` and then `True` are different answers.
                (JudgedAnswer::Value { value, .. }, Some(first)) if value.bytes() == *first => {}
                _ => self.is_flaky = true,
            }
        }
    }

    /// Records the final frame of the oracle; `last` is the answer to its last call.
    pub(super) fn conclude(
        &mut self,
        (kind, value): (u8, &PlainValue),
        nonce: &str,
        last: Option<JudgedAnswer>,
    ) {
        let id = "check".to_owned();
        match (kind, value, last) {
            (b'd', PlainValue::Text(proof), _) if proof == nonce.as_bytes() => {
                self.tests.push(test(id, TestStatus::Passed, String::new()));
            }
            // The check did not catch the exception of the judged code, which explains more.
            (b'x', _, Some(raised @ JudgedAnswer::Raised { .. })) => self.add(id, raised, None),
            (b'f' | b'x', message, _) => {
                self.tests.push(test(id, TestStatus::Failed, message.words()));
            }
            _ => self.void("the check ended without a result".to_owned()),
        }
    }

    /// Marks the run as void, for this reason.
    pub(super) fn void(&mut self, reason: String) {
        self.void = Some(reason);
    }

    /// Decides the outcome: first by what makes the results meaningless, last by single tests.
    fn outcome(&mut self, n_passed: usize, n_total: usize, ended: ForkEnd) -> VerdictOutcome {
        if let Some(reason) = self.void.take() {
            VerdictOutcome::HarnessVoid(reason)
        } else if self.is_gone {
            limit(ended.exit).unwrap_or(VerdictOutcome::Exception)
        } else if n_total == 0 {
            VerdictOutcome::NoTests
        } else if n_passed == n_total {
            if self.is_flaky { VerdictOutcome::Flaky } else { VerdictOutcome::Pass }
        } else if let Some(cause) = self.cause.take() {
            cause
        } else if self.tests.iter().any(|test| test.status == TestStatus::Error) {
            VerdictOutcome::Exception
        } else {
            VerdictOutcome::Wrong
        }
    }

    pub(super) fn verdict(
        mut self,
        check: &PreparedCheck,
        ended: ForkEnd,
        cost: RunTime,
    ) -> Verdict {
        let n_total = check.questions.as_ref().map_or(1, |questions| questions.len());
        let n_passed = self.tests.iter().filter(|test| test.status == TestStatus::Passed).count();
        // Forged frames could report more.
        let n_passed = n_passed.min(n_total);
        let outcome = self.outcome(n_passed, n_total, ended);
        Verdict {
            assurance: (outcome == VerdictOutcome::Pass).then_some(Assurance::Separate),
            reason: String::new(),
            outcome,
            tests: self.tests,
            n_passed,
            n_total,
            cpu: cost.cpu,
            wall: cost.wall,
            stdout: String::new(),
            stderr: String::new(),
        }
    }
}

/// CPU and wall time of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunTime {
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
}

fn test(id: String, status: TestStatus, message: String) -> TestResult {
    TestResult { id, status, message, trace: String::new(), seconds: 0.0 }
}

/// Returns the outcome if a limit ended the process.
pub(super) fn limit(exit: ExitKind) -> Option<VerdictOutcome> {
    match exit {
        ExitKind::CpuLimit => Some(VerdictOutcome::CpuLimit),
        ExitKind::WallLimit => Some(VerdictOutcome::WallLimit),
        ExitKind::MemoryLimit => Some(VerdictOutcome::MemoryLimit),
        ExitKind::OutputLimit => Some(VerdictOutcome::OutputLimit),
        ExitKind::ProcessLimit => Some(VerdictOutcome::ProcessLimit),
        ExitKind::StackLimit => Some(VerdictOutcome::StackLimit),
        ExitKind::Code(_) | ExitKind::Signal(_) => None,
    }
}

/// Formats the beginning of a value; the rest is not even formatted.
struct ShortValue<'a, T>(&'a T);

impl<T: fmt::Display> fmt::Display for ShortValue<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut beginning = LimitedWriter(String::new());
        let is_cut = write!(beginning, "{}", self.0).is_err();
        write!(f, "{}{}", beginning.0, if is_cut { "..." } else { "" })
    }
}

/// Accepts [`SHOWN`] bytes of text and fails at the next, which stops the formatting.
struct LimitedWriter(String);

impl fmt::Write for LimitedWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = SHOWN - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Err(fmt::Error)
    }
}
