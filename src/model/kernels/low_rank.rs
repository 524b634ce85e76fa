//! LoRA branches: `y += B (A x)` beside a base matrix product (Hu et al. 2021, arXiv:2106.09685).
//!
//! A and B are packed as 8-bit codes, so a branch is two more products by the base's kernels: the
//! down projection reads the activations that are quantized anyway, and its results, the inner
//! activations, are quantized for the up projection.
//!
//! ```text
//! units of one `matmul` loop, started in this order:
//!   down projections   inner = A x        up to 64 rows of one branch each
//!   tiles              out = W x + b      then, for the tile's 16 outputs:
//!                      wait for all down projections
//!                      out += B inner
//! ```

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

/// Maximum activation rows per down-projection unit.
const ROWS_AT_ONCE: usize = 64;

/// `lora_A` `(rank, columns)` and `lora_B` `(rows, rank)` of one linear layer, with the scaling
/// folded into B.
pub(in crate::model) struct LowRank {
    rank: usize,
    factors: LowRankFactors,
}

enum LowRankFactors {
    /// 8-bit codes; B's rank is padded to whole blocks.
    Packed { a: PackedMatrix, b: PackedMatrix },
    /// `f32`, A row-major, B in tiles of `rank` columns: the reference for tests, and for inputs
    /// that are not quantized.
    Exact { a: Vec<f32>, b: Vec<[f32; TILE]> },
}

impl LowRank {
    /// Packs `a` `(rank, columns)` and `b` `(rows, rank)`; with `exact` they stay `f32`.
    ///
    /// # Panics
    /// When `rank` is 0 or the lengths are not multiples of it.
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
            // Zero columns pad the rank to whole blocks; the inner activations are zero there as
            // well.
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

    /// Size in memory, in bytes.
    pub(in crate::model) fn n_bytes(&self) -> usize {
        match &self.factors {
            LowRankFactors::Packed { a, b } => a.n_bytes() + b.n_bytes(),
            LowRankFactors::Exact { a, b } => size_of_val(&**a) + size_of_val(&**b),
        }
    }

    /// Blocks per row of inner activations.
    fn n_blocks(&self) -> usize {
        self.rank.div_ceil(BLOCK)
    }
}

/// Packs `(rows, columns)` as 8-bit codes with a scale `max |x| / 127` per block.
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

/// A LoRA branch applied to a range of activation rows.
#[derive(Clone)]
pub(in crate::model) struct LoraBranch<'a> {
    /// Rows of the activations.
    pub(in crate::model) rows: Range<usize>,
    /// Factors of the branch.
    pub(in crate::model) low_rank: &'a LowRank,
}

/// Inner activations `A x` of all branches of a loop: computed by its first units, awaited by the
/// tiles.
pub(super) struct InnerProducts<'a> {
    /// The branches, and the first row of each among the inner activations. All rows are as wide as
    /// the widest branch.
    branches: Vec<(LoraBranch<'a>, usize)>,
    /// Branch index and rows of each down-projection unit.
    down_units: Vec<(usize, Range<usize>)>,
    n_done: AtomicUsize,
    n_blocks: usize,
    group_size: usize,
    numbers: SharedMut<'a, f32>,
    codes: SharedMut<'a, BlockCodes>,
    blocks: SharedMut<'a, BlockNumbers>,
}

/// Scratch buffers for inner activations.
#[derive(Default)]
struct LowRankScratch {
    numbers: Vec<f32>,
    codes: Vec<BlockCodes>,
    blocks: Vec<BlockNumbers>,
}

