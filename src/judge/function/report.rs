//! From answers to a verdict.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use super::check::Check;
use super::check::Question;
use super::check::Sequence;
use super::check::Wanted;
use super::process::Answer;
use crate::judge::conversation::Answers;
use crate::judge::value::Value;
use crate::judge::verdict::Assurance;
use crate::judge::verdict::Outcome;
use crate::judge::verdict::Status;
use crate::judge::verdict::TestResult;
use crate::judge::verdict::Verdict;
use crate::sandbox::Ended;
use crate::sandbox::Exit;

/// Bytes of a value in a message, at most.
const SHOWN: usize = 300;

/// The results of a run so far.
#[derive(Default)]
pub(super) struct Report {
    tests: Vec<TestResult>,
    /// Why values are missing, where it is more than a wrong or raising function.
    cause: Option<Outcome>,
    is_gone: bool,
    is_flaky: bool,
    void: Option<String>,
}

impl Report {
    /// Adds a test: the answer to a question, or the one that ended a check.
    pub(super) fn add(&mut self, id: String, answer: Answer, wanted: Option<&Wanted>) {
        let (status, message) = match answer {
            Answer::Value { value, .. } => match wanted {
                Some(wanted) if !wanted.holds(&value) => {
                    let message = format!("gave {}, wanted {}", Brief(&value), Brief(wanted));
                    (Status::Failed, message)
                }
                _ => (Status::Passed, String::new()),
            },
            Answer::Raised { name, message, place } => {
                return self.raised(id, &name, &message, place);
            }
            Answer::Opaque(kind) if kind.is_empty() => {
                self.opaque("it changed an argument into what is no plain value")
            }
            Answer::Opaque(kind) => self.opaque(&format!("it returned an object of type `{kind}`")),
            // Only a check that is run gets these, and it goes on with them.
            Answer::Iterator(_) | Answer::Packed(_) => self.opaque("it returned an object"),
            Answer::Refused(reason) => {
                self.cause.get_or_insert(Outcome::Opaque);
                (Status::Failed, format!("it sent what is no plain value: {reason}"))
            }
            Answer::Gone => {
                self.is_gone = true;
                (Status::Missing, String::new())
            }
        };
        self.tests.push(test(id, status, message));
    }

    fn raised(&mut self, id: String, name: &str, message: &str, place: String) {
        if name == "MemoryError" {
            self.cause = Some(Outcome::MemoryLimit);
        }
        let message = format!("{name}: {message}");
        self.tests.push(TestResult { trace: place, ..test(id, Status::Error, message) });
    }

    fn opaque(&mut self, what: &str) -> (Status, String) {
        self.cause.get_or_insert(Outcome::Opaque);
        let plain = "only plain values can be compared here (numbers, text, lists, dictionaries)";
        (Status::Failed, format!("{what}, and {plain}"))
    }

    /// Takes the answers to `questions` in the order of `sequence`. Takes time in proportion to their size.
    pub(super) fn compare(
        &mut self,
        questions: &[Question],
        sequence: &Sequence,
        mut answers: Answers<'_>,
    ) {
        let again: HashSet<&usize> = sequence.again.iter().collect();
        let mut first = HashMap::new();
        for index in &sequence.order {
            let answer = Answer::read(answers.next());
            if let Answer::Value { value, .. } = &answer
                && again.contains(index)
            {
                first.insert(index, value.bytes());
            }
            self.add(format!("{}", index + 1), answer, Some(&questions[*index].wanted));
            if self.is_gone {
                return;
            }
        }
        for index in &sequence.again {
            match (Answer::read(answers.next()), first.get(index)) {
                (Answer::Gone, _) => return self.is_gone = true,
                (_, None) => {} // it failed the first time
                (Answer::Value { value, .. }, Some(first)) if value.bytes() == *first => {}
                _ => self.is_flaky = true,
            }
        }
    }

    /// Takes the oracle's last word; `last` is the answer to its last call.
    pub(super) fn conclude(
        &mut self,
        (kind, value): (u8, &Value),
        nonce: &str,
        last: Option<Answer>,
    ) {
        let id = "check".to_owned();
        match (kind, value, last) {
            (b'd', Value::Text(said), _) if said == nonce.as_bytes() => {
                self.tests.push(test(id, Status::Passed, String::new()));
            }
            (b'x', _, Some(raised @ Answer::Raised { .. })) => self.add(id, raised, None),
            (b'f' | b'x', message, _) => {
                self.tests.push(test(id, Status::Failed, message.words()));
            }
            _ => self.void("the check ended without a word".to_owned()),
        }
    }

    /// The check said nothing, for this reason.
    pub(super) fn void(&mut self, reason: String) {
        self.void = Some(reason);
    }

    fn outcome(&mut self, n_passed: usize, n_total: usize, ended: Ended) -> Outcome {
        if let Some(reason) = self.void.take() {
            Outcome::HarnessVoid(reason)
        } else if self.is_gone {
            limit(ended.exit).unwrap_or(Outcome::Exception)
        } else if n_total == 0 {
            Outcome::NoTests
        } else if n_passed == n_total {
            if self.is_flaky { Outcome::Flaky } else { Outcome::Pass }
        } else if let Some(cause) = self.cause.take() {
            cause
        } else if self.tests.iter().any(|test| test.status == Status::Error) {
            Outcome::Exception
        } else {
            Outcome::Wrong
        }
    }

    pub(super) fn verdict(mut self, check: &Check, ended: Ended, cost: Cost) -> Verdict {
        let n_total = check.questions.as_ref().map_or(1, |questions| questions.len());
        let n_passed = self.tests.iter().filter(|test| test.status == Status::Passed).count();
        let n_passed = n_passed.min(n_total);
        let outcome = self.outcome(n_passed, n_total, ended);
        Verdict {
            assurance: (outcome == Outcome::Pass).then_some(Assurance::Separate),
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

/// The time that a run took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
}

fn test(id: String, status: Status, message: String) -> TestResult {
    TestResult { id, status, message, trace: String::new(), seconds: 0.0 }
}

/// The limit that ended a process.
pub(super) fn limit(exit: Exit) -> Option<Outcome> {
    match exit {
        Exit::CpuLimit => Some(Outcome::CpuLimit),
        Exit::WallLimit => Some(Outcome::WallLimit),
        Exit::MemoryLimit => Some(Outcome::MemoryLimit),
        Exit::OutputLimit => Some(Outcome::OutputLimit),
        Exit::ProcessLimit => Some(Outcome::ProcessLimit),
        Exit::StackLimit => Some(Outcome::StackLimit),
        Exit::Code(_) | Exit::Signal(_) => None,
    }
}

/// Shows the beginning of a value. The rest is not even formatted.
struct Brief<'a, T>(&'a T);

impl<T: fmt::Display> fmt::Display for Brief<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut beginning = Beginning(String::new());
        let is_cut = write!(beginning, "{}", self.0).is_err();
        write!(f, "{}{}", beginning.0, if is_cut { "..." } else { "" })
    }
}

/// Takes [`SHOWN`] bytes of text, and an error at the next.
struct Beginning(String);

impl fmt::Write for Beginning {
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
