//! Trainable parameters: A and B of every LoRA branch, in one slice.
//!
//! ```text
//! values  [ layer 0, q: A (inputs, rank) | B (outputs, rank) | layer 0, k: A | B | ... | layer n ]
//! ```
//!
//! A is stored transposed to PEFT's `(rank, inputs)`, so that rows of both factors have `rank`
//! values.

use std::ops::Range;

use super::super::kernels::Isa;
use super::super::kernels::SharedMut;
use super::super::kernels::ThreadPool;
use super::super::weights::LinearKind;
use super::super::weights::ModelShape;
use crate::peft::LoraMatrix;
use crate::peft::tensor_name;
use crate::rng::SplitMix64;

/// Target modules: the linear layers that get a LoRA branch, by the last part of PEFT's module
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunedModules([bool; 7]);

impl TunedModules {
    /// Targets all linear layers of every decoder block.
    pub fn all() -> Self {
        Self([true; 7])
    }

    /// Targets the named layers, such as `q_proj`.
    ///
    /// # Errors
    /// The first name that does not belong to a linear layer.
    pub fn named(names: &[String]) -> Result<Self, String> {
        let mut targets = [false; 7];
        for name in names {
            let which = LinearKind::ALL.into_iter().find(|which| which.name() == name);
            targets[which.ok_or_else(|| name.clone())? as usize] = true;
        }
        Ok(Self(targets))
    }

    /// PEFT names of the targeted layers.
    pub fn names(&self) -> Vec<&'static str> {
        LinearKind::ALL.into_iter().filter(|which| self.has(*which)).map(LinearKind::name).collect()
    }

    pub(super) fn has(&self, which: LinearKind) -> bool {
        self.0[which as usize]
    }
}

/// Name, shape and position of an adapter tensor among the trainable parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// Tensor name in PEFT's file.
    pub name: String,
    /// `[rows, columns]` in PEFT's file.
    pub shape: [usize; 2],
    /// Range within the parameter slice.
    pub range: Range<usize>,
    /// Whether the range is column-major with respect to `shape`.
    pub is_transposed: bool,
}

/// Parameter ranges of one branch: A as `(inputs, rank)`, B as `(outputs, rank)`.
#[derive(Debug, Clone)]
pub(super) struct FactorPlace {
    pub(super) a: Range<usize>,
    pub(super) b: Range<usize>,
}

/// The adapter's parameters, their gradients, and transposed copies.
pub(super) struct TrainableFactors {
    pub(super) rank: usize,
    places: Vec<[Option<FactorPlace>; 7]>,
    pub(super) values: Vec<f32>,
    pub(super) gradients: Vec<f32>,
    /// A as `(rank, inputs)` and B as `(rank, outputs)`, at the same ranges.
    transposed: Vec<f32>,
    is_current: bool,
}

impl TrainableFactors {
    /// Initializes the factors as PEFT does: A uniform in `±1 / sqrt(inputs)` (`kaiming_uniform_`
    /// with `a = sqrt(5)`), B zero, so that the fresh adapter changes nothing.
    pub(super) fn new(shape: &ModelShape, targets: &TunedModules, rank: usize, seed: u64) -> Self {
        let mut n = 0;
        let mut place = |which: LinearKind| {
            let (rows, columns) = which.size(shape);
            targets.has(which).then(|| {
                let (a, b) =
                    (n..n + columns * rank, n + columns * rank..n + (columns + rows) * rank);
                n = b.end;
                FactorPlace { a, b }
            })
        };
        let places: Vec<_> = (0..shape.n_layers).map(|_| LinearKind::ALL.map(&mut place)).collect();
        let mut values = vec![0.0; n];
        let mut random = SplitMix64::new(seed);
        for place in places.iter().flatten().flatten() {
            // kaiming_uniform_: bound = sqrt(6 / ((1 + a^2) fan_in)), with a^2 = 5 and fan_in =
            // inputs.
            #[expect(clippy::cast_precision_loss, reason = "a layer's width is small")]
            let bound = 1.0 / ((place.a.len() / rank) as f32).sqrt();
            for value in &mut values[place.a.clone()] {
                *value = (random.uniform() * 2.0 - 1.0) * bound;
            }
        }
        let (gradients, transposed) = (vec![0.0; n], vec![0.0; n]);
        Self { rank, places, values, gradients, transposed, is_current: false }
    }

    pub(super) fn place(&self, layer: usize, which: LinearKind) -> Option<FactorPlace> {
        self.places[layer][which as usize].clone()
    }

    /// The transposed copy of a range of parameters.
    pub(super) fn transposed(&self, part: Range<usize>) -> &[f32] {
        &self.transposed[part]
    }

    /// Parameters for modification; invalidates the transposed copies until the next pass.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        self.is_current = false;
        &mut self.values
    }

    /// Updates the transposed copies if the parameters have changed.
    pub(super) fn refresh_transposed(&mut self, pool: &mut ThreadPool) {
        // Several micro-batches share one update of the parameters, and then one transposition.
        if std::mem::replace(&mut self.is_current, true) {
            return;
        }
        // One unit per factor: even units transpose A, odd ones B.
        let places: Vec<&FactorPlace> = self.places.iter().flatten().flatten().collect();
        let (rank, values, transposed) =
            (self.rank, &self.values, SharedMut::new(&mut self.transposed));
        pool.run(places.len() * 2, &|unit| {
            let place = places[unit / 2];
            let part = if unit % 2 == 0 { place.a.clone() } else { place.b.clone() };
            let n_rows = part.len() / rank;
            let transposed = transposed.slice(part.start, part.len());
            for (row, numbers) in values[part].chunks_exact(rank).enumerate() {
                for (i, number) in numbers.iter().enumerate() {
                    transposed[i * n_rows + row] = *number;
                }
            }
        });
    }

    /// All tensors in parameter order: A and B of every branch, layer by layer.
    pub(super) fn tensors(&self) -> Vec<TensorPlace> {
        let mut tensors = Vec::new();
        for (layer, places) in self.places.iter().enumerate() {
            for (which, place) in LinearKind::ALL.into_iter().zip(places) {
                let Some(FactorPlace { a, b }) = place else { continue };
                let module = which.path(layer);
                let (a_shape, b_shape) =
                    ([self.rank, a.len() / self.rank], [b.len() / self.rank, self.rank]);
                let place = |matrix, shape, range: &Range<usize>, is_transposed| TensorPlace {
                    name: tensor_name(&module, matrix),
                    shape,
                    range: range.clone(),
                    is_transposed,
                };
                tensors.push(place(LoraMatrix::A, a_shape, a, true));
                tensors.push(place(LoraMatrix::B, b_shape, b, false));
            }
        }
        tensors
    }
}

/// Sums squares in fixed blocks, so that the result does not depend on the number of threads.
pub(super) fn sum_of_squares(pool: &mut ThreadPool, isa: Isa, numbers: &[f32]) -> f64 {
    const AT_ONCE: usize = 1 << 14;
    let mut sums = vec![0.0_f32; numbers.len().div_ceil(AT_ONCE)];
    let out = SharedMut::new(&mut sums);
    pool.run(numbers.len().div_ceil(AT_ONCE), &|unit| {
        let part = &numbers[unit * AT_ONCE..numbers.len().min((unit + 1) * AT_ONCE)];
        out.slice(unit, 1)[0] = super::super::kernels::dot(isa, part, part);
    });
    // Partial sums are `f32`, their total `f64`: adapters have millions of parameters.
    sums.iter().map(|sum| f64::from(*sum)).sum()
}
