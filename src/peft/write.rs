//! Writing of PEFT folders.

use std::fs;
use std::path::Path;

use crate::durable;

use super::config::PeftConfig;
use super::error::PeftError;
use super::folder::CONFIG_FILE;
use super::folder::WEIGHTS_FILE;
use super::tensors::FORMAT;
use super::tensors::NamedTensor;
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

#[cfg(test)]
mod tests {
    use super::super::LoraFactors;
    use super::super::LoraMatrix;
    use super::super::PeftFiles;
    use super::super::tensor_name;
    use super::*;

    #[test]
    fn written_adapters_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let module = "model.layers.0.mlp.up_proj";
        let factors =
            LoraFactors { rank: 2, scaling: 4.0, a: vec![1.0, -2.0, 0.5, 3.0], b: vec![4.0, 5.0] };
        let names = [LoraMatrix::A, LoraMatrix::B].map(|matrix| tensor_name(module, matrix));
        let tensors = [
            NamedTensor { name: &names[0], shape: vec![2, 2], values: (&factors.a).into() },
            NamedTensor { name: &names[1], shape: vec![1, 2], values: (&factors.b).into() },
        ];
        let config = PeftConfig::new(2, 8.0, vec!["up_proj".to_owned()]);
        let path = folder.path().join("made");
        write_adapter(&path, &config, &tensors).unwrap();
        let files = PeftFiles::read(&path).unwrap();
        assert_eq!(files.settings(), &config);
        assert_eq!(files.modules().collect::<Vec<_>>(), [(module, (1, 2))]);
        assert_eq!(files.factors(module, (1, 2)).unwrap(), Some(factors));
    }
}
