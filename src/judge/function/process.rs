//! A forked process, the conversation with it, and its answers.

use super::FunctionJudge;
use crate::judge::conversation;
use crate::judge::conversation::ReceivedFrame;
use crate::judge::value::PlainValue;
use crate::sandbox::ForkEnd;
use crate::sandbox::ForkedProcess;
use crate::sandbox::Limits;
use crate::sandbox::SandboxError;

/// Exceptions that silently end a loop of the check, or the check itself:
/// `zip(map(candidate, inputs), outputs)` ends at the first `StopIteration`. They are never
/// forwarded to the check.
const ENDINGS: [&str; 5] =
    ["StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt"];

/// A forked process and the conversation with it.
pub(super) struct JudgedProcess {
    forked: ForkedProcess,
}

impl JudgedProcess {
    pub(super) async fn fork(
        judge: &FunctionJudge,
        program: &str,
        limits: &Limits,
    ) -> Result<Self, SandboxError> {
        Ok(Self { forked: judge.zygote.fork(program, limits).await? })
    }

    pub(super) async fn send(&mut self, kind: u8, value: &PlainValue) {
        if let Ok(stream) = self.forked.stream() {
            conversation::send(stream, kind, value).await;
        }
    }

    pub(super) async fn receive(&mut self) -> Option<ReceivedFrame> {
        conversation::receive(self.forked.stream().ok()?).await
    }

    /// Sends a frame and reads the answer.
    pub(super) async fn ask(&mut self, kind: u8, value: &PlainValue) -> JudgedAnswer {
        self.send(kind, value).await;
        JudgedAnswer::read(self.receive().await)
    }

    /// Closes the conversation, which makes the process exit, and returns how it ended.
    pub(super) async fn end(mut self) -> Result<ForkEnd, SandboxError> {
        self.forked.ended().await
    }
}

/// An answer of the process with the judged code.
pub(super) enum JudgedAnswer {
    /// The result, and the arguments if the call has changed them.
    Value { value: PlainValue, changed: PlainValue },
    /// A value with parts of standard types that have no plain form, such as `Decimal`; see `pack`
    /// in `frames.py`.
    Packed(PlainValue),
    /// An iterator, which stays in the process: its number, by which the check asks for the next
    /// item, and the arguments that the call has changed.
    Iterator(PlainValue),
    Raised {
        name: String,
        message: String,
        /// Frames of the solution, innermost last.
        place: String,
    },
    /// A value of this type, which is not plain data. The type is empty if the value is part of a
    /// changed argument.
    Opaque(String),
    /// Bytes that are not a valid value, for this reason.
    Refused(&'static str),
    /// No answer: the process has ended, or has sent something that no program of ours sends.
    Gone,
}

impl JudgedAnswer {
    pub(super) fn read(received: Option<ReceivedFrame>) -> Self {
        match received {
            Some(ReceivedFrame::Frame(kind, value)) => {
                Self::parse(kind, value).unwrap_or(Self::Gone)
            }
            Some(ReceivedFrame::Refused(reason)) => Self::Refused(reason),
            None => Self::Gone,
        }
    }

    fn parse(kind: u8, value: PlainValue) -> Option<Self> {
        // The kinds are those that `candidate.py` sends. Judged code can send any frame itself, so
        // no form is taken for granted.
        match (kind, value) {
            (b'v', PlainValue::Tuple(parts)) => {
                let [value, changed] = <[PlainValue; 2]>::try_from(parts).ok()?;
                Some(Self::Value { value, changed })
            }
            (b'p', value) => Some(Self::Packed(value)),
            (b'i', PlainValue::Tuple(parts)) => {
                let [number @ PlainValue::Int(_), changed] =
                    <[PlainValue; 2]>::try_from(parts).ok()?
                else {
                    return None;
                };
                Some(Self::Iterator(PlainValue::Tuple(vec![number, changed])))
            }
            (b'e', PlainValue::Tuple(parts)) => {
                let [name, message, place] = <[PlainValue; 3]>::try_from(parts).ok()?;
                let (name, message, place) = (name.words(), message.words(), place.words());
                Some(Self::Raised { name, message, place })
            }
            (b'o', kind) => Some(Self::Opaque(kind.words())),
            _ => None,
        }
    }

    /// Returns the frame for the oracle; `None` if the check must not continue.
    pub(super) fn frame(&self) -> Option<(u8, PlainValue)> {
        match self {
            Self::Value { value, changed } => {
                Some((b'v', PlainValue::Tuple(vec![value.clone(), changed.clone()])))
            }
            Self::Packed(value) => Some((b'p', value.clone())),
            Self::Iterator(iterator) => Some((b'i', iterator.clone())),
            Self::Raised { name, .. } if ENDINGS.contains(&name.as_str()) => None,
            // The check may expect the exception. The place stays out: it is only for people.
            Self::Raised { name, message, .. } => Some((
                b'e',
                PlainValue::Tuple([name, message].map(|text| PlainValue::text(text)).into()),
            )),
            Self::Opaque(_) | Self::Refused(_) | Self::Gone => None,
        }
    }
}
