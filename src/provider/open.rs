//! Opens a provider: finds the model, downloads it if necessary, and loads it.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;

use tokio::sync::Mutex;

use crate::config::Config;
use crate::config::ProviderKind;
use crate::event::Event;
use crate::event::Reporter;
use crate::home::Home;
use crate::hub;
use crate::hub::CataloguedModel;
use crate::hub::ModelCatalogue;
use crate::hub::PullOptions;
use crate::model::EngineOptions;

use super::InProcess;
use super::ModelServer;
use super::Provider;
use super::ProviderError;
use super::Scripted;
use super::server::is_loopback;

/// GGUF file of a model with the model's canonical name: that of the hub, or the file's own name
/// for a model outside the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Path of the GGUF file.
    pub path: PathBuf,
    /// Canonical name, such as `Qwen/Qwen2.5-Coder-0.5B-Instruct`.
    pub hub_id: String,
}

/// Source of model files: Rune's home, or a download. Clones share the model that is loaded, so
/// that sessions which run at once decode in one batch.
#[derive(Clone)]
pub struct ModelSource {
    /// Rune's home, which holds downloaded models.
    pub home: Home,
    /// Where and how missing models are downloaded.
    pub pull: PullOptions,
    open: Arc<Mutex<OpenProvider>>,
}

/// The provider with the model that was loaded last, and the settings that it was loaded with.
#[derive(Default)]
struct OpenProvider {
    settings: String,
    /// It is closed once nobody uses it any more.
    provider: Weak<Provider>,
}

impl ModelSource {
    /// Creates a source of models in `home`, which are downloaded as `pull` says.
    pub fn new(home: Home, pull: PullOptions) -> Self {
        Self { home, pull, open: Arc::default() }
    }

    /// Finds the file of the model `name`, a catalog name or a path. Downloads it if necessary and
    /// reports the progress to `reporter`.
    ///
    /// # Errors
    /// [`ProviderError::Hub`] if the model is unknown or cannot be downloaded.
    pub async fn find(
        &self,
        name: &str,
        reporter: &dyn Reporter,
    ) -> Result<ModelFile, ProviderError> {
        if is_model_path(name) {
            let path = PathBuf::from(name);
            let hub_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(ModelFile { path, hub_id });
        }
        let catalogue = ModelCatalogue::embedded();
        let model = catalogue.get(name)?;
        let path = match hub::path(&self.home, model) {
            Some(path) => path,
            None => hub::pull(&self.home, model, &self.pull, reporter).await?,
        };
        Ok(ModelFile { path, hub_id: model.base_model.clone() })
    }

    /// Loads the model of the setting `run.model` into the in-process engine.
    ///
    /// # Errors
    /// Those of [`Self::find`]; [`ProviderError::Model`] if the file cannot be loaded.
    pub async fn engine(
        &self,
        config: &Config,
        reporter: &dyn Reporter,
    ) -> Result<InProcess, ProviderError> {
        load(self.find(&config.run.model, reporter).await?, engine_options(config)).await
    }

    /// Opens the configured provider. A model that is loaded with the same settings is shared; a
    /// script begins anew.
    ///
    /// # Errors
    /// Those of [`Self::engine`]; [`ProviderError::Script`] if the script cannot be read.
    pub async fn open(
        &self,
        config: &Config,
        reporter: &dyn Reporter,
    ) -> Result<Arc<Provider>, ProviderError> {
        if config.run.provider == ProviderKind::Scripted {
            let script = Path::new(&config.run.scripted);
            let scripted = Scripted::load(script, config.engine.context)?;
            return Ok(Arc::new(Provider::Scripted(scripted)));
        }
        let settings = format!(
            "{:?}",
            (&config.run.provider, &config.run.model, &config.server, engine_options(config))
        );
        // Held while the model is loaded, so that concurrent callers do not load it twice.
        let mut open = self.open.lock().await;
        if open.settings == settings
            && let Some(provider) = open.provider.upgrade()
        {
            return Ok(provider);
        }
        let provider = Arc::new(match config.run.provider {
            ProviderKind::InProcess => Provider::InProcess(self.load(config, reporter).await?),
            _ => Provider::Server(self.connect(config, reporter).await?),
        });
        *open = OpenProvider { settings, provider: Arc::downgrade(&provider) };
        Ok(provider)
    }

    /// Connects to the server of the settings.
    ///
    /// # Errors
    /// Those of [`ModelServer::connect`]; [`ProviderError::Hub`] if the stated model is unknown or
    /// cannot be downloaded.
    pub async fn connect(
        &self,
        config: &Config,
        reporter: &dyn Reporter,
    ) -> Result<ModelServer, ProviderError> {
        let url = &config.server.url;
        if url.starts_with("http:") && !is_loopback(url) {
            let message = format!("{url} is not encrypted: tasks and code can be read on the way");
            reporter.report("", &Event::notice(message));
        }
        let stated = match config.server.base_model.as_str() {
            "" => None,
            name => Some(self.find(name, reporter).await?),
        };
        let server = ModelServer::connect(config, stated, &|path| self.canonical(path)).await?;
        let context = server.capabilities().context_length;
        let connected = format!("{} on {url}, context {context}", server.model());
        reporter.report("", &Event::notice(connected));
        Ok(server)
    }

    /// Returns the canonical name of the model in a file: that of the catalog, or the file's own.
    fn canonical(&self, path: &Path) -> String {
        let is_same = |model: &&CataloguedModel| {
            let known = hub::path(&self.home, model).and_then(|known| known.canonicalize().ok());
            known.is_some() && known == path.canonicalize().ok()
        };
        match ModelCatalogue::embedded().models().iter().find(is_same) {
            Some(model) => model.base_model.clone(),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    async fn load(
        &self,
        config: &Config,
        reporter: &dyn Reporter,
    ) -> Result<InProcess, ProviderError> {
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
        Ok(engine)
    }
}

/// Whether `run.model` is the path of a GGUF file rather than a name of the catalog.
pub fn is_model_path(model: &str) -> bool {
    let path = Path::new(model);
    path.extension().is_some_and(|extension| extension == "gguf") || path.is_file()
}

async fn load(file: ModelFile, options: EngineOptions) -> Result<InProcess, ProviderError> {
    let load = move || InProcess::load(&file.path, file.hub_id, &options);
    match tokio::task::spawn_blocking(load).await {
        Ok(loaded) => loaded,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Returns the engine options that the settings describe.
pub fn engine_options(config: &Config) -> EngineOptions {
    let engine = &config.engine;
    let (context, kv_bytes) = (engine.context, engine.kv_mib << 20);
    let mut options = EngineOptions { context, kv_bytes, ..EngineOptions::default() };
    if engine.threads > 0 {
        options.n_threads = engine.threads;
    }
    options
}
