//! [`LoraModel`]: the frozen base, the trainable adapter, and the passes over batches.
//!
//! ```text
//! forward    embed (+ NEFTune noise) --> block 0 --> ... --> block n-1 --> norm, head, loss
//!                                          |                    |
//! saved, without checkpointing       SavedActivations    SavedActivations
//!        with checkpointing          input               input
//!                                          |                    |
//! backward                           block 0 <-- ... <--- block n-1 <--- d(hidden)
//!                                    dA, dB               dA, dB
//! ```

use std::path::Path;

use super::super::ModelError;
use super::super::gguf::GgufFile;
use super::super::kernels::AlignedBuffer;
use super::super::kernels::Arena;
use super::super::kernels::Isa;
use super::super::kernels::RotaryAngles;
use super::super::kernels::SharedMut;
use super::super::kernels::ThreadPool;
use super::super::kernels::WeightMatrix;
use super::super::weights::LinearKind;
use super::super::weights::ModelShape;
use super::super::weights::ModelWeights;
use super::super::weights::Precision;
use super::attention::BatchLayout;
use super::block;
use super::block::FrozenBlock;
use super::block::SavedActivations;
use super::block::TrainingPass;
use super::dropout::DropoutMask;
use super::factors;
use super::factors::TensorPlace;
use super::factors::TrainableFactors;
use super::factors::TunedModules;
use super::head;
use super::head::OutputHead;
use super::linear::Compute;
use crate::rng::SplitMix64;

/// Configuration of a [`LoraModel`].
#[derive(Debug, Clone)]
pub struct TunerOptions {
    /// Compute threads, at least 1.
    pub n_threads: usize,
    /// In-memory format of the base weights.
    pub precision: Precision,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// LoRA rank, at least 1.
    pub rank: usize,
    /// LoRA scaling: `alpha / rank`, or `alpha / sqrt(rank)` for rank-stabilized LoRA.
    pub scaling: f32,
    /// LoRA dropout probability while training, `0.0..1.0`.
    pub dropout: f32,
    /// `NEFTune` noise alpha while training (Jain et al. 2023, arXiv:2310.05914); 0 disables it.
    pub neftune_alpha: f32,
    /// Target modules: the linear layers that get a LoRA branch.
    pub targets: TunedModules,
    /// Gradient checkpointing: recomputes a block's activations in the backward pass instead of
    /// saving them. A third slower, with a tenth of the memory.
    pub checkpointing: bool,
    /// Seed of A's initialization.
    pub seed: u64,
}

/// A prediction target: the token that should follow a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextToken {
    /// Row of the batch whose logits predict it.
    pub row: usize,
    /// Id of the target token.
    pub token: u32,
    /// Weight of its loss, above 0.
    pub weight: f32,
}

/// A batch of packed sequences; attention does not cross between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainBatch {
    /// Token ids of all sequences, concatenated.
    pub tokens: Vec<u32>,
    /// Length of each sequence in tokens, at least 1.
    pub lengths: Vec<usize>,
    /// Prediction targets with their weights.
    pub targets: Vec<NextToken>,
}

impl TrainBatch {
    /// Returns the sum of the targets' weights.
    pub fn weight(&self) -> f64 {
        self.targets.iter().map(|target| f64::from(target.weight)).sum()
    }

    /// Appends a sequence in which token `i` is a target of weight `weights[i]`. The first token is
    /// never one.
    pub fn push(&mut self, tokens: &[u32], weights: &[f32]) {
        let first = self.tokens.len();
        for (i, (token, weight)) in tokens.iter().zip(weights).enumerate().skip(1) {
            if *weight > 0.0 {
                self.targets.push(NextToken { row: first + i - 1, token: *token, weight: *weight });
            }
        }
        self.tokens.extend(tokens);
        self.lengths.push(tokens.len());
    }
}

/// A frozen base model with a trainable LoRA adapter.
pub struct LoraModel {
    shape: ModelShape,
    options: TunerOptions,
    compute: Compute,
    weights: ModelWeights,
    transposed: Vec<[Option<WeightMatrix>; 7]>,
    transposed_head: Option<WeightMatrix>,
    frequencies: Vec<f32>,
    factors: TrainableFactors,
    buffers: TunerScratch,
}

/// Buffers reused from pass to pass.
#[derive(Default)]
struct TunerScratch {
    hidden: AlignedBuffer,
    d: AlignedBuffer,
    saved: Vec<SavedActivations>,
    block: block::BlockScratch,
    head: head::OutputScratch,
}

impl std::fmt::Debug for LoraModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraModel").field("options", &self.options).finish_non_exhaustive()
    }
}

