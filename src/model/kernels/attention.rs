//! Softmax attention over keys and values in KV cache pages.
//!
//! Scores and outputs are both products of a few rows with a panel that all of them share: queries
//! with a page's keys (stored input by input), weights with a page's values (stored token by
//! token). Every element of a product is summed in the order of the inputs, so a row's result does
//! not depend on the other rows of its block.
//!
//! ```text
//! queries (rows, head_dim) x keys   (head_dim, 32) -> scores (rows, 32), page by page
//! softmax over the row's visible keys
//! weights (rows, 32)       x values (32, head_dim) -> results (rows, head_dim), summed over pages
//! ```

use std::cell::RefCell;
use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::AlignedBuffer;
use super::Isa;
#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::vector::softmax_weights;

/// Tokens per page of the KV cache.
pub(in crate::model) const PAGE: usize = 32;
/// Maximum rows of a panel product per kernel call.
pub(super) const ROWS: usize = 8;

/// Storage type of keys and values.
pub(in crate::model) trait KvElement: Copy + Default {
    /// Whether the type is `f16` rather than `f32`.
    const IS_HALF: bool;

    /// Rounds `numbers` to the nearest representable values; both slices have equal length.
    fn round(numbers: &[f32], nearest: &mut [Self]);

    /// Converts to `f32`, exactly.
    fn widened(self) -> f32;
}

impl KvElement for f16 {
    const IS_HALF: bool = true;

    fn round(numbers: &[f32], nearest: &mut [Self]) {
        nearest.convert_from_f32_slice(numbers);
    }

    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl KvElement for f32 {
    const IS_HALF: bool = false;

    fn round(numbers: &[f32], nearest: &mut [Self]) {
        nearest.copy_from_slice(numbers);
    }

    fn widened(self) -> f32 {
        self
    }
}

/// Keys and values of one head for the tokens of one page.
#[derive(Clone, Copy)]
pub(in crate::model) struct HeadPage<'a, T> {
    /// Keys of shape `(head_dim, PAGE)`.
    pub(in crate::model) keys: &'a [T],
    /// Values of shape `(PAGE, head_dim)`.
    pub(in crate::model) values: &'a [T],
}

/// Queries of consecutive positions of one sequence, for the heads that share one KV head
/// (grouped-query attention).
pub(in crate::model) struct AttentionBlock<'a> {
    /// Width of a head.
    pub(in crate::model) head_dim: usize,
    /// Number of query heads.
    pub(in crate::model) n_heads: usize,
    /// Keys visible to each position: `start` for the first, one more for each further position.
    pub(in crate::model) n_keys: Range<usize>,
    /// Queries, already scaled by `1 / sqrt(head_dim)`: position `i`, head `h` at
    /// `i * stride + h * head_dim`.
    pub(in crate::model) queries: &'a [f32],
    /// Distance between consecutive positions, in elements.
    pub(in crate::model) stride: usize,
}

/// Scratch buffers for one block: scores, softmax denominators and results.
#[derive(Default)]
struct AttentionScratch {
    scores: AlignedBuffer,
    totals: Vec<f32>,
    results: AlignedBuffer,
}

