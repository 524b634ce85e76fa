//! A linear layer with its side path: `y = W x + b + scaling B A x`, and its gradients.

use super::super::kernels::Activations;
use super::super::kernels::Buffer;
use super::super::kernels::Isa;
use super::super::kernels::Matrix;
use super::super::kernels::Pool;
use super::super::kernels::Product;
use super::super::kernels::SharedMut;
use super::super::kernels::View;
use super::super::kernels::Write;
use super::super::kernels::add;
use super::super::kernels::matmul;
use super::super::kernels::product;
use super::super::weights::Linear;
use super::dropout::Dropout;
use super::factors::Factors;
use super::factors::Place;

/// The threads and instructions of a pass.
pub(super) struct Machine {
    pub(super) pool: Pool,
    pub(super) isa: Isa,
}

/// A linear layer of the frozen base and what is added to it.
pub(super) struct Path<'a> {
    pub(super) linear: &'a Linear,
    /// The transposed weights; `None` where the weights are `f32`.
    pub(super) transposed: Option<&'a Matrix>,
    pub(super) place: Option<Place>,
    pub(super) scaling: f32,
    pub(super) dropout: Dropout,
}

/// Room for the side path of one layer.
#[derive(Default)]
pub(super) struct Room {
    dropped: Buffer,
    d_inner: Buffer,
    d_input: Buffer,
    gradients: Activations,
}

impl Path<'_> {
    /// Writes the layer's output for all rows of `input`; `inner` keeps `scaling A x`, `(rows, rank)`, for the gradients.
    pub(super) fn forward(
        &self,
        machine: &mut Machine,
        factors: &Factors,
        input: &Activations,
        (inner, room): (&mut Buffer, &mut Room),
        (out, write): (&mut [f32], Write),
    ) {
        let Machine { pool, isa } = machine;
        let (matrix, bias) = (&self.linear.matrix, self.linear.bias.as_deref());
        let base = Product { matrix, bias, sides: Vec::new(), out: &mut *out, write };
        matmul(pool, *isa, input, [base]);
        let Some(Place { a, b }) = &self.place else { return };
        let rank = factors.rank;
        let x = self.dropout.applied(pool, input.values(), &mut room.dropped);
        inner.resize(input.n_rows() * rank);
        let a = View::new(&factors.values[a.clone()], rank);
        product(pool, *isa, (View::new(x, matrix.columns()), a), inner, Write::Over);
        inner.iter_mut().for_each(|number| *number *= self.scaling);
        let b = View::new(factors.turned(b.clone()), matrix.rows());
        product(pool, *isa, (View::new(inner, rank), b), out, Write::Add);
    }

    /// Adds the gradients of A and B for the output's gradient `d_out`, and writes that of the input to `d_input`, if
    /// it is wanted. `x` is the input, `inner` what [`Self::forward`] kept.
    pub(super) fn backward(
        &self,
        machine: &mut Machine,
        factors: &mut Factors,
        (x, inner, d_out): (&[f32], &[f32], &[f32]),
        room: &mut Room,
        d_input: Option<(&mut [f32], Write)>,
    ) {
        let (rows, columns) = (self.linear.matrix.rows(), self.linear.matrix.columns());
        let Room { dropped, d_inner, d_input: d_side, gradients } = room;
        let has_side = self.place.is_some();
        if let Some(Place { a, b }) = &self.place {
            let Machine { pool, isa } = machine;
            let rank = factors.rank;
            let d_out = View::new(d_out, rows);
            d_inner.resize(inner.len());
            let values = View::new(&factors.values[b.clone()], rank);
            product(pool, *isa, (d_out, values), d_inner, Write::Over);
            d_inner.iter_mut().for_each(|number| *number *= self.scaling);
            let b = &mut factors.gradients[b.clone()];
            product(pool, *isa, (d_out.transposed(), View::new(inner, rank)), b, Write::Add);
            let x = View::new(self.dropout.applied(pool, x, dropped), columns);
            let a = &mut factors.gradients[a.clone()];
            product(pool, *isa, (x.transposed(), View::new(d_inner, rank)), a, Write::Add);
        }
        let Some((d_input, write)) = d_input else { return };
        self.carry_back(machine, d_out, gradients, (&mut *d_input, write));
        if let Some(Place { a, .. }) = self.place.as_ref().filter(|_| has_side) {
            let Machine { pool, isa } = machine;
            let a = View::new(factors.turned(a.clone()), columns);
            let d_inner = View::new(d_inner, factors.rank);
            if self.dropout.rate == 0.0 {
                return product(pool, *isa, (d_inner, a), d_input, Write::Add);
            }
            d_side.resize(d_input.len());
            product(pool, *isa, (d_inner, a), d_side, Write::Over);
            self.dropout.apply(pool, d_side);
            sum(machine, d_side, d_input);
        }
    }

    /// `d_out W`.
    fn carry_back(
        &self,
        Machine { pool, isa }: &mut Machine,
        d_out: &[f32],
        gradients: &mut Activations,
        (out, write): (&mut [f32], Write),
    ) {
        let (rows, columns) = (self.linear.matrix.rows(), self.linear.matrix.columns());
        match (&self.linear.matrix, self.transposed) {
            (_, Some(matrix)) => {
                gradients.fill(pool, *isa, (d_out.len() / rows, rows), &|row, values| {
                    values.copy_from_slice(&d_out[row * rows..][..rows]);
                });
                let back = Product { matrix, bias: None, sides: Vec::new(), out, write };
                matmul(pool, *isa, gradients, [back]);
            }
            (Matrix::Dense(dense), None) => {
                let weights = View::new(dense.values(), columns);
                product(pool, *isa, (View::new(d_out, rows), weights), out, write);
            }
            (Matrix::Packed(_), None) => unreachable!("packed weights have their transposed ones"),
        }
    }
}

/// `to += from`, by all threads.
pub(super) fn sum(Machine { pool, isa }: &mut Machine, from: &[f32], to: &mut [f32]) {
    const AT_ONCE: usize = 1 << 14;
    let n = to.len();
    let to = SharedMut::new(to);
    pool.run(n.div_ceil(AT_ONCE), &|unit| {
        let part = unit * AT_ONCE..n.min((unit + 1) * AT_ONCE);
        add(*isa, &from[part.clone()], to.slice(part.start, part.len()));
    });
}
