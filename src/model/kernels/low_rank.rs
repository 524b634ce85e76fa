//! The side path of an adapter: `y += B (A x)` beside a matrix product (Hu et al. 2021, arXiv:2106.09685).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::_MM_HINT_T0;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::_mm_prefetch;

use half::f16;

use super::Isa;
use super::TILE;
#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::memory::Arena;
use super::memory::Block;
use super::pack::Scales;
use super::vector;

/// `lora_A` `(rank, columns)` and `lora_B` `(rows, rank)` of one linear layer, the scaling multiplied into B.
pub(in crate::model) enum LowRank {
    /// In half precision: what is served.
    Half(Factors<Block<f16>, Block<Scales>>),
    /// In `f32`: the reference for tests.
    Exact(Factors<Vec<f32>, Vec<[f32; TILE]>>),
}

/// Both factors: A row by row, B in tiles of 16 rows, each as `rank` columns.
pub(in crate::model) struct Factors<A, B> {
    rank: usize,
    a: A,
    b: B,
}

impl LowRank {
    /// Packs `a` `(rank, columns)` and `b` `(rows, rank)`; `exact` keeps them in `f32`.
    ///
    /// # Panics
    /// When `rank` is 0 or the lengths are no multiples of it.
    pub(in crate::model) fn new(
        arena: &mut Arena,
        rank: usize,
        a: &[f32],
        b: &[f32],
        scaling: f32,
        exact: bool,
    ) -> Self {
        assert!(
            rank > 0 && a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank),
            "whole rows"
        );
        let rows = b.len() / rank;
        let columns = (0..rows.div_ceil(TILE)).flat_map(|tile| (0..rank).map(move |i| (tile, i)));
        let columns = columns.map(|(tile, i)| {
            std::array::from_fn(|row| {
                b.get((tile * TILE + row) * rank + i).map_or(0.0, |b| b * scaling)
            })
        });
        if exact {
            Self::Exact(Factors { rank, a: a.to_vec(), b: columns.collect() })
        } else {
            let mut halves = arena.zeroed(a.len());
            for (half, a) in halves.iter_mut().zip(a) {
                *half = f16::from_f32(*a);
            }
            let mut b = arena.zeroed(rows.div_ceil(TILE) * rank);
            for (place, column) in b.iter_mut().zip(columns) {
                *place = Scales(column.map(f16::from_f32));
            }
            Self::Half(Factors { rank, a: halves, b })
        }
    }

    /// The inner width.
    pub(in crate::model) fn rank(&self) -> usize {
        match self {
            Self::Half(factors) => factors.rank,
            Self::Exact(factors) => factors.rank,
        }
    }

    /// Bytes in memory.
    pub(in crate::model) fn n_bytes(&self) -> usize {
        match self {
            Self::Half(factors) => size_of_val(&*factors.a) + size_of_val(&*factors.b),
            Self::Exact(factors) => size_of_val(&*factors.a) + size_of_val(&*factors.b),
        }
    }

    /// `inner = A x`.
    pub(super) fn enter(&self, isa: Isa, x: &[f32], inner: &mut [f32]) {
        match self {
            Self::Half(factors) => {
                for (inner, a) in inner.iter_mut().zip(factors.a.chunks_exact(x.len())) {
                    *inner = dot_half(isa, a, x);
                }
            }
            Self::Exact(factors) => {
                for (inner, a) in inner.iter_mut().zip(factors.a.chunks_exact(x.len())) {
                    *inner = vector::dot(isa, a, x);
                }
            }
        }
    }

    /// Asks for what [`Self::leave`] will read of B, so that it comes while the tile itself is multiplied.
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    pub(super) fn fetch(&self, isa: Isa, tile: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Self::Half(factors) = self
            && isa != Isa::Portable
        {
            for column in factors.b[tile * factors.rank..][..factors.rank].iter().step_by(2) {
                // SAFETY: a prefetch reads nothing; every x86-64 processor has it.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(column).cast()) };
            }
        }
    }

    /// `out += B inner` for the rows of one tile, of which `out` may lack the last ones.
    pub(super) fn leave(&self, isa: Isa, tile: usize, inner: &[f32], out: &mut [f32]) {
        if let Some(out) = out.as_mut_array() {
            return self.leave_tile(isa, tile, inner, out);
        }
        let mut whole = [0.0; TILE];
        whole[..out.len()].copy_from_slice(out);
        self.leave_tile(isa, tile, inner, &mut whole);
        out.copy_from_slice(&whole[..out.len()]);
    }

    fn leave_tile(&self, isa: Isa, tile: usize, inner: &[f32], out: &mut [f32; TILE]) {
        let first = tile * inner.len();
        match self {
            Self::Half(factors) => {
                let columns = &factors.b[first..][..inner.len()];
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512Vnni => avx512::add_half_columns(inner, columns, out),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::add_half_columns(inner, columns, out),
                    Isa::Portable => {
                        let columns = columns.iter().map(|column| column.0.map(f16::to_f32));
                        add_columns(inner, columns, out);
                    }
                }
            }
            Self::Exact(factors) => {
                add_columns(inner, factors.b[first..][..inner.len()].iter().copied(), out);
            }
        }
    }
}

fn dot_half(isa: Isa, a: &[f16], b: &[f32]) -> f32 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Avx2 => avx2::dot_half(a, b),
        Isa::Portable => a.iter().zip(b).map(|(a, b)| a.to_f32() * b).sum(),
    }
}

fn add_columns(inner: &[f32], columns: impl Iterator<Item = [f32; TILE]>, out: &mut [f32; TILE]) {
    for (factor, column) in inner.iter().zip(columns) {
        for (out, value) in out.iter_mut().zip(column) {
            *out += factor * value;
        }
    }
}
