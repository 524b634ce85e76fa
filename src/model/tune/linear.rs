//! A linear layer with a LoRA branch, `y = W x + b + scaling B A x`, and its gradients.
//!
//! ```text
//! with inner = scaling A x, (rows, rank):
//!   dB += dy^T inner
//!   d(inner) = scaling dy B
//!   dA += d(inner)^T x             stored transposed: (inputs, rank)
//!   dx = dy W + d(inner) A         W frozen: by integer kernels on its transposed copy
//! ```

use super::super::kernels::Activations;
use super::super::kernels::AlignedBuffer;
use super::super::kernels::Isa;
use super::super::kernels::MatmulProduct;
use super::super::kernels::OutputMode;
use super::super::kernels::ProductView;
use super::super::kernels::SharedMut;
use super::super::kernels::ThreadPool;
use super::super::kernels::WeightMatrix;
use super::super::kernels::add;
use super::super::kernels::matmul;
use super::super::kernels::product;
use super::super::weights::LinearLayer;
use super::dropout::DropoutMask;
use super::factors::FactorPlace;
use super::factors::TrainableFactors;

/// Thread pool and instruction set of a pass.
pub(super) struct Compute {
    pub(super) pool: ThreadPool,
    pub(super) isa: Isa,
}

/// A linear layer of the frozen base with its LoRA branch, if it has one.
pub(super) struct LoraLinear<'a> {
    pub(super) linear: &'a LinearLayer,
    /// Transposed weights; `None` where the weights are `f32`.
    pub(super) transposed: Option<&'a WeightMatrix>,
    pub(super) place: Option<FactorPlace>,
    pub(super) scaling: f32,
    pub(super) dropout: DropoutMask,
}

/// Scratch buffers for the branch of one layer.
#[derive(Default)]
pub(super) struct LinearScratch {
    dropped: AlignedBuffer,
    d_inner: AlignedBuffer,
    d_input: AlignedBuffer,
    gradients: Activations,
}

