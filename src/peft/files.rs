//! [`PeftFiles`]: the two files of an adapter, validated, and converted one module at a time.

use std::path::Path;

use crate::digest::sha256;

use super::config::PeftConfig;
use super::config::TargetModules;
use super::error::PeftError;
use super::folder;
use super::tensors::FORMAT;
use super::tensors::LoraFactors;
use super::tensors::LoraMatrix;
use super::tensors::NamedTensor;
use super::tensors::WeightsLayout;
use super::tensors::encode_tensors;
use super::tensors::tensor_name;

/// The two files of an adapter: raw bytes and parsed contents.
#[derive(Debug, Clone)]
pub struct PeftFiles {
    /// Raw content of `adapter_config.json`.
    pub config: Vec<u8>,
    /// Raw content of `adapter_model.safetensors`.
    pub tensors: Vec<u8>,
    /// Names of the adapted linear layers, sorted.
    pub target_modules: Vec<String>,
    settings: PeftConfig,
    layout: WeightsLayout,
}

impl PeftFiles {
    /// Reads the PEFT folder at `folder`.
    ///
    /// # Errors
    /// [`PeftError::Read`]; [`PeftError::Unusable`] when a file is malformed, unsupported or too
    /// large. Pickled weights are never opened.
    pub fn read(folder: &Path) -> Result<Self, PeftError> {
        // Weights first: "the weights are pickled" is a more useful error than a missing
        // configuration.
        let tensors = folder::read_weights(folder)?;
        let config = folder::read_config(folder)?;
        Self::parse(config, tensors).map_err(PeftError::unusable(folder))
    }

    /// Creates the files of an adapter in memory. Tensors are named by [`tensor_name`].
    ///
    /// # Errors
    /// A description of the problem, as for [`Self::parse`].
    pub fn new(config: &PeftConfig, tensors: &[NamedTensor<'_>]) -> Result<Self, String> {
        Self::parse(config.to_json(), encode_tensors(tensors, &[FORMAT])?)
    }

    /// Parses and validates the contents of both files.
    ///
    /// # Errors
    /// A description of the problem.
    pub fn parse(config: Vec<u8>, tensors: Vec<u8>) -> Result<Self, String> {
        let settings = PeftConfig::parse(&config)?;
        let layout = WeightsLayout::parse(&tensors)?;
        let mut target_modules = match &settings.target_modules {
            Some(TargetModules::Named(names)) => names.clone(),
            // The layers that the pattern matched.
            Some(TargetModules::Pattern(_)) | None => layout.last_names(),
        };
        target_modules.sort();
        Ok(Self { config, tensors, target_modules, settings, layout })
    }

    /// Returns the parsed configuration.
    pub fn settings(&self) -> &PeftConfig {
        &self.settings
    }

    /// Returns the default rank, which single modules may override.
    pub fn rank(&self) -> u32 {
        self.settings.r
    }

    /// Returns the default alpha, which single modules may override.
    pub fn alpha(&self) -> f64 {
        self.settings.lora_alpha
    }

    /// Returns the SHA-256 of the weights file, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(&self.tensors)
    }

    /// Returns the names of the adapted modules, such as `model.layers.0.self_attn.q_proj`, sorted
    /// and with the `(outputs, inputs)` of each linear layer.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = (&str, (usize, usize))> {
        self.layout.modules.iter().map(|(module, size)| (module.as_str(), *size))
    }

    /// Converts the factors of `module`, a linear layer of `rows` outputs and `columns` inputs.
    /// Returns `None` if the adapter does not adapt it.
    ///
    /// # Errors
    /// A description of the problem: factors of another shape or rank, an unsupported data type, or
    /// values that are not finite.
    pub fn factors(
        &self,
        module: &str,
        (rows, columns): (usize, usize),
    ) -> Result<Option<LoraFactors>, String> {
        if !self.layout.modules.contains_key(module) {
            return Ok(None);
        }
        let (rank, scaling) = self.settings.rank_and_scaling(module)?;
        let a = self.matrix(&tensor_name(module, LoraMatrix::A), [rank, columns])?;
        let b = self.matrix(&tensor_name(module, LoraMatrix::B), [rows, rank])?;
        Ok(Some(LoraFactors { rank, scaling, a, b }))
    }

    /// Converts the tensor `name` of shape `[rows, columns]`, in row-major order.
    ///
    /// # Errors
    /// As for [`PeftFiles::factors`]; also when the tensor does not exist.
    pub fn matrix(&self, name: &str, size: [usize; 2]) -> Result<Vec<f32>, String> {
        self.layout.matrix(&self.tensors, name, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An adapter saved by PEFT; `make_adapter.py` generates it.
    const SAVED_BY_PEFT: &str = "tests/fixtures/training/peft_all";

    #[test]
    fn adapters_saved_by_peft_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(SAVED_BY_PEFT);
        let files = PeftFiles::read(&folder).unwrap();
        let (first, size) = files.modules().next().unwrap();
        assert_eq!((first, size), ("model.layers.0.mlp.down_proj", (576, 1536)));
        let factors = files.factors(first, size).unwrap().unwrap();
        let rank = files.rank() as usize;
        assert_eq!(factors.rank, rank);
        assert_eq!((factors.a.len(), factors.b.len()), (rank * 1536, rank * 576));
        assert!(files.factors("model.embed_tokens", size).unwrap().is_none());
        let reason = files.factors(first, (576, 1535)).unwrap_err();
        assert!(reason.ends_with(&format!("has shape [{rank}, 1536], expected [{rank}, 1535]")));
    }
}
