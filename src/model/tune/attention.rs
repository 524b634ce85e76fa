//! Causal attention within each sequence of a training batch, forward and backward.

use std::ops::Range;

use super::super::kernels::AlignedBuffer;
use super::super::kernels::CausalHead;
use super::super::kernels::HeadGradients;
use super::super::kernels::RotaryAngles;
use super::super::kernels::SharedMut;
use super::super::kernels::ThreadPool;
use super::super::kernels::attend_backward;
use super::super::kernels::attend_forward;
use super::super::kernels::rotate;
use super::super::weights::ModelShape;
use super::linear::Compute;

/// Queries, keys and values of a layer after RoPE; queries are scaled by `1 / sqrt(head_dim)`.
#[derive(Default)]
pub(super) struct QkvRows {
    pub(super) query: AlignedBuffer,
    pub(super) key: AlignedBuffer,
    pub(super) value: AlignedBuffer,
}

/// Row ranges of the sequences of a batch, and the RoPE angles of every row.
pub(super) struct BatchLayout {
    pub(super) sequences: Vec<Range<usize>>,
    pub(super) rotations: Vec<RotaryAngles>,
    /// The negated angles: the inverse rotation, for gradients.
    pub(super) inverse_rotations: Vec<RotaryAngles>,
}

/// Scratch buffers with every head contiguous.
#[derive(Default)]
pub(super) struct HeadScratch {
    heads: AlignedBuffer,
    keys: AlignedBuffer,
    values: AlignedBuffer,
    queries: AlignedBuffer,
}

/// The scaling of queries, `1 / sqrt(head_dim)`.
fn query_factor(shape: &ModelShape) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let width = shape.head_dim as f32;
    1.0 / width.sqrt()
}

/// Applies RoPE to the rows of queries and keys, and scales queries.
pub(super) fn rotate_rows(
    compute: &mut Compute,
    shape: &ModelShape,
    qkv: &mut QkvRows,
    rotations: &[RotaryAngles],
) {
    let (hidden, kv_width, factor) = (shape.hidden, shape.kv_width(), query_factor(shape));
    let (query, key) = (SharedMut::new(&mut qkv.query), SharedMut::new(&mut qkv.key));
    let isa = compute.isa;
    compute.pool.run(rotations.len(), &|row| {
        rotate(isa, query.slice(row * hidden, hidden), &rotations[row], factor);
        rotate(isa, key.slice(row * kv_width, kv_width), &rotations[row], 1.0);
    });
}

/// The view of one query head of one sequence.
fn head<'a>(
    shape: &ModelShape,
    qkv: &'a QkvRows,
    rows: &Range<usize>,
    index: usize,
) -> CausalHead<'a> {
    let (hidden, kv_width, head_dim) = (shape.hidden, shape.kv_width(), shape.head_dim);
    // Grouped-query attention: neighboring query heads share a KV head.
    let kv = rows.start * kv_width + index / (shape.n_heads / shape.n_kv_heads) * head_dim;
    CausalHead {
        n: rows.len(),
        head_dim,
        queries: (&qkv.query[rows.start * hidden + index * head_dim..], hidden),
        keys: &qkv.key[kv..],
        values: &qkv.value[kv..],
        kv_stride: kv_width,
    }
}

/// Calls `work` for every head of every sequence in parallel, longest sequences first so that no
/// thread is left with one at the end.
fn for_heads(
    pool: &mut ThreadPool,
    shape: &ModelShape,
    layout: &BatchLayout,
    work: &(dyn Fn(&Range<usize>, usize) + Sync),
) {
    let mut sequences: Vec<&Range<usize>> = layout.sequences.iter().collect();
    sequences.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let n_heads = shape.n_heads;
    pool.run(sequences.len() * n_heads, &|unit| work(sequences[unit / n_heads], unit % n_heads));
}

/// Range of one head of one sequence in a buffer where heads are contiguous:
///
/// ```text
/// interleaved, (rows, hidden)          contiguous heads
/// token 0: head 0 | head 1 | ..        head 0: token 0 | token 1 | ..
/// token 1: head 0 | head 1 | ..        head 1: token 0 | token 1 | ..
/// ```
fn head_range(shape: &ModelShape, rows: &Range<usize>, index: usize) -> Range<usize> {
    let first = rows.start * shape.hidden + index * rows.len() * shape.head_dim;
    first..first + rows.len() * shape.head_dim
}

