//! [`ChatStream`]: reads a streamed chat completion, in the format of `OpenAI` or of Ollama.

use serde::Deserialize;
use serde_json::Value;

use crate::trajectory::FinishReason;

/// Maximum bytes of one line.
const MAX_LINE: usize = 1 << 20;
/// Marks of reasoning in the text of servers that do not keep it apart.
const THINK: [&str; 2] = ["<think>", "</think>"];

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

/// How a server writes the pieces of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum StreamFormat {
    /// Server-sent events, as of `OpenAI`.
    #[default]
    Events,
    /// One JSON document a line, as of Ollama.
    Lines,
}

/// The state of a streamed answer. Bytes go in as they arrive, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct ChatStream {
    format: StreamFormat,
    /// Bytes of a line whose end has not arrived yet.
    partial: Vec<u8>,
    /// Text that may still be reasoning.
    unsorted: Unsorted,
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

/// One line of Ollama's API.
#[derive(Deserialize)]
struct OllamaChunk {
    #[serde(default)]
    message: OllamaDelta,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: Option<u32>,
    #[serde(default)]
    eval_count: u32,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
struct OllamaDelta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
}

/// The start of a text, until it is clear what of it is reasoning.
#[derive(Debug)]
enum Unsorted {
    /// Nothing but the start of [`THINK`], if anything.
    Start(String),
    /// Within reasoning; the text so far.
    Reasoning(String),
    /// After it: the rest is text.
    Text,
}

impl Default for Unsorted {
    fn default() -> Self {
        Self::Start(String::new())
    }
}

impl Unsorted {
    /// Takes the next piece, and returns what of all pieces has turned out to be text.
    fn take(&mut self, piece: &str) -> String {
        match self {
            Self::Text => return piece.to_owned(),
            Self::Start(held) | Self::Reasoning(held) => held.push_str(piece),
        }
        if let Self::Start(held) = self {
            let start = held.trim_start();
            if start.starts_with(THINK[0]) {
                *self = Self::Reasoning(std::mem::take(held));
            } else if !THINK[0].starts_with(start) {
                let text = std::mem::take(held);
                *self = Self::Text;
                return text;
            }
        }
        if let Self::Reasoning(held) = self
            && let Some((_, text)) = held.split_once(THINK[1])
        {
            let text = text.trim_start().to_owned();
            *self = Self::Text;
            return text;
        }
        String::new()
    }
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
    /// Creates the state before the first byte.
    pub(super) fn new(format: StreamFormat) -> Self {
        Self { format, ..Self::default() }
    }

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

