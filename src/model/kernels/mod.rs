//! Matrix products of quantised weights and freshly quantised activations.
//!
//! Weights are repacked at load into tiles of 16 rows by 32 inputs ([`Packed`]); activations become
//! `i8` with a scale per 32 inputs ([`Activations`]); one tile is computed by one thread from left to
//! right, so results depend neither on the number of threads nor on how many rows are computed at once.
//! `unsafe` lives here alone within `model`: vector instructions, and threads that write disjoint parts of one
//! output.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dense;
mod pack;
mod pool;
mod portable;
mod vector;

use std::sync::OnceLock;

pub(super) use dense::Dense;
pub(super) use pack::Packed;
pub(super) use pool::Pool;
pub(super) use vector::AttentionShape;
pub(super) use vector::attend;
pub(super) use vector::rms_norm;
pub(super) use vector::silu_mul;

/// Rows of a tile.
const TILE: usize = 16;
/// Inputs of a block.
const BLOCK: usize = 32;

/// Which instructions the kernels use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, VL, VNNI, beside what [`Self::Avx2`] needs.
    Avx512Vnni,
    /// AVX2, FMA, F16C.
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// The best that this processor has.
    pub fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| {
            let best_first = [Self::Avx512Vnni, Self::Avx2];
            best_first.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
        })
    }

    /// Whether this processor has the instructions.
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

    /// The name shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// A weight matrix `(rows, columns)` of a linear layer `y = W x`.
pub(super) enum Matrix {
    /// Integer codes: fast.
    Packed(Packed),
    /// `f32`: exact, and for types that have no codes.
    Dense(Dense),
}

impl Matrix {
    /// Output features.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.rows(),
            Self::Dense(dense) => dense.rows(),
        }
    }

    /// Input features.
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.columns(),
            Self::Dense(dense) => dense.columns(),
        }
    }

    /// Bytes in memory.
    pub(super) fn n_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.n_bytes(),
            Self::Dense(dense) => dense.n_bytes(),
        }
    }

    /// Writes row `index` as numbers to `values`: an embedding look-up.
    pub(super) fn row(&self, index: usize, values: &mut [f32]) {
        match self {
            Self::Packed(packed) => packed.row(index, values),
            Self::Dense(dense) => values.copy_from_slice(dense.row(index)),
        }
    }
}

/// Inputs of a matrix product: `n_rows` rows of `columns` numbers, quantised once for all matrices that read
/// them. Each block of 32 has scale `max |x| / 127`; the scale of a block with a NaN is NaN.
#[derive(Default)]
pub(super) struct Activations {
    n_rows: usize,
    columns: usize,
    values: Vec<f32>,
    codes: Vec<i8>,
    blocks: Vec<BlockNumbers>,
}

/// What belongs to a block of 32 activation codes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(16))]
struct BlockNumbers {
    /// What a code is multiplied by.
    scale: f32,
    /// `scale` times the sum of the codes of either half.
    halves: [f32; 2],
    /// `scale` times the sum of all codes.
    sum: f32,
}

impl Activations {
    /// Room for `n_rows` rows of `columns` numbers, to be filled through the slice that comes back.
    pub(super) fn reset(&mut self, n_rows: usize, columns: usize) -> &mut [f32] {
        self.n_rows = n_rows;
        self.columns = columns;
        self.values.resize(n_rows * columns, 0.0);
        &mut self.values
    }

    /// Quantises what was filled in. Columns must be a multiple of 32, else only [`Dense`] can read it.
    pub(super) fn quantise(&mut self, pool: &mut Pool, isa: Isa) {
        if !self.columns.is_multiple_of(BLOCK) {
            return;
        }
        let n_blocks = self.columns / BLOCK;
        self.codes.resize(self.values.len(), 0);
        self.blocks.resize(self.n_rows * n_blocks, BlockNumbers::default());
        let codes = SharedMut::new(&mut self.codes);
        let blocks = SharedMut::new(&mut self.blocks);
        let (values, columns) = (&self.values, self.columns);
        pool.run(self.n_rows, &|row| {
            let values = &values[row * columns..][..columns];
            let codes = codes.slice(row * columns, columns);
            vector::quantise(isa, values, codes, blocks.slice(row * n_blocks, n_blocks));
        });
    }
}

