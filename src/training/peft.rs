//! The adapter as PEFT saves it.

use std::collections::HashMap;

use serde_json::json;

use crate::model::TensorPlace;

use super::options::TrainingOptions;
use super::tensors;

/// `adapter_config.json` and `adapter_model.safetensors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeftFolder {
    pub(super) config: Vec<u8>,
    pub(super) tensors: Vec<u8>,
}

/// Both files for the trainable numbers `values`, whose tensors stand at `places`.
pub(super) fn folder(
    values: &[f32],
    places: &[TensorPlace],
    options: &TrainingOptions,
    base_model: &str,
) -> PeftFolder {
    let tensor = |place: &TensorPlace| {
        let numbers = &values[place.range.clone()];
        let [rows, columns] = place.shape;
        let numbers = if place.is_transposed {
            (0..rows * columns).map(|i| numbers[i % columns * rows + i / columns]).collect()
        } else {
            numbers.to_vec()
        };
        (place.name.clone(), place.shape.to_vec(), numbers)
    };
    let all: Vec<_> = places.iter().map(tensor).collect();
    let notes = HashMap::from([("format".to_owned(), "pt".to_owned())]);
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
    PeftFolder { config, tensors: tensors::serialise(&all, notes) }
}
