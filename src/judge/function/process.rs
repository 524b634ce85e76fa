//! A forked process, the conversation with it, and its answers.

use super::FunctionJudge;
use crate::judge::conversation;
use crate::judge::conversation::Received;
use crate::judge::value::Value;
use crate::sandbox::Ended;
use crate::sandbox::Forked;
use crate::sandbox::Limits;
use crate::sandbox::SandboxError;

/// Exceptions that end a loop of the check, or the check itself, without a word: `zip(map(candidate, inputs), outputs)`
/// is over at the first `StopIteration`. They never reach the check.
const ENDINGS: [&str; 5] =
    ["StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt"];

/// A forked process and the conversation with it.
pub(super) struct Process {
    forked: Forked,
}

impl Process {
    pub(super) async fn fork(
        judge: &FunctionJudge,
        program: &str,
        limits: &Limits,
    ) -> Result<Self, SandboxError> {
        Ok(Self { forked: judge.zygote.fork(program, limits).await? })
    }

    pub(super) async fn send(&mut self, kind: u8, value: &Value) {
        if let Ok(stream) = self.forked.stream() {
            conversation::send(stream, kind, value).await;
        }
    }

    pub(super) async fn receive(&mut self) -> Option<Received> {
        conversation::receive(self.forked.stream().ok()?).await
    }

    /// Sends a frame and reads the answer.
    pub(super) async fn ask(&mut self, kind: u8, value: &Value) -> Answer {
        self.send(kind, value).await;
        Answer::read(self.receive().await)
    }

    /// Ends the conversation, by which the process ends, and tells how it did.
    pub(super) async fn end(mut self) -> Result<Ended, SandboxError> {
        self.forked.ended().await
    }
}

/// What the process with the judged code answered.
pub(super) enum Answer {
    Value {
        value: Value,
        changed: Value,
    },
    /// A value of which parts are of standard types without a plain form, such as `Decimal`; see `pack` in `frames.py`.
    Packed(Value),
    /// An iterator, which stays in the process: its number, by which the check asks for the next item, and the
    /// arguments that the call has changed.
    Iterator(Value),
    Raised {
        name: String,
        message: String,
        place: String,
    },
    /// A value that is not plain data, of this type; no type where such stands in a changed argument.
    Opaque(String),
    /// Bytes that are no value, for this reason.
    Refused(&'static str),
    /// Nothing: the process has ended, or sent what no program of ours sends.
    Gone,
}

impl Answer {
    pub(super) fn read(received: Option<Received>) -> Self {
        match received {
            Some(Received::Frame(kind, value)) => Self::parse(kind, value).unwrap_or(Self::Gone),
            Some(Received::Refused(reason)) => Self::Refused(reason),
            None => Self::Gone,
        }
    }

    fn parse(kind: u8, value: Value) -> Option<Self> {
        match (kind, value) {
            (b'v', Value::Tuple(parts)) => {
                let [value, changed] = <[Value; 2]>::try_from(parts).ok()?;
                Some(Self::Value { value, changed })
            }
            (b'p', value) => Some(Self::Packed(value)),
            (b'i', Value::Tuple(parts)) => {
                let [number @ Value::Int(_), changed] = <[Value; 2]>::try_from(parts).ok()? else {
                    return None;
                };
                Some(Self::Iterator(Value::Tuple(vec![number, changed])))
            }
            (b'e', Value::Tuple(parts)) => {
                let [name, message, place] = <[Value; 3]>::try_from(parts).ok()?;
                let (name, message, place) = (name.words(), message.words(), place.words());
                Some(Self::Raised { name, message, place })
            }
            (b'o', kind) => Some(Self::Opaque(kind.words())),
            _ => None,
        }
    }

    /// The frame for the oracle; `None` where the check must not go on.
    pub(super) fn frame(&self) -> Option<(u8, Value)> {
        match self {
            Self::Value { value, changed } => {
                Some((b'v', Value::Tuple(vec![value.clone(), changed.clone()])))
            }
            Self::Packed(value) => Some((b'p', value.clone())),
            Self::Iterator(iterator) => Some((b'i', iterator.clone())),
            Self::Raised { name, .. } if ENDINGS.contains(&name.as_str()) => None,
            Self::Raised { name, message, .. } => {
                Some((b'e', Value::Tuple([name, message].map(|text| Value::text(text)).into())))
            }
            Self::Opaque(_) | Self::Refused(_) | Self::Gone => None,
        }
    }
}
