//! Connecting to a server: which model it has, and how it can be used.

use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::config::Config;
use crate::config::ProviderKind;
use crate::digest::sha256;
use crate::model;
use crate::model::ChatEncoder;
use crate::provider::AdapterFormat;
use crate::provider::BaseModel;
use crate::provider::Capabilities;
use crate::provider::CompletionRequest;
use crate::provider::GrammarSupport;
use crate::provider::ModelFile;
use crate::provider::ProviderError;
use crate::trajectory::Message;
use crate::trajectory::Sampling;

use super::ModelServer;
use super::adapters::LoadedAdapters;
use super::http::HttpServer;
use super::http::is_loopback;
use super::listed::size;

/// Concurrent requests to a server that does not say how many it takes.
const PARALLEL: usize = 4;
/// Question whose greedy answer tells one model from another.
pub(super) const FINGERPRINT: &str = "Write the first twelve prime numbers, separated by commas.";

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
    /// in a file. `stated` is the model that the server has according to the user, whose tokenizer
    /// counts where the server's own file cannot be read.
    ///
    /// # Errors
    /// [`ProviderError::NoUrl`]; [`ProviderError::NoKey`]; [`ProviderError::BadUrl`];
    /// [`ProviderError::NotServed`] when the server has no model of the name;
    /// [`ProviderError::Model`] for a file that cannot be read; [`ProviderError::Unreachable`];
    /// [`ProviderError::Refused`]; [`ProviderError::Stream`].
    pub async fn connect(
        config: &Config,
        stated: Option<ModelFile>,
        canonical: &(dyn Fn(&Path) -> String + Sync),
    ) -> Result<Self, ProviderError> {
        let settings = &config.server;
        if settings.url.is_empty() {
            return Err(ProviderError::NoUrl(config.run.provider.as_str()));
        }
        let http = HttpServer::of(settings, &settings.url)?;
        let kind = config.run.provider;
        refuse_sleeper(&http, kind).await?;
        let served = served_model(&http, kind, &settings.model).await?;
        let limit = config.engine.context;
        let context_length = match kind {
            // Each request names the window that it wants.
            ProviderKind::Ollama => served.context.map_or(limit, |window| window.min(limit)),
            _ => served.context.unwrap_or(limit),
        };
        let parallel = served.parallel.unwrap_or(PARALLEL);
        let own = served.path.filter(|path| is_loopback(http.url()) && path.is_file());
        let reads_weights = own.is_some();
        let own = own.map(|path| ModelFile { hub_id: canonical(&path), path });
        let mut server = Self {
            http,
            kind,
            // Reasoning has to fit as well.
            capabilities: Capabilities {
                context_length: context_length.saturating_sub(settings.reasoning_tokens as usize),
                parallel,
                ..capabilities(kind)
            },
            base: BaseModel { base_model: served.name.clone(), base_digest: String::new() },
            model: served.name,
            reasoning_tokens: settings.reasoning_tokens,
            encoder: None,
            file: None,
            reads_weights,
            loaded: LoadedAdapters::default(),
        };
        if let Some(file) = own.or(stated) {
            let encoder = ChatEncoder::load(&file.path)?;
            server.base.base_model = format!("{}@{}", file.hub_id, encoder.tokenizer().digest());
            server.encoder = Some(encoder);
            server.file = Some(file.path);
        }
        server.base.base_digest = match &server.file {
            Some(path) if reads_weights => model::identify(path)?.base_digest,
            _ => server.fingerprint().await?,
        };
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
}

/// Fails if a server sleeps: it would answer once it is woken, which may be never.
pub(super) async fn refuse_sleeper(
    http: &HttpServer,
    kind: ProviderKind,
) -> Result<(), ProviderError> {
    if kind != ProviderKind::Vllm {
        return Ok(());
    }
    match http.is_sleeping().await? {
        Some(true) => Err(ProviderError::Asleep(http.url().to_owned())),
        _ => Ok(()),
    }
}

/// Returns what servers of a kind are able to do.
fn capabilities(kind: ProviderKind) -> Capabilities {
    let (adapters, grammar) = match kind {
        ProviderKind::LlamaCpp => (AdapterFormat::Gguf, GrammarSupport::All),
        ProviderKind::Vllm => (AdapterFormat::Peft, GrammarSupport::All),
        ProviderKind::Ollama => (AdapterFormat::Gguf, GrammarSupport::JsonSchema),
        _ => (AdapterFormat::None, GrammarSupport::JsonSchema),
    };
    let logprobs = kind != ProviderKind::Ollama;
    Capabilities { adapters, grammar, logprobs, context_length: 0, parallel: PARALLEL }
}

/// Finds the model `wanted`, or the only one that the server has.
async fn served_model(
    http: &HttpServer,
    kind: ProviderKind,
    wanted: &str,
) -> Result<ServedModel, ProviderError> {
    let mut models = http.models().await?;
    models.retain(|model| !model.is_adapter);
    let found = match models.as_slice() {
        [only] if wanted.is_empty() => Some(only),
        all => all.iter().find(|model| model.id == wanted),
    };
    let Some(found) = found else {
        let known = models.into_iter().map(|model| model.id).collect();
        return Err(ProviderError::NotServed {
            url: http.url().to_owned(),
            wanted: wanted.to_owned(),
            known,
        });
    };
    let (name, context) = (found.id.clone(), found.context);
    Ok(match kind {
        ProviderKind::LlamaCpp => {
            let props = http.get("/props").await?.unwrap_or_default();
            let per_slot = &props["default_generation_settings"]["n_ctx"];
            ServedModel {
                name,
                context: size(per_slot).or_else(|| size(&props["n_ctx"])),
                parallel: size(&props["total_slots"]),
                path: props["model_path"].as_str().map(PathBuf::from),
            }
        }
        ProviderKind::Ollama => {
            let shown = http.post_for("/api/show", &json!({ "model": name })).await?;
            let facts = &shown["model_info"];
            let architecture = facts["general.architecture"].as_str().unwrap_or_default();
            let recipe = shown["modelfile"].as_str().unwrap_or_default();
            // With an adapter, the file of the base is not all that answers.
            let is_adapted = recipe.lines().any(|line| line.starts_with("ADAPTER "));
            let from = recipe.lines().filter(|_| !is_adapted);
            let mut from = from.filter_map(|line| line.strip_prefix("FROM "));
            ServedModel {
                name,
                context: size(&facts[format!("{architecture}.context_length")]),
                path: from.next().map(|path| PathBuf::from(path.trim())),
                parallel: None,
            }
        }
        _ => ServedModel { name, context, ..ServedModel::default() },
    })
}
