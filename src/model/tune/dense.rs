//! A base in `f32` for others to compute with, and a fresh adapter for it.

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

/// A linear layer: weights `(outputs, columns)` row by row.
#[derive(Debug)]
pub struct DenseLinear {
    /// The weights.
    pub weights: Vec<f32>,
    /// Inputs.
    pub columns: usize,
    /// Added to every output.
    pub bias: Option<Vec<f32>>,
}

/// A block of the decoder; its linear layers are query, key, value, output, gate, up, down.
#[derive(Debug)]
pub struct DenseLayer {
    /// Weights of the norm before attention.
    pub attention_norm: Vec<f32>,
    /// Weights of the norm before the feed-forward part.
    pub ffn_norm: Vec<f32>,
    /// The linear layers.
    pub linears: Vec<DenseLinear>,
}

/// A whole model, and an adapter as PEFT begins it.
#[derive(Debug)]
pub struct DenseModel {
    /// Width of the hidden rows.
    pub hidden: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Numbers a head.
    pub head_dim: usize,
    /// Tokens that have an embedding.
    pub vocabulary: usize,
    /// What norms add to the mean of squares.
    pub eps: f32,
    /// Angular speeds of RoPE, `head_dim / 2` of them.
    pub frequencies: Vec<f32>,
    /// `(vocabulary, hidden)`.
    pub embedding: Vec<f32>,
    /// The matrix that gives logits, where it is not the embedding.
    pub head: Option<Vec<f32>>,
    /// Weights of the last norm.
    pub final_norm: Vec<f32>,
    /// The blocks.
    pub layers: Vec<DenseLayer>,
    /// The trainable numbers.
    pub adapter: Vec<f32>,
    /// Where the adapter's tensors stand among them, A and B of one linear layer after the other.
    pub places: Vec<TensorPlace>,
    /// The linear layers that have them: block times 7 plus place in the block.
    pub adapted: Vec<usize>,
}

impl DenseModel {
    /// Reads the GGUF file at `path` and widens all weights.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be used.
    pub fn load(path: &Path, options: &TunerOptions) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let shape = ModelShape::read(&gguf)?;
        let mut pool = ThreadPool::new(options.n_threads);
        let weights = ModelWeights::load(&gguf, &shape, Precision::Exact, &mut pool)?;
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