/// One product of a [`matmul`]: `out` is `(n_rows of the activations, matrix.rows())`.
pub(super) struct Product<'a> {
    /// The weights.
    pub(super) matrix: &'a Matrix,
    /// Where the result goes; overwritten.
    pub(super) out: &'a mut [f32],
}

/// Weights that one unit of work reads, about: large enough to hide the cost of handing it out.
const UNIT_WEIGHTS: usize = 128 << 10;
/// Fewer weights than this are not worth a second thread when one row is computed.
const SERIAL_WEIGHTS: usize = 100 << 10;

/// Multiplies the activations by several matrices in one parallel loop.
pub(super) fn matmul(pool: &mut Pool, isa: Isa, input: &Activations, products: &mut [Product<'_>]) {
    struct Part<'a> {
        matrix: &'a Matrix,
        out: SharedMut<'a, f32>,
        first_unit: usize,
        tiles_per_unit: usize,
    }
    let mut parts = Vec::with_capacity(products.len());
    let mut n_units = 0;
    let mut n_weights = 0;
    for product in products.iter_mut() {
        let (rows, columns) = (product.matrix.rows(), product.matrix.columns());
        assert_eq!(columns, input.columns, "a matrix is read with activations of its own width");
        assert_eq!(product.out.len(), input.n_rows * rows, "the output has the product's shape");
        let n_tiles = rows.div_ceil(TILE);
        let tiles_per_unit = (UNIT_WEIGHTS / (TILE * columns)).clamp(1, n_tiles);
        parts.push(Part {
            matrix: product.matrix,
            out: SharedMut::new(product.out),
            first_unit: n_units,
            tiles_per_unit,
        });
        n_units += n_tiles.div_ceil(tiles_per_unit);
        n_weights += rows * columns;
    }
    let work = |unit: usize| {
        let part = parts.iter().rfind(|part| part.first_unit <= unit).expect("units start at 0");
        let n_tiles = part.matrix.rows().div_ceil(TILE);
        let first = (unit - part.first_unit) * part.tiles_per_unit;
        for tile in first..n_tiles.min(first + part.tiles_per_unit) {
            multiply_tile(isa, part.matrix, tile, input, &part.out);
        }
    };
    if n_weights * input.n_rows < SERIAL_WEIGHTS {
        (0..n_units).for_each(work);
    } else {
        pool.run(n_units, &work);
    }
}

fn multiply_tile(
    isa: Isa,
    matrix: &Matrix,
    tile: usize,
    input: &Activations,
    out: &SharedMut<'_, f32>,
) {
    match matrix {
        Matrix::Packed(packed) => {
            packed.multiply_tile(isa, tile, input, |row, values: &[f32; TILE]| {
                let first = tile * TILE;
                let n = TILE.min(packed.rows() - first);
                out.slice(row * packed.rows() + first, n).copy_from_slice(&values[..n]);
            });
        }
        Matrix::Dense(dense) => {
            let first = tile * TILE;
            let n = TILE.min(dense.rows() - first);
            for row in 0..input.n_rows {
                let values = &input.values[row * input.columns..][..input.columns];
                let out = out.slice(row * dense.rows() + first, n);
                for (i, value) in out.iter_mut().enumerate() {
                    *value = vector::dot(isa, dense.row(first + i), values);
                }
            }
        }
    }
}

/// A slice whose disjoint parts several threads write.
pub(super) struct SharedMut<'a, T> {
    first: *mut T,
    length: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "see the SAFETY line")]
// SAFETY: it stands for an exclusive borrow; users take disjoint parts (see `slice`).
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Shares `slice` among threads.
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { first: slice.as_mut_ptr(), length: slice.len(), _borrow: std::marker::PhantomData }
    }

    /// The part of `length` values from `start`. Callers within `model` take parts that do not overlap
    /// with any other part in use.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of an exclusive borrow")]
    #[expect(unsafe_code, reason = "see the SAFETY line")]
    pub(super) fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start, "inside the slice");
        // SAFETY: in bounds by the assertion, and disjoint from other parts in use by contract: each
        // unit of a loop writes only the rows or tiles of its own number.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), length) }
    }
}

#[cfg(test)]
mod tests;
