//! Attention within each sequence of a batch.

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

/// Queries, keys and values of a layer, turned to their positions; queries are divided by
/// `sqrt(head_dim)`.
#[derive(Default)]
pub(super) struct QkvRows {
    pub(super) query: AlignedBuffer,
    pub(super) key: AlignedBuffer,
    pub(super) value: AlignedBuffer,
}

/// The sequences of a batch: their rows, and each row's angles.
pub(super) struct BatchLayout {
    pub(super) sequences: Vec<Range<usize>>,
    pub(super) rotations: Vec<RotaryAngles>,
    /// The same angles turned back.
    pub(super) inverse_rotations: Vec<RotaryAngles>,
}

/// Room for the gradients of every head apart.
#[derive(Default)]
pub(super) struct HeadScratch {
    heads: AlignedBuffer,
    keys: AlignedBuffer,
    values: AlignedBuffer,
    queries: AlignedBuffer,
}

/// What queries are divided by, inverted.
fn query_factor(shape: &ModelShape) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let width = shape.head_dim as f32;
    1.0 / width.sqrt()
}

/// Turns the rows of queries and keys by `rotations`.
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

/// A head of a sequence.
fn head<'a>(
    shape: &ModelShape,
    qkv: &'a QkvRows,
    rows: &Range<usize>,
    index: usize,
) -> CausalHead<'a> {
    let (hidden, kv_width, head_dim) = (shape.hidden, shape.kv_width(), shape.head_dim);
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

/// Calls `work` for every head of every sequence, the longest sequences first.
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

/// Where the rows of one head of one sequence stand when heads stand apart: head by head within a
/// sequence.
fn head_range(shape: &ModelShape, rows: &Range<usize>, index: usize) -> Range<usize> {
    let first = rows.start * shape.hidden + index * rows.len() * shape.head_dim;
    first..first + rows.len() * shape.head_dim
}

/// Writes the results of all heads, `(rows, hidden)`.
pub(super) fn forward(
    compute: &mut Compute,
    shape: &ModelShape,
    layout: &BatchLayout,
    (qkv, scratch): (&QkvRows, &mut HeadScratch),
    out: &mut AlignedBuffer,
) {
    scratch.heads.resize(qkv.query.len());
    let isa = compute.isa;
    let heads = SharedMut::new(&mut scratch.heads);
    for_heads(&mut compute.pool, shape, layout, &|rows, index| {
        let part = head_range(shape, rows, index);
        attend_forward(isa, &head(shape, qkv, rows, index), heads.slice(part.start, part.len()));
    });
    out.resize(qkv.query.len());
    gather(&mut compute.pool, shape, layout, &scratch.heads, out);
}

/// Turns the gradient of [`forward`]'s results, `d_out`, into those of queries, keys and values as
/// they were before [`turn`].
pub(super) fn backward(
    compute: &mut Compute,
    shape: &ModelShape,
    layout: &BatchLayout,
    (qkv, d_out): (&QkvRows, &[f32]),
    (scratch, d_qkv): (&mut HeadScratch, &mut QkvRows),
) {
    let n = qkv.query.len();
    let isa = compute.isa;
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
    rotate_rows(compute, shape, d_qkv, &layout.inverse_rotations);
}

/// Puts heads that stand apart side by side, row by row.
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

/// [`gather`] for keys and values: the sum over the query heads that share them.
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
