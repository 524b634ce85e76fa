//! Rune's own engine as a provider.

use std::path::Path;

use crate::model::Engine;
use crate::model::EngineOptions;
use crate::model::Generation;
use crate::model::ModelError;
use crate::model::ModelFacts;
use crate::model::Update;
use crate::trajectory::Completion;
use crate::trajectory::Message;

use super::AdapterFormat;
use super::BaseModel;
use super::Capabilities;
use super::ProviderError;
use super::Request;

/// A loaded model.
pub struct InProcess {
    engine: Engine,
    /// Canonical hub id, or the file's name for a model outside the catalogue.
    hub_id: String,
    n_sequences: usize,
}

impl InProcess {
    /// Loads the GGUF file at `path`. `hub_id` is the model's canonical name on the hub.
    ///
    /// # Errors
    /// [`ProviderError::Model`].
    pub fn load(
        path: &Path,
        hub_id: String,
        options: &EngineOptions,
    ) -> Result<Self, ProviderError> {
        let engine = Engine::start(path, options)?;
        Ok(Self { engine, hub_id, n_sequences: options.max_sequences })
    }

    /// What is known of the model.
    pub fn facts(&self) -> &ModelFacts {
        self.engine.facts()
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            adapters: AdapterFormat::None,
            grammar: false,
            logprobs: true,
            context_length: self.facts().context,
            parallel: self.n_sequences,
        }
    }

    pub(super) fn base(&self) -> BaseModel {
        let facts = self.facts();
        BaseModel {
            base_model: format!("{}@{}", self.hub_id, facts.tokenizer_digest),
            base_digest: facts.base_digest.clone(),
        }
    }

    pub(super) fn count_tokens(&self, messages: &[Message]) -> Result<usize, ProviderError> {
        Ok(self.engine.prompt(messages)?.len())
    }

    pub(super) async fn generate(
        &self,
        request: &Request<'_>,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Completion, ProviderError> {
        let prompt = self.engine.prompt(request.messages)?;
        let generation = Generation {
            logprobs: request.logprobs,
            ..Generation::new(prompt, request.sampling.clone())
        };
        let mut updates = self.engine.submit(generation)?;
        while let Some(update) = updates.recv().await {
            match update {
                Update::Text(text) => on_text(&text),
                Update::Done(completion) => return Ok(completion),
                Update::Failed(error) => return Err(error.into()),
            }
        }
        Err(ModelError::EngineGone.into())
    }
}
