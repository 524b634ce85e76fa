//! Unquantized `f32` weight matrices.

use super::Activations;
use super::Isa;
use super::TILE;
use super::TileOut;
use super::vector;

/// Weights `(rows, columns)` in `f32`, row by row.
pub(in crate::model) struct DenseMatrix {
    columns: usize,
    values: Vec<f32>,
}

impl DenseMatrix {
    /// Wraps `values`, whose length is a multiple of `columns`.
    pub(in crate::model) fn new(columns: usize, values: Vec<f32>) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows");
        Self { columns, values }
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.values.len() * 4
    }

    /// Multiplies one tile by all rows of `input`. Rows that the last tile lacks give 0.
    pub(super) fn multiply_tile(
        &self,
        isa: Isa,
        tile: usize,
        input: &Activations,
        target: &TileOut<'_>,
    ) {
        let first = tile * TILE;
        for row in 0..input.n_rows {
            let mut values = [0.0; TILE];
            for (i, value) in values[..TILE.min(self.rows() - first)].iter_mut().enumerate() {
                *value = vector::dot(isa, self.row(first + i), input.row(row));
            }
            target.put(row, &values);
        }
    }

    /// All weights in row-major order.
    pub(in crate::model) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.columns..][..self.columns]
    }
}
