//! Text generation, independent of the backend.
//!
//! A closed set of backends behind one request and one answer. [`Capabilities`] describe what a
//! backend supports; an unsupported feature is a typed error and never silently ignored. The length
//! of a prompt is checked against the context window before it is sent.

mod in_process;
mod llama_cpp;
mod open;
mod scripted;
mod server;

use std::path::Path;
use std::path::PathBuf;

use crate::adapter::AdapterId;
use crate::error_class::ErrorClass;
use crate::hub::HubError;
use crate::model::ModelError;
use crate::trajectory::Completion;
use crate::trajectory::Message;
use crate::trajectory::Sampling;

pub use crate::model::Grammar;
pub use in_process::InProcess;
pub use llama_cpp::LlamaCpp;
pub use llama_cpp::RawRequest;
pub use llama_cpp::ServerTimings;
pub use open::ModelFile;
pub use open::ModelSource;
pub use open::engine_options;
pub use open::is_model_path;
pub use scripted::ScriptError;
pub use scripted::Scripted;
pub use server::DrainMode;
pub use server::ModelServer;
pub use server::PushedAdapter;
pub use server::ServedAnswer;
pub use server::ServerReport;
pub use server::SleepControl;
pub use server::StreamFault;

/// A backend that generates completions.
#[expect(
    clippy::large_enum_variant,
    reason = "a program has one or two of them, and moves them once"
)]
pub enum Provider {
    /// Rune's own engine, in this process.
    InProcess(InProcess),
    /// A model server, reached by HTTP.
    Server(ModelServer),
    /// Canned answers from a file, for tests of the whole binary.
    Scripted(Scripted),
}

/// Chat that was rendered and tokenized once for one provider; see [`Provider::encode`].
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    messages: Vec<Message>,
    /// Token ids; empty if the provider has no tokenizer.
    tokens: Vec<u32>,
    n_tokens: usize,
}

impl EncodedPrompt {
    /// Returns the messages of the chat.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Returns the number of tokens in the prompt.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }
}

/// Request for one completion.
#[derive(Debug, Clone, Copy)]
pub struct CompletionRequest<'a> {
    /// Chat that ends before the model's turn, encoded by the same provider.
    pub prompt: &'a EncodedPrompt,
    /// Adapter to apply; `None` is the base model.
    pub adapter: Option<&'a AdapterId>,
    /// Sampling parameters and stop conditions.
    pub sampling: &'a Sampling,
    /// Grammar that constrains the answer.
    pub grammar: Option<&'a Grammar>,
    /// Whether to return the log probability of each token.
    pub logprobs: bool,
}

impl<'a> CompletionRequest<'a> {
    /// Creates a request to the base model without grammar and log probabilities.
    pub fn new(prompt: &'a EncodedPrompt, sampling: &'a Sampling) -> Self {
        Self { prompt, adapter: None, sampling, grammar: None, logprobs: false }
    }
}

/// Adapter format that a backend supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterFormat {
    /// The backend loads no adapters.
    None,
    /// LoRA adapters as GGUF files.
    Gguf,
    /// LoRA adapters as PEFT folders.
    Peft,
}

/// The grammars that a backend supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrammarSupport {
    /// The backend constrains no answers.
    None,
    /// JSON schemas, but no regular expressions.
    JsonSchema,
    /// Every kind of [`Grammar`].
    All,
}

impl GrammarSupport {
    /// Whether `grammar` can constrain answers.
    pub fn covers(self, grammar: &Grammar) -> bool {
        match self {
            Self::None => false,
            Self::JsonSchema => matches!(grammar, Grammar::JsonSchema(_)),
            Self::All => true,
        }
    }
}

/// Capabilities of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The adapter format that the backend loads.
    pub adapters: AdapterFormat,
    /// Which grammars can constrain answers.
    pub grammar: GrammarSupport,
    /// Whether it returns log probabilities.
    pub logprobs: bool,
    /// Context window: maximum tokens of prompt and answer together.
    pub context_length: usize,
    /// Useful number of concurrent requests.
    pub parallel: usize,
}

/// Identity of the loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// Canonical hub id and tokenizer digest, which determine whether an adapter fits.
    pub base_model: String,
    /// sha256 of the exact weights, which determines the evaluations that apply.
    pub base_digest: String,
}

