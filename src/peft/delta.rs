//! [`AdapterDelta`]: the task vector of an adapter, in factored form. The dense matrices are never
//! materialized.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::PeftError;
use super::files::PeftFiles;
use super::tensors::LoraFactors;

/// The task vector of an adapter: the low-rank update `scaling * B A` of every adapted module.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterDelta {
    modules: BTreeMap<String, LoraFactors>,
}

impl AdapterDelta {
    /// Reads the PEFT folder at `folder`.
    ///
    /// # Errors
    /// [`PeftError::Read`]; [`PeftError::Unusable`] when the folder contains no LoRA adapter that
    /// Rune supports.
    pub fn read(folder: &Path) -> Result<Self, PeftError> {
        let files = PeftFiles::read(folder)?;
        let mut modules = BTreeMap::new();
        for (module, size) in files.modules() {
            let factors = files.factors(module, size).map_err(PeftError::unusable(folder))?;
            modules.extend(factors.map(|factors| (module.to_owned(), factors)));
        }
        Ok(Self { modules })
    }

    /// Returns the Frobenius inner product of two deltas over their common modules, in factored
    /// form: `tr(A1' B1' B2 A2) = sum((B1' B2) * (A1 A2'))`, which takes `O((inputs + outputs)
    /// r^2)` per module.
    pub fn inner(&self, other: &Self) -> f64 {
        let in_both = |(name, factors)| Some((factors, other.modules.get(name)?));
        self.modules.iter().filter_map(in_both).map(|(one, two)| one.inner(two)).sum()
    }

    /// Returns the squared distance of two deltas as a share of the larger one's squared norm: 0
    /// for equal deltas, no matter how they are factored.
    pub fn relative_distance(&self, other: &Self) -> f64 {
        let (one, two) = (self.inner(self), other.inner(other));
        let distance = (one + two - 2.0 * self.inner(other)).max(0.0);
        if distance > 0.0 { distance / one.max(two) } else { 0.0 }
    }

    /// Returns the cosine similarity of two deltas, `-1.0..=1.0`: 1 for equal deltas, no matter how
    /// they are factored; 0 if one of them is zero.
    pub fn cosine(&self, other: &Self) -> f64 {
        let norms = (self.inner(self) * other.inner(other)).sqrt();
        if norms > 0.0 { (self.inner(other) / norms).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

impl LoraFactors {
    /// Returns the inner product of two updates of one module; 0 for modules of different sizes.
    fn inner(&self, other: &Self) -> f64 {
        let (n_in, n_out) = (self.a.len() / self.rank, self.b.len() / self.rank);
        if n_in * other.rank != other.a.len() || n_out * other.rank != other.b.len() {
            return 0.0;
        }
        // `B1' B2`, `(rank, other.rank)`: the sum over outputs of outer products of rows.
        let mut of_b = vec![0.0; self.rank * other.rank];
        let rows = self.b.chunks_exact(self.rank).zip(other.b.chunks_exact(other.rank));
        for (one, two) in rows {
            let pairs = one.iter().flat_map(|x| two.iter().map(move |y| (x, y)));
            for (sum, (x, y)) in of_b.iter_mut().zip(pairs) {
                *sum += f64::from(*x) * f64::from(*y);
            }
        }
        // `A1 A2'` in the same order: dot products of all pairs of rows.
        let rows_a = self.a.chunks_exact(n_in);
        let of_a = rows_a.flat_map(|one| other.a.chunks_exact(n_in).map(move |two| dot(one, two)));
        let product = of_b.iter().zip(of_a).map(|(x, y)| x * y).sum::<f64>();
        f64::from(self.scaling) * f64::from(other.scaling) * product
    }
}

fn dot(one: &[f32], other: &[f32]) -> f64 {
    one.iter().zip(other).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    const N_IN: usize = 5;
    const N_OUT: usize = 7;

    fn delta(modules: Vec<(&str, LoraFactors)>) -> AdapterDelta {
        let modules = modules.into_iter().map(|(name, factors)| (name.to_owned(), factors));
        AdapterDelta { modules: modules.collect() }
    }

    fn random(rank: usize, scaling: f32, seed: u64) -> LoraFactors {
        let mut random = SplitMix64::new(seed);
        let mut numbers = |n: usize| (0..n).map(|_| random.uniform() - 0.5).collect();
        LoraFactors { rank, scaling, a: numbers(rank * N_IN), b: numbers(N_OUT * rank) }
    }

    fn dense(factors: &LoraFactors) -> Vec<f64> {
        let entry = |row: usize, column: usize| {
            let terms = (0..factors.rank).map(|k| {
                f64::from(factors.b[row * factors.rank + k])
                    * f64::from(factors.a[k * N_IN + column])
            });
            f64::from(factors.scaling) * terms.sum::<f64>()
        };
        (0..N_OUT).flat_map(|row| (0..N_IN).map(move |column| entry(row, column))).collect()
    }

    #[test]
    fn factored_inner_product_equals_the_dense_one() {
        let (one, two) = (random(3, 2.0, 1), random(2, 0.5, 2));
        let wanted: f64 = dense(&one).iter().zip(dense(&two)).map(|(x, y)| x * y).sum();
        let found = delta(vec![("q", one.clone())]).inner(&delta(vec![("q", two.clone())]));
        assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        let elsewhere = delta(vec![("k", two)]);
        assert!(delta(vec![("q", one)]).inner(&elsewhere).abs() < 1e-300);
    }

    #[test]
    fn equal_deltas_in_other_factors_have_cosine_1() {
        let one = random(2, 1.0, 3);
        let mut other = LoraFactors { scaling: 0.25, ..one.clone() };
        other.a.iter_mut().for_each(|number| *number *= 8.0);
        let (one, other) = (delta(vec![("q", one)]), delta(vec![("q", other)]));
        assert!((one.cosine(&other) - 1.0).abs() < 1e-12);
        // The other one is twice as long: `(1 - 2)^2 / 2^2`.
        assert!((one.relative_distance(&other) - 0.25).abs() < 1e-9);
        let still = LoraFactors { b: vec![0.0; N_OUT], ..random(1, 1.0, 4) };
        assert!(one.cosine(&delta(vec![("q", still)])).abs() < 1e-300);
        let near = one.cosine(&delta(vec![("q", random(2, 1.0, 5))]));
        assert!(near.abs() < 0.9);
    }
}
