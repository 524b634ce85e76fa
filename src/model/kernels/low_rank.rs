//! The side paths of adapters: `y += B (A x)` beside a matrix product (Hu et al. 2021,
//! arXiv:2106.09685).
//!
//! A and B are packed as 8-bit codes, so that a side path is two more products by the kernels of
//! the base, of activations that are quantised already and of inner numbers that are quantised in
//! between.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Release;

use super::Activations;
use super::BLOCK;
use super::BlockCodes;
use super::BlockNumbers;
use super::Isa;
use super::QuantizedRows;
use super::SharedMut;
use super::TILE;
use super::TileOut;
use super::memory::Arena;
use super::pack::PackSource;
use super::pack::PackedMatrix;
use super::pool::ThreadPool;
use super::transpose::q8_block;
use super::vector;
use crate::model::quant::GgmlType;

/// Rows that enter side paths as one unit of work, at most.
const ROWS_AT_ONCE: usize = 64;

/// `lora_A` `(rank, columns)` and `lora_B` `(rows, rank)` of one linear layer, the scaling
/// multiplied into B.
pub(in crate::model) struct LowRank {
    rank: usize,
    factors: LowRankFactors,
}

enum LowRankFactors {
    /// As codes of 8 bits; the inputs of B filled up to whole blocks.
    Packed { a: PackedMatrix, b: PackedMatrix },
    /// In `f32`, A row by row, B in tiles of `rank` columns: the reference for tests, and for
    /// inputs that are not quantised.
    Exact { a: Vec<f32>, b: Vec<[f32; TILE]> },
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
        let (columns, rows) = (a.len() / rank, b.len() / rank);
        let factors = if exact || !columns.is_multiple_of(BLOCK) {
            let places =
                (0..rows.div_ceil(TILE)).flat_map(|tile| (0..rank).map(move |i| (tile, i)));
            let column = |(tile, i)| {
                let number = |row: usize| b.get((tile * TILE + row) * rank + i);
                std::array::from_fn(|row| number(row).map_or(0.0, |b| b * scaling))
            };
            LowRankFactors::Exact { a: a.to_vec(), b: places.map(column).collect() }
        } else {
            let width = rank.next_multiple_of(BLOCK);
            let mut wide = vec![0.0; rows * width];
            for (wide, b) in wide.chunks_exact_mut(width).zip(b.chunks_exact(rank)) {
                for (wide, b) in wide.iter_mut().zip(b) {
                    *wide = b * scaling;
                }
            }
            let (a, b) = (packed(arena, a, (rank, columns)), packed(arena, &wide, (rows, width)));
            LowRankFactors::Packed { a, b }
        };
        Self { rank, factors }
    }

    /// Bytes in memory.
    pub(in crate::model) fn n_bytes(&self) -> usize {
        match &self.factors {
            LowRankFactors::Packed { a, b } => a.n_bytes() + b.n_bytes(),
            LowRankFactors::Exact { a, b } => size_of_val(&**a) + size_of_val(&**b),
        }
    }

    /// Blocks of a row of inner numbers.
    fn n_blocks(&self) -> usize {
        self.rank.div_ceil(BLOCK)
    }
}

/// Numbers `(rows, columns)` as codes of 8 bits: a block's scale is `max |x| / 127`.
fn packed(arena: &mut Arena, numbers: &[f32], size: (usize, usize)) -> PackedMatrix {
    let bytes: Vec<u8> = numbers.as_chunks().0.iter().flat_map(q8_block).collect();
    let read = |at: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[at..][..out.len()]);
        Ok(())
    };
    let source = PackSource { kind: GgmlType::Q8_0, read: &read, order: &|row| row };
    PackedMatrix::new(&mut ThreadPool::new(1), arena, &source, size)
        .expect("bytes in memory can be read")
}

/// A side path for some neighbouring rows.
#[derive(Clone)]
pub(in crate::model) struct LoraBranch<'a> {
    /// Rows of the activations.
    pub(in crate::model) rows: Range<usize>,
    /// What is added for them.
    pub(in crate::model) path: &'a LowRank,
}

/// `A x` of all side paths of a loop: computed by its first units, and waited for by those that go
/// on with them.
pub(super) struct InnerProducts<'a> {
    /// The side paths, and in which of the rows of inner numbers theirs begin: there is room for
    /// rows as wide as the widest.
    sides: Vec<(LoraBranch<'a>, usize)>,
    /// A side path and the rows that enter it as one unit of work.
    entries: Vec<(usize, Range<usize>)>,
    n_done: AtomicUsize,
    n_blocks: usize,
    together: usize,
    numbers: SharedMut<'a, f32>,
    codes: SharedMut<'a, BlockCodes>,
    blocks: SharedMut<'a, BlockNumbers>,
}

/// Room for inner numbers.
#[derive(Default)]
struct LowRankScratch {
    numbers: Vec<f32>,
    codes: Vec<BlockCodes>,
    blocks: Vec<BlockNumbers>,
}