/// Errors of a backend.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The adapter is not loaded.
    #[error("adapter `{0}` is not loaded")]
    AdapterNotLoaded(AdapterId),
    /// The server does not have the adapter, and cannot load it while it runs.
    #[error("{url} does not have the adapter `{name}`")]
    AdapterNotServed {
        /// URL of the server.
        url: String,
        /// Name of the adapter on servers.
        name: String,
    },
    /// The server sleeps, as it does while an adapter is trained.
    #[error("{0} is asleep")]
    Asleep(String),
    /// A file for the server cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    Files {
        /// Path of the file.
        path: PathBuf,
        /// Cause reported by the file system.
        source: std::io::Error,
    },
    /// The backend does not support another requested feature.
    #[error("provider `{provider}` does not support {what}")]
    Unsupported {
        /// Name of the backend.
        provider: &'static str,
        /// Name of the missing feature.
        what: &'static str,
    },
    /// The prompt does not fit the context window; nothing was sent.
    #[error("prompt too long: {n_tokens} tokens, but the context window is {limit}")]
    ContextOverflow {
        /// Number of tokens in the prompt.
        n_tokens: usize,
        /// Size of the context window in tokens.
        limit: usize,
    },
    /// The URL does not refer to this machine.
    #[error("`{0}` is not a loopback http:// URL")]
    NotLoopback(String),
    /// The URL is none of HTTP.
    #[error("`{0}` is not an http:// or https:// URL")]
    BadUrl(String),
    /// The provider needs a server, and the settings name none.
    #[error("the provider `{0}` needs the URL of a server")]
    NoUrl(&'static str),
    /// The environment variable with the server's key is not set.
    #[error("the environment variable `{0}` with the server's key is not set")]
    NoKey(String),
    /// The server has no model of this name.
    #[error("{url} has {}", served(wanted, known))]
    NotServed {
        /// URL of the server.
        url: String,
        /// Name of the wanted model; empty for the only one.
        wanted: String,
        /// Names of its models.
        known: Vec<String>,
    },
    /// The server has read less than the whole prompt.
    #[error("{url} has read {used} of {counted} tokens of the prompt")]
    PromptCut {
        /// URL of the server.
        url: String,
        /// Number of tokens in the prompt.
        counted: usize,
        /// Number of tokens that the server has read.
        used: usize,
    },
    /// The server's answer is not complete.
    #[error("no complete answer from {url}")]
    Stream {
        /// URL of the server.
        url: String,
        /// What is wrong with it.
        #[source]
        fault: StreamFault,
    },
    /// The server cannot be reached, or the connection was lost.
    #[error("no answer from {url}")]
    Unreachable {
        /// URL of the server.
        url: String,
        /// Cause reported by the HTTP client.
        source: reqwest::Error,
    },
    /// The server returned an error or an unexpected response.
    #[error("unexpected response from {url}: status {status}: {message}")]
    Refused {
        /// URL of the server.
        url: String,
        /// The HTTP status code of the answer.
        status: u16,
        /// Start of the response body.
        message: String,
    },
    /// The in-process engine failed.
    #[error(transparent)]
    Model(ModelError),
    /// The model is unknown or cannot be downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The script of canned answers failed.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

impl ProviderError {
    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ContextOverflow { .. } => {
                Some("raise `engine.context`, or shorten the task or its tests")
            }
            Self::Asleep(_) => Some("`rune lease show` tells why, and `rune wake` wakes it"),
            Self::AdapterNotServed { .. } => Some(
                "`rune adapters push` says how; vLLM needs \
                 VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
            ),
            Self::NoUrl(_) => Some("set `server.url`, or give --url"),
            Self::NotServed { known, .. } if known.len() > 1 => {
                Some("set `server.model` to one of them")
            }
            Self::PromptCut { .. } => {
                Some("the context window of the server is smaller than it says: raise it there")
            }
            Self::Refused { status: 401 | 403, .. } => {
                Some("name the environment variable with the key in `server.key_variable`")
            }
            _ => None,
        }
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::ContextOverflow { .. }
            | Self::Unreachable { .. }
            | Self::Asleep(_)
            | Self::Refused { .. }
            | Self::PromptCut { .. }
            | Self::Stream { .. } => ErrorClass::Provider,
            _ => ErrorClass::Environment,
        }
    }
}

