//! [`ModelServer`]: a server with an OpenAI-compatible API as a provider.

mod http;
mod stream;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;

use crate::config::Config;
use crate::config::ProviderKind;
use crate::digest::sha256;
use crate::model;
use crate::model::ChatEncoder;
use crate::trajectory::Completion;
use crate::trajectory::Message;
use crate::trajectory::Sampling;

use super::AdapterFormat;
use super::BaseModel;
use super::Capabilities;
use super::CompletionRequest;
use super::EncodedPrompt;
use super::ProviderError;

pub(super) use http::HttpServer;
pub(super) use http::is_loopback;
pub use stream::StreamFault;

use stream::ChatStream;

/// Concurrent requests to a server that does not say how many it takes.
const PARALLEL: usize = 4;
/// Bytes of text for each token, where no tokenizer counts them. Code has three to four.
const BYTES_PER_TOKEN: usize = 3;
/// Tokens that a chat template adds to a message, at most.
const TOKENS_PER_MESSAGE: usize = 8;
/// Tokens by which a server's count may be below Rune's: templates differ in what they add.
const COUNT_TOLERANCE: usize = 64;
/// Bits of a seed that are sent: servers take signed numbers of 32 or 64 bits.
const SEED_BITS: u64 = 0x7fff_ffff;
/// Question whose greedy answer tells one model from another.
const FINGERPRINT: &str = "Write the first twelve prime numbers, separated by commas.";

/// A model server that answers chats.
#[derive(Debug)]
pub struct ModelServer {
    http: HttpServer,
    kind: ProviderKind,
    /// Name of the model in requests.
    model: String,
    capabilities: Capabilities,
    base: BaseModel,
    /// Tokenizer and template of the served file; `None` if it cannot be read from here.
    encoder: Option<ChatEncoder>,
}

/// What a server says about its model.
#[derive(Debug, Default)]
struct ServedModel {
    name: String,
    /// File of the weights, as the server names it.
    path: Option<PathBuf>,
    context: Option<usize>,
    parallel: Option<usize>,
}

