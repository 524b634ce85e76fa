//! Causal attention of one head over one whole sequence and its backward pass, for training.
//!
//! The backward pass recomputes the scores, a block of queries at a time, so no `(tokens, tokens)`
//! matrix is stored (the idea of flash attention, Dao et al. 2022, arXiv:2205.14135, without its
//! tiling of the keys).
//!
//! ```text
//! forward    S = Q K^T (masked)    P = softmax(S)    O = P V
//! backward   dV = P^T dO           dP = dO V^T       dS = P * (dP - rowsum(P * dP))
//!            dQ = dS K             dK = dS^T Q
//! ```

use std::cell::RefCell;

use super::AlignedBuffer;
use super::Isa;
use super::attention::RightPanel;
use super::attention::StridedRows;
use super::attention::multiply;
use super::vector::softmax_backward;
use super::vector::softmax_weights;

/// Queries per block, which share one pass over the keys.
const QUERIES: usize = 64;

/// Inputs of one head for one sequence. Each slice begins at the head's elements of the first
/// token.
#[derive(Clone, Copy)]
pub(in crate::model) struct CausalHead<'a> {
    /// Number of tokens in the sequence.
    pub(in crate::model) n: usize,
    /// Width of a head.
    pub(in crate::model) head_dim: usize,
    /// Queries, already scaled by `1 / sqrt(head_dim)`, and the distance between consecutive tokens
    /// in elements.
    pub(in crate::model) queries: (&'a [f32], usize),
    /// Keys, with `kv_stride` between tokens.
    pub(in crate::model) keys: &'a [f32],
    /// Values, with `kv_stride` between tokens.
    pub(in crate::model) values: &'a [f32],
    /// Distance between consecutive tokens' keys, and values, in elements.
    pub(in crate::model) kv_stride: usize,
}

/// Scratch buffers for a block of queries.
#[derive(Default)]
struct CausalScratch {
    transposed: AlignedBuffer,
    transposed_values: AlignedBuffer,
    scores: AlignedBuffer,
    gradient: AlignedBuffer,
    totals: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<CausalScratch> = RefCell::default();
}

impl CausalHead<'_> {
    /// The first `depth` rows of a strided matrix `(tokens, head_dim)`.
    fn columns<'a>(&self, values: &'a [f32], stride: usize, depth: usize) -> RightPanel<'a, f32> {
        RightPanel { values, depth, width: self.head_dim, stride }
    }

    /// The first `n_keys` columns of a matrix `(head_dim, n)`.
    fn transposed<'a>(&self, values: &'a [f32], n_keys: usize) -> RightPanel<'a, f32> {
        RightPanel { values, depth: self.head_dim, width: n_keys, stride: self.n }
    }

    /// Computes unnormalized softmax weights of the queries `first..first + n_queries` into
    /// `scores`, rows of `first + n_queries` keys with zeros for masked ones, and the denominators
    /// into `totals`.
    fn weights(
        &self,
        isa: Isa,
        (first, n_queries): (usize, usize),
        transposed: &[f32],
        scores: &mut AlignedBuffer,
        totals: &mut Vec<f32>,
    ) {
        // No query of the block attends past its last token.
        let n_keys = first + n_queries;
        let (queries, stride) = self.queries;
        scores.resize(n_queries * n_keys);
        scores.fill(0.0);
        let place = |row| ((first + row) * stride, row * n_keys);
        multiply(
            isa,
            StridedRows::rows(queries),
            &self.transposed(transposed, n_keys),
            n_queries,
            &place,
            scores,
        );
        totals.clear();
        for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
            let (seen, unseen) = scores.split_at_mut(first + row + 1);
            totals.push(softmax_weights(isa, seen));
            unseen.fill(0.0);
        }
    }
}

/// Transposes `(n, head_dim)` with row distance `stride` to a contiguous `(head_dim, n)`.
fn transpose(
    values: &[f32],
    stride: usize,
    head_dim: usize,
    n: usize,
    transposed: &mut AlignedBuffer,
) {
    transposed.resize(head_dim * n);
    for (token, values) in values.chunks(stride).take(n).enumerate() {
        for (i, value) in values[..head_dim].iter().enumerate() {
            transposed[i * n + token] = *value;
        }
    }
}

