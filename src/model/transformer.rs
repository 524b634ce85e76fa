//! Forward pass of the Llama and Qwen2 decoders over a batch of token chunks.
//!
//! One pass computes many rows: prompt chunks (prefill), one token of each decoding sequence, or
//! both. A row's result depends on its own sequence alone, bit for bit. Architecture: Touvron et
//! al. 2023, arXiv:2302.13971; Qwen2.5 report, arXiv:2412.15115. Grouped-query attention: Ainslie
//! et al. 2023, arXiv:2305.13245.

use std::ops::Range;

use super::ModelError;
use super::gguf::GgufFile;
use super::kernels::Activations;
use super::kernels::AlignedBuffer;
use super::kernels::AttentionBlock;
use super::kernels::Isa;
use super::kernels::LoraBranch;
use super::kernels::MatmulProduct;
use super::kernels::OutputMode;
use super::kernels::RotaryAngles;
use super::kernels::SharedMut;
use super::kernels::ThreadPool;
use super::kernels::matmul;
use super::kernels::rms_norm;
use super::kernels::rotate;
use super::kernels::silu_mul;
use super::kv::KvCache;
use super::kv::KvStore;
use super::lora::LoraAdapter;
use super::weights::DecoderLayer;
use super::weights::LinearKind;
use super::weights::ModelShape;
use super::weights::ModelWeights;
use super::weights::Precision;

/// Approximate number of query rows per attention unit: they share one pass over the keys.
const ATTENTION_ROWS: usize = 24;

/// The model's weights, thread pool and scratch buffers.
pub(super) struct Transformer {
    pub(super) shape: ModelShape,
    precision: Precision,
    isa: Isa,
    pool: ThreadPool,
    weights: ModelWeights,
    /// Angular speeds of RoPE, `head_dim / 2` of them.
    frequencies: Vec<f32>,
    scratch: PassScratch,
}

/// Scratch buffers of a pass, one row per token.
#[derive(Default)]
struct PassScratch {
    hidden: AlignedBuffer,
    input: Activations,
    query: AlignedBuffer,
    key: AlignedBuffer,
    value: AlignedBuffer,
    attended: AlignedBuffer,
    gate: AlignedBuffer,
    up: AlignedBuffer,
    rotations: Vec<RotaryAngles>,
}

/// New tokens of one sequence, prefill or decode.
pub(super) struct TokenChunk<'a> {
    /// KV cache of the sequence, already grown for the new tokens; the pass appends them.
    pub(super) cache: &'a mut KvCache,
    /// Token ids below the vocabulary size, at least one.
    pub(super) tokens: &'a [u32],
    /// Adapter applied to this sequence.
    pub(super) adapter: Option<&'a LoraAdapter>,
    /// Computes logits for every token instead of the last one alone.
    pub(super) all_logits: bool,
}

impl Transformer {
    /// Loads the weights and starts the thread pool.
    pub(super) fn load(
        gguf: &GgufFile,
        precision: Precision,
        isa: Isa,
        n_threads: usize,
    ) -> Result<Self, ModelError> {
        let shape = ModelShape::read(gguf)?;
        // The kernels' safety depends on this check: callers may pass any `Isa`.
        let isa = if isa.is_available() { isa } else { Isa::Portable };
        let mut pool = ThreadPool::new(n_threads);
        let weights = ModelWeights::load(gguf, &shape, precision, &mut pool)?;
        let frequencies = shape.frequencies();
        let scratch = PassScratch::default();
        Ok(Self { shape, precision, isa, pool, weights, frequencies, scratch })
    }

    /// Creates an empty KV store of at most `n_bytes` for this model.
    pub(super) fn store(&self, n_bytes: usize) -> KvStore {
        KvStore::new(&self.shape, self.precision, n_bytes)
    }

    /// Rows of the embedding: the vocabulary, possibly padded.
    pub(super) fn vocabulary(&self) -> usize {
        self.weights.embedding.rows()
    }

