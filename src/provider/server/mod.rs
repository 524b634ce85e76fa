//! [`ModelServer`]: a server with an OpenAI-compatible API, or Ollama's own, as a provider.

mod adapters;
mod body;
mod check;
mod connect;
mod gbnf;
mod http;
mod listed;
mod sleep;
mod stream;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt;
use reqwest::Response;

use crate::config::ProviderKind;
use crate::model::ChatEncoder;
use crate::trajectory::Completion;
use crate::trajectory::Message;

use super::BaseModel;
use super::Capabilities;
use super::CompletionRequest;
use super::EncodedPrompt;
use super::ProviderError;

pub use adapters::PushedAdapter;
pub use check::ServerReport;
pub(super) use http::HttpServer;
pub(super) use http::is_loopback;
pub use sleep::DrainMode;
pub use sleep::ServedAnswer;
pub use sleep::SleepControl;
pub use stream::StreamFault;

use adapters::LoadedAdapters;
use stream::ChatStream;
use stream::StreamFormat;

/// Bytes of text for each token, where no tokenizer counts them. Code has three to four.
const BYTES_PER_TOKEN: usize = 3;
/// Tokens that a chat template adds to a message, at most.
const TOKENS_PER_MESSAGE: usize = 8;
/// Tokens by which a server's count may be below Rune's: templates differ in what they add.
const COUNT_TOLERANCE: usize = 64;

/// A model server that answers chats.
#[derive(Debug)]
pub struct ModelServer {
    http: HttpServer,
    kind: ProviderKind,
    /// Name of the model in requests.
    model: String,
    capabilities: Capabilities,
    base: BaseModel,
    /// Tokens that an answer may spend on reasoning, beside those that were asked for.
    reasoning_tokens: u32,
    /// Tokenizer and template of the model; `None` if no file of it is here.
    encoder: Option<ChatEncoder>,
    /// The file that they come from.
    file: Option<PathBuf>,
    /// Whether that is the very file that the server has loaded.
    reads_weights: bool,
    loaded: LoadedAdapters,
}

impl ModelServer {
    pub(super) fn name(&self) -> &'static str {
        self.kind.as_str()
    }

    /// Returns the name under which the server has the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> &str {
        self.http.url()
    }

    /// Returns the GGUF file of the model, or one with the same tokenizer, if there is one here.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether the file of the loaded weights can be read from here, which tells which model it is.
    pub fn reads_weights(&self) -> bool {
        self.reads_weights
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Returns the identity of the model.
    pub fn base(&self) -> BaseModel {
        self.base.clone()
    }

    /// Counts the tokens of a chat with the tokenizer of the served file; without one, an upper
    /// estimate.
    pub(super) fn encode(&self, messages: Vec<Message>) -> Result<EncodedPrompt, ProviderError> {
        if let Some(encoder) = &self.encoder {
            let tokens = encoder.prompt(&messages)?;
            return Ok(EncodedPrompt { n_tokens: tokens.len(), messages, tokens });
        }
        let of_message = |message: &Message| {
            message.content.len().div_ceil(BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE
        };
        let n_tokens = messages.iter().map(of_message).sum();
        Ok(EncodedPrompt { messages, tokens: Vec::new(), n_tokens })
    }

    pub(super) async fn generate(
        &self,
        request: &CompletionRequest<'_>,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Completion, ProviderError> {
        let started = Instant::now();
        let fault = |fault| ProviderError::Stream { url: self.url().to_owned(), fault };
        let mut bytes = self.send(request).await?.bytes_stream();
        let format = match self.kind {
            ProviderKind::Ollama => StreamFormat::Lines,
            _ => StreamFormat::Events,
        };
        let (mut stream, mut first) = (ChatStream::new(format), None);
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|source| self.http.unreachable(source))?;
            stream.take(&piece, on_text).map_err(fault)?;
            if stream.n_pieces > 0 {
                first.get_or_insert_with(|| started.elapsed());
            }
        }
        let finish_reason = stream.finish(on_text).map_err(fault)?;
        let (prefill, all) = (first.unwrap_or_default(), started.elapsed());
        let counted = u32::try_from(request.prompt.n_tokens()).unwrap_or(u32::MAX);
        let usage = stream.usage.unwrap_or_default();
        if stream.usage.is_some() {
            self.check_whole(request.prompt, usage.prompt_tokens)?;
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ok(Completion {
            text: stream.text,
            finish_reason,
            tokens_in: if stream.usage.is_some() { usage.prompt_tokens } else { counted },
            tokens_out: usage.completion_tokens.max(stream.n_pieces),
            prefill_ms: millis(prefill),
            decode_ms: millis(all.saturating_sub(prefill)),
            logprobs: request.logprobs.then_some(stream.logprobs),
        })
    }

    /// Sends a request, and returns the response once its head is there.
    async fn send(&self, request: &CompletionRequest<'_>) -> Result<Response, ProviderError> {
        connect::refuse_sleeper(&self.http, self.kind).await?;
        let (path, mut body) = self.body(request)?;
        self.address(&mut body, request.adapter).await?;
        match self.http.post(path, &body).await {
            Err(error) if self.restore(request.adapter, &error).await? => {
                self.http.post(path, &body).await
            }
            other => other,
        }
    }

    /// Fails if the server has read fewer tokens than the prompt has: it has cut its front off.
    fn check_whole(&self, prompt: &EncodedPrompt, used: u32) -> Result<(), ProviderError> {
        let (counted, used) = (prompt.n_tokens(), used as usize);
        if self.encoder.is_some() && used + COUNT_TOLERANCE < counted {
            return Err(ProviderError::PromptCut { url: self.url().to_owned(), counted, used });
        }
        Ok(())
    }
}
