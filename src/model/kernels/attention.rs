//! Softmax attention over keys and values in pages.
//!
//! Scores and outputs are both products of a few rows with a panel that all of them share: queries
//! with a page's keys (stored input by input), weights with a page's values (stored token by
//! token). Every element of a product is summed in the order of the inputs, so what a row gives
//! depends on no other row of its block.

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

/// Tokens of a page.
pub(in crate::model) const PAGE: usize = 32;
/// Rows that are summed at a time, at most.
pub(super) const ROWS: usize = 8;

/// What keys and values are held as.
pub(in crate::model) trait KvElement: Copy + Default {
    /// Whether it is `f16` and not `f32`.
    const IS_HALF: bool;

    /// Writes the nearest ones; both slices are of one length.
    fn round(numbers: &[f32], nearest: &mut [Self]);

    /// The same number.
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
    /// `(head_dim, PAGE)`.
    pub(in crate::model) keys: &'a [T],
    /// `(PAGE, head_dim)`.
    pub(in crate::model) values: &'a [T],
}

/// Neighbouring positions of one sequence, and the query heads that share one key head.
pub(in crate::model) struct AttentionBlock<'a> {
    /// Numbers a head.
    pub(in crate::model) head_dim: usize,
    /// Query heads.
    pub(in crate::model) n_heads: usize,
    /// How many keys the positions see, each one more than the position before it.
    pub(in crate::model) n_keys: Range<usize>,
    /// The queries, already divided by `sqrt(head_dim)`: position `i`, head `h` at
    /// `i * stride + h * head_dim`.
    pub(in crate::model) queries: &'a [f32],
    /// Numbers between neighboring positions.
    pub(in crate::model) stride: usize,
}

/// Room for one block: scores, sums of weights and results.
#[derive(Default)]
struct AttentionScratch {
    scores: AlignedBuffer,
    totals: Vec<f32>,
    results: AlignedBuffer,
}

/// Attends from every position of `block` to the keys that it sees; `pages` gives the keys in
/// order. `done` gets each position's `(n_heads, head_dim)` results.
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
            totals.push(softmax_weights(isa, seen));
            unseen.fill(0.0);
        }
        results.resize(n_rows * head_dim);
        results.fill(0.0);
        for (first_key, page) in (0..most_keys).step_by(PAGE).zip(pages) {
            let place = |row| (row * width + first_key, row * head_dim);
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

/// What stands left of a product: rows of which the numbers are `step` apart.
#[derive(Clone, Copy)]
pub(super) struct StridedRows<'a> {
    pub(super) values: &'a [f32],
    pub(super) step: usize,
}

impl<'a> StridedRows<'a> {
    /// Rows of neighboring numbers.
    pub(super) fn rows(values: &'a [f32]) -> Self {
        Self { values, step: 1 }
    }
}

/// What several rows are multiplied by: `(depth, width)`, its rows `stride` apart.
pub(super) struct RightPanel<'a, T> {
    pub(super) values: &'a [T],
    pub(super) depth: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl<T> RightPanel<'_, T> {
    /// Makes sure of the panel, and of the rows that start at `places` in `left` and in `out`.
    ///
    /// # Panics
    /// When a row reaches beyond `left` or `out`, or the panel is shorter than it says.
    pub(super) fn check(&self, left: StridedRows<'_>, places: &[(usize, usize)], out: &[f32]) {
        let last = self.depth.saturating_sub(1);
        assert!(self.values.len() >= last * self.stride + self.width, "the whole panel");
        for (from, to) in places {
            assert!(left.values.len() > from + last * left.step, "whole rows");
            assert!(out.len() >= to + self.width, "whole rows");
        }
    }
}

/// Adds the product of `n_rows` rows of `left` with the panel to `out`; `place` tells where a row
/// starts in either.
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

/// The row that starts at `from`, in plain Rust.
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
