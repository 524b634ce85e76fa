//! CPU kernels: products of packed integer weights with activations quantized on the fly.
//!
//! ```text
//!        x: f32 rows                        W: (rows, columns), packed once at load
//!   quantize per 32 inputs                  tiles of 16 rows by 32 inputs (`pack`)
//!            |                                        |
//!   i8 codes + scale (Activations)                    |
//!            +---------------> kernel <---------------+
//!                    16 sums per row of x and tile, one thread per tile, left to right
//! ```
//!
//! Weights are repacked at load into tiles of 16 rows by 32 inputs ([`PackedMatrix`]); activations
//! become `i8` with a scale per 32 inputs ([`Activations`]). One thread computes a tile from left
//! to right, so results depend neither on the number of threads nor on the number of rows in a
//! batch. Within `model`, `unsafe` is confined to this module: vector intrinsics, mapped memory,
//! and threads that write disjoint parts of one output.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod causal;
mod dense;
mod low_rank;
mod memory;
mod pack;
mod pool;
mod portable;
#[cfg(target_arch = "x86_64")]
mod prefetch;
mod product;
mod transpose;
mod vector;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

pub(super) use attention::AttentionBlock;
pub(super) use attention::HeadPage;
pub(super) use attention::KvElement;
pub(super) use attention::PAGE;
pub(super) use attention::attend;
pub(super) use causal::CausalHead;
pub(super) use causal::HeadGradients;
pub(super) use causal::attend_backward;
pub(super) use causal::attend_forward;
pub(super) use dense::DenseMatrix;
pub(super) use low_rank::LoraBranch;
pub(super) use low_rank::LowRank;
pub(super) use memory::AlignedBuffer;
pub(super) use memory::Arena;
pub(super) use pack::PackSource;
pub(super) use pack::PackedMatrix;
pub(super) use pool::ThreadPool;
pub(super) use product::ProductView;
pub(super) use product::product;
pub(super) use vector::RotaryAngles;
pub(super) use vector::add;
pub(super) use vector::cross_entropy;
pub(super) use vector::dot;
pub(super) use vector::largest_if_sound;
pub(super) use vector::rms_norm;
pub(super) use vector::rms_norm_backward;
pub(super) use vector::rotate;
pub(super) use vector::silu_mul;
pub(super) use vector::silu_mul_backward;

use low_rank::InnerProducts;

/// Weight rows per tile.
const TILE: usize = 16;
/// Inputs per block: the granularity of scales.
const BLOCK: usize = 32;

/// Instruction set of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, VL and VNNI, in addition to the features of [`Self::Avx2`].
    Avx512Vnni,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Portable Rust without intrinsics.
    Portable,
}

impl Isa {
    /// Returns the fastest instruction set that this processor supports.
    pub fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| {
            let best_first = [Self::Avx512Vnni, Self::Avx2];
            best_first.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
        })
    }

    /// Whether this processor supports the instruction set.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            };
            let avx512 = || {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            };
            match self {
                Self::Avx512Vnni => avx2() && avx512(),
                Self::Avx2 => avx2(),
                Self::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Portable
        }
    }

    /// Activation rows that the kernel computes at a time: the group size of [`Activations`].
    fn rows_per_group(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => avx512::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::ROWS,
            _ => 1,
        }
    }

    /// Name shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// A weight matrix `(rows, columns)` of a linear layer `y = W x`.
pub(super) enum WeightMatrix {
    /// Packed integer codes: fast.
    Packed(PackedMatrix),
    /// `f32`: exact, and for tensor types without codes.
    Dense(DenseMatrix),
}

impl WeightMatrix {
    /// Number of output features.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.rows(),
            Self::Dense(dense) => dense.rows(),
        }
    }

    /// Number of input features.
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.columns(),
            Self::Dense(dense) => dense.columns(),
        }
    }

    /// Size in memory, in bytes.
    pub(super) fn n_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.n_bytes(),
            Self::Dense(dense) => dense.n_bytes(),
        }
    }

    /// Multiplies one tile of 16 rows by all rows of `input`.
    fn multiply_tile(&self, isa: Isa, tile: usize, input: &Activations, target: &TileOut<'_>) {
        match self {
            Self::Packed(packed) => {
                packed.multiply_tile(isa, tile, &input.quantized(0..input.n_rows), target);
            }
            Self::Dense(dense) => dense.multiply_tile(isa, tile, input, target),
        }
    }

    /// Dequantizes row `index` into `values`, as for an embedding lookup.
    pub(super) fn row(&self, index: usize, values: &mut [f32]) {
        match self {
            Self::Packed(packed) => packed.row(index, values),
            Self::Dense(dense) => values.copy_from_slice(dense.row(index)),
        }
    }
}