impl InnerProducts<'_> {
    /// Calls `work` with buffers for the inner activations of `branches`.
    pub(super) fn with(
        isa: Isa,
        branches: Vec<LoraBranch<'_>>,
        work: impl FnOnce(&InnerProducts<'_>),
    ) {
        thread_local! {
            static SCRATCH: RefCell<LowRankScratch> = RefCell::default();
        }
        let group_size = isa.rows_per_group();
        let n_blocks = branches.iter().map(|branch| branch.low_rank.n_blocks()).max().unwrap_or(0);
        let mut n_rows = 0;
        let mut down_units = Vec::new();
        let branches = branches.into_iter().enumerate().map(|(index, branch)| {
            let n = branch.rows.len();
            let starts = (0..n).step_by(ROWS_AT_ONCE);
            down_units.extend(starts.map(|start| (index, start..n.min(start + ROWS_AT_ONCE))));
            let first = n_rows;
            // Every branch starts a new group of rows, so that kernels read whole groups of it.
            n_rows += n.next_multiple_of(group_size);
            (branch, first)
        });
        let branches = branches.collect();
        SCRATCH.with_borrow_mut(|LowRankScratch { numbers, codes, blocks }| {
            numbers.resize(n_rows * n_blocks * BLOCK, 0.0);
            codes.resize(n_rows * n_blocks, [0; BLOCK]);
            blocks.resize(n_rows * n_blocks, BlockNumbers::default());
            work(&InnerProducts {
                branches,
                down_units,
                n_done: AtomicUsize::new(0),
                n_blocks,
                group_size,
                numbers: SharedMut::new(numbers),
                codes: SharedMut::new(codes),
                blocks: SharedMut::new(blocks),
            });
        });
    }

    /// Number of down-projection units.
    pub(super) fn n_down_units(&self) -> usize {
        self.down_units.len()
    }

    /// Computes the inner activations of one unit.
    pub(super) fn project_down(&self, isa: Isa, input: &Activations, unit: usize) {
        let _done = CountOnDrop(&self.n_done);
        let (branch, rows) = &self.down_units[unit];
        let (LoraBranch { rows: branch_rows, low_rank }, branch_first) = &self.branches[*branch];
        let (first, n) = (branch_first + rows.start, rows.len());
        let inputs = branch_rows.start + rows.start..branch_rows.start + rows.end;
        // Rows have the width of the widest branch; a narrower one leaves the rest unused.
        let width = self.n_blocks * BLOCK;
        let numbers = self.numbers.slice(first * width, n * width);
        match &low_rank.factors {
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
                for tile in 0..low_rank.rank.div_ceil(TILE) {
                    let target = results.target(tile * TILE, width, n);
                    a.multiply_tile(isa, tile, &input.quantized(inputs.clone()), &target);
                }
                // Quantized in the grouped layout of `Activations`, but with this branch's own,
                // possibly smaller, number of blocks.
                let n_blocks = low_rank.n_blocks();
                for (row, numbers) in rows.clone().zip(numbers.chunks_exact(width)) {
                    let group = row - row % self.group_size;
                    let place = branch_first * self.n_blocks + group * n_blocks + row - group;
                    let codes = self.codes.strided(self.group_size, place, n_blocks);
                    let blocks = self.blocks.strided(self.group_size, place, n_blocks);
                    vector::quantize(isa, &numbers[..n_blocks * BLOCK], &codes, &blocks);
                }
            }
        }
    }

    /// Adds `B inner` to one tile of the output, for the rows of a branch.
    pub(super) fn project_up(&self, isa: Isa, tile: usize, branch: usize, target: &TileOut<'_>) {
        self.wait();
        let (LoraBranch { rows, low_rank }, first) = &self.branches[branch];
        let target = target.rows(rows.clone());
        match &low_rank.factors {
            LowRankFactors::Exact { b, .. } => {
                let columns = &b[tile * low_rank.rank..][..low_rank.rank];
                let width = self.n_blocks * BLOCK;
                for row in 0..rows.len() {
                    let inner = self.numbers.read((first + row) * width, low_rank.rank);
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
                let (n_rows, n_blocks) = (rows.len(), low_rank.n_blocks());
                let start = first * self.n_blocks;
                let n = n_rows.next_multiple_of(self.group_size) * n_blocks;
                let inner = QuantizedRows {
                    row: 0,
                    n_rows,
                    n_blocks,
                    group_size: self.group_size,
                    codes: self.codes.read(start, n),
                    numbers: self.blocks.read(start, n),
                };
                b.multiply_tile(isa, tile, &inner, &target);
            }
        }
    }

    /// Waits for all down projections. Units start in order, so by now each one is running or done,
    /// and the wait is short.
    fn wait(&self) {
        let mut spins = 0_u32;
        while self.n_done.load(Acquire) < self.down_units.len() {
            spins += 1;
            if spins.is_multiple_of(1024) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Counts a unit as done even if it panics: other threads wait for the count.
struct CountOnDrop<'a>(&'a AtomicUsize);

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}
