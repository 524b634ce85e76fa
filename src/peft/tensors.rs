//! `adapter_model.safetensors`: the factors of each module; and safetensors files in general.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use half::bf16;
use half::f16;
use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::View;
use safetensors::tensor::Metadata;
use safetensors::tensor::TensorInfo;
use safetensors::tensor::TensorView;

use crate::durable;

use super::folder::WEIGHTS_FILE;

/// Size of the length field before the header of a safetensors file.
const LENGTH_BYTES: usize = 8;
/// Maximum sizes of the header and of the metadata in it, in bytes.
const MAX_HEAD_BYTES: u64 = 1 << 20;
const MAX_NOTES_BYTES: usize = 64 << 10;
/// Maximum number of tensors.
const MAX_TENSORS: usize = 4096;

/// Metadata that PEFT writes: tensors of PyTorch.
pub(super) const FORMAT: (&str, &str) = ("format", "pt");
/// Prefix of module names in PEFT's files.
const PREFIX: &str = "base_model.model.";

/// The two factors of a LoRA branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraMatrix {
    /// `lora_A`, of shape `(rank, inputs)`.
    A,
    /// `lora_B`, of shape `(outputs, rank)`.
    B,
}

impl LoraMatrix {
    const ALL: [Self; 2] = [Self::A, Self::B];

    fn suffix(self) -> &'static str {
        match self {
            Self::A => ".lora_A.weight",
            Self::B => ".lora_B.weight",
        }
    }
}

/// Returns the name of a tensor in PEFT's file. `module` is a complete name, such as
/// `model.layers.0.self_attn.q_proj`.
pub fn tensor_name(module: &str, matrix: LoraMatrix) -> String {
    format!("{PREFIX}{module}{}", matrix.suffix())
}

/// Returns the module that the tensor `name` belongs to.
fn module_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PREFIX)?;
    LoraMatrix::ALL.into_iter().find_map(|matrix| rest.strip_suffix(matrix.suffix()))
}

/// The update of the weights of one linear layer: `scaling * B A`, of rank `rank`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraFactors {
    /// Number of columns of B and rows of A.
    pub rank: usize,
    /// Factor of the product `B A`.
    pub scaling: f32,
    /// Matrix A, `(rank, inputs)`, row-major.
    pub a: Vec<f32>,
    /// Matrix B, `(outputs, rank)`, row-major.
    pub b: Vec<f32>,
}

/// The layout of a weights file, all of whose tensors form pairs of factors.
#[derive(Debug, Clone)]
pub(super) struct WeightsLayout {
    data_at: usize,
    tensors: BTreeMap<String, TensorInfo>,
    /// `(outputs, inputs)` of the linear layer of each module.
    pub(super) modules: BTreeMap<String, (usize, usize)>,
}

impl WeightsLayout {
    /// Parses and validates the header of a weights file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = read_header(bytes).map_err(|reason| format!("{WEIGHTS_FILE}: {reason}"))?;
        let (data_at, metadata) = header;
        let tensors: BTreeMap<String, TensorInfo> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        if tensors.is_empty() {
            return Err("the file has no tensors".to_owned());
        }
        if tensors.len() > MAX_TENSORS {
            return Err(format!("the file has {} tensors, more than {MAX_TENSORS}", tensors.len()));
        }
        let modules = modules(&tensors)?;
        Ok(Self { data_at, tensors, modules })
    }

    /// Returns the last components of the modules' names, sorted.
    pub(super) fn last_names(&self) -> Vec<String> {
        let last = |module: &String| module.rsplit('.').next().map(str::to_owned);
        self.modules.keys().filter_map(last).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Converts a tensor of the file `bytes`.
    pub(super) fn matrix(
        &self,
        bytes: &[u8],
        name: &str,
        size: [usize; 2],
    ) -> Result<Vec<f32>, String> {
        let info = self.tensors.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
        if info.shape != size {
            return Err(format!("`{name}` has shape {:?}, expected {size:?}", info.shape));
        }
        let (start, end) = info.data_offsets;
        let data = &bytes[self.data_at + start..self.data_at + end];
        let tensor = TensorView::new(info.dtype, info.shape.clone(), data);
        let tensor = tensor.map_err(|error| format!("`{name}`: {error}"))?;
        let values = to_f32(&tensor).ok_or_else(|| {
            format!("`{name}` has type {:?}, expected F32, F16 or BF16", info.dtype)
        })?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(format!("`{name}` contains values that are not finite"))
    }
}

/// Reads the header of a safetensors file; returns the offset of the data and the header.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let length = bytes.first_chunk::<LENGTH_BYTES>().ok_or("the file is truncated")?;
    let length = u64::from_le_bytes(*length);
    // The length is checked before the parser allocates anything by it.
    if length > MAX_HEAD_BYTES || length > (bytes.len() - LENGTH_BYTES) as u64 {
        return Err(format!("invalid header length {length}"));
    }
    let (n_head, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let notes = metadata.metadata().iter().flatten();
    if notes.map(|(name, text)| name.len() + text.len()).sum::<usize>() > MAX_NOTES_BYTES {
        return Err("the metadata is too large".to_owned());
    }
    Ok((LENGTH_BYTES + n_head, metadata))
}