/// Input rows of a matrix product, `(n_rows, columns)`, quantized once for all matrices that read
/// them. Each block of 32 has the scale `max |x| / 127`; a block that contains a NaN has the scale
/// NaN, so that it reaches the output.
///
/// Rows are stored in groups of `G` (8 on AVX-512, 6 on AVX2, 1 in portable code). A kernel reads a
/// group front to back while it sweeps over a tile:
///
/// ```text
/// codes    group 0: block 0: row 0 | row 1 | .. | row G-1    32 x i8 each
///                   block 1: row 0 | row 1 | .. | row G-1
///                   ...
///          group 1: ...                   the last group is padded to G rows
/// blocks   the same order                 scale, scale * sum, sums of both halves
/// ```
#[derive(Default)]
pub(super) struct Activations {
    n_rows: usize,
    columns: usize,
    values: AlignedBuffer,
    /// Rows per group, `G` above.
    group_size: usize,
    codes: Vec<BlockCodes>,
    blocks: Vec<BlockNumbers>,
}

/// The 32 codes of one block of one row.
type BlockCodes = [i8; BLOCK];

/// Scale and sums of a block of 32 activation codes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(16))]
struct BlockNumbers {
    /// Value of one unit of the codes.
    scale: f32,
    /// `scale` times the sum of all codes: the factor of a weight block's minimum.
    sum: f32,
    /// Sums of the codes of each half, to correct for the zero point of the weight codes.
    halves: [i32; 2],
}

impl BlockNumbers {
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "sums stay below 2^12")]
    fn new(scale: f32, halves: [i32; 2]) -> Self {
        Self { scale, sum: scale * (halves[0] + halves[1]) as f32, halves }
    }
}

impl Activations {
    /// Resizes to `(n_rows, columns)`, calls `fill` for every row and quantizes it. Rows whose
    /// width is not a multiple of 32 are not quantized; only [`DenseMatrix`] can read them.
    pub(super) fn fill(
        &mut self,
        pool: &mut ThreadPool,
        isa: Isa,
        (n_rows, columns): (usize, usize),
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        self.n_rows = n_rows;
        self.columns = columns;
        self.values.resize(n_rows * columns);
        self.group_size = isa.rows_per_group();
        let n_blocks = columns / BLOCK;
        let quantized = columns.is_multiple_of(BLOCK);
        if quantized {
            let n = n_rows.next_multiple_of(self.group_size) * n_blocks;
            self.codes.resize(n, [0; BLOCK]);
            self.blocks.resize(n, BlockNumbers::default());
        }
        let group_size = self.group_size;
        let values = SharedMut::new(&mut self.values);
        let codes = SharedMut::new(&mut self.codes);
        let blocks = SharedMut::new(&mut self.blocks);
        pool.run(n_rows, &|row| {
            let values = values.slice(row * columns, columns);
            fill(row, values);
            if quantized {
                // Block 0 of this row; its later blocks follow at a stride of one group.
                let first = (row - row % group_size) * n_blocks + row % group_size;
                let codes = codes.strided(group_size, first, n_blocks);
                vector::quantize(isa, values, &codes, &blocks.strided(group_size, first, n_blocks));
            }
        });
    }

    /// Returns a range of rows in the layout that kernels read.
    ///
    /// # Panics
    /// When the rows don't exist or are not quantized.
    fn quantized(&self, rows: Range<usize>) -> QuantizedRows<'_> {
        let (group_size, n_blocks) = (self.group_size, self.columns / BLOCK);
        let row = rows.start % group_size;
        let part = (rows.start - row) * n_blocks..rows.end.next_multiple_of(group_size) * n_blocks;
        let (codes, numbers) = (&self.codes[part.clone()], &self.blocks[part]);
        QuantizedRows { row, n_rows: rows.len(), n_blocks, group_size, codes, numbers }
    }

    /// Number of activation rows.
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The `f32` values, row by row.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }
}

