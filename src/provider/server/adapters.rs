//! Adapters on model servers. An adapter's name there comes from its content, so that a name never
//! means other weights, and a server that was restarted can be given the same adapters again.
//!
//! vLLM loads PEFT folders while it runs. llama-server takes GGUF files when it starts, and scales
//! each of them by request. Ollama makes a model of a base and one GGUF adapter.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::RwLock;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::config::ProviderKind;
use crate::digest::sha256;
use crate::durable;
use crate::model::ModelError;
use crate::model::lora_to_gguf;
use crate::peft::CONFIG_FILE;
use crate::peft::PeftFiles;
use crate::provider::ProviderError;

use super::ModelServer;
use super::listed::PREFIX;

/// Hexadecimal digits of a digest in an adapter's name.
const DIGITS: usize = 16;
/// Status of an unknown model.
const NOT_FOUND: u16 = 404;

/// The adapters that requests may name, with their folders here.
#[derive(Debug, Default)]
pub(super) struct LoadedAdapters(RwLock<BTreeMap<AdapterId, ServedAdapter>>);

/// An adapter with its name on servers.
#[derive(Debug, Clone)]
struct ServedAdapter {
    name: String,
    folder: PathBuf,
}

/// What became of an adapter that was given to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushedAdapter {
    /// The server has it, under this name.
    Served(String),
    /// The server has to be started with this file.
    NeedsRestart(PathBuf),
}

/// An adapter file of llama-server.
#[derive(Debug, Deserialize)]
struct AdapterSlot {
    id: u32,
    path: PathBuf,
}

