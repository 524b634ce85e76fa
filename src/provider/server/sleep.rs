//! [`SleepControl`]: lets a vLLM server sleep and wakes it, and tells whether it still is what it
//! was. `/health` answers also while a server sleeps, and a chat then waits without end: only
//! `/is_sleeping` tells.

use std::fs;

use reqwest::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::config::ProviderKind;
use crate::config::ServerConfig;
use crate::provider::ProviderError;

use super::connect::FINGERPRINT;
use super::http::HttpServer;
use super::listed::ListedModel;

/// Tokens of each answer that is compared.
const TOKENS: u32 = 24;
/// Largest difference of a token's log probability before and after. Batches of other sizes round
/// otherwise, by some thousandths.
const TOLERANCE: f64 = 0.1;

/// How a server treats unfinished requests before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainMode {
    /// It ends them first.
    Wait,
    /// It aborts them, and sleeps at once.
    Abort,
}

/// A model or adapter of a server, with its answer to a fixed question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedAnswer {
    /// Name that requests use for it.
    pub model: String,
    /// Folder of an adapter; `None` for a model.
    pub folder: Option<String>,
    /// Its greedy answer to the question, with its reasoning.
    pub text: String,
    /// Log probability of each token of the answer; empty if the server gives none.
    pub logprobs: Vec<f64>,
}

impl ServedAnswer {
    /// Whether this is the same answer, given by the same weights: an adapter that is no longer
    /// applied can give the same text, with other probabilities.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_near = |(one, two): (&f64, &f64)| (one - two).abs() <= TOLERANCE;
        self.model == other.model
            && self.text == other.text
            && self.logprobs.len() == other.logprobs.len()
            && self.logprobs.iter().zip(&other.logprobs).all(is_near)
    }
}

/// The control of one server, whether it sleeps or not.
#[derive(Debug, Clone)]
pub struct SleepControl(HttpServer);

impl SleepControl {
    /// Creates the control of the server at `url` without connecting.
    ///
    /// # Errors
    /// [`ProviderError::NoUrl`] without a URL; [`ProviderError::BadUrl`];
    /// [`ProviderError::NoKey`].
    pub fn new(settings: &ServerConfig, url: &str) -> Result<Self, ProviderError> {
        if url.is_empty() {
            return Err(ProviderError::NoUrl(ProviderKind::Vllm.as_str()));
        }
        HttpServer::of(settings, url).map(Self)
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> &str {
        self.0.url()
    }

    /// Whether the server sleeps; `None` if it is not able to.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub async fn is_sleeping(&self) -> Result<Option<bool>, ProviderError> {
        self.0.is_sleeping().await
    }

    /// Whether the server answers at all.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`].
    pub async fn is_healthy(&self) -> Result<bool, ProviderError> {
        Ok(self.0.probe("/health").await?.0 == StatusCode::OK)
    }

    /// Returns the number of requests that the server has, running and waiting; `None` if it does
    /// not say.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`].
    pub async fn n_requests(&self) -> Result<Option<u64>, ProviderError> {
        let (status, text) = self.0.probe("/metrics").await?;
        if status != StatusCode::OK {
            return Ok(None);
        }
        let names = [
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "llamacpp:requests_processing",
            "llamacpp:requests_deferred",
        ];
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.split('{').next()?;
            names.contains(&name).then(|| value.parse::<f64>().ok())?
        };
        let values: Vec<f64> = text.lines().filter_map(value).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let total = values.iter().sum::<f64>() as u64;
        Ok((!values.is_empty()).then_some(total))
    }

    /// Tells the server to sleep. With `level` 1 it keeps its weights in the memory of the machine,
    /// with 2 it drops them. Returns once it says that it sleeps, which is to be checked.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub async fn sleep(&self, level: u8, mode: DrainMode) -> Result<(), ProviderError> {
        let mode = if mode == DrainMode::Wait { "wait" } else { "abort" };
        self.0.post(&format!("/sleep?level={level}&mode={mode}"), &json!({})).await.map(drop)
    }

    /// Wakes the server. After level 2 it gets its weights before it gets memory for answers:
    /// without them it answers garbage, and with both at once it can run out of memory.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub async fn wake(&self, level: u8) -> Result<(), ProviderError> {
        if level < 2 {
            return self.0.post("/wake_up", &json!({})).await.map(drop);
        }
        self.0.post("/wake_up?tags=weights", &json!({})).await?;
        self.0.post("/collective_rpc", &json!({ "method": "reload_weights" })).await?;
        self.0.post("/wake_up?tags=kv_cache", &json!({})).await.map(drop)
    }

    /// Returns the server's models and adapters, each with its answer.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub async fn answers(&self) -> Result<Vec<ServedAnswer>, ProviderError> {
        let mut answers = Vec::new();
        for ListedModel { id, root, is_adapter, .. } in self.0.models().await? {
            answers.push(self.answer(id, root.filter(|_| is_adapter)).await?);
        }
        Ok(answers)
    }

    /// Gives the server the adapters back that it has lost, and returns its answers for the same
    /// models and adapters as `before`.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub async fn answers_again(
        &self,
        before: &[ServedAnswer],
    ) -> Result<Vec<ServedAnswer>, ProviderError> {
        let now = self.0.models().await?;
        let is_there = |one: &&ServedAnswer| now.iter().any(|model| model.id == one.model);
        for lost in before.iter().filter(|one| !is_there(one)) {
            let Some(folder) = &lost.folder else { continue };
            let body = json!({ "lora_name": lost.model, "lora_path": folder });
            self.0.post("/v1/load_lora_adapter", &body).await?;
        }
        let mut answers = Vec::new();
        for ServedAnswer { model, folder, .. } in before.iter().cloned() {
            answers.push(self.answer(model, folder).await?);
        }
        Ok(answers)
    }

    async fn answer(
        &self,
        model: String,
        folder: Option<String>,
    ) -> Result<ServedAnswer, ProviderError> {
        let body = json!({
            "model": model,
            "messages": [{ "role": "user", "content": FINGERPRINT }],
            "temperature": 0.0,
            "seed": 0,
            "max_tokens": TOKENS,
            "logprobs": true,
        });
        let answer = self.0.post_for("/v1/chat/completions", &body).await?;
        let choice = &answer["choices"][0];
        let parts = ["reasoning", "reasoning_content", "content"];
        let text: String =
            parts.into_iter().filter_map(|name| choice["message"][name].as_str()).collect();
        if text.is_empty() {
            return Err(self.0.refused(StatusCode::OK, &answer.to_string()));
        }
        let tokens = choice["logprobs"]["content"].as_array().into_iter().flatten();
        let logprobs = tokens.filter_map(|token| token["logprob"].as_f64()).collect();
        Ok(ServedAnswer { model, folder, text, logprobs })
    }

    /// Returns the bytes of the weights, if the folder of the model can be read from here.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub async fn weight_bytes(&self) -> Result<Option<u64>, ProviderError> {
        let root = self.0.models().await?.into_iter().find_map(|model| model.root);
        let Some(files) = root.and_then(|root| fs::read_dir(root).ok()) else {
            return Ok(None);
        };
        let is_weights =
            |file: &fs::DirEntry| file.file_name().to_string_lossy().ends_with(".safetensors");
        let sizes = files.flatten().filter(is_weights).filter_map(|file| file.metadata().ok());
        Ok(Some(sizes.map(|data| data.len()).sum()).filter(|bytes| *bytes > 0))
    }
}