/// A range of quantized rows in the grouped layout of [`Activations`].
struct QuantizedRows<'a> {
    /// Index of the first row within its group.
    row: usize,
    n_rows: usize,
    n_blocks: usize,
    group_size: usize,
    codes: &'a [BlockCodes],
    numbers: &'a [BlockNumbers],
}

impl QuantizedRows<'_> {
    /// Number of groups that the range touches.
    ///
    /// # Panics
    /// When the rows are laid out for another group size.
    #[inline]
    fn n_groups(&self, group_size: usize) -> usize {
        assert_eq!(self.group_size, group_size, "rows laid out for this kernel");
        (self.row + self.n_rows).div_ceil(group_size)
    }

    /// The rows of one group that lie within the range.
    #[inline]
    fn group(&self, index: usize) -> KernelRows<'_> {
        let group = index * self.group_size;
        let first = self.row.max(group);
        let end = (self.row + self.n_rows).min(group + self.group_size);
        let part = group * self.n_blocks + first - group..(group + self.group_size) * self.n_blocks;
        let (codes, numbers) = (&self.codes[part.clone()], &self.numbers[part]);
        KernelRows { first: first - self.row, n: end - first, codes, numbers }
    }
}

/// A tile of packed weights, as the vector kernels read it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct KernelTile<'a> {
    n_blocks: usize,
    /// Zero point: the code that represents 0.
    zero: f32,
    codes: &'a [pack::CodeLine],
    scales: &'a [pack::BlockScales],
    /// Prefetch plan; off when an earlier group of rows has brought the tile into the caches.
    prefetch: prefetch::PrefetchPlan,
}

/// Rows of one group for one kernel call. The slices begin at the first row's block 0 and keep the
/// group's stride.
struct KernelRows<'a> {
    /// Index of the first row in the range.
    first: usize,
    /// Number of rows, at most one group.
    n: usize,
    codes: &'a [BlockCodes],
    numbers: &'a [BlockNumbers],
}

/// One matrix product within a [`matmul`].
pub(super) struct MatmulProduct<'a> {
    /// Weights of shape `(rows, columns)`.
    pub(super) matrix: &'a WeightMatrix,
    /// Bias added to every row.
    pub(super) bias: Option<&'a [f32]>,
    /// LoRA branches, for disjoint ranges of activation rows.
    pub(super) branches: Vec<LoraBranch<'a>>,
    /// Output of shape `(activation rows, matrix.rows())`.
    pub(super) out: &'a mut [f32],
    /// Whether to overwrite `out` or to add to it.
    pub(super) write: OutputMode,
}

/// How a product writes its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputMode {
    /// Overwrites what the output holds.
    Over,
    /// Adds to what the output holds.
    Add,
}

/// Approximate multiplications per unit of work: enough to hide the cost of dispatch, few enough
/// that no thread waits long for the last unit.
const UNIT_PRODUCTS: usize = 32 << 10;
/// Up to this many rows a product is bound by memory bandwidth rather than by arithmetic.
const FEW_ROWS: usize = 8;
/// Approximate weights per unit of a memory-bound product: long units, because prefetching restarts
/// at every unit.
const UNIT_WEIGHTS: usize = 4 << 20;
/// A product with fewer multiplications than this runs on the calling thread alone.
const SERIAL_WEIGHTS: usize = 100 << 10;

/// A [`MatmulProduct`] divided into units of work.
struct ProductPart<'a> {
    matrix: &'a WeightMatrix,
    bias: Option<&'a [f32]>,
    /// This product's share of the loop's LoRA branches.
    branches: Range<usize>,
    write: OutputMode,
    out: SharedMut<'a, f32>,
    first_unit: usize,
    tiles_per_unit: usize,
}

/// Number of tiles that form one unit of work.
fn tiles_per_unit(n_tiles: usize, columns: usize, n_rows: usize, n_threads: usize) -> usize {
    let tile_weights = TILE * columns;
    if n_rows > FEW_ROWS {
        return (UNIT_PRODUCTS / (tile_weights * n_rows)).clamp(1, n_tiles);
    }
    // Memory-bound: the same number of units for every thread, so that all finish together.
    let rounds = (n_tiles * tile_weights).div_ceil(UNIT_WEIGHTS * n_threads);
    n_tiles.div_ceil(rounds * n_threads)
}