/// Pairs the tensors, and returns the `(outputs, inputs)` of each module.
fn modules(
    tensors: &BTreeMap<String, TensorInfo>,
) -> Result<BTreeMap<String, (usize, usize)>, String> {
    let matrix = |name: &str| match tensors.get(name).map(|info| info.shape.as_slice()) {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok((rows, columns)),
        Some(shape) => Err(format!("`{name}` has shape {shape:?}, expected a matrix")),
        None => Err(format!("`{name}` is missing")),
    };
    let mut modules = BTreeMap::new();
    for name in tensors.keys() {
        let module = module_of(name).ok_or_else(|| format!("`{name}` is not a LoRA factor"))?;
        let [a, b] = LoraMatrix::ALL.map(|which| matrix(&tensor_name(module, which)));
        modules.insert(module.to_owned(), (b?.0, a?.1));
    }
    Ok(modules)
}

/// Converts a tensor of F32, F16 or BF16; `None` for other types.
pub fn to_f32(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => {
            data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
        Dtype::BF16 => {
            data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
        }
        _ => return None,
    })
}

/// A tensor to write, in `f32`.
#[derive(Debug)]
pub struct NamedTensor<'a> {
    /// Name of the tensor in the file.
    pub name: &'a str,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Cow<'a, [f32]>,
}

impl View for &NamedTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(&*self.values)
    }
}

/// Writes a safetensors file with metadata `notes`, atomically (see [`durable::write()`]). Only one
/// encoded tensor is in memory at a time.
///
/// # Errors
/// The errors of the file system.
pub fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    notes: &[(&str, &str)],
) -> io::Result<()> {
    let notes = metadata(notes);
    durable::write_with(path, |file| {
        let named = tensors.iter().map(|tensor| (tensor.name, tensor));
        safetensors::serialize_to_file(named, Some(notes), file.path()).map_err(|error| match error
        {
            safetensors::SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        })
    })
}

/// Encodes a safetensors file in memory, with metadata `notes`.
pub(super) fn encode_tensors(
    tensors: &[NamedTensor<'_>],
    notes: &[(&str, &str)],
) -> Result<Vec<u8>, String> {
    let named = tensors.iter().map(|tensor| (tensor.name, tensor));
    safetensors::serialize(named, Some(metadata(notes))).map_err(|error| error.to_string())
}

fn metadata(notes: &[(&str, &str)]) -> HashMap<String, String> {
    notes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "base_model.model.m.up.lora_A.weight";
    const B: &str = "base_model.model.m.up.lora_B.weight";

    fn file(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn check(bytes: &[u8]) -> String {
        let layout = WeightsLayout::parse(bytes);
        let values = layout.and_then(|layout| {
            assert_eq!(layout.last_names(), ["up"]);
            Ok((layout.matrix(bytes, A, [1, 2])?, layout.matrix(bytes, B, [3, 1])?))
        });
        values.map_or_else(|reason| reason, |values| format!("{values:?}"))
    }

    #[test]
    fn only_complete_pairs_of_matrices_are_accepted() {
        let a = (A, Dtype::F16, &[1, 2][..], &[0x00, 0x3c, 0x00, 0xc0][..]);
        let b = (B, Dtype::BF16, &[3, 1][..], &[0x80, 0x3f, 0x00, 0x40, 0x00, 0x00][..]);
        let lines = [
            check(&file(&[a, b])),
            check(&file(&[a])),
            check(&file(&[b])),
            check(&file(&[])),
            check(&file(&[a, (B, Dtype::F16, &[3], b.3)])),
            check(&file(&[a, (B, Dtype::F16, &[1, 3], b.3)])),
            check(&file(&[a, (B, Dtype::I16, &[3, 1], b.3)])),
            check(&file(&[(A, a.1, a.2, &[0xff; 4]), b])),
            check(&file(&[a, b, ("m.up.lora_A.weight", a.1, a.2, a.3)])),
            check(&file(&[a, b])[..100]),
            check(b"short"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        ([1.0, -2.0], [1.0, 2.0, 0.0])
        `base_model.model.m.up.lora_B.weight` is missing
        `base_model.model.m.up.lora_A.weight` is missing
        the file has no tensors
        `base_model.model.m.up.lora_B.weight` has shape [3], expected a matrix
        `base_model.model.m.up.lora_B.weight` has shape [1, 3], expected [3, 1]
        `base_model.model.m.up.lora_B.weight` has type I16, expected F32, F16 or BF16
        `base_model.model.m.up.lora_A.weight` contains values that are not finite
        `m.up.lora_A.weight` is not a LoRA factor
        adapter_model.safetensors: invalid header length 184
        adapter_model.safetensors: the file is truncated
        ");
    }
}
