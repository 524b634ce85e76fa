//! [`Spectrum`]: a merged delta as singular values between two bases, truncated to a rank and split
//! into balanced factors.

use faer::Mat;
use faer::MatRef;

use crate::peft::MAX_RANK;

use super::recipe::OutputSize;

/// Singular values below this fraction of the largest are rounding errors, with arbitrary vectors.
const NULL: f64 = 1e-10;

/// Singular value decomposition `left diag(values) right'` of a merged delta, or of the part of it
/// that a sketch captured.
#[derive(Debug)]
pub(super) struct Spectrum {
    /// `(outputs, k)`, orthonormal columns.
    pub(super) left: Mat<f64>,
    /// `k` singular values, descending.
    pub(super) values: Vec<f64>,
    /// `(inputs, k)`, orthonormal columns.
    pub(super) right: Mat<f64>,
    /// Squared Frobenius norm of the whole delta.
    pub(super) energy: f64,
}

/// Factors of a truncated delta, row-major, and how much of it they hold.
#[derive(Debug)]
pub(super) struct BalancedFactors {
    pub(super) rank: usize,
    /// Matrix A, `(rank, inputs)`.
    pub(super) a: Vec<f32>,
    /// Matrix B, `(outputs, rank)`.
    pub(super) b: Vec<f32>,
    /// Share of the squared norm that is kept, `0.0..=1.0`; 1 for a delta of zeros.
    pub(super) captured: f64,
}

/// Decomposes `core`, of shape `(rows, columns)`; `None` if the decomposition does not converge.
/// The bases are `(outputs, rows)` and `(inputs, columns)`.
pub(super) fn decompose(
    left: MatRef<'_, f64>,
    core: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
) -> Option<Spectrum> {
    let svd = core.thin_svd().ok()?;
    let diagonal = svd.S().column_vector();
    let values: Vec<f64> = (0..diagonal.nrows()).map(|index| diagonal[index]).collect();
    let energy = values.iter().map(|value| value * value).sum();
    Some(Spectrum { left: left * svd.U(), values, right: right * svd.V(), energy })
}

impl Spectrum {
    /// Returns the rank of a result of `size`, at least 1 and at most `cap` for a share of the
    /// energy.
    pub(super) fn rank(&self, size: OutputSize, cap: usize) -> usize {
        let least = NULL * self.values.first().copied().unwrap_or(0.0);
        let n_real = self.values.iter().filter(|value| **value > least).count().max(1);
        let most = n_real.min(self.values.len()).min(MAX_RANK as usize);
        match size {
            OutputSize::Rank(rank) => rank.min(most),
            OutputSize::Energy(share) => {
                let mut left = share * self.energy;
                let needed = self.values.iter().position(|value| {
                    left -= value * value;
                    left <= 0.0
                });
                needed.map_or(most, |last| last + 1).min(cap.max(1)).min(most)
            }
        }
    }

    /// Replaces the first `rank` singular values by their mean, and drops the others: the result is
    /// exact by its own definition.
    pub(super) fn flatten(&mut self, rank: usize) {
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let mean = self.values[..rank].iter().sum::<f64>() / rank as f64;
        self.values[..rank].fill(mean);
        self.values[rank..].fill(0.0);
        self.energy = self.values.iter().map(|value| value * value).sum();
    }

    /// Truncates to a rank; `lambda` is a factor of B. Without it, both factors have equal norms.
    pub(super) fn truncated(&self, rank: usize, lambda: f64) -> BalancedFactors {
        let roots: Vec<f64> = self.values[..rank].iter().map(|value| value.sqrt()).collect();
        let entries_of_a = (0..rank).flat_map(|k| {
            let root = roots[k];
            (0..self.right.nrows()).map(move |column| (k, column, root))
        });
        let a = entries_of_a.map(|(k, column, root)| single(root * self.right[(column, k)]));
        let entries_of_b = (0..self.left.nrows()).flat_map(|row| (0..rank).map(move |k| (row, k)));
        let b = entries_of_b.map(|(row, k)| single(lambda * roots[k] * self.left[(row, k)]));
        BalancedFactors { rank, a: a.collect(), b: b.collect(), captured: self.captured(rank) }
    }

    /// Returns the share of the squared norm that the first `rank` values hold.
    fn captured(&self, rank: usize) -> f64 {
        let kept: f64 = self.values[..rank].iter().map(|value| value * value).sum();
        if self.energy > 0.0 { (kept / self.energy).min(1.0) } else { 1.0 }
    }
}

/// Converts a matrix to single precision, row-major.
pub(super) fn row_major(matrix: MatRef<'_, f64>) -> Vec<f32> {
    let (n_rows, n_columns) = matrix.shape();
    let places = (0..n_rows).flat_map(|row| (0..n_columns).map(move |column| (row, column)));
    places.map(|place| single(matrix[place])).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "adapters are stored in single precision")]
pub(super) fn single(value: f64) -> f32 {
    value as f32
}
