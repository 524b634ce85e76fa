//! Named `f32` tensors as a safetensors file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::TrainingError;

/// The bytes of a file with these tensors (name, shape, numbers) and notes.
pub(super) fn serialise(
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    notes: HashMap<String, String>,
) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, numbers)| numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("as many numbers as the shape has"))
    });
    safetensors::serialize(views, Some(notes)).expect("tensors of known sizes can be written")
}

/// The numbers of a tensor.
pub(super) fn numbers(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok().filter(|tensor| tensor.dtype() == Dtype::F32)?;
    Some(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Writes a file that is there whole or not at all, and survives a power cut.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainingError> {
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| TrainingError::Files { path: path.to_owned(), source })
}