impl ModelServer {
    /// Connects to the server of the settings. `canonical` returns the canonical name of the model
    /// in a file.
    ///
    /// # Errors
    /// [`ProviderError::NoUrl`]; [`ProviderError::NoKey`]; [`ProviderError::BadUrl`];
    /// [`ProviderError::NotServed`] when the server has no model of the name;
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`]; [`ProviderError::Stream`].
    pub async fn connect(
        config: &Config,
        canonical: &(dyn Fn(&Path) -> String + Sync),
    ) -> Result<Self, ProviderError> {
        let settings = &config.server;
        if settings.url.is_empty() {
            return Err(ProviderError::NoUrl(config.run.provider.as_str()));
        }
        let key = match settings.key_variable.as_str() {
            "" => None,
            name => Some(std::env::var(name).map_err(|_| ProviderError::NoKey(name.to_owned()))?),
        };
        let patience = Duration::from_secs(settings.timeout_seconds);
        let http = HttpServer::new(&settings.url, key, patience)?;
        let kind = config.run.provider;
        let served = served_model(&http, kind, &settings.model).await?;
        let capabilities = Capabilities {
            adapters: AdapterFormat::None,
            grammar: false,
            logprobs: true,
            context_length: served.context.unwrap_or(config.engine.context),
            parallel: served.parallel.unwrap_or(PARALLEL),
        };
        let local = served.path.filter(|path| is_loopback(http.url()) && path.is_file());
        let (encoder, base) = match &local {
            Some(path) => {
                let identity = model::identify(path)?;
                let base_model = format!("{}@{}", canonical(path), identity.tokenizer_digest);
                let base = BaseModel { base_model, base_digest: identity.base_digest };
                (Some(ChatEncoder::load(path)?), base)
            }
            None => {
                (None, BaseModel { base_model: served.name.clone(), base_digest: String::new() })
            }
        };
        let mut server = Self { http, kind, model: served.name, capabilities, base, encoder };
        if local.is_none() {
            server.base.base_digest = server.fingerprint().await?;
        }
        Ok(server)
    }

    /// Returns the digest of a greedy answer, which stands for that of the weights.
    async fn fingerprint(&self) -> Result<String, ProviderError> {
        let prompt = self.encode(vec![Message::user(FINGERPRINT)])?;
        let sampling = Sampling { max_tokens: 32, ..Sampling::default() };
        let request = CompletionRequest::new(&prompt, &sampling);
        let answer = self.generate(&request, &mut |_| ()).await?;
        Ok(sha256(format!("{}\n{}", self.model, answer.text).as_bytes()))
    }

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

    /// Whether the file of the weights can be read from here: it tells which model it is, and its
    /// tokenizer counts.
    pub fn reads_file(&self) -> bool {
        self.encoder.is_some()
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    pub(super) fn base(&self) -> BaseModel {
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
        let body = self.body(request)?;
        let started = Instant::now();
        let fault = |fault| ProviderError::Stream { url: self.url().to_owned(), fault };
        let response = self.http.post("/v1/chat/completions", &body).await?;
        let mut bytes = response.bytes_stream();
        let (mut stream, mut first) = (ChatStream::default(), None);
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|source| self.http.unreachable(source))?;
            stream.take(&piece, on_text).map_err(fault)?;
            if stream.n_pieces > 0 {
                first.get_or_insert_with(|| started.elapsed());
            }
        }
        let finish_reason = stream.finish().map_err(fault)?;
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

    /// Fails if the server has read fewer tokens than the prompt has: it has cut its front off.
    fn check_whole(&self, prompt: &EncodedPrompt, used: u32) -> Result<(), ProviderError> {
        let (counted, used) = (prompt.n_tokens(), used as usize);
        if self.encoder.is_some() && used + COUNT_TOLERANCE < counted {
            return Err(ProviderError::PromptCut { url: self.url().to_owned(), counted, used });
        }
        Ok(())
    }

    /// Returns the body of a request, with every sampling parameter under the server's own name.
    fn body(&self, request: &CompletionRequest<'_>) -> Result<Value, ProviderError> {
        let Sampling { temperature, top_p, top_k, repetition_penalty, seed, stop, max_tokens } =
            request.sampling;
        let mut body = json!({
            "model": self.model,
            "messages": request.prompt.messages(),
            "stream": true,
            "stream_options": { "include_usage": true },
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed & SEED_BITS,
            "max_tokens": max_tokens,
        });
        if !stop.is_empty() {
            body["stop"] = json!(stop);
        }
        if request.logprobs {
            body["logprobs"] = json!(true);
        }
        match self.kind {
            ProviderKind::LlamaCpp => {
                body["top_k"] = json!(top_k);
                body["repeat_penalty"] = json!(repetition_penalty);
                // Other samplers of this server are on unless they are turned off.
                body["min_p"] = json!(0.0);
            }
            ProviderKind::Vllm => {
                body["top_k"] = json!(top_k);
                body["repetition_penalty"] = json!(repetition_penalty);
            }
            _ => self.refuse(*top_k != 0, "top_k").and_then(|()| {
                self.refuse((repetition_penalty - 1.0).abs() > f32::EPSILON, "a repetition penalty")
            })?,
        }
        Ok(body)
    }

    fn refuse(&self, is_wanted: bool, what: &'static str) -> Result<(), ProviderError> {
        let provider = self.name();
        if is_wanted { Err(ProviderError::Unsupported { provider, what }) } else { Ok(()) }
    }
}

/// Finds the model `wanted`, or the only one that the server has.
async fn served_model(
    http: &HttpServer,
    kind: ProviderKind,
    wanted: &str,
) -> Result<ServedModel, ProviderError> {
    let listed = http.get("/v1/models").await?.unwrap_or_default();
    let models: Vec<&Value> = listed["data"].as_array().into_iter().flatten().collect();
    let name_of = |model: &Value| model["id"].as_str().unwrap_or_default().to_owned();
    let found = match models.as_slice() {
        [only] if wanted.is_empty() => Some(*only),
        all => all.iter().copied().find(|model| name_of(model) == wanted),
    };
    let Some(found) = found else {
        let known = models.into_iter().map(name_of).collect();
        return Err(ProviderError::NotServed {
            url: http.url().to_owned(),
            wanted: wanted.to_owned(),
            known,
        });
    };
    let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
    let mut served = ServedModel {
        name: name_of(found),
        context: size(&found["max_model_len"]),
        ..ServedModel::default()
    };
    if kind == ProviderKind::LlamaCpp {
        let props = http.get("/props").await?.unwrap_or_default();
        let per_slot = &props["default_generation_settings"]["n_ctx"];
        served.context = size(per_slot).or_else(|| size(&props["n_ctx"]));
        served.parallel = size(&props["total_slots"]);
        served.path = props["model_path"].as_str().map(PathBuf::from);
    }
    Ok(served)
}