/// Multiplies the activations by several matrices in one parallel loop.
///
/// The loop's units are, in this order: down projections `A x` of all LoRA branches, then tiles of
/// all products. Tiles add their branch's up projection at the end, so base and adapter take one
/// loop.
pub(super) fn matmul<'a>(
    pool: &mut ThreadPool,
    isa: Isa,
    input: &Activations,
    products: impl IntoIterator<Item = MatmulProduct<'a>>,
) {
    let (mut parts, mut branches) = (Vec::new(), Vec::new());
    let (mut n_units, mut n_weights) = (0, 0);
    for product in products {
        let (rows, columns) = (product.matrix.rows(), product.matrix.columns());
        assert_eq!(columns, input.columns, "a matrix is read with activations of its own width");
        assert_eq!(product.out.len(), input.n_rows * rows, "the output has the product's shape");
        let n_tiles = rows.div_ceil(TILE);
        let tiles_per_unit = tiles_per_unit(n_tiles, columns, input.n_rows, pool.n_threads());
        let first_branch = branches.len();
        branches.extend(product.branches);
        parts.push(ProductPart {
            matrix: product.matrix,
            bias: product.bias,
            branches: first_branch..branches.len(),
            write: product.write,
            out: SharedMut::new(product.out),
            first_unit: n_units,
            tiles_per_unit,
        });
        n_units += n_tiles.div_ceil(tiles_per_unit);
        n_weights += rows * columns;
    }
    // Products are numbered as one sequence of units, so that threads go on to the next matrix
    // without waiting at the end of one.
    InnerProducts::with(isa, branches, |inner| {
        let n_down_units = inner.n_down_units();
        // Units start in order. A tile can therefore wait for the down projections without
        // deadlock: all of them have been claimed by a running thread (see `InnerProducts::wait`).
        let work = |unit: usize| {
            let Some(unit) = unit.checked_sub(n_down_units) else {
                return inner.project_down(isa, input, unit);
            };
            let part =
                parts.iter().rfind(|part| part.first_unit <= unit).expect("units start at 0");
            let n_tiles = part.matrix.rows().div_ceil(TILE);
            let first = (unit - part.first_unit) * part.tiles_per_unit;
            for tile in first..n_tiles.min(first + part.tiles_per_unit) {
                part.multiply_tile(isa, tile, input, inner);
            }
        };
        if n_weights * input.n_rows < SERIAL_WEIGHTS {
            (0..n_down_units + n_units).for_each(work);
        } else {
            pool.run(n_down_units + n_units, &work);
        }
    });
}

impl ProductPart<'_> {
    fn multiply_tile(&self, isa: Isa, tile: usize, input: &Activations, inner: &InnerProducts<'_>) {
        let (rows, first) = (self.matrix.rows(), tile * TILE);
        let n = TILE.min(rows - first);
        let bias = self.bias.map(|bias| &bias[first..][..n]);
        if n == TILE {
            let bias = bias.and_then(|bias| bias.first_chunk());
            let out = self.out.target(first, rows, input.n_rows);
            return self.multiply(
                isa,
                tile,
                input,
                inner,
                &TileOut { bias, write: self.write, ..out },
            );
        }
        // The last tile is partial: its 16 results would overrun the row of the output.
        let mut results = vec![0.0; input.n_rows * TILE];
        let target = SharedMut::new(&mut results).target(0, TILE, input.n_rows);
        self.multiply(isa, tile, input, inner, &target);
        for (row, values) in results.as_chunks::<TILE>().0.iter().enumerate() {
            let out = self.out.slice(row * rows + first, n);
            for (i, (out, value)) in out.iter_mut().zip(values).enumerate() {
                let value = value + bias.map_or(0.0, |bias| bias[i]);
                *out = if self.write == OutputMode::Add { *out + value } else { value };
            }
        }
    }

    /// Multiplies a tile and adds its LoRA branches.
    fn multiply(
        &self,
        isa: Isa,
        tile: usize,
        input: &Activations,
        inner: &InnerProducts<'_>,
        target: &TileOut<'_>,
    ) {
        self.matrix.multiply_tile(isa, tile, input, target);
        for branch in self.branches.clone() {
            inner.project_up(isa, tile, branch, target);
        }
    }
}

