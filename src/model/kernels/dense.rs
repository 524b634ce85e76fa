//! An `f32` matrix.

/// Weights `(rows, columns)` in `f32`, row by row.
pub(in crate::model) struct Dense {
    columns: usize,
    values: Vec<f32>,
}

impl Dense {
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

    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.columns..][..self.columns]
    }
}