impl InnerProducts<'_> {
    /// Calls `work` with room for the inner numbers of `sides`.
    pub(super) fn with(
        isa: Isa,
        sides: Vec<LoraBranch<'_>>,
        work: impl FnOnce(&InnerProducts<'_>),
    ) {
        thread_local! {
            static ROOM: RefCell<LowRankScratch> = RefCell::default();
        }
        let together = isa.rows_together();
        let n_blocks = sides.iter().map(|side| side.path.n_blocks()).max().unwrap_or(0);
        let mut n_rows = 0;
        let mut entries = Vec::new();
        let sides = sides.into_iter().enumerate().map(|(index, side)| {
            let n = side.rows.len();
            let starts = (0..n).step_by(ROWS_AT_ONCE);
            entries.extend(starts.map(|start| (index, start..n.min(start + ROWS_AT_ONCE))));
            let first = n_rows;
            n_rows += n.next_multiple_of(together);
            (side, first)
        });
        let sides = sides.collect();
        ROOM.with_borrow_mut(|LowRankScratch { numbers, codes, blocks }| {
            numbers.resize(n_rows * n_blocks * BLOCK, 0.0);
            codes.resize(n_rows * n_blocks, [0; BLOCK]);
            blocks.resize(n_rows * n_blocks, BlockNumbers::default());
            work(&InnerProducts {
                sides,
                entries,
                n_done: AtomicUsize::new(0),
                n_blocks,
                together,
                numbers: SharedMut::new(numbers),
                codes: SharedMut::new(codes),
                blocks: SharedMut::new(blocks),
            });
        });
    }

    /// Units of work before the inner numbers are there.
    pub(super) fn n_entries(&self) -> usize {
        self.entries.len()
    }

    /// Computes the inner numbers of one unit.
    pub(super) fn enter(&self, isa: Isa, input: &Activations, entry: usize) {
        let _done = CountOnDrop(&self.n_done);
        let (side, rows) = &self.entries[entry];
        let (LoraBranch { rows: side_rows, path }, side_first) = &self.sides[*side];
        let (first, n) = (side_first + rows.start, rows.len());
        let inputs = side_rows.start + rows.start..side_rows.start + rows.end;
        let width = self.n_blocks * BLOCK;
        let numbers = self.numbers.slice(first * width, n * width);
        match &path.factors {
            LowRankFactors::Exact { a, .. } => {
                for (numbers, row) in numbers.chunks_exact_mut(width).zip(inputs) {
                    let x = input.row(row);
                    for (number, a) in numbers.iter_mut().zip(a.chunks_exact(x.len())) {
                        *number = vector::dot(isa, a, x);
                    }
                }
            }
            LowRankFactors::Packed { a, .. } => {
                numbers.fill(0.0);
                let results = SharedMut::new(numbers);
                for tile in 0..path.rank.div_ceil(TILE) {
                    let target = results.target(tile * TILE, width, n);
                    a.multiply_tile(isa, tile, &input.quantised(inputs.clone()), &target);
                }
                let n_blocks = path.n_blocks();
                for (row, numbers) in rows.clone().zip(numbers.chunks_exact(width)) {
                    let group = row - row % self.together;
                    let place = side_first * self.n_blocks + group * n_blocks + row - group;
                    let codes = self.codes.every(self.together, place, n_blocks);
                    let blocks = self.blocks.every(self.together, place, n_blocks);
                    vector::quantise(isa, &numbers[..n_blocks * BLOCK], &codes, &blocks);
                }
            }
        }
    }

    /// `target += B inner` for the rows of a side path.
    pub(super) fn leave(&self, isa: Isa, tile: usize, side: usize, target: &TileOut<'_>) {
        self.wait();
        let (LoraBranch { rows, path }, first) = &self.sides[side];
        let target = target.rows(rows.clone());
        match &path.factors {
            LowRankFactors::Exact { b, .. } => {
                let columns = &b[tile * path.rank..][..path.rank];
                let width = self.n_blocks * BLOCK;
                for row in 0..rows.len() {
                    let inner = self.numbers.read((first + row) * width, path.rank);
                    let mut sums = [0.0; TILE];
                    for (factor, column) in inner.iter().zip(columns) {
                        for (sum, value) in sums.iter_mut().zip(column) {
                            *sum += factor * value;
                        }
                    }
                    target.put(row, &sums);
                }
            }
            LowRankFactors::Packed { b, .. } => {
                let (n_rows, n_blocks) = (rows.len(), path.n_blocks());
                let start = first * self.n_blocks;
                let n = n_rows.next_multiple_of(self.together) * n_blocks;
                let inner = QuantizedRows {
                    row: 0,
                    n_rows,
                    n_blocks,
                    together: self.together,
                    codes: self.codes.read(start, n),
                    numbers: self.blocks.read(start, n),
                };
                b.multiply_tile(isa, tile, &inner, &target);
            }
        }
    }

    /// Waits for all inner numbers: units begin in order, so they are at least being computed.
    fn wait(&self) {
        let mut spins = 0_u32;
        while self.n_done.load(Acquire) < self.entries.len() {
            spins += 1;
            if spins.is_multiple_of(1024) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Counts also what ends in a panic: others wait for it.
struct CountOnDrop<'a>(&'a AtomicUsize);

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}
