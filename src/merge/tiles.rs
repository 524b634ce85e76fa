//! [`TileSource`]: the entries of the parents' deltas, a block of rows at a time.

use faer::Accum;
use faer::MatMut;
use faer::MatRef;
use faer::Par;
use faer::linalg::matmul::matmul;

/// Maximum number of rows of a tile, and of entries of all parents' tiles together.
const MAX_ROWS: usize = 256;
const MAX_ENTRIES: usize = 4 << 20;

/// A delta as its factors in single precision.
#[derive(Debug)]
pub(super) struct DeltaFactors {
    /// `(outputs, rank)`, row-major, with the scaling.
    pub(super) b: Vec<f32>,
    /// `(rank, inputs)`, row-major.
    pub(super) a: Vec<f32>,
    pub(super) rank: usize,
}

/// Matrices of equal size, one a parent, that are read by blocks of rows.
#[derive(Debug)]
pub(super) enum TileSource {
    /// Products of factors; a tile is computed when it is read.
    Deltas(Vec<DeltaFactors>),
    /// Whole matrices, row-major.
    Matrices(Vec<Vec<f32>>),
}

impl TileSource {
    /// Returns the number of parents.
    pub(super) fn n_parents(&self) -> usize {
        match self {
            Self::Deltas(deltas) => deltas.len(),
            Self::Matrices(matrices) => matrices.len(),
        }
    }

    /// Calls `each` for all tiles in order: with the first row, and the entries of each parent,
    /// row-major.
    pub(super) fn for_each(
        &self,
        (n_rows, n_columns): (usize, usize),
        mut each: impl FnMut(usize, &[Vec<f32>]),
    ) {
        match self {
            Self::Matrices(matrices) => each(0, matrices),
            Self::Deltas(deltas) => {
                let mut tiles = vec![Vec::new(); deltas.len()];
                let n_fit = MAX_ENTRIES / (n_columns * deltas.len()).max(1);
                let n_tile = n_fit.clamp(1, MAX_ROWS);
                for first in (0..n_rows).step_by(n_tile) {
                    let rows = n_tile.min(n_rows - first);
                    for (tile, delta) in tiles.iter_mut().zip(deltas) {
                        delta.compute((first, rows), n_columns, tile);
                    }
                    each(first, &tiles);
                }
            }
        }
    }
}

impl DeltaFactors {
    fn compute(&self, (first, rows): (usize, usize), n_columns: usize, tile: &mut Vec<f32>) {
        tile.resize(rows * n_columns, 0.0);
        let b = &self.b[first * self.rank..(first + rows) * self.rank];
        matmul(
            MatMut::from_row_major_slice_mut(tile, rows, n_columns),
            Accum::Replace,
            MatRef::from_row_major_slice(b, rows, self.rank),
            MatRef::from_row_major_slice(&self.a, self.rank, n_columns),
            1.0,
            Par::Seq,
        );
    }
}
