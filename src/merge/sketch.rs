//! Truncation of a matrix that is too large to hold and is read by tiles: a randomized range finder
//! with power iterations (Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms 4.4 and
//! 5.1).

use faer::Accum;
use faer::Mat;
use faer::MatRef;
use faer::Par;
use faer::linalg::matmul::matmul;

use crate::rng::SplitMix64;

use super::elementwise::ElementwiseMerge;
use super::spectrum;
use super::spectrum::Spectrum;

/// Columns of a sketch beyond the rank.
const OVERSAMPLING: usize = 10;
/// Minimum number of columns of a sketch: a matrix of such a size is decomposed exactly.
const LEAST_COLUMNS: usize = 64;
/// Power iterations: entries that were set by signs and thresholds have slowly falling spectra.
const N_POWER: usize = 2;

/// Decomposes the best part of rank `rank` of a merged matrix; `None` if the decomposition does not
/// converge.
pub(super) fn decompose(merge: &ElementwiseMerge<'_>, rank: usize, seed: u64) -> Option<Spectrum> {
    let (n_rows, n_columns) = merge.size;
    let least = n_rows.min(n_columns);
    let width = (rank + OVERSAMPLING).max(LEAST_COLUMNS).min(least);
    let mut random = SplitMix64::new(seed);
    let mut right = Mat::from_fn(n_columns, width, |_, _| f64::from(random.uniform()) - 0.5);
    let (mut left, energy) = times(merge, &right);
    left = left.qr().compute_thin_Q();
    let is_exact = width == least;
    for _ in 0..if is_exact { 0 } else { N_POWER } {
        right = transposed_times(merge, &left).qr().compute_thin_Q();
        left = times(merge, &right).0.qr().compute_thin_Q();
    }
    // `Q' M` has the transpose `M' Q`.
    let core = transposed_times(merge, &left);
    let qr = core.qr();
    let found =
        spectrum::decompose(left.as_ref(), qr.thin_R().transpose(), qr.compute_thin_Q().as_ref())?;
    Some(Spectrum { energy: energy.max(found.energy), ..found })
}

/// Returns the product of the merged matrix with `right`, and its squared norm.
fn times(merge: &ElementwiseMerge<'_>, right: &Mat<f64>) -> (Mat<f64>, f64) {
    let (n_rows, n_columns) = merge.size;
    let right = to_single(right);
    let (mut product, mut energy) = (Mat::zeros(n_rows, right.ncols()), 0.0);
    merge.for_each_tile(|first, tile| {
        energy += tile.iter().map(|entry| f64::from(*entry) * f64::from(*entry)).sum::<f64>();
        let tile = MatRef::from_row_major_slice(tile, tile.len() / n_columns, n_columns);
        let part = tile * &right;
        for column in 0..part.ncols() {
            for row in 0..part.nrows() {
                product[(first + row, column)] = f64::from(part[(row, column)]);
            }
        }
    });
    (product, energy)
}

/// Returns the product of the transposed merged matrix with `left`.
fn transposed_times(merge: &ElementwiseMerge<'_>, left: &Mat<f64>) -> Mat<f64> {
    let n_columns = merge.size.1;
    let left = to_single(left);
    let mut product = Mat::<f32>::zeros(n_columns, left.ncols());
    merge.for_each_tile(|first, tile| {
        let n_rows = tile.len() / n_columns;
        let tile = MatRef::from_row_major_slice(tile, n_rows, n_columns);
        let rows = left.subrows(first, n_rows);
        matmul(product.as_mut(), Accum::Add, tile.transpose(), rows, 1.0, Par::Seq);
    });
    Mat::from_fn(product.nrows(), product.ncols(), |row, column| f64::from(product[(row, column)]))
}

fn to_single(matrix: &Mat<f64>) -> Mat<f32> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, column| {
        spectrum::single(matrix[(row, column)])
    })
}
