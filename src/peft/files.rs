//! An adapter's two files: read from a folder, checked, and converted a module at a time.

use std::path::Path;

use crate::digest::sha256;

use super::config::PeftConfig;
use super::config::TargetModules;
use super::error::PeftError;
use super::folder;
use super::tensors::LoraFactors;
use super::tensors::LoraMatrix;
use super::tensors::WeightsLayout;
use super::tensors::tensor_name;

/// The files of an adapter, byte for byte, and what they say.
#[derive(Debug, Clone)]
pub struct PeftFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`.
    pub tensors: Vec<u8>,
    /// Names of the linear layers, sorted.
    pub target_modules: Vec<String>,
    settings: PeftConfig,
    layout: WeightsLayout,
}

impl PeftFiles {
    /// Reads the folder at `folder`.
    ///
    /// # Errors
    /// [`PeftError::Read`]; [`PeftError::Unusable`] when a file is not of the form that PEFT gives
    /// it, or larger than an adapter can be. Pickled weights are never opened.
    pub fn read(folder: &Path) -> Result<Self, PeftError> {
        // First, since that the weights are pickled says more than that the settings are missing.
        let tensors = folder::read_weights(folder)?;
        let config = folder::read_config(folder)?;
        Self::parse(config, tensors).map_err(PeftError::unusable(folder))
    }

    /// Checks the contents of both files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(config: Vec<u8>, tensors: Vec<u8>) -> Result<Self, String> {
        let settings = PeftConfig::parse(&config)?;
        let layout = WeightsLayout::parse(&tensors)?;
        let mut target_modules = match &settings.target_modules {
            Some(TargetModules::Named(names)) => names.clone(),
            // The layers that the pattern fitted.
            Some(TargetModules::Pattern(_)) | None => layout.last_names(),
        };
        target_modules.sort();
        Ok(Self { config, tensors, target_modules, settings, layout })
    }

    /// The settings.
    pub fn settings(&self) -> &PeftConfig {
        &self.settings
    }

    /// Rank of the factors, where single modules have no other.
    pub fn rank(&self) -> u32 {
        self.settings.r
    }

    /// LoRA's alpha, where single modules have no other.
    pub fn alpha(&self) -> f64 {
        self.settings.lora_alpha
    }

    /// The sha256 of the weights, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        sha256(&self.tensors)
    }

    /// Names of the adapted modules, sorted, such as `model.layers.0.self_attn.q_proj`, each with
    /// the outputs and inputs of its linear layer.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = (&str, (usize, usize))> {
        self.layout.modules.iter().map(|(module, size)| (module.as_str(), *size))
    }

    /// Converts the factors of `module`, a linear layer of `rows` outputs and `columns` inputs;
    /// `None` where the adapter leaves it as it is.
    ///
    /// # Errors
    /// What is wrong: factors of another size or rank, an unknown number type, or numbers that are
    /// not finite.
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

    /// Converts the tensor `name` of `[rows, columns]`, row by row.
    ///
    /// # Errors
    /// As for [`PeftFiles::factors`], and when there is no such tensor.
    pub fn matrix(&self, name: &str, size: [usize; 2]) -> Result<Vec<f32>, String> {
        self.layout.matrix(&self.tensors, name, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An adapter that PEFT saved; `make_adapter.py` made it.
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
        assert!(reason.ends_with(&format!("has the size [{rank}, 1536], expected [{rank}, 1535]")));
    }
}