    /// Size of all weights in memory, in bytes.
    pub(super) fn n_bytes(&self) -> usize {
        self.weights.n_bytes()
    }

    /// Instruction set in use.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of compute threads.
    pub(super) fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// Runs one forward pass and appends every chunk to its sequence. Writes logits `(rows,
    /// vocabulary)` in the order of the chunks: one row per chunk, or per token with `all_logits`.
    pub(super) fn forward(
        &mut self,
        store: &mut KvStore,
        chunks: &mut [TokenChunk<'_>],
        logits: &mut Vec<f32>,
    ) {
        // Moved out so that the methods below can borrow `self` and the buffers separately.
        let mut scratch = std::mem::take(&mut self.scratch);
        let hidden = self.shape.hidden;
        let tokens: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.tokens).copied().collect();
        scratch.hidden.resize(tokens.len() * hidden);
        let (embedding, rows) = (&self.weights.embedding, SharedMut::new(&mut scratch.hidden));
        self.pool.run(tokens.len(), &|row| {
            embedding.row(tokens[row] as usize, rows.slice(row * hidden, hidden));
        });
        scratch.rotations = self.rotations(chunks);
        for index in 0..self.shape.n_layers {
            self.attention(index, store, chunks, &mut scratch);
            self.feed_forward(index, chunks, &mut scratch);
        }
        // Only now: every layer needed the position of the chunk's first token.
        for chunk in chunks.iter_mut() {
            chunk.cache.advance(chunk.tokens);
        }
        self.logits(chunks, &mut scratch, logits);
        self.scratch = scratch;
    }

