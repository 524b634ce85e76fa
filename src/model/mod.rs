//! Runs language models of the Llama and Qwen2 families on the CPU, from GGUF files.
//!
//! [`Engine`] is the face: it loads a file, turns chats into tokens and generates on a thread of
//! its own, several sequences at once, each with its own [`LoraAdapter`] or none. Below it:
//! [`Tokenizer`], the chat template, the sampler, the scheduler, the transformer and its kernels.
//! The kernels work on packed integer weights; [`Precision::Exact`] is the slow `f32` reference.

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

/// Why a model can't be loaded or can't answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file can't be read.
    #[error("cannot read the model `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is damaged or no GGUF file.
    #[error("`{}` is no usable GGUF file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is sound, but Rune can't run it.
    #[error("Rune cannot run `{}`: it has {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: String,
    },
    /// The tokenizer refused a text.
    #[error("the text cannot be cut into tokens: {0}")]
    Tokenizer(String),
    /// The model's chat template refused the messages.
    #[error("the model's chat template refuses the messages: {0}")]
    ChatTemplate(String),
    /// The folder holds no adapter that can be read.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The adapter does not fit this model.
    #[error("the adapter `{}` cannot be used: {reason}", path.display())]
    Adapter {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The prompt is empty, or it has a token that the model doesn't know.
    #[error("the prompt cannot be used: {0}")]
    Prompt(String),
    /// The prompt leaves no room in the context window.
    #[error("the prompt has {n_tokens} tokens, the context window {limit}")]
    ContextOverflow {
        /// Tokens of the prompt.
        n_tokens: usize,
        /// Tokens of the window.
        limit: usize,
    },
    /// The grammar is wrong, too large, or allows nothing more.
    #[error("the answer cannot be held to the grammar: {0}")]
    Grammar(String),
    /// The logits are no numbers: the weights are damaged.
    #[error("the model computes no finite numbers: its weights are damaged")]
    NotFinite,
    /// The engine's thread has ended, by a fault of its own or because the engine was dropped.
    #[error("the engine has stopped")]
    EngineGone,
}

/// What tells a model from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelIdentity {
    /// sha256 of the file.
    pub base_digest: String,
    /// sha256 of vocabulary, merges and pre-tokenizer.
    pub tokenizer_digest: String,
}

/// Reads what tells the model at `path` from all others.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file can't
/// be used.
pub fn identify(path: &Path) -> Result<ModelIdentity, ModelError> {
    let tokenizer_digest = Tokenizer::load(&gguf::GgufFile::open(path)?)?.digest().to_owned();
    Ok(ModelIdentity { base_digest: digest_of(path)?, tokenizer_digest })
}

/// The sha256 of a model's file.
fn digest_of(path: &Path) -> Result<String, ModelError> {
    sha256_of_file(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
pub(crate) use tests::smollm2_file;

#[cfg(test)]
mod tests;