/// Computes attention of all heads into `out`, `(rows, hidden)`.
pub(super) fn forward(
    compute: &mut Compute,
    shape: &ModelShape,
    layout: &BatchLayout,
    (qkv, scratch): (&QkvRows, &mut HeadScratch),
    out: &mut AlignedBuffer,
) {
    scratch.heads.resize(qkv.query.len());
    let isa = compute.isa;
    // Units write contiguous heads: rows of `(rows, hidden)` interleave heads and would be shared.
    let heads = SharedMut::new(&mut scratch.heads);
    for_heads(&mut compute.pool, shape, layout, &|rows, index| {
        let part = head_range(shape, rows, index);
        attend_forward(isa, &head(shape, qkv, rows, index), heads.slice(part.start, part.len()));
    });
    out.resize(qkv.query.len());
    gather(&mut compute.pool, shape, layout, &scratch.heads, out);
}

/// Computes the gradients of queries, keys and values before [`rotate_rows`] from the gradient
/// `d_out` of [`forward`]'s results.
pub(super) fn backward(
    compute: &mut Compute,
    shape: &ModelShape,
    layout: &BatchLayout,
    (qkv, d_out): (&QkvRows, &[f32]),
    (scratch, d_qkv): (&mut HeadScratch, &mut QkvRows),
) {
    let n = qkv.query.len();
    let isa = compute.isa;
    // Key and value gradients are kept per query head and summed afterwards: query heads that share
    // a KV head run on different threads, and a fixed order of addition keeps results
    // deterministic.
    let HeadScratch { keys, values, queries, .. } = scratch;
    let [d_queries, d_keys, d_values] = [&mut *queries, &mut *keys, &mut *values].map(|buffer| {
        buffer.resize(n);
        SharedMut::new(buffer)
    });
    for_heads(&mut compute.pool, shape, layout, &|rows, index| {
        let part = head_range(shape, rows, index);
        let mut gradients = HeadGradients {
            queries: d_queries.slice(part.start, part.len()),
            keys: d_keys.slice(part.start, part.len()),
            values: d_values.slice(part.start, part.len()),
        };
        let d_out = &d_out[rows.start * shape.hidden + index * shape.head_dim..];
        attend_backward(isa, &head(shape, qkv, rows, index), d_out, &mut gradients);
    });
    d_qkv.query.resize(n);
    gather(&mut compute.pool, shape, layout, queries, &mut d_qkv.query);
    for (heads, d) in [(keys, &mut d_qkv.key), (values, &mut d_qkv.value)] {
        d.resize(n / shape.n_heads * shape.n_kv_heads);
        gather_shared(&mut compute.pool, shape, layout, heads, d);
    }
    // A rotation's transpose is its inverse. The scaling of queries is symmetric, so the same call
    // applies it to their gradient.
    rotate_rows(compute, shape, d_qkv, &layout.inverse_rotations);
}

/// Interleaves contiguous heads into rows, `(rows, hidden)`.
fn gather(
    pool: &mut ThreadPool,
    shape: &ModelShape,
    layout: &BatchLayout,
    heads: &[f32],
    out: &mut [f32],
) {
    let (hidden, head_dim) = (shape.hidden, shape.head_dim);
    let out = SharedMut::new(out);
    pool.run(layout.sequences.len(), &|unit| {
        let rows = &layout.sequences[unit];
        let out = out.slice(rows.start * hidden, rows.len() * hidden);
        for index in 0..shape.n_heads {
            let head = &heads[head_range(shape, rows, index)];
            for (out, values) in out.chunks_exact_mut(hidden).zip(head.chunks_exact(head_dim)) {
                out[index * head_dim..][..head_dim].copy_from_slice(values);
            }
        }
    });
}

/// [`gather`] for key and value gradients, summed over the query heads that share a KV head.
fn gather_shared(
    pool: &mut ThreadPool,
    shape: &ModelShape,
    layout: &BatchLayout,
    heads: &[f32],
    out: &mut [f32],
) {
    let (width, head_dim) = (shape.kv_width(), shape.head_dim);
    let together = shape.n_heads / shape.n_kv_heads;
    let out = SharedMut::new(out);
    pool.run(layout.sequences.len(), &|unit| {
        let rows = &layout.sequences[unit];
        let out = out.slice(rows.start * width, rows.len() * width);
        out.fill(0.0);
        for index in 0..shape.n_heads {
            let head = &heads[head_range(shape, rows, index)];
            let at = index / together * head_dim;
            for (out, values) in out.chunks_exact_mut(width).zip(head.chunks_exact(head_dim)) {
                for (out, value) in out[at..][..head_dim].iter_mut().zip(values) {
                    *out += value;
                }
            }
        }
    });
}
