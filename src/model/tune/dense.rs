//! A base model in `f32` with a fresh adapter, for backends that compute on their own (libtorch).

use std::path::Path;

use super::super::ModelError;
use super::super::gguf::GgufFile;
use super::super::kernels::ThreadPool;
use super::super::kernels::WeightMatrix;
use super::super::weights::LinearKind;
use super::super::weights::ModelShape;
use super::super::weights::ModelWeights;
use super::super::weights::Precision;
use super::factors::TensorPlace;
use super::factors::TrainableFactors;
use super::tuner::TunerOptions;

/// A linear layer with `f32` weights.
#[derive(Debug)]
pub struct DenseLinear {
    /// Weights `(outputs, columns)` in row-major order.
    pub weights: Vec<f32>,
    /// Number of input features.
    pub columns: usize,
    /// Bias, one value per output.
    pub bias: Option<Vec<f32>>,
}

/// A decoder block with `f32` weights.
#[derive(Debug)]
pub struct DenseLayer {
    /// RMS norm weights before attention.
    pub attention_norm: Vec<f32>,
    /// RMS norm weights before the feed-forward network.
    pub ffn_norm: Vec<f32>,
    /// Linear layers in the order query, key, value, output, gate, up, down.
    pub linears: Vec<DenseLinear>,
}

/// A model in `f32` and a freshly initialized adapter.
#[derive(Debug)]
pub struct DenseModel {
    /// Hidden size: the width of a row between blocks.
    pub hidden: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// RMS norm epsilon, added to the mean of squares.
    pub eps: f32,
    /// RoPE frequencies in radians per position, `head_dim / 2` values.
    pub frequencies: Vec<f32>,
    /// Embedding matrix, `(vocabulary, hidden)`.
    pub embedding: Vec<f32>,
    /// Output head, `(vocabulary, hidden)`; `None` when tied to the embedding.
    pub head: Option<Vec<f32>>,
    /// RMS norm weights before the output head.
    pub final_norm: Vec<f32>,
    /// Decoder blocks in order.
    pub layers: Vec<DenseLayer>,
    /// Trainable parameters in one slice.
    pub adapter: Vec<f32>,
    /// The adapter's tensors within `adapter`: A and B of every adapted layer in turn.
    pub places: Vec<TensorPlace>,
    /// Adapted linear layers, as block index times 7 plus index within the block.
    pub adapted: Vec<usize>,
}

impl DenseModel {
    /// Loads the GGUF file at `path` and dequantizes all weights to `f32`.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be loaded.
    pub fn load(path: &Path, options: &TunerOptions) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let shape = ModelShape::read(&gguf)?;
        let mut pool = ThreadPool::new(options.n_threads);
        let weights = ModelWeights::load(&gguf, &shape, Precision::Exact, &mut pool)?;
        // The same initialization as `LoraModel`, so that both backends start from equal adapters.
        let factors = TrainableFactors::new(&shape, &options.targets, options.rank, options.seed);
        let layers = weights.layers.iter().map(|layer| DenseLayer {
            attention_norm: layer.attention_norm.clone(),
            ffn_norm: layer.ffn_norm.clone(),
            linears: LinearKind::ALL
                .map(|which| {
                    let linear = layer.linear(which);
                    let columns = linear.matrix.columns();
                    let bias = linear.bias.clone();
                    DenseLinear { weights: values(&linear.matrix), columns, bias }
                })
                .into(),
        });
        let adapted = (0..shape.n_layers)
            .flat_map(|layer| LinearKind::ALL.map(|which| (layer, which)))
            .filter(|(_, which)| options.targets.has(*which))
            .map(|(layer, which)| layer * LinearKind::ALL.len() + which as usize);
        let has_head = gguf.has_tensor("output.weight");
        Ok(Self {
            hidden: shape.hidden,
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            vocabulary: weights.embedding.rows(),
            eps: shape.eps,
            frequencies: shape.frequencies(),
            embedding: values(&weights.embedding),
            head: has_head.then(|| values(weights.head())),
            final_norm: weights.final_norm.clone(),
            layers: layers.collect(),
            places: factors.tensors(),
            adapted: adapted.collect(),
            adapter: factors.values,
        })
    }
}

fn values(matrix: &WeightMatrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.columns()];
    for (row, out) in values.chunks_exact_mut(matrix.columns()).enumerate() {
        matrix.row(row, out);
    }
    values
}
