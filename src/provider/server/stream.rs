//! [`ChatStream`]: reads a streamed chat completion.

use serde::Deserialize;
use serde_json::Value;

use crate::trajectory::FinishReason;

/// Maximum bytes of one line.
const MAX_LINE: usize = 1 << 20;

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// The stream has ended before the answer has.
    #[error("the answer is cut off")]
    CutOff,
    /// A line is not what was expected.
    #[error("a line of the answer cannot be read: `{0}`")]
    BadLine(String),
    /// The server has reported an error in the middle.
    #[error("the server failed while answering: {0}")]
    Failed(String),
    /// The server has given up the request.
    #[error("the server has aborted the answer (`{0}`)")]
    Aborted(String),
    /// The answer has no text.
    #[error("the answer is empty")]
    Empty,
}

/// Numbers of tokens, as the server counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) struct TokenUsage {
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
}

/// The state of a streamed answer. Bytes go in as they arrive, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct ChatStream {
    /// Bytes of a line whose end has not arrived yet.
    partial: Vec<u8>,
    /// Text so far, without reasoning.
    pub(super) text: String,
    pub(super) logprobs: Vec<f32>,
    /// Pieces of text and reasoning so far, about one for each token.
    pub(super) n_pieces: u32,
    finish: Option<String>,
    pub(super) usage: Option<TokenUsage>,
}

#[derive(Deserialize)]
struct StreamChunk {
    #[serde(default)]
    choices: Vec<StreamChoice>,
    #[serde(default)]
    usage: Option<TokenUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct StreamChoice {
    #[serde(default)]
    delta: StreamDelta,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<StreamLogprobs>,
}

#[derive(Default, Deserialize)]
struct StreamDelta {
    #[serde(default)]
    content: Option<String>,
    /// Reasoning, which is no part of the answer. Some servers send it under both names.
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct StreamLogprobs {
    #[serde(default)]
    content: Option<Vec<TokenLogprob>>,
}

#[derive(Deserialize)]
struct TokenLogprob {
    logprob: f32,
}

impl ChatStream {
    /// Takes the next bytes, and passes new text to `on_text`.
    ///
    /// # Errors
    /// [`StreamFault::BadLine`]; [`StreamFault::Failed`].
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), StreamFault> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                self.line(&line, on_text)?;
            } else if self.partial.len() > MAX_LINE {
                return Err(bad_line(&self.partial));
            }
        }
        Ok(())
    }

    /// Reads one line of the event stream.
    fn line(
        &mut self,
        line: &[u8],
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), StreamFault> {
        let line = line.trim_ascii();
        // Other fields and comments keep a connection alive.
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return Ok(());
        }
        let chunk: StreamChunk = serde_json::from_slice(data).map_err(|_| bad_line(data))?;
        if let Some(error) = chunk.error {
            let message =
                error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(StreamFault::Failed(message));
        }
        self.usage = chunk.usage.or(self.usage);
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        let StreamDelta { content, reasoning, reasoning_content } = choice.delta;
        let reasoning = reasoning.or(reasoning_content);
        self.n_pieces += u32::from(reasoning.is_some_and(|text| !text.is_empty()));
        if let Some(text) = content.filter(|text| !text.is_empty()) {
            self.n_pieces += 1;
            on_text(&text);
            self.text += &text;
        }
        let logprobs = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
        self.logprobs.extend(logprobs.iter().map(|token| token.logprob));
        self.finish = choice.finish_reason.or(self.finish.take());
        Ok(())
    }

    /// Returns why the answer has ended. Call it at the end of the stream.
    ///
    /// # Errors
    /// [`StreamFault`], whenever the answer is not complete.
    pub(super) fn finish(&self) -> Result<FinishReason, StreamFault> {
        if !self.partial.trim_ascii().is_empty() {
            return Err(bad_line(&self.partial));
        }
        let reason = match self.finish.as_deref() {
            Some("stop") => FinishReason::Stop,
            Some("length") => FinishReason::Length,
            Some(other) => return Err(StreamFault::Aborted(other.to_owned())),
            None => return Err(StreamFault::CutOff),
        };
        if self.n_pieces == 0 {
            return Err(StreamFault::Empty);
        }
        Ok(reason)
    }
}