impl ModelServer {
    /// Makes the adapter in `folder` known as `id`. vLLM loads it unless it has it already; the
    /// other servers must have it.
    ///
    /// # Errors
    /// [`ProviderError::AdapterNotServed`] if the server does not have it, and cannot load it;
    /// [`ProviderError::Unsupported`] if the server has no adapters;
    /// [`ProviderError::Model`] if the folder has no adapter; those of a request.
    pub(in crate::provider) async fn load_adapter(
        &self,
        id: &AdapterId,
        folder: &Path,
    ) -> Result<(), ProviderError> {
        let adapter = self.read_adapter(folder)?;
        match self.kind {
            ProviderKind::LlamaCpp => drop(self.scales(Some(&adapter.name)).await?),
            ProviderKind::Vllm => self.load_into_vllm(&adapter).await?,
            ProviderKind::Ollama if self.has_model(&adapter.name).await? => {}
            ProviderKind::Ollama => return Err(self.not_served(&adapter.name)),
            _ => self.refuse(true, "adapters")?,
        }
        self.loaded.0.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), adapter);
        Ok(())
    }

    /// Takes an adapter out of the server's memory, where that is possible.
    ///
    /// # Errors
    /// Those of a request.
    pub(in crate::provider) async fn unload_adapter(
        &self,
        id: &AdapterId,
    ) -> Result<(), ProviderError> {
        let known = self.loaded.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        match known.filter(|_| self.kind == ProviderKind::Vllm) {
            Some(adapter) => self.unload(&adapter.name).await,
            None => Ok(()),
        }
    }

    async fn unload(&self, name: &str) -> Result<(), ProviderError> {
        let body = json!({ "lora_name": name });
        match self.http.post("/v1/unload_lora_adapter", &body).await {
            // A server that was restarted in the meantime does not have it.
            Ok(_) | Err(ProviderError::Refused { status: NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the adapter in `folder` to the server for good. GGUF files for llama-server are
    /// written to `files`.
    ///
    /// # Errors
    /// [`ProviderError::Unsupported`] if the server has no adapters, or needs a GGUF file and the
    /// file of its model is not here; [`ProviderError::Model`] if the adapter cannot be read or
    /// converted; [`ProviderError::Files`]; those of a request.
    pub async fn push_adapter(
        &self,
        folder: &Path,
        files: &Path,
    ) -> Result<PushedAdapter, ProviderError> {
        let adapter = self.read_adapter(folder)?;
        let name = adapter.name.clone();
        match self.kind {
            ProviderKind::Vllm => self.load_into_vllm(&adapter).await?,
            ProviderKind::LlamaCpp => {
                let file = files.join(format!("{name}.gguf"));
                let bytes = self.converted(&adapter)?;
                let written =
                    fs::create_dir_all(files).and_then(|()| durable::write(&file, &bytes));
                written.map_err(|source| ProviderError::Files { path: file.clone(), source })?;
                match self.scales(Some(&name)).await {
                    Err(ProviderError::AdapterNotServed { .. }) => {
                        return Ok(PushedAdapter::NeedsRestart(file));
                    }
                    other => drop(other?),
                }
            }
            ProviderKind::Ollama => self.create_in_ollama(&adapter).await?,
            _ => self.refuse(true, "adapters")?,
        }
        Ok(PushedAdapter::Served(name))
    }

    /// Returns the names of the adapters that the server has.
    ///
    /// # Errors
    /// Those of a request.
    pub async fn adapters(&self) -> Result<Vec<String>, ProviderError> {
        if self.kind == ProviderKind::LlamaCpp {
            let slots = self.slots().await?;
            return Ok(slots.iter().map(|slot| slot.path.display().to_string()).collect());
        }
        let adapters = self.http.models().await?.into_iter().filter(|model| model.is_adapter);
        Ok(adapters.map(|model| model.id).collect())
    }

    /// Changes the body of a request so that the adapter answers, or the base and nothing else.
    pub(super) async fn address(
        &self,
        body: &mut Value,
        adapter: Option<&AdapterId>,
    ) -> Result<(), ProviderError> {
        let name = adapter.map(|id| self.served(id)).transpose()?.map(|adapter| adapter.name);
        match (self.kind, name) {
            (ProviderKind::LlamaCpp, name) => {
                // Asked each time: after a restart the numbers can mean other files.
                let scales = self.scales(name.as_deref()).await?;
                if !scales.is_empty() {
                    body["lora"] = json!(scales);
                }
            }
            (_, Some(name)) => body["model"] = json!(name),
            (_, None) => {}
        }
        Ok(())
    }

    /// Loads an adapter again that the server has lost by a restart. Returns whether a request that
    /// named it, and failed with `error`, is worth repeating.
    pub(super) async fn restore(
        &self,
        adapter: Option<&AdapterId>,
        error: &ProviderError,
    ) -> Result<bool, ProviderError> {
        let is_lost = matches!(error, ProviderError::Refused { status: NOT_FOUND, .. });
        match adapter {
            Some(id) if is_lost && self.kind == ProviderKind::Vllm => {
                self.load_into_vllm(&self.served(id)?).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn read_adapter(&self, folder: &Path) -> Result<ServedAdapter, ProviderError> {
        // Ollama makes one model of both.
        let is_one = self.kind == ProviderKind::Ollama;
        ServedAdapter::read(folder, if is_one { &self.base.base_digest } else { "" })
    }

    fn served(&self, id: &AdapterId) -> Result<ServedAdapter, ProviderError> {
        let loaded = self.loaded.0.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(id).cloned().ok_or_else(|| ProviderError::AdapterNotLoaded(id.clone()))
    }

    /// Returns the scale of each adapter of a llama-server: 1 for `name`, and 0 for all others.
    /// Without scales in a request, this server applies those that it was started with.
    async fn scales(&self, name: Option<&str>) -> Result<Vec<Value>, ProviderError> {
        let slots = self.slots().await?;
        let is_named = |slot: &&AdapterSlot| {
            slot.path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .is_some_and(|stem| Some(stem) == name)
        };
        let wanted = slots.iter().find(is_named).map(|slot| slot.id);
        if let (Some(name), None) = (name, wanted) {
            return Err(self.not_served(name));
        }
        let scale = |slot: &AdapterSlot| json!({ "id": slot.id, "scale": if Some(slot.id) == wanted { 1.0 } else { 0.0 } });
        Ok(slots.iter().map(scale).collect())
    }

    async fn slots(&self) -> Result<Vec<AdapterSlot>, ProviderError> {
        let Some(listed) = self.http.get("/lora-adapters").await? else { return Ok(Vec::new()) };
        let text = listed.to_string();
        serde_json::from_value(listed).map_err(|_| self.http.refused(StatusCode::OK, &text))
    }

    async fn load_into_vllm(&self, adapter: &ServedAdapter) -> Result<(), ProviderError> {
        match self.root_of(&adapter.name).await? {
            Some(root) if Path::new(&root) == adapter.folder => return Ok(()),
            // The folder that it came from may be gone, and the server reads it again.
            Some(_) => self.unload(&adapter.name).await?,
            None => {}
        }
        let body = json!({ "lora_name": adapter.name, "lora_path": adapter.folder });
        match self.http.post("/v1/load_lora_adapter", &body).await {
            Ok(_) => Ok(()),
            // Another process may have loaded it a moment ago.
            Err(_) if self.has_model(&adapter.name).await? => Ok(()),
            // Without the variable that allows it, the server has no such path.
            Err(ProviderError::Refused { status: NOT_FOUND, message, .. })
                if message == "Not Found" =>
            {
                Err(self.not_served(&adapter.name))
            }
            Err(error) => Err(error),
        }
    }

    async fn create_in_ollama(&self, adapter: &ServedAdapter) -> Result<(), ProviderError> {
        if self.has_model(&adapter.name).await? {
            return Ok(());
        }
        let bytes = self.converted(adapter)?;
        let digest = format!("sha256:{}", sha256(&bytes));
        self.http.upload(&format!("/api/blobs/{digest}"), bytes).await?;
        let file = format!("{}.gguf", adapter.name);
        let body = json!({
            "model": adapter.name,
            "from": self.model,
            "adapters": { file: digest },
            "stream": false,
        });
        self.http.post("/api/create", &body).await.map(drop)
    }

    /// Returns the GGUF file of an adapter, whose rows are in the order of the base's file.
    fn converted(&self, adapter: &ServedAdapter) -> Result<Vec<u8>, ProviderError> {
        let what = "adapters of a model whose file is not here";
        let base = self
            .file
            .as_deref()
            .ok_or(ProviderError::Unsupported { provider: self.name(), what })?;
        Ok(lora_to_gguf(&adapter.folder, base)?)
    }

    async fn has_model(&self, name: &str) -> Result<bool, ProviderError> {
        Ok(self.root_of(name).await?.is_some())
    }

    /// Returns the folder of a model or adapter, empty if the server names none; `None` if it does
    /// not have it.
    async fn root_of(&self, name: &str) -> Result<Option<String>, ProviderError> {
        // Ollama adds a tag to each name.
        let is_named = |id: &str| id.strip_suffix(":latest").unwrap_or(id) == name;
        let found = self.http.models().await?.into_iter().find(|model| is_named(&model.id));
        Ok(found.map(|model| model.root.unwrap_or_default()))
    }

    fn not_served(&self, name: &str) -> ProviderError {
        ProviderError::AdapterNotServed { url: self.url().to_owned(), name: name.to_owned() }
    }
}

impl ServedAdapter {
    /// Reads the adapter in `folder`, and names it. `base` is the digest of a base that is one
    /// with the adapter on its server; empty if requests name the base.
    fn read(folder: &Path, base: &str) -> Result<Self, ProviderError> {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let files = PeftFiles::read(&folder).map_err(ModelError::from)?;
        let config = folder.join(CONFIG_FILE);
        let read = fs::read(&config);
        let config = read.map_err(|source| ProviderError::Files { path: config, source })?;
        // Also the configuration: with another alpha it is another adapter.
        let digest = sha256(format!("{} {} {base}", sha256(&config), files.sha256()).as_bytes());
        Ok(Self { name: format!("{PREFIX}{}", &digest[..DIGITS]), folder })
    }
}
