//! The adapter as PEFT saves it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::durable;
use crate::model::TensorPlace;
use crate::model::tensor_numbers;

use super::TrainingError;
use super::options::TrainingOptions;
use super::tensors;
use super::tensors::Tensor;

/// Writes `adapter_config.json` and then `adapter_model.safetensors` to `folder`, for the trainable numbers `values`,
/// whose tensors stand at `places`.
pub(super) fn save(
    folder: &Path,
    (values, places): (&[f32], &[TensorPlace]),
    options: &TrainingOptions,
    base_model: &str,
) -> Result<(), TrainingError> {
    let config = json!({
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": options.rank,
        "target_modules": options.target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": options.use_rslora,
    });
    let config = serde_json::to_vec_pretty(&config).expect("plain words and numbers");
    let all: Vec<Tensor<'_>> = places.iter().map(|place| tensor(values, place)).collect();
    let notes = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let made = std::fs::create_dir_all(folder);
    made.map_err(|source| TrainingError::Files { path: folder.to_owned(), source })?;
    let path = folder.join("adapter_config.json");
    durable::write(&path, &config).map_err(TrainingError::files(&path))?;
    tensors::write_tensors(&folder.join("adapter_model.safetensors"), &all, notes)
}

fn tensor<'a>(values: &'a [f32], place: &'a TensorPlace) -> Tensor<'a> {
    let numbers = &values[place.range.clone()];
    let numbers = if place.is_transposed {
        transposed(numbers, place.shape[0]).into()
    } else {
        numbers.into()
    };
    Tensor { name: &place.name, shape: place.shape.to_vec(), numbers }
}

/// What decides the sums of an adapter that is gone on from.
#[derive(Deserialize)]
struct Config {
    r: u32,
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<String, Value>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
    target_modules: Vec<String>,
}

impl TrainingOptions {
    /// Takes rank, alpha and linear layers of the PEFT folder at `folder`, as going on from it wants.
    ///
    /// # Errors
    /// [`TrainingError::Files`]; [`TrainingError::BadOption`] when its modules differ in rank or alpha, or are not
    /// listed by name.
    pub fn take_form(&mut self, folder: &Path) -> Result<(), TrainingError> {
        let path = folder.join("adapter_config.json");
        let refuse = |reason: String| refused(&path, &reason);
        let text = std::fs::read(&path);
        let text = text.map_err(|source| TrainingError::Files { path: path.clone(), source })?;
        let config: Config =
            serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        if !(config.rank_pattern.is_empty() && config.alpha_pattern.is_empty()) {
            return Err(refuse("its modules differ in rank or alpha".to_owned()));
        }
        (self.rank, self.alpha) = (config.r, config.lora_alpha);
        (self.use_rslora, self.target_modules) = (config.use_rslora, config.target_modules);
        Ok(())
    }
}

fn refused(path: &Path, reason: &str) -> TrainingError {
    TrainingError::BadOption(format!("`{}` cannot be gone on from: {reason}", path.display()))
}

/// The trainable numbers of the PEFT folder at `folder`, laid out as `places`.
pub(super) fn values(folder: &Path, places: &[TensorPlace]) -> Result<Vec<f32>, TrainingError> {
    let path = folder.join("adapter_model.safetensors");
    let refuse = |reason: String| refused(&path, &reason);
    let bytes = std::fs::read(&path);
    let bytes = bytes.map_err(|source| TrainingError::Files { path: path.clone(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
    if file.len() != places.len() {
        return Err(refuse(format!("it has {} tensors, not {}", file.len(), places.len())));
    }
    let mut values = vec![0.0; places.last().map_or(0, |place| place.range.end)];
    for place in places {
        let tensor = file.tensor(&place.name).map_err(|error| refuse(error.to_string()))?;
        if tensor.shape() != place.shape {
            return Err(refuse(format!("`{}` has the size {:?}", place.name, tensor.shape())));
        }
        let numbers = tensor_numbers(&tensor)
            .map_err(|reason| refuse(format!("`{}` {reason}", place.name)))?;
        let numbers =
            if place.is_transposed { transposed(&numbers, place.shape[1]) } else { numbers };
        values[place.range.clone()].copy_from_slice(&numbers);
    }
    Ok(values)
}

/// A matrix whose rows have `width` numbers, with rows and columns exchanged.
fn transposed(numbers: &[f32], width: usize) -> Vec<f32> {
    let rows = numbers.len() / width;
    (0..numbers.len()).map(|i| numbers[i % rows * width + i / rows]).collect()
}
