//! Adapters as llama.cpp reads them: a GGUF file with the two factors of every linear layer.
//!
//! Names and metadata: llama.cpp's `convert_lora_to_gguf.py` and `llama-adapter.cpp`. llama.cpp multiplies by
//! `alpha / rank`; the alpha of a rank-stabilised adapter is written so that this gives the same.

use std::path::Path;

use safetensors::SafeTensors;

use super::ModelError;
use super::gguf::Gguf;
use super::lora::PeftConfig;
use super::lora::read;
use super::lora::tensor_numbers;
use super::weights::Linears;
use super::weights::Shape;

/// Tensors begin at multiples of this.
const ALIGNMENT: usize = 32;

/// A tensor: its name, rows, columns, and numbers row by row.
struct Tensor {
    name: String,
    size: [usize; 2],
    numbers: Vec<f32>,
}

/// The PEFT folder at `folder` as a GGUF file for the model at `base`.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Malformed`] and [`ModelError::Unsupported`] for the model's file;
/// [`ModelError::Adapter`] when the folder holds no adapter for it, or one of several ranks, which llama.cpp would not
/// scale alike.
pub fn lora_to_gguf(folder: &Path, base: &Path) -> Result<Vec<u8>, ModelError> {
    let gguf = Gguf::open(base)?;
    let shape = Shape::read(&gguf)?;
    let refuse = |reason: String| ModelError::Adapter { path: folder.to_owned(), reason };
    let config = PeftConfig::read(folder)?;
    let (rank, scaling) = config.uniform().map_err(refuse)?;
    let bytes = read(&folder.join("adapter_model.safetensors"))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
    let mut tensors = Vec::new();
    for layer in 0..shape.n_layers {
        for which in Linears::ALL {
            let pair = pair(&file, &shape, (layer, which), rank).map_err(refuse)?;
            tensors.extend(pair.into_iter().flatten());
        }
    }
    if tensors.len() != file.len() {
        return Err(refuse("it has tensors that belong to no linear layer of a block".to_owned()));
    }
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let alpha = scaling * rank as f32;
    let architecture = gguf.text("general.architecture")?;
    Ok(encode(architecture, alpha, &tensors))
}

/// Both factors of a linear layer, where the adapter has them. Rows of B stand as those of the base's file.
fn pair(
    file: &SafeTensors<'_>,
    shape: &Shape,
    (layer, which): (usize, Linears),
    rank: usize,
) -> Result<Option<[Tensor; 2]>, String> {
    let (rows, columns) = which.size(shape);
    let name = |half: &str| {
        let module = which.module();
        format!("base_model.model.model.layers.{layer}.{module}.lora_{half}.weight")
    };
    let half = |half: &str, size: [usize; 2]| -> Result<Option<Vec<f32>>, String> {
        let Ok(tensor) = file.tensor(&name(half)) else { return Ok(None) };
        if tensor.shape() != size {
            return Err(format!("`{}` is not {size:?}", name(half)));
        }
        tensor_numbers(&tensor).map(Some)
    };
    let (Some(a), Some(b)) = (half("A", [rank, columns])?, half("B", [rows, rank])?) else {
        return Ok(None);
    };
    let mut placed = vec![0.0; b.len()];
    for (row, numbers) in b.chunks_exact(rank).enumerate() {
        let place = which.row_in_file(shape, row);
        placed[place * rank..][..rank].copy_from_slice(numbers);
    }
    let named = |half: &str| format!("blk.{layer}.{}.weight.lora_{half}", which.tensor());
    Ok(Some([
        Tensor { name: named("a"), size: [rank, columns], numbers: a },
        Tensor { name: named("b"), size: [rows, rank], numbers: placed },
    ]))
}

fn encode(architecture: &str, alpha: f32, tensors: &[Tensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(4_u64.to_le_bytes());
    for (key, value) in [
        ("general.architecture", architecture),
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
    ] {
        put_text(&mut out, key);
        out.extend(8_u32.to_le_bytes());
        put_text(&mut out, value);
    }
    put_text(&mut out, "adapter.lora.alpha");
    out.extend(6_u32.to_le_bytes());
    out.extend(alpha.to_le_bytes());
    let mut at = 0;
    for Tensor { name, size: [rows, columns], numbers } in tensors {
        put_text(&mut out, name);
        out.extend(2_u32.to_le_bytes());
        // The innermost dimension comes first, and type 0 is F32.
        out.extend((*columns as u64).to_le_bytes());
        out.extend((*rows as u64).to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend((at as u64).to_le_bytes());
        at = (at + numbers.len() * 4).next_multiple_of(ALIGNMENT);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(tensor.numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
