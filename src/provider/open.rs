//! From a model's name to a provider that answers: found, fetched where it is not here yet, and
//! loaded.

use std::path::Path;
use std::path::PathBuf;

use crate::config::Config;
use crate::config::ProviderKind;
use crate::event::Event;
use crate::event::Reporter;
use crate::home::Home;
use crate::hub;
use crate::hub::ModelCatalogue;
use crate::hub::PullOptions;
use crate::model::EngineOptions;

use super::InProcess;
use super::Provider;
use super::ProviderError;
use super::Scripted;

/// A model's file, and its canonical name on the hub: the file's own for one outside of the
/// catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// The GGUF file.
    pub path: PathBuf,
    /// Such as `Qwen/Qwen2.5-Coder-0.5B-Instruct`.
    pub hub_id: String,
}

/// How models come here and are loaded.
#[derive(Clone)]
pub struct ModelSource {
    /// Where they lie.
    pub home: Home,
    /// Where they are fetched from.
    pub pull: PullOptions,
}

impl ModelSource {
    /// The file of the model `name`, a name of the catalogue or a path. Fetches it when it is not
    /// here; `reporter` hears of that.
    ///
    /// # Errors
    /// [`ProviderError::Hub`] when there is no such model, or no way to have it.
    pub async fn find(
        &self,
        name: &str,
        reporter: &dyn Reporter,
    ) -> Result<ModelFile, ProviderError> {
        let as_path = Path::new(name);
        if as_path.extension().is_some_and(|extension| extension == "gguf") || as_path.is_file() {
            let hub_id = as_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(ModelFile { path: as_path.to_owned(), hub_id });
        }
        let catalogue = ModelCatalogue::embedded();
        let model = catalogue.get(name)?;
        let path = match hub::path(&self.home, model) {
            Some(path) => path,
            None => hub::pull(&self.home, model, &self.pull, reporter).await?,
        };
        Ok(ModelFile { path, hub_id: model.base_model.clone() })
    }

    /// Rune's own engine with the model of the setting `run.model`.
    ///
    /// # Errors
    /// Those of [`Self::find`]; [`ProviderError::Model`] when it can't be loaded.
    pub async fn engine(
        &self,
        config: &Config,
        reporter: &dyn Reporter,
    ) -> Result<InProcess, ProviderError> {
        load(self.find(&config.run.model, reporter).await?, engine_options(config)).await
    }

    /// The provider that the settings name, ready to answer.
    ///
    /// # Errors
    /// Those of [`Self::engine`]; [`ProviderError::Script`] when the canned answers can't be read.
    pub async fn open(
        &self,
        config: &Config,
        reporter: &dyn Reporter,
    ) -> Result<Provider, ProviderError> {
        if config.run.provider == ProviderKind::Scripted {
            let script = Path::new(&config.run.scripted);
            return Ok(Provider::Scripted(Scripted::load(script, config.engine.context)?));
        }
        let file = self.find(&config.run.model, reporter).await?;
        reporter.report("", &Event::notice(format!("loading {}", file.path.display())));
        let engine = load(file, engine_options(config)).await?;
        let facts = engine.facts();
        let loaded = format!(
            "{} on {} threads ({}), {} MB, context {}",
            config.run.model,
            facts.n_threads,
            facts.isa.name(),
            facts.weight_bytes / 1_000_000,
            facts.context
        );
        reporter.report("", &Event::notice(loaded));
        Ok(Provider::InProcess(engine))
    }
}

async fn load(file: ModelFile, options: EngineOptions) -> Result<InProcess, ProviderError> {
    let load = move || InProcess::load(&file.path, file.hub_id, &options);
    match tokio::task::spawn_blocking(load).await {
        Ok(loaded) => loaded,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The engine as the settings want it.
pub fn engine_options(config: &Config) -> EngineOptions {
    let engine = &config.engine;
    let (context, kv_bytes) = (engine.context, engine.kv_mib << 20);
    let mut options = EngineOptions { context, kv_bytes, ..EngineOptions::default() };
    if engine.threads > 0 {
        options.n_threads = engine.threads;
    }
    options
}