    /// Reads one line of either format.
    fn line(
        &mut self,
        line: &[u8],
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), StreamFault> {
        let line = line.trim_ascii();
        if self.format == StreamFormat::Lines {
            return if line.is_empty() { Ok(()) } else { self.ollama_chunk(line, on_text) };
        }
        // Other fields and comments keep a connection alive.
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return Ok(());
        }
        let chunk: StreamChunk = serde_json::from_slice(data).map_err(|_| bad_line(data))?;
        chunk.error.map_or(Ok(()), |error| Err(failed(&error)))?;
        self.usage = chunk.usage.or(self.usage);
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        let StreamDelta { content, reasoning, reasoning_content } = choice.delta;
        self.add(content, reasoning.or(reasoning_content), on_text);
        let logprobs = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
        self.logprobs.extend(logprobs.iter().map(|token| token.logprob));
        self.finish = choice.finish_reason.or(self.finish.take());
        Ok(())
    }

    fn ollama_chunk(
        &mut self,
        line: &[u8],
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), StreamFault> {
        let chunk: OllamaChunk = serde_json::from_slice(line).map_err(|_| bad_line(line))?;
        chunk.error.map_or(Ok(()), |error| Err(failed(&error)))?;
        self.add(chunk.message.content, chunk.message.thinking, on_text);
        if let Some(prompt_tokens) = chunk.prompt_eval_count {
            self.usage = Some(TokenUsage { prompt_tokens, completion_tokens: chunk.eval_count });
        }
        self.finish = chunk.done_reason.or(self.finish.take());
        Ok(())
    }

    /// Adds a piece of text or of reasoning.
    fn add(
        &mut self,
        content: Option<String>,
        reasoning: Option<String>,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) {
        self.n_pieces += u32::from(reasoning.is_some_and(|text| !text.is_empty()));
        let Some(content) = content.filter(|text| !text.is_empty()) else { return };
        self.n_pieces += 1;
        self.add_text(&content, on_text);
    }

    fn add_text(&mut self, content: &str, on_text: &mut (dyn FnMut(&str) + Send)) {
        let text = self.unsorted.take(content);
        if !text.is_empty() {
            on_text(&text);
            self.text += &text;
        }
    }

    /// Returns why the answer has ended. Call it at the end of the stream.
    ///
    /// # Errors
    /// [`StreamFault`], whenever the answer is not complete.
    pub(super) fn finish(
        &mut self,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<FinishReason, StreamFault> {
        // What only began like reasoning was text.
        if let Unsorted::Start(held) = std::mem::replace(&mut self.unsorted, Unsorted::Text) {
            self.add_text(&held, on_text);
        }
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

/// Returns the fault that a server reports in the middle of an answer.
fn failed(error: &Value) -> StreamFault {
    let message = error["message"].as_str().or_else(|| error.as_str());
    StreamFault::Failed(message.map_or_else(|| error.to_string(), str::to_owned))
}

fn bad_line(line: &[u8]) -> StreamFault {
    StreamFault::BadLine(String::from_utf8_lossy(line).chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(pieces: &[&str]) -> (ChatStream, Result<FinishReason, StreamFault>) {
        read_as(StreamFormat::Events, pieces)
    }

    fn read_as(
        format: StreamFormat,
        pieces: &[&str],
    ) -> (ChatStream, Result<FinishReason, StreamFault>) {
        let (mut stream, mut heard) = (ChatStream::new(format), String::new());
        let mut hear = |text: &str| heard.push_str(text);
        let taken = pieces.iter().try_for_each(|piece| stream.take(piece.as_bytes(), &mut hear));
        let finish = taken.and_then(|()| stream.finish(&mut hear));
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
            assert_eq!(stream.finish(&mut |_| ()), Ok(FinishReason::Stop));
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

    #[test]
    fn reasoning_in_the_text_is_taken_out() {
        let told =
            |text: &str| format!("data: {}\n", json!({"choices": [{"delta": {"content": text}}]}));
        let answer = |texts: &[&str]| {
            let lines: Vec<String> = texts.iter().map(|text| told(text)).collect();
            read(&[&lines.concat(), STOP, "\n"]).0.text
        };
        assert_eq!(answer(&["\n<", "think>hm", "m</", "think>\n\nwe", "ll"]), "well");
        assert_eq!(answer(&["<th", "ree"]), "<three");
        assert_eq!(answer(&["<th"]), "<th");
        assert_eq!(answer(&["a <think>b</think>"]), "a <think>b</think>");
        assert_eq!(answer(&["<think>without end"]), "");
    }

    #[test]
    fn lines_of_ollama_are_read() {
        let read = |lines: &[&str]| read_as(StreamFormat::Lines, lines);
        let one = "{\"message\":{\"content\":\"h\u{e9}\"},\"done\":false}\n";
        let end = "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"length\",\
                   \"prompt_eval_count\":9,\"eval_count\":2}\n";
        let (stream, finish) = read(&[one, one, end]);
        assert_eq!((stream.text.as_str(), finish), ("h\u{e9}h\u{e9}", Ok(FinishReason::Length)));
        let usage = TokenUsage { prompt_tokens: 9, completion_tokens: 2 };
        assert_eq!(stream.usage, Some(usage));
        assert_eq!(read(&[one]).1, Err(StreamFault::CutOff));
        let failed = read(&[one, "{\"error\":\"out of memory\"}\n"]).1;
        assert_eq!(failed, Err(StreamFault::Failed("out of memory".to_owned())));
    }
}