/// Computes causal attention for every token. `out` receives the contiguous results, `(n,
/// head_dim)`.
pub(in crate::model) fn attend_forward(isa: Isa, head: &CausalHead<'_>, out: &mut [f32]) {
    let CausalHead { n, head_dim, keys, values, kv_stride, .. } = *head;
    SCRATCH.with_borrow_mut(|CausalScratch { transposed, scores, totals, .. }| {
        // Products read their right operand row by row, and a score needs a column of the keys.
        transpose(keys, kv_stride, head_dim, n, transposed);
        out.fill(0.0);
        for first in (0..n).step_by(QUERIES) {
            let n_queries = QUERIES.min(n - first);
            let n_keys = first + n_queries;
            head.weights(isa, (first, n_queries), transposed, scores, totals);
            for (scores, total) in scores.chunks_exact_mut(n_keys).zip(totals.iter()) {
                let inverse = 1.0 / total;
                for score in scores {
                    *score *= inverse;
                }
            }
            let panel = head.columns(values, kv_stride, n_keys);
            let place = |row| (row * n_keys, (first + row) * head_dim);
            multiply(isa, StridedRows::rows(scores), &panel, n_queries, &place, out);
        }
    });
}

/// Gradients of one head, each a contiguous `(n, head_dim)`.
pub(in crate::model) struct HeadGradients<'a> {
    /// Gradient of the scaled queries.
    pub(in crate::model) queries: &'a mut [f32],
    /// Gradient of the keys.
    pub(in crate::model) keys: &'a mut [f32],
    /// Gradient of the values.
    pub(in crate::model) values: &'a mut [f32],
}

/// Computes the gradients of [`attend_forward`] for the output gradient `d_out`, whose rows are as
/// far apart as those of the queries.
pub(in crate::model) fn attend_backward(
    isa: Isa,
    head: &CausalHead<'_>,
    d_out: &[f32],
    gradients: &mut HeadGradients<'_>,
) {
    let CausalHead { n, head_dim, queries: (queries, stride), keys, values, kv_stride } = *head;
    let HeadGradients { queries: d_queries, keys: d_keys, values: d_values } = gradients;
    for d in [&mut **d_queries, d_keys, d_values] {
        d.fill(0.0);
    }
    SCRATCH.with_borrow_mut(
        |CausalScratch { transposed, transposed_values, scores, gradient, totals }| {
            transpose(keys, kv_stride, head_dim, n, transposed);
            transpose(values, kv_stride, head_dim, n, transposed_values);
            for first in (0..n).step_by(QUERIES) {
                let n_queries = QUERIES.min(n - first);
                let n_keys = first + n_queries;
                head.weights(isa, (first, n_queries), transposed, scores, totals);
                // dP = dO V^T.
                gradient.resize(n_queries * n_keys);
                gradient.fill(0.0);
                let place = |row| ((first + row) * stride, row * n_keys);
                let panel = head.transposed(transposed_values, n_keys);
                multiply(isa, StridedRows::rows(d_out), &panel, n_queries, &place, gradient);
                let rows = scores.chunks_exact_mut(n_keys).zip(gradient.chunks_exact_mut(n_keys));
                for ((weights, d), total) in rows.zip(totals.iter()) {
                    // `weights` become P, and `d` becomes dS. Masked keys have P = 0, hence dS = 0.
                    softmax_backward(isa, weights, *total, d);
                }
                // dQ = dS K.
                let place = |row| (row * n_keys, (first + row) * head_dim);
                let panel = head.columns(keys, kv_stride, n_keys);
                multiply(isa, StridedRows::rows(gradient), &panel, n_queries, &place, d_queries);
                // dK += dS^T Q and dV += P^T dO. The left operand is read column by column
                // (`step`), so the block's queries are the inner dimension; later blocks add to the
                // same rows.
                let place = |row| (row, row * head_dim);
                for (left, from, to) in
                    [(&*gradient, queries, &mut **d_keys), (&*scores, d_out, &mut **d_values)]
                {
                    let left = StridedRows { values: left, step: n_keys };
                    let panel = head.columns(&from[first * stride..], stride, n_queries);
                    multiply(isa, left, &panel, n_keys, &place, to);
                }
            }
        },
    );
}
