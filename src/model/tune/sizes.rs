//! Sizes of a model and its adapter, from the GGUF header alone; for memory and time estimates.

use std::path::Path;

use super::super::ModelError;
use super::super::gguf::GgufFile;
use super::super::weights::LinearKind;
use super::super::weights::ModelShape;
use super::factors::TunedModules;

/// Parameter counts and dimensions of a model and an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunerSizes {
    /// Weights of all matrices, including the embedding.
    pub n_weights: u64,
    /// Number of trainable parameters.
    pub n_trainable: u64,
    /// Number of decoder blocks.
    pub n_layers: u64,
    /// Hidden size: the width of a row between blocks.
    pub hidden: u64,
    /// Rows of the embedding.
    pub vocabulary: u64,
    /// Bytes of activations that one block saves per token for the backward pass.
    pub saved_per_token: u64,
}

impl TunerSizes {
    /// Reads the header of the GGUF file at `path`.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be loaded.
    pub fn read(path: &Path, targets: &TunedModules, rank: usize) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let shape = ModelShape::read(&gguf)?;
        let vocabulary = gguf.tensor("token_embd.weight")?.rows;
        let sizes = LinearKind::ALL.map(|which| which.size(&shape));
        let block: usize = sizes.iter().map(|(rows, columns)| rows * columns).sum();
        let has = LinearKind::ALL.into_iter().filter(|which| targets.has(*which));
        let side: usize = has.map(|which| which.size(&shape)).map(|(r, c)| (r + c) * rank).sum();
        let heads = 1 + usize::from(gguf.has_tensor("output.weight"));
        // An upper estimate of `SavedActivations`: input, middle, query, attended, and one hidden
        // row to spare; key and value; gate and up; seven inner rows.
        let saved = 5 * shape.hidden + 2 * shape.kv_width() + 2 * shape.ffn + 7 * rank;
        let count = |n: usize| n as u64;
        Ok(Self {
            n_weights: count(shape.n_layers * block + heads * vocabulary * shape.hidden),
            n_trainable: count(shape.n_layers * side),
            n_layers: count(shape.n_layers),
            hidden: count(shape.hidden),
            vocabulary: count(vocabulary),
            saved_per_token: count(4 * saved),
        })
    }
}