    /// Computes the RoPE angles of every row.
    fn rotations(&self, chunks: &[TokenChunk<'_>]) -> Vec<RotaryAngles> {
        let positions =
            chunks.iter().flat_map(|chunk| (0..chunk.tokens.len()).map(|i| chunk.cache.len() + i));
        #[expect(clippy::cast_precision_loss, reason = "positions stay below 2^24")]
        let angles = |at: usize| self.frequencies.iter().map(move |speed| at as f32 * speed);
        let rotation = |at| RotaryAngles {
            sin: angles(at).map(f32::sin).collect(),
            cos: angles(at).map(f32::cos).collect(),
        };
        positions.map(rotation).collect()
    }

    fn attention(
        &mut self,
        index: usize,
        store: &mut KvStore,
        chunks: &[TokenChunk<'_>],
        scratch: &mut PassScratch,
    ) {
        let Self { shape, isa, pool, weights, .. } = self;
        let (isa, layer) = (*isa, &weights.layers[index]);
        normalize(pool, isa, shape, &layer.attention_norm, scratch);
        let PassScratch { input, query, key, value, .. } = scratch;
        let outs = [(LinearKind::Query, query), (LinearKind::Key, key), (LinearKind::Value, value)];
        let products = outs.map(|(which, out)| {
            out.resize(input.n_rows() * which.size(shape).0);
            product(layer, which, branches(chunks, index, which), out, OutputMode::Over)
        });
        matmul(pool, isa, input, products);
        rotate_rows(pool, isa, shape, scratch);
        append(store, index, chunks, shape, scratch);

        let blocks = attention_blocks(chunks, shape);
        let (hidden, head_dim, n_kv_heads) = (shape.hidden, shape.head_dim, shape.n_kv_heads);
        let n_heads = shape.n_heads / n_kv_heads;
        let query = &scratch.query;
        // A unit is one block of queries for one KV head; units write disjoint columns of
        // `attended`.
        scratch.attended.resize(query.len());
        let results = SharedMut::new(&mut scratch.attended);
        pool.run(blocks.len() * n_kv_heads, &|unit| {
            // Late prompt positions attend to the most keys. They go first, so that no thread is
            // left with a long unit at the end.
            let (cache, first_row, n_keys) = &blocks[blocks.len() - 1 - unit / n_kv_heads];
            let head = unit % n_kv_heads;
            let column = head * n_heads * head_dim;
            let queries = &query[first_row * hidden + column..];
            let n_keys = n_keys.clone();
            let block = AttentionBlock { head_dim, n_heads, n_keys, queries, stride: hidden };
            store.attend(isa, &block, (cache, index, head), |position, result| {
                let at = (first_row + position) * hidden + column;
                results.slice(at, result.len()).copy_from_slice(result);
            });
        });
        let attended = &scratch.attended;
        scratch.input.fill(pool, isa, (scratch.rotations.len(), hidden), &|row, out| {
            out.copy_from_slice(&attended[row * hidden..][..hidden]);
        });
        let branches = branches(chunks, index, LinearKind::Output);
        let back =
            product(layer, LinearKind::Output, branches, &mut scratch.hidden, OutputMode::Add);
        matmul(pool, isa, &scratch.input, [back]);
    }

    fn feed_forward(&mut self, index: usize, chunks: &[TokenChunk<'_>], scratch: &mut PassScratch) {
        let Self { shape, isa, pool, weights, .. } = self;
        let (isa, layer, ffn) = (*isa, &weights.layers[index], shape.ffn);
        normalize(pool, isa, shape, &layer.ffn_norm, scratch);
        let PassScratch { hidden, input, gate, up, .. } = scratch;
        let n_rows = input.n_rows();
        let products =
            [(LinearKind::Gate, &mut *gate), (LinearKind::Up, &mut *up)].map(|(which, out)| {
                out.resize(n_rows * ffn);
                product(layer, which, branches(chunks, index, which), out, OutputMode::Over)
            });
        matmul(pool, isa, input, products);
        input.fill(pool, isa, (n_rows, ffn), &|row, out| {
            let part = row * ffn..(row + 1) * ffn;
            silu_mul(isa, &gate[part.clone()], &up[part], out);
        });
        let branches = branches(chunks, index, LinearKind::Down);
        let back = product(layer, LinearKind::Down, branches, hidden, OutputMode::Add);
        matmul(pool, isa, input, [back]);
    }

    fn logits(
        &mut self,
        chunks: &[TokenChunk<'_>],
        scratch: &mut PassScratch,
        logits: &mut Vec<f32>,
    ) {
        let Self { shape, isa, pool, weights, .. } = self;
        let hidden = shape.hidden;
        let mut logit_rows = Vec::new();
        let mut branches = Vec::new();
        for (chunk, rows) in chunks.iter().zip(chunk_rows(chunks)) {
            let first = logit_rows.len();
            logit_rows.extend(if chunk.all_logits { rows } else { rows.end - 1..rows.end });
            if let Some(low_rank) = chunk.adapter.and_then(LoraAdapter::head) {
                branches.push(LoraBranch { rows: first..logit_rows.len(), low_rank });
            }
        }
        let PassScratch { hidden: rows, input, .. } = scratch;
        input.fill(pool, *isa, (logit_rows.len(), hidden), &|row, out| {
            let x = &rows[logit_rows[row] * hidden..][..hidden];
            rms_norm(*isa, x, &weights.final_norm, shape.eps, out);
        });
        let matrix = weights.head();
        logits.resize(logit_rows.len() * matrix.rows(), 0.0);
        let product =
            MatmulProduct { matrix, bias: None, branches, out: logits, write: OutputMode::Over };
        matmul(pool, *isa, input, [product]);
    }
}

/// Row range of each chunk within the pass.
fn chunk_rows(chunks: &[TokenChunk<'_>]) -> impl Iterator<Item = Range<usize>> {
    chunks.iter().scan(0, |first, chunk| {
        let rows = *first..*first + chunk.tokens.len();
        *first = rows.end;
        Some(rows)
    })
}

/// LoRA branches of a linear layer for the rows of the pass; neighboring chunks with the same
/// adapter are merged.
fn branches<'a>(chunks: &[TokenChunk<'a>], layer: usize, which: LinearKind) -> Vec<LoraBranch<'a>> {
    let factors = chunks.iter().map(|chunk| chunk.adapter?.branch(layer, which));
    let mut branches: Vec<LoraBranch<'a>> = Vec::new();
    for (rows, low_rank) in chunk_rows(chunks).zip(factors) {
        let Some(low_rank) = low_rank else { continue };
        match branches.last_mut() {
            Some(last) if std::ptr::eq(last.low_rank, low_rank) && last.rows.end == rows.start => {
                last.rows.end = rows.end;
            }
            _ => branches.push(LoraBranch { rows, low_rank }),
        }
    }
    branches
}

/// Describes a linear layer as a matrix product.
fn product<'a>(
    layer: &'a DecoderLayer,
    which: LinearKind,
    branches: Vec<LoraBranch<'a>>,
    out: &'a mut [f32],
    write: OutputMode,
) -> MatmulProduct<'a> {
    let linear = layer.linear(which);
    MatmulProduct { matrix: &linear.matrix, bias: linear.bias.as_deref(), branches, out, write }
}

