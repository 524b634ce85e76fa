//! Named `f32` tensors as a safetensors file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::View;

use crate::durable;

use super::TrainingError;

/// A tensor to be written.
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) numbers: Cow<'a, [f32]>,
}

impl<'a> Tensor<'a> {
    /// A row of numbers.
    pub(super) fn row(name: &'a str, numbers: &'a [f32]) -> Self {
        Self { name, shape: vec![numbers.len()], numbers: numbers.into() }
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(&*self.numbers)
    }
}

/// The numbers of a tensor.
pub(super) fn numbers(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok().filter(|tensor| tensor.dtype() == Dtype::F32)?;
    Some(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Writes a file of tensors with notes, one tensor in memory at a time; see [`durable::write()`].
pub(super) fn write_tensors(
    path: &Path,
    tensors: &[Tensor<'_>],
    notes: HashMap<String, String>,
) -> Result<(), TrainingError> {
    let written = durable::write_with(path, |file| {
        let named = tensors.iter().map(|tensor| (tensor.name, tensor));
        safetensors::serialize_to_file(named, Some(notes), file.path()).map_err(|error| match error
        {
            safetensors::SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        })
    });
    written.map_err(TrainingError::files(path))
}
