//! Exports adapters to llama.cpp: a GGUF file with both factors of every linear layer.
//!
//! Names and metadata follow llama.cpp's `convert_lora_to_gguf.py` and `llama-adapter.cpp`.
//! llama.cpp scales by `alpha / rank`; for a rank-stabilized adapter an alpha is written that gives
//! the same scaling.

use std::path::Path;

use super::ModelError;
use super::gguf::GgufFile;
use super::weights::LinearKind;
use super::weights::ModelShape;
use crate::peft::LoraFactors;
use crate::peft::PeftFiles;

/// Alignment of tensor data, in bytes.
const ALIGNMENT: usize = 32;

/// A tensor to write: name, `[rows, columns]`, and values in row-major order.
struct GgufTensor {
    name: String,
    size: [usize; 2],
    numbers: Vec<f32>,
}

/// Converts the PEFT adapter in `folder` to the bytes of a GGUF file for the model at `base`.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Malformed`] and [`ModelError::Unsupported`] for the model's
/// file; [`ModelError::Peft`] when the folder holds no usable adapter; [`ModelError::Adapter`] when
/// it does not fit the model, or mixes ranks or alphas, which a GGUF adapter can't express.
pub fn lora_to_gguf(folder: &Path, base: &Path) -> Result<Vec<u8>, ModelError> {
    let gguf = GgufFile::open(base)?;
    let shape = ModelShape::read(&gguf)?;
    let refuse = |reason: String| ModelError::Adapter { path: folder.to_owned(), reason };
    let files = PeftFiles::read(folder)?;
    let (rank, scaling) = files.settings().uniform().map_err(refuse)?;
    let mut tensors = Vec::new();
    for layer in 0..shape.n_layers {
        for which in LinearKind::ALL {
            let factors = files.factors(&which.path(layer), which.size(&shape)).map_err(refuse)?;
            tensors.extend(factors.into_iter().flat_map(|pair| named(pair, &shape, layer, which)));
        }
    }
    if tensors.len() != 2 * files.modules().len() {
        return Err(refuse(
            "it has tensors outside the linear layers of the decoder blocks".to_owned(),
        ));
    }
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let alpha = scaling * rank as f32;
    let architecture = gguf.text("general.architecture")?;
    Ok(encode(architecture, alpha, &tensors))
}

/// Names both factors of a linear layer as llama.cpp does. Rows of B are in the order of the base
/// model's file.
fn named(
    factors: LoraFactors,
    shape: &ModelShape,
    layer: usize,
    which: LinearKind,
) -> [GgufTensor; 2] {
    let LoraFactors { rank, a, b, .. } = factors;
    let (rows, columns) = which.size(shape);
    let mut placed = vec![0.0; b.len()];
    for (row, numbers) in b.chunks_exact(rank).enumerate() {
        let place = which.row_in_file(shape, row);
        placed[place * rank..][..rank].copy_from_slice(numbers);
    }
    let name = |half: &str| format!("blk.{layer}.{}.weight.lora_{half}", which.tensor());
    [
        GgufTensor { name: name("a"), size: [rank, columns], numbers: a },
        GgufTensor { name: name("b"), size: [rows, rank], numbers: placed },
    ]
}

fn encode(architecture: &str, alpha: f32, tensors: &[GgufTensor]) -> Vec<u8> {
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
    for GgufTensor { name, size: [rows, columns], numbers } in tensors {
        put_text(&mut out, name);
        out.extend(2_u32.to_le_bytes());
        // GGUF stores the innermost dimension first; type 0 is F32.
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