/// RMS-normalizes the hidden rows into the input of the next product.
fn normalize(
    pool: &mut ThreadPool,
    isa: Isa,
    shape: &ModelShape,
    weight: &[f32],
    scratch: &mut PassScratch,
) {
    let (hidden, rows) = (shape.hidden, &scratch.hidden);
    scratch.input.fill(pool, isa, (rows.len() / hidden, hidden), &|row, out| {
        rms_norm(isa, &rows[row * hidden..][..hidden], weight, shape.eps, out);
    });
}

/// Applies RoPE to queries and keys, and scales queries by `1 / sqrt(head_dim)`.
fn rotate_rows(pool: &mut ThreadPool, isa: Isa, shape: &ModelShape, scratch: &mut PassScratch) {
    let (hidden, kv_width) = (shape.hidden, shape.kv_width());
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let factor = 1.0 / (shape.head_dim as f32).sqrt();
    let query = SharedMut::new(&mut scratch.query);
    let key = SharedMut::new(&mut scratch.key);
    let rotations = &scratch.rotations;
    pool.run(rotations.len(), &|row| {
        rotate(isa, query.slice(row * hidden, hidden), &rotations[row], factor);
        rotate(isa, key.slice(row * kv_width, kv_width), &rotations[row], 1.0);
    });
}

/// Writes the keys and values of all rows to the KV cache.
fn append(
    store: &mut KvStore,
    layer: usize,
    chunks: &[TokenChunk<'_>],
    shape: &ModelShape,
    scratch: &PassScratch,
) {
    let kv_width = shape.kv_width();
    let rows = scratch.key.chunks_exact(kv_width).zip(scratch.value.chunks_exact(kv_width));
    let places = chunks.iter().flat_map(|chunk| {
        let cache = &*chunk.cache;
        (0..chunk.tokens.len()).map(move |i| (cache, cache.len() + i))
    });
    for ((key, value), (cache, position)) in rows.zip(places) {
        store.write(cache, layer, position, key, value);
    }
}

/// Splits the rows of a pass into blocks of consecutive positions: `(sequence, first row, keys
/// visible to each position)`.
fn attention_blocks<'a>(
    chunks: &'a [TokenChunk<'_>],
    shape: &ModelShape,
) -> Vec<(&'a KvCache, usize, Range<usize>)> {
    let size = (ATTENTION_ROWS * shape.n_kv_heads / shape.n_heads).max(1);
    let mut blocks = Vec::new();
    for (chunk, rows) in chunks.iter().zip(chunk_rows(chunks)) {
        for first in (0..rows.len()).step_by(size) {
            let n = size.min(rows.len() - first);
            let n_keys = chunk.cache.len() + first + 1;
            blocks.push((&*chunk.cache, rows.start + first, n_keys..n_keys + n));
        }
    }
    blocks
}
