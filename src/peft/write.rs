//! Writing of PEFT folders.

use std::fs;
use std::path::Path;

use crate::durable;

use super::config::PeftConfig;
use super::error::PeftError;
use super::folder::CONFIG_FILE;
use super::folder::WEIGHTS_FILE;
use super::tensors::FORMAT;
use super::tensors::LoraFactors;
use super::tensors::LoraMatrix;
use super::tensors::NamedTensor;
use super::tensors::tensor_name;
use super::tensors::write_tensors;

/// Writes an adapter to `folder`, which is created if missing. The weights are written last: if
/// they exist, the adapter is complete. Tensors are named by [`super::tensor_name`].
///
/// # Errors
/// [`PeftError::Write`] when a file cannot be written.
pub fn write_adapter(
    folder: &Path,
    config: &PeftConfig,
    tensors: &[NamedTensor<'_>],
) -> Result<(), PeftError> {
    fs::create_dir_all(folder).map_err(PeftError::write(folder))?;
    let path = folder.join(CONFIG_FILE);
    durable::write(&path, &config.to_json()).map_err(PeftError::write(&path))?;
    let path = folder.join(WEIGHTS_FILE);
    write_tensors(&path, tensors, &[FORMAT]).map_err(PeftError::write(&path))
}

/// Writes an adapter of these modules, by their complete names, as [`write_adapter`] does. Ranks
/// are at least 1; the scaling is that of `config`.
///
/// # Errors
/// [`PeftError::Write`] when a file cannot be written.
pub fn write_factors(
    folder: &Path,
    config: &PeftConfig,
    modules: &[(String, LoraFactors)],
) -> Result<(), PeftError> {
    let names = modules.iter().map(|(module, _)| {
        [LoraMatrix::A, LoraMatrix::B].map(|matrix| tensor_name(module, matrix))
    });
    let names: Vec<[String; 2]> = names.collect();
    let tensors = modules.iter().zip(&names).flat_map(|((_, factors), [name_a, name_b])| {
        let LoraFactors { rank, a, b, .. } = factors;
        [
            NamedTensor { name: name_a, shape: vec![*rank, a.len() / rank], values: a.into() },
            NamedTensor { name: name_b, shape: vec![b.len() / rank, *rank], values: b.into() },
        ]
    });
    write_adapter(folder, config, &tensors.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::PeftFiles;
    use super::*;

    #[test]
    fn written_adapters_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let module = "model.layers.0.mlp.up_proj";
        let factors =
            LoraFactors { rank: 2, scaling: 4.0, a: vec![1.0, -2.0, 0.5, 3.0], b: vec![4.0, 5.0] };
        let config = PeftConfig::new(2, 8.0, vec!["up_proj".to_owned()]);
        let path = folder.path().join("made");
        write_factors(&path, &config, &[(module.to_owned(), factors.clone())]).unwrap();
        let files = PeftFiles::read(&path).unwrap();
        assert_eq!(files.settings(), &config);
        assert_eq!(files.modules().collect::<Vec<_>>(), [(module, (1, 2))]);
        assert_eq!(files.factors(module, (1, 2)).unwrap(), Some(factors));
    }
}
