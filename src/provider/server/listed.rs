//! [`ListedModel`]: an entry of a server's list of models.

use serde_json::Value;

use crate::provider::ProviderError;

use super::http::HttpServer;

/// Start of the name of every adapter on servers.
pub(super) const PREFIX: &str = "rune-";

/// A model or adapter that a server has.
#[derive(Debug)]
pub(super) struct ListedModel {
    /// Name that requests use for it.
    pub(super) id: String,
    /// Folder that it comes from, if the server tells.
    pub(super) root: Option<String>,
    /// Context window in tokens, if the server tells.
    pub(super) context: Option<usize>,
    /// Whether it is an adapter: vLLM names the base of each.
    pub(super) is_adapter: bool,
}

impl ListedModel {
    fn read(entry: &Value) -> Option<Self> {
        let id = entry["id"].as_str()?.to_owned();
        Some(Self {
            root: entry["root"].as_str().map(str::to_owned),
            context: size(&entry["max_model_len"]),
            is_adapter: entry["parent"].is_string() || id.starts_with(PREFIX),
            id,
        })
    }
}

impl HttpServer {
    /// Returns the models and adapters of the server; none if it has no such list.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub(super) async fn models(&self) -> Result<Vec<ListedModel>, ProviderError> {
        let listed = self.get("/v1/models").await?.unwrap_or_default();
        let entries = listed["data"].as_array().into_iter().flatten();
        Ok(entries.filter_map(ListedModel::read).collect())
    }

    /// Whether the server sleeps; `None` if it is not able to.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub(super) async fn is_sleeping(&self) -> Result<Option<bool>, ProviderError> {
        Ok(self.get("/is_sleeping").await?.and_then(|answer| answer["is_sleeping"].as_bool()))
    }
}

/// Reads a number of tokens or requests.
pub(super) fn size(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|size| usize::try_from(size).ok())
}
