//! Rune's in-process engine as a provider.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use crate::adapter::AdapterId;
use crate::model::Engine;
use crate::model::EngineOptions;
use crate::model::EngineUpdate;
use crate::model::GenerationRequest;
use crate::model::LoraAdapter;
use crate::model::ModelError;
use crate::model::ModelFacts;
use crate::trajectory::Completion;
use crate::trajectory::Message;

use super::AdapterFormat;
use super::BaseModel;
use super::Capabilities;
use super::CompletionRequest;
use super::EncodedPrompt;
use super::GrammarSupport;
use super::ProviderError;

/// In-process engine with a loaded model.
pub struct InProcess {
    engine: Engine,
    /// Loaded adapters by id.
    adapters: RwLock<HashMap<AdapterId, Arc<LoraAdapter>>>,
    /// Canonical hub id, or the file's name for a model outside the catalog.
    hub_id: String,
    n_sequences: usize,
}

impl InProcess {
    /// Loads the GGUF file at `path`. `hub_id` is the model's canonical name.
    ///
    /// # Errors
    /// [`ProviderError::Model`].
    pub fn load(
        path: &Path,
        hub_id: String,
        options: &EngineOptions,
    ) -> Result<Self, ProviderError> {
        let engine = Engine::start(path, options)?;
        let (adapters, n_sequences) = (RwLock::default(), options.max_sequences);
        Ok(Self { engine, adapters, hub_id, n_sequences })
    }

    /// Loads the PEFT folder at `folder`; requests may then name it as `id`. The base weights and
    /// in-flight generations are not affected.
    ///
    /// # Errors
    /// [`ProviderError::Model`] if the folder has no adapter for this model.
    pub fn load_adapter(&self, id: AdapterId, folder: &Path) -> Result<(), ProviderError> {
        let adapter = self.engine.load_adapter(folder)?;
        self.adapters.write().unwrap_or_else(PoisonError::into_inner).insert(id, adapter);
        Ok(())
    }

    /// Unloads an adapter. Its memory is freed once no generation uses it.
    pub fn unload_adapter(&self, id: &AdapterId) {
        self.adapters.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn adapter(&self, id: &AdapterId) -> Result<Arc<LoraAdapter>, ProviderError> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        adapters.get(id).cloned().ok_or_else(|| ProviderError::AdapterNotLoaded(id.clone()))
    }

    /// Returns facts about the loaded model.
    pub fn facts(&self) -> &ModelFacts {
        self.engine.facts()
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            adapters: AdapterFormat::Peft,
            grammar: GrammarSupport::All,
            logprobs: true,
            context_length: self.facts().context,
            parallel: self.n_sequences,
        }
    }

    /// Returns the sha256 of the weights; see [`BaseModel::base_digest`].
    pub fn base_digest(&self) -> &str {
        &self.facts().base_digest
    }

    pub(super) fn base(&self) -> BaseModel {
        let facts = self.facts();
        BaseModel {
            base_model: format!("{}@{}", self.hub_id, facts.tokenizer_digest),
            base_digest: facts.base_digest.clone(),
        }
    }

    pub(super) fn encode(&self, messages: Vec<Message>) -> Result<EncodedPrompt, ProviderError> {
        let tokens = self.engine.prompt(&messages)?;
        Ok(EncodedPrompt { n_tokens: tokens.len(), messages, tokens })
    }

    pub(super) async fn generate(
        &self,
        request: &CompletionRequest<'_>,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Completion, ProviderError> {
        let generation = GenerationRequest {
            adapter: request.adapter.map(|id| self.adapter(id)).transpose()?,
            logprobs: request.logprobs,
            grammar: request.grammar.cloned(),
            ..GenerationRequest::new(request.prompt.tokens.clone(), request.sampling.clone())
        };
        let mut updates = self.engine.submit(generation)?;
        while let Some(update) = updates.recv().await {
            match update {
                EngineUpdate::Text(text) => on_text(&text),
                EngineUpdate::Done(completion) => return Ok(completion),
                EngineUpdate::Failed(error) => return Err(error.into()),
            }
        }
        Err(ModelError::EngineGone.into())
    }
}
