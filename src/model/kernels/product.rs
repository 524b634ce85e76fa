//! Parallel products of `f32` matrices, for training.

use super::Isa;
use super::OutputMode;
use super::SharedMut;
use super::attention::RightPanel;
use super::attention::StridedRows;
use super::attention::multiply;
use super::pool::ThreadPool;

/// Output rows per unit of work.
const ROWS_AT_ONCE: usize = 32;

/// Terms per partial sum. Blocking the inner dimension keeps a part of `b` in the cache, and limits
/// the rounding error of long sums.
const DEPTH_AT_ONCE: usize = 256;

/// A strided view of a matrix: element `(i, j)` is at `i * row_step + j * column_step`.
#[derive(Clone, Copy)]
pub(in crate::model) struct ProductView<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> ProductView<'a> {
    /// Views `values` as row-major with `columns` columns.
    ///
    /// # Panics
    /// When the length is not a multiple of `columns`.
    pub(in crate::model) fn new(values: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows");
        let rows = values.len() / columns;
        Self { values, rows, columns, row_step: columns, column_step: 1 }
    }

    /// The transposed view; copies nothing.
    pub(in crate::model) fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
        }
    }
}

/// Computes `a b` of shape `(a.rows, b.columns)`, overwriting `out` or adding to it. One thread
/// sums each element in a fixed order, so results don't depend on the number of threads.
///
/// # Panics
/// When the shapes don't match, or the rows of `b` are not contiguous.
pub(in crate::model) fn product(
    pool: &mut ThreadPool,
    isa: Isa,
    (a, b): (ProductView<'_>, ProductView<'_>),
    out: &mut [f32],
    write: OutputMode,
) {
    assert_eq!(a.columns, b.rows, "inner sizes are equal");
    assert_eq!(b.column_step, 1, "the rows of `b` are contiguous");
    assert_eq!(out.len(), a.rows * b.columns, "the output has the product's shape");
    let width = b.columns;
    let out = SharedMut::new(out);
    pool.run(a.rows.div_ceil(ROWS_AT_ONCE), &|unit| {
        let first = unit * ROWS_AT_ONCE;
        let n = ROWS_AT_ONCE.min(a.rows - first);
        let out = out.slice(first * width, n * width);
        if write == OutputMode::Over {
            out.fill(0.0);
        }
        // The kernel adds to `out`, so consecutive slices of the inner dimension accumulate there.
        for depth in (0..b.rows).step_by(DEPTH_AT_ONCE) {
            let values = &a.values[first * a.row_step + depth * a.column_step..];
            let left = StridedRows { values, step: a.column_step };
            let values = &b.values[depth * b.row_step..];
            let depth = DEPTH_AT_ONCE.min(b.rows - depth);
            let panel = RightPanel { values, depth, width, stride: b.row_step };
            multiply(isa, left, &panel, n, &|row| (row * a.row_step, row * width), out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::ProductView;
    use super::product;
    use crate::model::kernels::Isa;
    use crate::model::kernels::OutputMode;
    use crate::model::kernels::ThreadPool;

    #[test]
    fn products_match_the_definition_on_every_instruction_set() {
        let numbers = |n: usize, seed: usize| -> Vec<f32> {
            (0..n)
                .map(|i| f32::from(u8::try_from((i * 37 + seed) % 23).unwrap()) / 8.0 - 1.0)
                .collect()
        };
        let mut pool = ThreadPool::new(2);
        for (m, k, n) in [(1, 1, 1), (9, 5, 16), (70, 33, 17), (33, 64, 48), (3, 7, 100)] {
            let (a, b) = (numbers(m * k, 3), numbers(k * n, 11));
            let a_turned: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            for isa in [Isa::Avx512Vnni, Isa::Avx2, Isa::Portable] {
                if !isa.is_available() {
                    continue;
                }
                for a in [ProductView::new(&a, k), ProductView::new(&a_turned, m).transposed()] {
                    let mut out = vec![2.0; m * n];
                    product(
                        &mut pool,
                        isa,
                        (a, ProductView::new(&b, n)),
                        &mut out,
                        OutputMode::Add,
                    );
                    for (at, out) in out.iter().enumerate() {
                        let term = |i: usize| {
                            a.values[at / n * a.row_step + i * a.column_step] * b[i * n + at % n]
                        };
                        let expected: f32 = 2.0 + (0..k).map(term).sum::<f32>();
                        assert!(
                            (out - expected).abs() < 1e-4,
                            "{m} {k} {n} {isa:?}: {out} {expected}"
                        );
                    }
                }
            }
        }
    }
}
