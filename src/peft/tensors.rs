//! `adapter_model.safetensors`: the factors of each module, and files of named tensors in general.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
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

/// Bytes before the header of a safetensors file, which tell the length of it.
const LENGTH_BYTES: usize = 8;
/// The longest header and the longest notes in it, in bytes.
const MAX_HEAD_BYTES: u64 = 1 << 20;
const MAX_NOTES_BYTES: usize = 64 << 10;
/// The maximum number of tensors.
const MAX_TENSORS: usize = 4096;

/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";

/// The two factors of a LoRA branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraMatrix {
    /// `lora_A`, `(rank, inputs)`.
    A,
    /// `lora_B`, `(outputs, rank)`.
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

/// The name of a tensor in PEFT's file. `module` is a name such as
/// `model.layers.0.self_attn.q_proj`.
pub fn tensor_name(module: &str, matrix: LoraMatrix) -> String {
    format!("{PREFIX}{module}{}", matrix.suffix())
}

/// The module to which the tensor of this name belongs.
fn module_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PREFIX)?;
    LoraMatrix::ALL.into_iter().find_map(|matrix| rest.strip_suffix(matrix.suffix()))
}

/// What an adapter adds to the weight of one linear layer: `scaling * B A`, of rank `rank`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraFactors {
    /// Columns of B and rows of A.
    pub rank: usize,
    /// The factor of the product.
    pub scaling: f32,
    /// `(rank, inputs)`, row by row.
    pub a: Vec<f32>,
    /// `(outputs, rank)`, row by row.
    pub b: Vec<f32>,
}

/// Where the tensors of a weights file lie. All of them belong to pairs of factors.
#[derive(Debug, Clone)]
pub(super) struct WeightsLayout {
    data_at: usize,
    tensors: BTreeMap<String, TensorInfo>,
    /// Outputs and inputs of each module's linear layer.
    pub(super) modules: BTreeMap<String, (usize, usize)>,
}

impl WeightsLayout {
    /// Checks the header of a weights file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = read_header(bytes).map_err(|reason| format!("{WEIGHTS_FILE}: {reason}"))?;
        let (data_at, metadata) = header;
        let tensors: BTreeMap<String, TensorInfo> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        if tensors.is_empty() {
            return Err("it has no tensors".to_owned());
        }
        if tensors.len() > MAX_TENSORS {
            return Err(format!("it has {} tensors, more than {MAX_TENSORS}", tensors.len()));
        }
        let modules = modules(&tensors)?;
        Ok(Self { data_at, tensors, modules })
    }

    /// The last parts of the modules' names, sorted.
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
            return Err(format!("`{name}` has the size {:?}, expected {size:?}", info.shape));
        }
        let (start, end) = info.data_offsets;
        let data = &bytes[self.data_at + start..self.data_at + end];
        let tensor = TensorView::new(info.dtype, info.shape.clone(), data);
        let tensor = tensor.map_err(|error| format!("`{name}`: {error}"))?;
        let values = to_f32(&tensor).ok_or_else(|| {
            format!("`{name}` is of type {:?}; Rune reads F32, F16 and BF16", info.dtype)
        })?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(format!("`{name}` has numbers that are not finite"))
    }
}

/// Reads the header of a safetensors file, and where its data begin.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let length = bytes.first_chunk::<LENGTH_BYTES>().ok_or("it is cut short")?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEAD_BYTES || length > (bytes.len() - LENGTH_BYTES) as u64 {
        return Err(format!("its head claims {length} bytes"));
    }
    let (n_head, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let notes = metadata.metadata().iter().flatten();
    if notes.map(|(name, text)| name.len() + text.len()).sum::<usize>() > MAX_NOTES_BYTES {
        return Err("its notes are too long".to_owned());
    }
    Ok((LENGTH_BYTES + n_head, metadata))
}

/// Pairs the tensors. Gives the outputs and inputs of each module.
fn modules(
    tensors: &BTreeMap<String, TensorInfo>,
) -> Result<BTreeMap<String, (usize, usize)>, String> {
    let matrix = |name: &str| match tensors.get(name).map(|info| info.shape.as_slice()) {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok((rows, columns)),
        Some(shape) => Err(format!("`{name}` has the size {shape:?}, which is no matrix")),
        None => Err(format!("`{name}` is missing")),
    };
    let mut modules = BTreeMap::new();
    for name in tensors.keys() {
        let module = module_of(name).ok_or_else(|| format!("`{name}` is no factor of LoRA"))?;
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

/// A tensor to be written, in `f32`.
#[derive(Debug)]
pub struct NamedTensor<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// The numbers, row by row.
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

/// Writes a safetensors file with notes, one tensor in memory at a time; see [`durable::write()`].
///
/// # Errors
/// Those of the file system.
pub fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    notes: &[(&str, &str)],
) -> io::Result<()> {
    let notes = notes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    durable::write_with(path, |file| {
        let named = tensors.iter().map(|tensor| (tensor.name, tensor));
        safetensors::serialize_to_file(named, Some(notes), file.path()).map_err(|error| match error
        {
            safetensors::SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        })
    })
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
        it has no tensors
        `base_model.model.m.up.lora_B.weight` has the size [3], which is no matrix
        `base_model.model.m.up.lora_B.weight` has the size [1, 3], expected [3, 1]
        `base_model.model.m.up.lora_B.weight` is of type I16; Rune reads F32, F16 and BF16
        `base_model.model.m.up.lora_A.weight` has numbers that are not finite
        `m.up.lora_A.weight` is no factor of LoRA
        adapter_model.safetensors: its head claims 184 bytes
        adapter_model.safetensors: it is cut short
        ");
    }
}
