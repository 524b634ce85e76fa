//! Output head and loss: cross-entropy, computed only at rows with a target.
//!
//! Logits `(rows, vocabulary)` are the largest buffer of a pass. They are computed, turned into
//! gradients in place and consumed 64 rows at a time.

use super::super::kernels::Activations;
use super::super::kernels::AlignedBuffer;
use super::super::kernels::MatmulProduct;
use super::super::kernels::OutputMode;
use super::super::kernels::ProductView;
use super::super::kernels::SharedMut;
use super::super::kernels::WeightMatrix;
use super::super::kernels::cross_entropy;
use super::super::kernels::matmul;
use super::super::kernels::product;
use super::block;
use super::linear::Compute;
use super::tuner::NextToken;

/// Rows whose logits are in memory at a time.
const ROWS_AT_ONCE: usize = 64;

/// Final norm and output head of the network.
pub(super) struct OutputHead<'a> {
    pub(super) matrix: &'a WeightMatrix,
    /// Transposed matrix; `None` where the matrix is `f32`.
    pub(super) transposed: Option<&'a WeightMatrix>,
    pub(super) norm: &'a [f32],
    pub(super) eps: f32,
}

/// Scratch buffers for one chunk of rows.
#[derive(Default)]
pub(super) struct OutputScratch {
    input: Activations,
    logits: AlignedBuffer,
    gradients: Activations,
    rows: AlignedBuffer,
    d_x: AlignedBuffer,
    d_rows: AlignedBuffer,
}

impl OutputHead<'_> {
    /// Returns the weighted sum of the targets' losses in nats. With `d`, adds `scale` times its
    /// gradient with respect to the hidden rows.
    pub(super) fn loss(
        &self,
        compute: &mut Compute,
        hidden: &[f32],
        targets: &[NextToken],
        scratch: &mut OutputScratch,
        mut d: Option<(&mut [f32], f32)>,
    ) -> f64 {
        let width = self.norm.len();
        let mut total = 0.0;
        for targets in targets.chunks(ROWS_AT_ONCE) {
            scratch.rows.resize(targets.len() * width);
            for (row, target) in scratch.rows.chunks_exact_mut(width).zip(targets) {
                row.copy_from_slice(&hidden[target.row * width..][..width]);
            }
            let scale = d.as_ref().map_or(0.0, |(_, scale)| *scale);
            total += self.logits(compute, targets, scale, scratch);
            if let Some((d, _)) = &mut d {
                self.carry_back(compute, targets, scratch, d);
            }
        }
        total
    }

    /// Fills `scratch.logits` with the gradients of the logits and returns the sum of the losses.
    fn logits(
        &self,
        compute: &mut Compute,
        targets: &[NextToken],
        scale: f32,
        scratch: &mut OutputScratch,
    ) -> f64 {
        let (width, vocabulary, isa) = (self.norm.len(), self.matrix.rows(), compute.isa);
        let (rows, norm, eps) = (&scratch.rows, self.norm, self.eps);
        scratch.input.fill(&mut compute.pool, isa, (targets.len(), width), &|row, out| {
            super::super::kernels::rms_norm(isa, &rows[row * width..][..width], norm, eps, out);
        });
        scratch.logits.resize(targets.len() * vocabulary);
        let out = &mut *scratch.logits;
        let product = MatmulProduct {
            matrix: self.matrix,
            bias: None,
            branches: Vec::new(),
            out,
            write: OutputMode::Over,
        };
        matmul(&mut compute.pool, isa, &scratch.input, [product]);
        // Losses are collected per row and summed in order, for a result independent of the
        // threads.
        let mut losses = vec![0.0; targets.len()];
        let (sums, logits) = (SharedMut::new(&mut losses), SharedMut::new(&mut scratch.logits));
        compute.pool.run(targets.len(), &|i| {
            let NextToken { token, weight, .. } = targets[i];
            let logits = logits.slice(i * vocabulary, vocabulary);
            sums.slice(i, 1)[0] = cross_entropy(isa, logits, token as usize, scale * weight);
        });
        losses.iter().zip(targets).map(|(loss, target)| f64::from(loss * target.weight)).sum()
    }

    /// Propagates the gradients in `scratch.logits` through head and norm, and adds them to `d`.
    fn carry_back(
        &self,
        compute: &mut Compute,
        targets: &[NextToken],
        scratch: &mut OutputScratch,
        d: &mut [f32],
    ) {
        let (width, vocabulary) = (self.norm.len(), self.matrix.rows());
        let OutputScratch { logits, gradients, rows, d_x, d_rows, .. } = scratch;
        d_x.resize(rows.len());
        match (self.matrix, self.transposed) {
            (_, Some(matrix)) => {
                let size = (targets.len(), vocabulary);
                gradients.fill(&mut compute.pool, compute.isa, size, &|row, out| {
                    out.copy_from_slice(&logits[row * vocabulary..][..vocabulary]);
                });
                let (bias, branches, write) = (None, Vec::new(), OutputMode::Over);
                let product = MatmulProduct { matrix, bias, branches, out: d_x, write };
                matmul(&mut compute.pool, compute.isa, gradients, [product]);
            }
            (WeightMatrix::Dense(dense), None) => {
                let pair =
                    (ProductView::new(logits, vocabulary), ProductView::new(dense.values(), width));
                product(&mut compute.pool, compute.isa, pair, d_x, OutputMode::Over);
            }
            (WeightMatrix::Packed(_), None) => {
                unreachable!("packed weights have a transposed copy")
            }
        }
        // A separate buffer, scattered at the end: target rows need not be contiguous in `d`.
        d_rows.resize(rows.len());
        d_rows.fill(0.0);
        block::norm_backward(compute, (self.norm, self.eps), (rows, d_x), d_rows);
        for (d_row, target) in d_rows.chunks_exact(width).zip(targets) {
            let d = &mut d[target.row * width..][..width];
            d.iter_mut().zip(d_row).for_each(|(d, d_row)| *d += d_row);
        }
    }
}