fn bad_line(line: &[u8]) -> StreamFault {
    StreamFault::BadLine(String::from_utf8_lossy(line).chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> (ChatStream, Result<FinishReason, StreamFault>) {
        let (mut stream, mut heard) = (ChatStream::default(), String::new());
        let mut hear = |text: &str| heard.push_str(text);
        let taken = pieces.iter().try_for_each(|piece| stream.take(piece.as_bytes(), &mut hear));
        let finish = taken.and_then(|()| stream.finish());
        assert_eq!(heard, stream.text);
        (stream, finish)
    }

    const HELLO: &str = r#"data: {"choices":[{"delta":{"content":"hé"}}]}"#;
    const STOP: &str = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;

    #[test]
    fn pieces_of_any_size_give_the_same_answer() {
        let whole =
            format!(": ping\n\n{HELLO}\r\n\r\n{HELLO}\n\n{STOP}\n\n{USAGE}\n\ndata: [DONE]\n\n");
        for size in [1, 2, 3, 7, 64, 4096] {
            let (mut stream, mut heard) = (ChatStream::default(), String::new());
            for piece in whole.as_bytes().chunks(size) {
                stream.take(piece, &mut |text| heard.push_str(text)).unwrap();
            }
            assert_eq!(stream.finish(), Ok(FinishReason::Stop));
            assert_eq!((heard.as_str(), stream.text.as_str()), ("héhé", "héhé"));
            let usage = TokenUsage { prompt_tokens: 9, completion_tokens: 2 };
            assert_eq!((stream.usage, stream.n_pieces), (Some(usage), 2));
        }
    }

    #[test]
    fn an_answer_that_is_not_complete_is_an_error() {
        assert_eq!(read(&[HELLO, "\n"]).1, Err(StreamFault::CutOff));
        assert_eq!(read(&[HELLO, "\ndata: [DONE]\n"]).1, Err(StreamFault::CutOff));
        assert_eq!(read(&[STOP, "\ndata: [DONE]\n"]).1, Err(StreamFault::Empty));
        assert!(matches!(read(&[HELLO, "\n", &STOP[..40]]).1, Err(StreamFault::BadLine(_))));
        assert!(matches!(read(&["data: {\"choices\":\n"]).1, Err(StreamFault::BadLine(_))));
        let failed = read(&[HELLO, "\ndata: {\"error\":{\"message\":\"no memory\"}}\n"]).1;
        assert_eq!(failed, Err(StreamFault::Failed("no memory".to_owned())));
        let abort = STOP.replace("\"stop\"", "\"abort\"");
        assert_eq!(read(&[HELLO, "\n", &abort, "\n"]).1, Err(StreamFault::Aborted("abort".into())));
        let long = "x".repeat(MAX_LINE + 1);
        assert!(matches!(read(&[&long]).1, Err(StreamFault::BadLine(_))));
    }

    #[test]
    fn reasoning_is_no_part_of_the_text() {
        let think = r#"data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}"#;
        let (stream, finish) = read(&[think, "\n", HELLO, "\n", STOP, "\n"]);
        assert_eq!(finish, Ok(FinishReason::Stop));
        assert_eq!((stream.text.as_str(), stream.n_pieces), ("hé", 2));
        let both = r#"data: {"choices":[{"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}"#;
        let (stream, finish) = read(&[both, "\n", HELLO, "\n", STOP, "\n"]);
        assert_eq!(finish, Ok(FinishReason::Stop));
        assert_eq!((stream.text.as_str(), stream.n_pieces), ("hé", 2));
    }
}
