//! The face: a base, an adapter, and what a batch of sequences gives.

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

/// How an adapter is made.
#[derive(Debug, Clone)]
pub struct TunerOptions {
    /// Threads that compute, at least 1.
    pub n_threads: usize,
    /// How the base is held.
    pub precision: Precision,
    /// Which kernels compute.
    pub isa: Isa,
    /// Rank of every side path, at least 1.
    pub rank: usize,
    /// What a side path is multiplied by: `alpha / rank`, or `alpha / sqrt(rank)` for
    /// rank-stabilized LoRA.
    pub scaling: f32,
    /// Share of a side path's inputs that is left out while training, `0.0..1.0`.
    pub dropout: f32,
    /// Size of the noise on embeddings while training (Jain et al. 2023, arXiv:2310.05914); 0 for
    /// none.
    pub neftune_alpha: f32,
    /// The linear layers that get a side path.
    pub targets: TunedModules,
    /// Whether a block's inner numbers are computed again for the gradients and not kept: a third
    /// slower, and a tenth of the memory.
    pub checkpointing: bool,
    /// Where A begins.
    pub seed: u64,
}

/// A token that should follow a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextToken {
    /// The row of the batch after which it comes.
    pub row: usize,
    /// The token.
    pub token: u32,
    /// What its loss counts, above 0.
    pub weight: f32,
}

/// Sequences, one after the other; none sees another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainBatch {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// How many tokens each sequence has, at least 1.
    pub lengths: Vec<usize>,
    /// What should come.
    pub targets: Vec<NextToken>,
}

impl TrainBatch {
    /// The sum of the targets' weights.
    pub fn weight(&self) -> f64 {
        self.targets.iter().map(|target| f64::from(target.weight)).sum()
    }

    /// Adds a sequence whose token `i` has the weight `weights[i]` as something to be foretold; the
    /// first token never is.
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

/// A frozen base and a trainable adapter.
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

/// Buffers that are used from pass to pass.
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
    /// Loads the GGUF file at `path` and puts a fresh adapter beside it.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be used.
    pub fn load(path: &Path, options: TunerOptions) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let shape = ModelShape::read(&gguf)?;
        let isa = if options.isa.is_available() { options.isa } else { Isa::Portable };
        let mut compute = Compute { pool: ThreadPool::new(options.n_threads), isa };
        let pool = &mut compute.pool;
        let weights = ModelWeights::load(&gguf, &shape, options.precision, pool)?;
        let mut arena = Arena::default();
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

    /// The trainable numbers.
    pub fn parameters(&self) -> &[f32] {
        &self.factors.values
    }

    /// The trainable numbers and their gradients, for an optimizer.
    pub fn parameters_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        self.factors.values_mut();
        (&mut self.factors.values, &mut self.factors.gradients)
    }

    /// Where the adapter's tensors stand among the trainable numbers.
    pub fn tensors(&self) -> Vec<TensorPlace> {
        self.factors.tensors()
    }

    /// Tokens that have an embedding.
    pub fn vocabulary(&self) -> usize {
        self.weights.embedding.rows()
    }

    /// The root of the sum of the gradients' squares.
    pub fn gradient_norm(&mut self) -> f64 {
        let Compute { pool, isa } = &mut self.compute;
        factors::sum_of_squares(pool, *isa, &self.factors.gradients).sqrt()
    }

    /// Calls `work` on all threads with parts of the trainable numbers, their gradients, and an
    /// optimizer's `state`.
    ///
    /// # Panics
    /// When there is not as much state as there are trainable numbers.
    pub fn in_parts(&mut self, state: [&mut [f32]; 2], work: &(dyn Fn(ParameterPart<'_>) + Sync)) {
        const AT_ONCE: usize = 1 << 14;
        self.factors.values_mut();
        let n = self.factors.values.len();
        let values = SharedMut::new(&mut self.factors.values);
        let gradients = SharedMut::new(&mut self.factors.gradients);
        let [first, second] = state.map(|slice| {
            assert_eq!(slice.len(), n, "as much state as trainable numbers");
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

    /// The weighted sum of the losses of a batch in nats, without dropout or noise.
    pub fn loss(&mut self, batch: &TrainBatch) -> f64 {
        self.pass(batch, None)
    }

    /// The weighted sum of the losses of a batch in nats; adds `scale` times its gradients to the
    /// adapter's. `seed` decides what dropout leaves out.
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
        // Without gradients nothing has to be kept; with checkpointing only what comes into each
        // block.
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

/// A part of the trainable numbers and of what belongs to them.
pub struct ParameterPart<'a> {
    /// The numbers.
    pub values: &'a mut [f32],
    /// Their gradients.
    pub gradients: &'a mut [f32],
    /// What an optimizer remembers of them.
    pub state: [&'a mut [f32]; 2],
}

/// The rows of a batch's sequences and their angles.
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

/// Adds uniform noise of `±alpha / sqrt(tokens * width)` to the embeddings of every sequence.
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