/// Says which models a server has, of which none is `wanted`.
fn served(wanted: &str, known: &[String]) -> String {
    match (wanted, known) {
        (_, []) => "no model".to_owned(),
        ("", known) => format!("several models: {}", known.join(", ")),
        (wanted, known) => format!("no model `{wanted}`, but {}", known.join(", ")),
    }
}

impl From<ModelError> for ProviderError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::ContextOverflow { n_tokens, limit } => {
                Self::ContextOverflow { n_tokens, limit }
            }
            other => Self::Model(other),
        }
    }
}

impl Provider {
    /// Returns the backend's name, as in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::InProcess(_) => "in-process",
            Self::Server(server) => server.name(),
            Self::Scripted(_) => "scripted",
        }
    }

    /// Returns the capabilities of the backend.
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::InProcess(engine) => engine.capabilities(),
            Self::Server(server) => server.capabilities(),
            Self::Scripted(scripted) => scripted.capabilities(),
        }
    }

    /// Returns the identity of the loaded model.
    pub fn base(&self) -> BaseModel {
        match self {
            Self::InProcess(engine) => engine.base(),
            Self::Server(server) => server.base(),
            Self::Scripted(scripted) => scripted.base(),
        }
    }

    /// Loads the PEFT folder at `folder`; requests may then name it as `id`. The base weights and
    /// in-flight generations are not affected.
    ///
    /// # Errors
    /// [`ProviderError::Model`] if the folder has no adapter for this model;
    /// [`ProviderError::AdapterNotServed`] if the server does not have it, and cannot load it.
    pub async fn load_adapter(&self, id: &AdapterId, folder: &Path) -> Result<(), ProviderError> {
        match self {
            Self::InProcess(engine) => engine.load_adapter(id.clone(), folder),
            Self::Server(server) => server.load_adapter(id, folder).await,
            Self::Scripted(scripted) => scripted.load_adapter(id, folder),
        }
    }

    /// Unloads an adapter. Its memory is freed once no generation uses it.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`] and [`ProviderError::Refused`] of a server.
    pub async fn unload_adapter(&self, id: &AdapterId) -> Result<(), ProviderError> {
        match self {
            Self::InProcess(engine) => engine.unload_adapter(id),
            Self::Server(server) => server.unload_adapter(id).await?,
            Self::Scripted(scripted) => scripted.unload_adapter(id),
        }
        Ok(())
    }

    /// Renders `messages` with the model's chat template and tokenizes the result.
    ///
    /// # Errors
    /// [`ProviderError::Model`] if the chat template rejects them.
    pub fn encode(&self, messages: Vec<Message>) -> Result<EncodedPrompt, ProviderError> {
        match self {
            Self::InProcess(engine) => engine.encode(messages),
            Self::Server(server) => server.encode(messages),
            Self::Scripted(scripted) => Ok(scripted.encode(messages)),
        }
    }

    /// Generates one completion; `on_text` receives pieces of text as they are generated. There are
    /// no retries, because only the caller knows whether they make sense. Dropping the future
    /// cancels the generation.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn generate(
        &self,
        request: &CompletionRequest<'_>,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Completion, ProviderError> {
        self.check(request)?;
        match self {
            Self::InProcess(engine) => engine.generate(request, on_text).await,
            Self::Server(server) => server.generate(request, on_text).await,
            Self::Scripted(scripted) => scripted.generate(request, on_text).await,
        }
    }

    /// Rejects requests that the backend does not support.
    fn check(&self, request: &CompletionRequest<'_>) -> Result<(), ProviderError> {
        let capabilities = self.capabilities();
        let provider = self.name();
        if request.adapter.is_some() && capabilities.adapters == AdapterFormat::None {
            return Err(ProviderError::Unsupported { provider, what: "adapters" });
        }
        if request.grammar.is_some_and(|grammar| !capabilities.grammar.covers(grammar)) {
            return Err(ProviderError::Unsupported { provider, what: "this grammar" });
        }
        if request.logprobs && !capabilities.logprobs {
            return Err(ProviderError::Unsupported { provider, what: "log probabilities" });
        }
        let n_tokens = request.prompt.n_tokens();
        let limit = capabilities.context_length;
        if n_tokens >= limit {
            return Err(ProviderError::ContextOverflow { n_tokens, limit });
        }
        Ok(())
    }
}