impl LoraLinear<'_> {
    /// Computes the layer's output for all rows of `input`. `inner` saves `scaling A x`, `(rows,
    /// rank)`, for the backward pass.
    pub(super) fn forward(
        &self,
        compute: &mut Compute,
        factors: &TrainableFactors,
        input: &Activations,
        (inner, scratch): (&mut AlignedBuffer, &mut LinearScratch),
        (out, write): (&mut [f32], OutputMode),
    ) {
        let Compute { pool, isa } = compute;
        let (matrix, bias) = (&self.linear.matrix, self.linear.bias.as_deref());
        let base = MatmulProduct { matrix, bias, branches: Vec::new(), out: &mut *out, write };
        matmul(pool, *isa, input, [base]);
        let Some(FactorPlace { a, b }) = &self.place else { return };
        let rank = factors.rank;
        // The branch reads the exact `f32` input, not its quantized codes: its gradients are
        // computed from the same values.
        let x = self.dropout.applied(pool, input.values(), &mut scratch.dropped);
        inner.resize(input.n_rows() * rank);
        let a = ProductView::new(&factors.values[a.clone()], rank);
        product(pool, *isa, (ProductView::new(x, matrix.columns()), a), inner, OutputMode::Over);
        inner.iter_mut().for_each(|number| *number *= self.scaling);
        let b = ProductView::new(factors.transposed(b.clone()), matrix.rows());
        product(pool, *isa, (ProductView::new(inner, rank), b), out, OutputMode::Add);
    }

    /// Accumulates the gradients of A and B for the output gradient `d_out`, and writes or adds the
    /// input gradient to `d_input`, if given. `x` is the layer's input, `inner` was saved by
    /// [`Self::forward`].
    pub(super) fn backward(
        &self,
        compute: &mut Compute,
        factors: &mut TrainableFactors,
        (x, inner, d_out): (&[f32], &[f32], &[f32]),
        scratch: &mut LinearScratch,
        d_input: Option<(&mut [f32], OutputMode)>,
    ) {
        let (rows, columns) = (self.linear.matrix.rows(), self.linear.matrix.columns());
        let LinearScratch { dropped, d_inner, d_input: d_branch, gradients } = scratch;
        if let Some(FactorPlace { a, b }) = &self.place {
            let Compute { pool, isa } = compute;
            let rank = factors.rank;
            let d_out = ProductView::new(d_out, rows);
            d_inner.resize(inner.len());
            // d(inner) = scaling dy B.
            let values = ProductView::new(&factors.values[b.clone()], rank);
            product(pool, *isa, (d_out, values), d_inner, OutputMode::Over);
            d_inner.iter_mut().for_each(|number| *number *= self.scaling);
            // dB += dy^T inner; `inner` already contains the scaling.
            let b = &mut factors.gradients[b.clone()];
            product(
                pool,
                *isa,
                (d_out.transposed(), ProductView::new(inner, rank)),
                b,
                OutputMode::Add,
            );
            // A's gradient sees the masked input. The mask is drawn again from its seed, not
            // stored.
            let x = ProductView::new(self.dropout.applied(pool, x, dropped), columns);
            let a = &mut factors.gradients[a.clone()];
            product(
                pool,
                *isa,
                (x.transposed(), ProductView::new(d_inner, rank)),
                a,
                OutputMode::Add,
            );
        }
        let Some((d_input, write)) = d_input else { return };
        self.carry_back(compute, d_out, gradients, (&mut *d_input, write));
        if let Some(FactorPlace { a, .. }) = &self.place {
            let Compute { pool, isa } = compute;
            let a = ProductView::new(factors.transposed(a.clone()), columns);
            let d_inner = ProductView::new(d_inner, factors.rank);
            // The mask applies to the branch alone, so with dropout its gradient is computed
            // separately, masked, and then added.
            if self.dropout.rate == 0.0 {
                return product(pool, *isa, (d_inner, a), d_input, OutputMode::Add);
            }
            d_branch.resize(d_input.len());
            product(pool, *isa, (d_inner, a), d_branch, OutputMode::Over);
            self.dropout.apply(pool, d_branch);
            sum(compute, d_branch, d_input);
        }
    }

    /// Computes `d_out W`, the input gradient through the frozen weights.
    fn carry_back(
        &self,
        Compute { pool, isa }: &mut Compute,
        d_out: &[f32],
        gradients: &mut Activations,
        (out, write): (&mut [f32], OutputMode),
    ) {
        let (rows, columns) = (self.linear.matrix.rows(), self.linear.matrix.columns());
        match (&self.linear.matrix, self.transposed) {
            (_, Some(matrix)) => {
                // Output gradients are quantized like activations, per 32 outputs.
                gradients.fill(pool, *isa, (d_out.len() / rows, rows), &|row, values| {
                    values.copy_from_slice(&d_out[row * rows..][..rows]);
                });
                let back = MatmulProduct { matrix, bias: None, branches: Vec::new(), out, write };
                matmul(pool, *isa, gradients, [back]);
            }
            (WeightMatrix::Dense(dense), None) => {
                let weights = ProductView::new(dense.values(), columns);
                product(pool, *isa, (ProductView::new(d_out, rows), weights), out, write);
            }
            (WeightMatrix::Packed(_), None) => {
                unreachable!("packed weights have a transposed copy")
            }
        }
    }
}

/// Computes `to += from` in parallel.
pub(super) fn sum(Compute { pool, isa }: &mut Compute, from: &[f32], to: &mut [f32]) {
    const AT_ONCE: usize = 1 << 14;
    let n = to.len();
    let to = SharedMut::new(to);
    pool.run(n.div_ceil(AT_ONCE), &|unit| {
        let part = unit * AT_ONCE..n.min((unit + 1) * AT_ONCE);
        add(*isa, &from[part.clone()], to.slice(part.start, part.len()));
    });
}
