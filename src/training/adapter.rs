//! The adapter that training begins with and the one that it ends with, as PEFT folders.

use std::path::Path;

use crate::model::TensorPlace;
use crate::peft::NamedTensor;
use crate::peft::PeftConfig;
use crate::peft::PeftFiles;
use crate::peft::TargetModules;
use crate::peft::write_adapter;

use super::TrainingError;
use super::options::TrainingOptions;

/// Writes the adapter to `folder`, for the trainable numbers `values`, whose tensors stand at
/// `places`.
pub(super) fn save(
    folder: &Path,
    (values, places): (&[f32], &[TensorPlace]),
    options: &TrainingOptions,
    base_model: &str,
) -> Result<(), TrainingError> {
    let modules = options.target_modules.clone();
    let mut config = PeftConfig::new(options.rank, options.alpha.into(), modules);
    config.base_model_name_or_path = Some(base_model.to_owned());
    config.lora_dropout = options.dropout;
    config.use_rslora = options.use_rslora;
    let tensors: Vec<NamedTensor<'_>> = places.iter().map(|place| tensor(values, place)).collect();
    Ok(write_adapter(folder, &config, &tensors)?)
}

fn tensor<'a>(values: &'a [f32], place: &'a TensorPlace) -> NamedTensor<'a> {
    let values = &values[place.range.clone()];
    let values =
        if place.is_transposed { transposed(values, place.shape[0]).into() } else { values.into() };
    NamedTensor { name: &place.name, shape: place.shape.to_vec(), values }
}

impl TrainingOptions {
    /// Takes rank, alpha and linear layers of the PEFT folder at `folder`, from which training
    /// continues.
    ///
    /// # Errors
    /// [`TrainingError::Peft`]; [`TrainingError::BadOption`] when its modules differ in rank or
    /// alpha, or are not listed by name.
    pub fn take_form(&mut self, folder: &Path) -> Result<(), TrainingError> {
        let config = PeftConfig::read(folder)?;
        config.uniform().map_err(|reason| refused(folder, &reason))?;
        let (rank, alpha, use_rslora) = (config.r, config.alpha(), config.use_rslora);
        let Some(TargetModules::Named(names)) = config.target_modules else {
            return Err(refused(folder, "its modules are not listed by name"));
        };
        (self.rank, self.alpha, self.use_rslora) = (rank, alpha, use_rslora);
        self.target_modules = names;
        Ok(())
    }
}

fn refused(folder: &Path, reason: &str) -> TrainingError {
    let shown = folder.display();
    TrainingError::BadOption(format!("training cannot continue from `{shown}`: {reason}"))
}

/// The trainable numbers of the PEFT folder at `folder`, laid out as `places`.
pub(super) fn values(folder: &Path, places: &[TensorPlace]) -> Result<Vec<f32>, TrainingError> {
    let files = PeftFiles::read(folder)?;
    let n_tensors = 2 * files.modules().len();
    if n_tensors != places.len() {
        let reason = format!("it has {n_tensors} tensors, not {}", places.len());
        return Err(refused(folder, &reason));
    }
    let mut values = vec![0.0; places.last().map_or(0, |place| place.range.end)];
    for place in places {
        let matrix = files.matrix(&place.name, place.shape);
        let matrix = matrix.map_err(|reason| refused(folder, &reason))?;
        let matrix = if place.is_transposed { transposed(&matrix, place.shape[1]) } else { matrix };
        values[place.range.clone()].copy_from_slice(&matrix);
    }
    Ok(values)
}

/// A matrix whose rows have `width` numbers, with rows and columns exchanged.
fn transposed(numbers: &[f32], width: usize) -> Vec<f32> {
    let rows = numbers.len() / width;
    (0..numbers.len()).map(|i| numbers[i % rows * width + i / rows]).collect()
}
