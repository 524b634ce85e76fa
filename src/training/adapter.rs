//! Loading the initial adapter from, and saving the trained adapter to, a PEFT folder.

use std::path::Path;

use crate::model::TensorPlace;
use crate::peft::NamedTensor;
use crate::peft::PeftConfig;
use crate::peft::PeftFiles;
use crate::peft::TargetModules;
use crate::peft::write_adapter;

use super::TrainingError;
use super::options::TrainingOptions;

/// Writes the adapter with the trainable parameters `values` to `folder`; `places` says where in
/// `values` each tensor is.
pub(super) fn save(
    folder: &Path,
    values: &[f32],
    places: &[TensorPlace],
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
    // PEFT stores `lora_A` as `(rank, inputs)`. The kernels may keep a factor the other way round.
    let values =
        if place.is_transposed { transposed(values, place.shape[0]).into() } else { values.into() };
    NamedTensor { name: &place.name, shape: place.shape.to_vec(), values }
}

impl TrainingOptions {
    /// Adopts rank, alpha and target modules of the adapter at `folder`, from which training
    /// continues.
    ///
    /// # Errors
    /// [`TrainingError::Peft`] when the folder cannot be read; [`TrainingError::BadOption`] when
    /// its modules differ in rank or alpha, or are not listed by name.
    pub fn take_form(&mut self, folder: &Path) -> Result<(), TrainingError> {
        let config = PeftConfig::read(folder)?;
        config.uniform().map_err(|reason| refused(folder, &reason))?;
        let (rank, alpha, use_rslora) = (config.r, config.alpha(), config.use_rslora);
        let Some(TargetModules::Named(names)) = config.target_modules else {
            return Err(refused(folder, "its target modules are not listed by name"));
        };
        (self.rank, self.alpha, self.use_rslora) = (rank, alpha, use_rslora);
        self.target_modules = names;
        Ok(())
    }
}

fn refused(folder: &Path, reason: &str) -> TrainingError {
    let shown = folder.display();
    TrainingError::BadOption(format!("cannot continue training from `{shown}`: {reason}"))
}

/// Reads the trainable parameters from the PEFT folder at `folder`, laid out as `places`.
pub(super) fn values(folder: &Path, places: &[TensorPlace]) -> Result<Vec<f32>, TrainingError> {
    let files = PeftFiles::read(folder)?;
    // Fewer places than tensors would silently drop a part of the adapter.
    let n_tensors = 2 * files.modules().len();
    if n_tensors != places.len() {
        let reason = format!("it has {n_tensors} tensors, expected {}", places.len());
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

/// Transposes a row-major matrix with `width` columns.
fn transposed(numbers: &[f32], width: usize) -> Vec<f32> {
    let rows = numbers.len() / width;
    (0..numbers.len()).map(|i| numbers[i % rows * width + i / rows]).collect()
}