impl LoraModel {
    /// Loads the GGUF file at `path` and initializes a fresh adapter.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be loaded.
    pub fn load(path: &Path, options: TunerOptions) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let shape = ModelShape::read(&gguf)?;
        // The kernels' safety depends on this check: callers may pass any `Isa`.
        let isa = if options.isa.is_available() { options.isa } else { Isa::Portable };
        let mut compute = Compute { pool: ThreadPool::new(options.n_threads), isa };
        let pool = &mut compute.pool;
        let weights = ModelWeights::load(&gguf, &shape, options.precision, pool)?;
        let mut arena = Arena::default();
        // Packed tiles can't be read column by column, so the backward pass gets its own copy.
        // Dense weights are transposed by a view.
        let mut transposed = |matrix: &WeightMatrix| match matrix {
            WeightMatrix::Packed(_) => Some(matrix.transposed(pool, &mut arena)),
            WeightMatrix::Dense(_) => None,
        };
        let transposed_head = transposed(weights.head());
        let layers = weights.layers.iter();
        let transposed = layers
            .map(|layer| LinearKind::ALL.map(|which| transposed(&layer.linear(which).matrix)))
            .collect();
        let factors = TrainableFactors::new(&shape, &options.targets, options.rank, options.seed);
        let frequencies = shape.frequencies();
        let buffers = TunerScratch::default();
        let parts = (weights, transposed, transposed_head, frequencies);
        let (weights, transposed, transposed_head, frequencies) = parts;
        Ok(Self {
            shape,
            options,
            compute,
            weights,
            transposed,
            transposed_head,
            frequencies,
            factors,
            buffers,
        })
    }

    /// Returns the trainable parameters.
    pub fn parameters(&self) -> &[f32] {
        &self.factors.values
    }

    /// Returns the trainable parameters and their gradients, for an optimizer.
    pub fn parameters_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        self.factors.values_mut();
        (&mut self.factors.values, &mut self.factors.gradients)
    }

    /// Returns the adapter's tensors as ranges of the trainable parameters.
    pub fn tensors(&self) -> Vec<TensorPlace> {
        self.factors.tensors()
    }

    /// Rows of the embedding: the vocabulary, possibly padded.
    pub fn vocabulary(&self) -> usize {
        self.weights.embedding.rows()
    }

    /// Computes the gradient norm (L2).
    pub fn gradient_norm(&mut self) -> f64 {
        let Compute { pool, isa } = &mut self.compute;
        factors::sum_of_squares(pool, *isa, &self.factors.gradients).sqrt()
    }

    /// Calls `work` in parallel on chunks of the trainable parameters, their gradients and an
    /// optimizer's two `state` slices.
    ///
    /// # Panics
    /// When a state slice differs in length from the parameters.
    pub fn in_parts(&mut self, state: [&mut [f32]; 2], work: &(dyn Fn(ParameterPart<'_>) + Sync)) {
        const AT_ONCE: usize = 1 << 14;
        self.factors.values_mut();
        let n = self.factors.values.len();
        let values = SharedMut::new(&mut self.factors.values);
        let gradients = SharedMut::new(&mut self.factors.gradients);
        let [first, second] = state.map(|slice| {
            assert_eq!(slice.len(), n, "one state value per trainable parameter");
            SharedMut::new(slice)
        });
        self.compute.pool.run(n.div_ceil(AT_ONCE), &|unit| {
            let at = unit * AT_ONCE;
            let n = AT_ONCE.min(n - at);
            work(ParameterPart {
                values: values.slice(at, n),
                gradients: gradients.slice(at, n),
                state: [first.slice(at, n), second.slice(at, n)],
            });
        });
    }

    /// Returns the weighted sum of a batch's losses in nats, without dropout or noise.
    pub fn loss(&mut self, batch: &TrainBatch) -> f64 {
        self.pass(batch, None)
    }

    /// Returns the weighted sum of a batch's losses in nats, and adds `scale` times its gradient to
    /// the adapter's. `seed` determines dropout and noise.
    pub fn accumulate(&mut self, batch: &TrainBatch, scale: f32, seed: u64) -> f64 {
        self.pass(batch, Some((scale, seed)))
    }

    fn pass(&mut self, batch: &TrainBatch, training: Option<(f32, u64)>) -> f64 {
        let Self { shape, options, compute, weights, factors, buffers, .. } = self;
        factors.refresh_transposed(&mut compute.pool);
        let layout = layout(batch, &self.frequencies);
        let seed = training.map_or(0, |(_, seed)| seed);
        let rate = if training.is_some() { options.dropout } else { 0.0 };
        let dropout = DropoutMask { rate, seed };
        let pass = TrainingPass { shape, layout: &layout, scaling: options.scaling, dropout };
        let block = |index: usize| FrozenBlock {
            index,
            layer: &weights.layers[index],
            transposed: &self.transposed[index],
        };
        embed(compute, weights, batch, &mut buffers.hidden);
        if training.is_some() && options.neftune_alpha > 0.0 {
            add_noise(&mut buffers.hidden, batch, shape.hidden, options.neftune_alpha, seed);
        }
        // One `SavedActivations` per block, or a single one that every block reuses: for
        // evaluation, and for checkpointing, where only the input of each block is kept.
        let keeps_all = training.is_some() && !options.checkpointing;
        let n_layers = shape.n_layers;
        buffers.saved.resize_with(if keeps_all { n_layers } else { 1 }, SavedActivations::default);
        let mut inputs: Vec<AlignedBuffer> = Vec::new();
        for index in 0..n_layers {
            if training.is_some() && options.checkpointing {
                let mut input = AlignedBuffer::zeroed(buffers.hidden.len());
                input.copy_from_slice(&buffers.hidden);
                inputs.push(input);
            }
            let saved = &mut buffers.saved[if keeps_all { index } else { 0 }];
            let scratch = (saved, &mut buffers.block);
            block(index).forward(compute, &pass, factors, &mut buffers.hidden, scratch);
        }
        let head = OutputHead {
            matrix: weights.head(),
            transposed: self.transposed_head.as_ref(),
            norm: &weights.final_norm,
            eps: shape.eps,
        };
        let Some((scale, _)) = training else {
            return head.loss(compute, &buffers.hidden, &batch.targets, &mut buffers.head, None);
        };
        buffers.d.resize(buffers.hidden.len());
        buffers.d.fill(0.0);
        let d = Some((&mut *buffers.d, scale));
        let loss = head.loss(compute, &buffers.hidden, &batch.targets, &mut buffers.head, d);
        for index in (0..n_layers).rev() {
            let saved = &mut buffers.saved[if keeps_all { index } else { 0 }];
            // Checkpointing: run the block again on its saved input to restore its activations.
            // Dropout repeats itself, as its masks depend on the seed alone.
            if let Some(mut input) = inputs.pop() {
                let scratch = (&mut *saved, &mut buffers.block);
                block(index).forward(compute, &pass, factors, &mut input, scratch);
            }
            block(index).backward(
                compute,
                &pass,
                factors,
                &mut buffers.d,
                (saved, &mut buffers.block),
            );
        }
        loss
    }
}

/// A chunk of the trainable parameters with gradients and optimizer state.
pub struct ParameterPart<'a> {
    /// Parameters of the chunk.
    pub values: &'a mut [f32],
    /// Gradients of the parameters.
    pub gradients: &'a mut [f32],
    /// Optimizer state, such as first and second moments.
    pub state: [&'a mut [f32]; 2],
}

/// Computes the row ranges of a batch's sequences and every row's RoPE angles.
fn layout(batch: &TrainBatch, frequencies: &[f32]) -> BatchLayout {
    let mut first = 0;
    let sequences: Vec<_> = batch
        .lengths
        .iter()
        .map(|length| {
            let rows = first..first + length;
            first = rows.end;
            rows
        })
        .collect();
    assert_eq!(first, batch.tokens.len(), "every token belongs to a sequence");
    // Positions restart at 0 in every packed sequence.
    let positions = || sequences.iter().flat_map(|rows| 0..rows.len());
    let rotation = |at: usize, sign: f32| {
        #[expect(clippy::cast_precision_loss, reason = "positions stay below 2^24")]
        let angles = move || frequencies.iter().map(move |speed| at as f32 * speed);
        RotaryAngles {
            sin: angles().map(|angle| angle.sin() * sign).collect(),
            cos: angles().map(f32::cos).collect(),
        }
    };
    let rotations = positions().map(|at| rotation(at, 1.0)).collect();
    let inverse_rotations = positions().map(|at| rotation(at, -1.0)).collect();
    BatchLayout { sequences, rotations, inverse_rotations }
}

fn embed(
    compute: &mut Compute,
    weights: &ModelWeights,
    batch: &TrainBatch,
    hidden: &mut AlignedBuffer,
) {
    let width = weights.embedding.columns();
    hidden.resize(batch.tokens.len() * width);
    let rows = SharedMut::new(hidden);
    compute.pool.run(batch.tokens.len(), &|row| {
        weights.embedding.row(batch.tokens[row] as usize, rows.slice(row * width, width));
    });
}

/// Adds `NEFTune` noise, uniform in `±alpha / sqrt(tokens * width)`, to the embeddings of every
/// sequence.
fn add_noise(hidden: &mut [f32], batch: &TrainBatch, width: usize, alpha: f32, seed: u64) {
    let mut random = SplitMix64::new(seed ^ 0x5851_F42D_4C95_7F2D);
    let mut rest = hidden;
    for length in &batch.lengths {
        let (sequence, others) = rest.split_at_mut(length * width);
        #[expect(clippy::cast_precision_loss, reason = "a size")]
        let size = alpha / (sequence.len() as f32).sqrt();
        for number in sequence {
            *number += (random.uniform() * 2.0 - 1.0) * size;
        }
        rest = others;
    }
}
