//! Text from a model, whoever runs it.
//!
//! A closed set of backends behind one request and one answer. What a backend can do is data
//! ([`Capabilities`]); what it can't is a typed error, never dropped in silence. A prompt is
//! counted against the real context window before it is sent.

mod in_process;
mod llama_cpp;
mod open;
mod scripted;

use std::path::Path;

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
pub use scripted::ScriptError;
pub use scripted::Scripted;

/// A backend.
#[expect(
    clippy::large_enum_variant,
    reason = "a program has one or two of them, and moves them once"
)]
pub enum Provider {
    /// Rune's own engine, in this process.
    InProcess(InProcess),
    /// Canned answers from a file: for tests and trials.
    Scripted(Scripted),
}

/// A chat, rendered and tokenized once for one provider: see [`Provider::encode`].
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    messages: Vec<Message>,
    /// The token ids; none where the provider has no tokenizer.
    tokens: Vec<u32>,
    n_tokens: usize,
}

impl EncodedPrompt {
    /// The chat.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The number of tokens in the prompt.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }
}

/// A request for one completion.
#[derive(Debug, Clone, Copy)]
pub struct CompletionRequest<'a> {
    /// The chat so far, encoded by the provider that is asked; the model speaks next.
    pub prompt: &'a EncodedPrompt,
    /// The adapter to answer with; `None` is the base model.
    pub adapter: Option<&'a AdapterId>,
    /// How to draw tokens, when to stop.
    pub sampling: &'a Sampling,
    /// What the answer has to look like.
    pub grammar: Option<&'a Grammar>,
    /// Whether the log probability of each token is wanted.
    pub logprobs: bool,
}

impl<'a> CompletionRequest<'a> {
    /// A plain request to the base model.
    pub fn new(prompt: &'a EncodedPrompt, sampling: &'a Sampling) -> Self {
        Self { prompt, adapter: None, sampling, grammar: None, logprobs: false }
    }
}

/// The adapters that a backend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterFormat {
    /// None at all.
    None,
    /// GGUF LoRA files.
    Gguf,
    /// PEFT folders.
    Peft,
}

/// What a backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The adapters that it takes.
    pub adapters: AdapterFormat,
    /// Whether it holds answers to a [`Grammar`].
    pub grammar: bool,
    /// Whether it tells log probabilities.
    pub logprobs: bool,
    /// The most tokens of prompt and answer together.
    pub context_length: usize,
    /// How many requests are worth sending at a time.
    pub parallel: usize,
}

/// Which model answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// Canonical hub id and tokenizer digest: decides whether an adapter fits.
    pub base_model: String,
    /// sha256 of the exact weights: decides which evaluations count.
    pub base_digest: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The backend takes no adapters.
    #[error("provider `{provider}` does not support adapters; cannot load `{adapter}`")]
    AdapterUnsupported {
        /// The backend.
        provider: &'static str,
        /// The adapter that was asked for.
        adapter: AdapterId,
    },
    /// The backend takes adapters, but was not given this one.
    #[error("adapter `{0}` is not loaded")]
    AdapterNotLoaded(AdapterId),
    /// The backend lacks something else that was asked for.
    #[error("provider `{provider}` does not support {what}")]
    Unsupported {
        /// The backend.
        provider: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// Prompt and answer do not fit the context window; nothing was sent.
    #[error("prompt too long: {n_tokens} tokens, but the context window is {limit}")]
    ContextOverflow {
        /// Tokens of the prompt.
        n_tokens: usize,
        /// Tokens of the window.
        limit: usize,
    },
    /// The address is not of this machine.
    #[error("`{0}` is not a loopback http:// URL")]
    NotLoopback(String),
    /// The server can't be reached, or the connection broke.
    #[error("no answer from {url}")]
    Unreachable {
        /// The server.
        url: String,
        /// What happened.
        source: reqwest::Error,
    },
    /// The server refuses, or answers what it should not.
    #[error("unexpected response from {url}: status {status}: {message}")]
    Refused {
        /// The server.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The model failed.
    #[error(transparent)]
    Model(ModelError),
    /// The model can't be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The script failed.
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
            Self::AdapterUnsupported { .. } => Some("use --adapter none"),
            _ => None,
        }
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::ContextOverflow { .. } | Self::Unreachable { .. } | Self::Refused { .. } => {
                ErrorClass::Provider
            }
            _ => ErrorClass::Environment,
        }
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
    /// The backend's name, as in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::InProcess(_) => "in-process",
            Self::Scripted(_) => "scripted",
        }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::InProcess(engine) => engine.capabilities(),
            Self::Scripted(scripted) => scripted.capabilities(),
        }
    }

    /// Which model answers.
    pub fn base(&self) -> BaseModel {
        match self {
            Self::InProcess(engine) => engine.base(),
            Self::Scripted(scripted) => scripted.base(),
        }
    }

    /// Reads the PEFT folder at `folder`; requests may then name it as `id`. The base stays as it
    /// is, and so do answers in the making.
    ///
    /// # Errors
    /// [`ProviderError::AdapterUnsupported`]; [`ProviderError::Model`] when the folder holds no
    /// adapter for this model.
    pub fn load_adapter(&self, id: &AdapterId, folder: &Path) -> Result<(), ProviderError> {
        match self {
            Self::InProcess(engine) => engine.load_adapter(id.clone(), folder),
            Self::Scripted(_) => {
                let (provider, adapter) = (self.name(), id.clone());
                Err(ProviderError::AdapterUnsupported { provider, adapter })
            }
        }
    }

    /// Forgets an adapter. Its memory is free once no answer is being given with it.
    pub fn unload_adapter(&self, id: &AdapterId) {
        match self {
            Self::InProcess(engine) => engine.unload_adapter(id),
            Self::Scripted(_) => {}
        }
    }

    /// Renders `messages` by the model's chat template and tokenizes the result.
    ///
    /// # Errors
    /// [`ProviderError::Model`] when the chat template refuses them.
    pub fn encode(&self, messages: Vec<Message>) -> Result<EncodedPrompt, ProviderError> {
        match self {
            Self::InProcess(engine) => engine.encode(messages),
            Self::Scripted(scripted) => Ok(scripted.encode(messages)),
        }
    }

    /// Generates one completion; `on_text` gets pieces of it as they come. Never retried here: the
    /// caller knows whether another try makes sense. Dropping the future ends the generation.
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
            Self::Scripted(scripted) => scripted.generate(request, on_text).await,
        }
    }

    /// Refuses what the backend can't do.
    fn check(&self, request: &CompletionRequest<'_>) -> Result<(), ProviderError> {
        let capabilities = self.capabilities();
        let provider = self.name();
        if let Some(adapter) = request.adapter
            && capabilities.adapters == AdapterFormat::None
        {
            return Err(ProviderError::AdapterUnsupported { provider, adapter: adapter.clone() });
        }
        if request.grammar.is_some() && !capabilities.grammar {
            return Err(ProviderError::Unsupported { provider, what: "grammars" });
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
