//! [`CoreSpace`]: the deltas of one module in bases that they share.
//!
//! All deltas live between the column space of the parents' B and the row space of their A. With
//! orthonormal bases of both, from QR decompositions of the stacked factors, each delta is a matrix
//! of at most R x R coordinates, where R is the sum of the ranks: `B = [B_1 .. B_T] = Q_B R_B` and
//! `A' = [A_1' .. A_T'] = Q_A R_A` give `B_i A_i = Q_B (R_B,i R_A,i') Q_A'`.

use faer::Mat;
use faer::MatRef;

use super::factors::ParentFactors;
use super::spectrum;
use super::spectrum::Spectrum;
use super::spectrum::row_major;

/// Deltas of one module in shared bases.
#[derive(Debug)]
pub(super) struct CoreSpace {
    /// `(outputs, rows)`, orthonormal columns.
    left: Mat<f64>,
    /// `(inputs, columns)`, orthonormal columns.
    right: Mat<f64>,
    /// Coordinates of each parent's delta, `(rows, columns)`, without its weight.
    coordinates: Vec<Mat<f64>>,
}

impl CoreSpace {
    /// Creates the space of the parents' deltas.
    pub(super) fn new(parents: &[ParentFactors]) -> Self {
        let (left, of_b) = factored(parents.iter().map(|parent| parent.b.as_ref()));
        let (right, of_a) = factored(parents.iter().map(|parent| parent.a.transpose()));
        let coordinates = of_b.iter().zip(&of_a).map(|(b, a)| b * a.transpose()).collect();
        Self { left, right, coordinates }
    }

    /// Creates the space with bases that do not depend on how each delta is factored: elementwise
    /// methods read the coordinates themselves. The bases are the singular vectors of the stacked
    /// factors, once each delta is in balanced factors. `None` if a decomposition does not
    /// converge.
    pub(super) fn canonical(parents: &[ParentFactors]) -> Option<Self> {
        let balanced: Option<Vec<ParentFactors>> = parents.iter().map(balanced).collect();
        let balanced = balanced?;
        let mut space = Self::new(&balanced);
        let left = rotation(balanced.iter().map(|parent| space.left.transpose() * &parent.b))?;
        let right =
            rotation(balanced.iter().map(|parent| space.right.transpose() * parent.a.transpose()))?;
        space.left = &space.left * &left;
        space.right = &space.right * &right;
        for matrix in &mut space.coordinates {
            *matrix = left.transpose() * &*matrix * &right;
        }
        Some(space)
    }

    /// Number of rows and columns of the coordinates.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.left.ncols(), self.right.ncols())
    }

    /// Returns the weighted sum of all deltas, in coordinates.
    pub(super) fn sum(&self, weights: impl Iterator<Item = f64>) -> Mat<f64> {
        let (rows, columns) = self.size();
        let mut sum = Mat::zeros(rows, columns);
        for (matrix, weight) in self.coordinates.iter().zip(weights) {
            sum += faer::Scale(weight) * matrix;
        }
        sum
    }

    /// Returns the coordinates of each parent in single precision, row-major.
    pub(super) fn entries(&self) -> Vec<Vec<f32>> {
        self.coordinates.iter().map(|matrix| row_major(matrix.as_ref())).collect()
    }

    /// Decomposes a matrix of coordinates; `None` if that does not converge.
    pub(super) fn spectrum(&self, core: MatRef<'_, f64>) -> Option<Spectrum> {
        spectrum::decompose(self.left.as_ref(), core, self.right.as_ref())
    }

    /// Returns how much the spaces of two parents' outputs and of their inputs overlap, on average
    /// over all pairs: the mean squared cosine of their principal angles, `0.0..=1.0`. `None` for a
    /// single parent.
    pub(super) fn overlap(parents: &[ParentFactors]) -> Option<[f64; 2]> {
        let b: Vec<Mat<f64>> =
            parents.iter().map(|parent| parent.b.qr().compute_thin_Q()).collect();
        let a: Vec<Mat<f64>> =
            parents.iter().map(|parent| parent.a.transpose().qr().compute_thin_Q()).collect();
        Some([mean_overlap(&b)?, mean_overlap(&a)?])
    }
}

/// Returns the mean over pairs of orthonormal bases; `None` for fewer than two.
#[expect(clippy::cast_precision_loss, reason = "parents and ranks are few")]
fn mean_overlap(bases: &[Mat<f64>]) -> Option<f64> {
    let (mut sum, mut n) = (0.0, 0);
    for (index, one) in bases.iter().enumerate() {
        for other in &bases[index + 1..] {
            let product = one.transpose() * other;
            sum += product.squared_norm_l2() / one.ncols().min(other.ncols()) as f64;
            n += 1;
        }
    }
    (n > 0).then(|| sum / f64::from(n))
}

/// Returns an orthonormal basis of the columns of all matrices, and the coordinates of each matrix.
fn factored<'a>(
    matrices: impl Iterator<Item = MatRef<'a, f64>> + Clone,
) -> (Mat<f64>, Vec<Mat<f64>>) {
    let n_columns = matrices.clone().map(|matrix| matrix.ncols()).sum();
    let n_rows = matrices.clone().next().map_or(0, |matrix| matrix.nrows());
    let mut stacked = Mat::zeros(n_rows, n_columns);
    let mut first = 0;
    for matrix in matrices.clone() {
        stacked.subcols_mut(first, matrix.ncols()).copy_from(matrix);
        first += matrix.ncols();
    }
    let qr = stacked.qr();
    let mut first = 0;
    let coordinates = matrices.map(|matrix| {
        first += matrix.ncols();
        qr.thin_R().subcols(first - matrix.ncols(), matrix.ncols()).to_owned()
    });
    let coordinates = coordinates.collect();
    (qr.compute_thin_Q(), coordinates)
}

/// Returns the left singular vectors of matrices side by side; `None` without convergence.
fn rotation(matrices: impl Iterator<Item = Mat<f64>>) -> Option<Mat<f64>> {
    let matrices: Vec<Mat<f64>> = matrices.collect();
    let n_rows = matrices.first().map_or(0, Mat::nrows);
    // The singular vectors of `X` are the eigenvectors of `X X'`, which has the right size.
    let mut product = Mat::zeros(n_rows, n_rows);
    for matrix in &matrices {
        product += matrix * matrix.transpose();
    }
    // They are unique up to their signs, which elementwise methods do not see.
    Some(product.thin_svd().ok()?.U().to_owned())
}

/// Returns a delta in factors of equal norms; `None` if the decomposition does not converge.
fn balanced(parent: &ParentFactors) -> Option<ParentFactors> {
    let space = CoreSpace::new(std::slice::from_ref(parent));
    let spectrum = space.spectrum(space.coordinates[0].as_ref())?;
    let rank = spectrum.values.len();
    let root = |k: usize| spectrum.values[k].sqrt();
    let b = Mat::from_fn(spectrum.left.nrows(), rank, |row, k| spectrum.left[(row, k)] * root(k));
    let a = Mat::from_fn(rank, spectrum.right.nrows(), |k, column| {
        spectrum.right[(column, k)] * root(k)
    });
    Some(ParentFactors { a, b, weight: parent.weight })
}