/// Computes attention for every position of `block` over its visible keys. `pages` yields the pages
/// in order; `done` receives each position's results, `(n_heads, head_dim)`.
pub(in crate::model) fn attend<'a, T: KvElement + 'a>(
    isa: Isa,
    block: &AttentionBlock<'_>,
    pages: impl Iterator<Item = HeadPage<'a, T>> + Clone,
    mut done: impl FnMut(usize, &[f32]),
) {
    thread_local! {
        static SCRATCH: RefCell<AttentionScratch> = RefCell::default();
    }
    let AttentionBlock { head_dim, n_heads, stride, .. } = *block;
    let n_rows = block.n_keys.len() * n_heads;
    let most_keys = block.n_keys.end - 1;
    let width = most_keys.next_multiple_of(PAGE);
    // Rows are ordered position by position, so all heads of a KV head share one pass over its
    // keys.
    let query = |row: usize| row / n_heads * stride + row % n_heads * head_dim;
    SCRATCH.with_borrow_mut(|AttentionScratch { scores, totals, results }| {
        scores.resize(n_rows * width);
        scores.fill(0.0);
        for (first_key, page) in (0..most_keys).step_by(PAGE).zip(pages.clone()) {
            let place = |row| (query(row), row * width + first_key);
            let panel =
                RightPanel { values: page.keys, depth: head_dim, width: PAGE, stride: PAGE };
            multiply(isa, StridedRows::rows(block.queries), &panel, n_rows, &place, scores);
        }
        totals.clear();
        for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
            let (seen, unseen) = scores.split_at_mut(block.n_keys.start + row / n_heads);
            // Unnormalized weights: dividing `head_dim` results is cheaper than dividing all
            // weights.
            totals.push(softmax_weights(isa, seen));
            unseen.fill(0.0);
        }
        results.resize(n_rows * head_dim);
        results.fill(0.0);
        for (first_key, page) in (0..most_keys).step_by(PAGE).zip(pages) {
            let place = |row| (row * width + first_key, row * head_dim);
            // The rest of the last page is stale: even times a weight of 0 it could yield NaN.
            let depth = PAGE.min(most_keys - first_key);
            let panel =
                RightPanel { values: page.values, depth, width: head_dim, stride: head_dim };
            multiply(isa, StridedRows::rows(scores), &panel, n_rows, &place, results);
        }
        for (row, total) in results.chunks_exact_mut(head_dim).zip(totals) {
            for out in row {
                *out /= *total;
            }
        }
        for (position, results) in results.chunks_exact(n_heads * head_dim).enumerate() {
            done(position, results);
        }
    });
}

/// Left operand of a product: rows whose elements are `step` apart.
#[derive(Clone, Copy)]
pub(super) struct StridedRows<'a> {
    pub(super) values: &'a [f32],
    pub(super) step: usize,
}

impl<'a> StridedRows<'a> {
    /// Rows of contiguous elements.
    pub(super) fn rows(values: &'a [f32]) -> Self {
        Self { values, step: 1 }
    }
}

/// Right operand shared by several rows: a `(depth, width)` panel with rows `stride` apart.
pub(super) struct RightPanel<'a, T> {
    pub(super) values: &'a [T],
    pub(super) depth: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl<T> RightPanel<'_, T> {
    /// Checks the bounds of the panel and of the rows that start at `places` in `left` and `out`.
    ///
    /// # Panics
    /// When a row extends past the end of `left` or `out`, or the panel is shorter than its shape.
    pub(super) fn check(&self, left: StridedRows<'_>, places: &[(usize, usize)], out: &[f32]) {
        let last = self.depth.saturating_sub(1);
        assert!(self.values.len() >= last * self.stride + self.width, "the whole panel");
        for (from, to) in places {
            assert!(left.values.len() > from + last * left.step, "whole rows");
            assert!(out.len() >= to + self.width, "whole rows");
        }
    }
}

/// Adds the product of `n_rows` rows of `left` with the panel to `out`. `place` returns the start
/// of a row in `left` and in `out`.
pub(super) fn multiply<T: KvElement>(
    isa: Isa,
    left: StridedRows<'_>,
    panel: &RightPanel<'_, T>,
    n_rows: usize,
    place: &dyn Fn(usize) -> (usize, usize),
    out: &mut [f32],
) {
    let rows_together = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::PANEL_ROWS,
        _ => ROWS,
    };
    for first in (0..n_rows).step_by(rows_together) {
        let n = rows_together.min(n_rows - first);
        // Places beyond the last row repeat it; the slices below cut them off.
        let places: [_; ROWS] = std::array::from_fn(|i| place(first + i.min(n - 1)));
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::multiply_panel(left, panel, &places[..n], out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::multiply_panel(left, panel, &places[..n], out),
            Isa::Portable => {
                panel.check(left, &places[..n], out);
                for (from, to) in &places[..n] {
                    multiply_row(left, *from, panel, &mut out[*to..][..panel.width]);
                }
            }
        }
    }
}

/// Multiplies the row that starts at `from`, in portable Rust.
fn multiply_row<T: KvElement>(
    left: StridedRows<'_>,
    from: usize,
    panel: &RightPanel<'_, T>,
    out: &mut [f32],
) {
    for (column, out) in out.iter_mut().enumerate() {
        let term = |k: usize| {
            left.values[from + k * left.step] * panel.values[k * panel.stride + column].widened()
        };
        *out += (0..panel.depth).map(term).sum::<f32>();
    }
}