/// Output of one tile: 16 values per activation row, written by one thread.
struct TileOut<'a> {
    first: *mut f32,
    /// Distance between consecutive rows, in elements.
    stride: usize,
    n_rows: usize,
    /// Bias added to every row.
    bias: Option<&'a [f32; TILE]>,
    write: OutputMode,
    _borrow: PhantomData<&'a mut [f32]>,
}

impl TileOut<'_> {
    /// A range of the rows, in add mode and without bias.
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    fn rows(&self, rows: Range<usize>) -> TileOut<'_> {
        assert!(rows.start < rows.end && rows.end <= self.n_rows, "rows of the output");
        // SAFETY: the row exists.
        let first = unsafe { self.first.add(rows.start * self.stride) };
        TileOut { first, n_rows: rows.len(), bias: None, write: OutputMode::Add, ..*self }
    }

    /// Writes or adds the 16 values of a row.
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    fn put(&self, row: usize, values: &[f32; TILE]) {
        assert!(row < self.n_rows, "a row of the output");
        for (i, value) in values.iter().enumerate() {
            // SAFETY: the row's 16 numbers exist, and no other thread has them
            // (`SharedMut::target`).
            let out = unsafe { &mut *self.first.add(row * self.stride + i) };
            let value = value + self.bias.map_or(0.0, |bias| bias[i]);
            *out = if self.write == OutputMode::Add { *out + value } else { value };
        }
    }
}

/// A slice of which several threads write disjoint parts.
pub(super) struct SharedMut<'a, T> {
    first: *mut T,
    length: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "see the SAFETY line")]
// SAFETY: it stands for an exclusive borrow; users take disjoint parts (see `slice`).
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Wraps a slice for shared writing.
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { first: slice.as_mut_ptr(), length: slice.len(), _borrow: PhantomData }
    }

    /// The part of `length` values from `start`; no thread may write it any more.
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    fn read(&self, start: usize, length: usize) -> &[T] {
        assert!(start <= self.length && length <= self.length - start, "inside the slice");
        // SAFETY: in bounds by the assertion; by contract there are only readers.
        unsafe { std::slice::from_raw_parts(self.first.add(start), length) }
    }

    /// `n` values from `start`, `step` apart. The caller contract is that of [`Self::slice`].
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    fn strided(&self, step: usize, start: usize, n: usize) -> StridedMut<'a, T> {
        assert!(n == 0 || start + (n - 1) * step < self.length, "inside the slice");
        // SAFETY: in bounds by the assertion where there is a value.
        StridedMut { first: unsafe { self.first.add(start) }, step, n, _borrow: PhantomData }
    }

    /// The part of `length` values from `start`. Callers, all within `model`, must not take parts
    /// that overlap with another part in use.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of an exclusive borrow")]
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    pub(super) fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start, "inside the slice");
        // SAFETY: in bounds by the assertion, and disjoint from other parts in use by contract:
        // each unit of a loop writes only the rows or tiles of its own number.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), length) }
    }
}

impl<'a> SharedMut<'a, f32> {
    /// 16 values in each of `n_rows` rows, from `start`, `stride` apart. The caller contract is
    /// that of [`Self::slice`].
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    fn target(&self, start: usize, stride: usize, n_rows: usize) -> TileOut<'a> {
        let end = start + n_rows.saturating_sub(1) * stride + TILE;
        assert!(end <= self.length, "inside the slice");
        // SAFETY: in bounds by the assertion.
        let first = unsafe { self.first.add(start) };
        TileOut { first, stride, n_rows, bias: None, write: OutputMode::Over, _borrow: PhantomData }
    }
}

/// Strided values of a [`SharedMut`], written by one thread.
struct StridedMut<'a, T> {
    first: *mut T,
    step: usize,
    n: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

impl<T> StridedMut<'_, T> {
    /// Writes the value at index `i`.
    #[inline]
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    fn set(&self, i: usize, value: T) {
        assert!(i < self.n, "as many values");
        // SAFETY: in bounds (`SharedMut::strided`), and no other thread has it.
        unsafe { *self.first.add(i * self.step) = value };
    }
}

#[cfg(test)]
mod tests;
