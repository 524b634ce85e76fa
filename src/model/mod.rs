//! CPU inference and LoRA training for Llama and Qwen2 models stored as GGUF.
//!
//! [`Engine`] is the entry point: it loads a file, tokenizes chats and generates on its own thread,
//! batching several sequences, each with its own [`LoraAdapter`] or none. It is built from the
//! [`Tokenizer`], the chat template, the sampler, the continuous-batching scheduler, the
//! transformer and its kernels. The kernels multiply packed integer weights; [`Precision::Exact`]
//! is the slow `f32` reference.
//!
//! [`LoraModel`] trains an adapter beside the frozen base; [`lora_to_gguf`] exports one for
//! llama.cpp.

mod chat;
mod engine;
mod gguf;
mod grammar;
mod kernels;
mod kv;
mod lora;
mod lora_gguf;
mod prefix;
mod quant;
mod sample;
mod scheduler;
mod sequence;
mod tokenizer;
mod transformer;
mod tune;
mod weights;

use std::path::Path;
use std::path::PathBuf;

use crate::digest::sha256_of_file;
use crate::peft::PeftError;

pub use chat::ChatEncoder;
pub use chat::EncodedChat;
pub use engine::Engine;
pub use engine::EngineOptions;
pub use engine::EngineUpdate;
pub use engine::ModelFacts;
pub use grammar::Grammar;
pub use kernels::Isa;
pub use lora::LoraAdapter;
pub use lora_gguf::lora_to_gguf;
pub use sequence::GenerationRequest;
pub use tokenizer::Tokenizer;
#[cfg(feature = "torch")]
pub use tune::DenseLayer;
#[cfg(feature = "torch")]
pub use tune::DenseModel;
pub use tune::LoraModel;
pub use tune::NextToken;
pub use tune::ParameterPart;
pub use tune::TensorPlace;
pub use tune::TrainBatch;
pub use tune::TunedModules;
pub use tune::TunerOptions;
pub use tune::TunerSizes;
pub use weights::Precision;

/// Errors from loading a model or generating with it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file can't be read.
    #[error("cannot read the model `{}`", path.display())]
    Io {
        /// Path of the model file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file is damaged or not a GGUF file.
    #[error("invalid GGUF file `{}`: {reason}", path.display())]
    Malformed {
        /// Path of the model file.
        path: PathBuf,
        /// The defect, for the error message.
        reason: String,
    },
    /// The file is valid, but uses a feature that Rune does not implement.
    #[error("unsupported model `{}`: {what}", path.display())]
    Unsupported {
        /// Path of the model file.
        path: PathBuf,
        /// The unsupported feature, such as an architecture or a tensor type.
        what: String,
    },
    /// The tokenizer rejected a text.
    #[error("cannot tokenize the text: {0}")]
    Tokenizer(String),
    /// The model's chat template rejected the messages.
    #[error("the model's chat template rejected the messages: {0}")]
    ChatTemplate(String),
    /// The folder does not hold a usable PEFT adapter.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The adapter does not fit this model.
    #[error("the adapter `{}` cannot be used: {reason}", path.display())]
    Adapter {
        /// Folder of the adapter.
        path: PathBuf,
        /// The defect, for the error message.
        reason: String,
    },
    /// The prompt is empty or contains a token id outside the vocabulary.
    #[error("invalid prompt: {0}")]
    Prompt(String),
    /// The prompt fills the context window and leaves no space for an answer.
    #[error("prompt too long: {n_tokens} tokens, but the context window is {limit}")]
    ContextOverflow {
        /// Length of the prompt in tokens.
        n_tokens: usize,
        /// Size of the context window in tokens.
        limit: usize,
    },
    /// The grammar is invalid, too large, or allows no further token.
    #[error("the grammar cannot be enforced: {0}")]
    Grammar(String),
    /// The logits are NaN or infinite, which only damaged weights produce.
    #[error("the model's logits are not finite: its weights are damaged")]
    NotFinite,
    /// The engine's thread has ended: it panicked, or the engine was dropped.
    #[error("the inference engine has stopped")]
    EngineGone,
}

/// Digests that identify a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelIdentity {
    /// SHA-256 of the model file.
    pub base_digest: String,
    /// SHA-256 of vocabulary, merges and pre-tokenizer name.
    pub tokenizer_digest: String,
}

/// Computes the digests of the model file at `path`. Hashes the whole file.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file can't
/// be loaded.
pub fn identify(path: &Path) -> Result<ModelIdentity, ModelError> {
    let tokenizer_digest = Tokenizer::load(&gguf::GgufFile::open(path)?)?.digest().to_owned();
    Ok(ModelIdentity { base_digest: digest_of(path)?, tokenizer_digest })
}

/// SHA-256 of a model file, in hex.
fn digest_of(path: &Path) -> Result<String, ModelError> {
    sha256_of_file(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
pub(crate) use tests::smollm2_file;

#[cfg(test)]
mod tests;
