//! Kernels for AVX-512 with VNNI.
//!
//! `vpdpbusd` (`_mm512_dpbusd_epi32`) multiplies 64 unsigned bytes by 64 signed ones and adds
//! neighboring fours to 16 `i32` sums. A group of codes (see [`super::pack`]) and four activations,
//! broadcast to all lanes, fit it exactly: one instruction is 64 multiplications, one sum per row
//! of the tile.

#![expect(unsafe_code, reason = "vector loads through pointers; each block has its SAFETY line")]

use std::arch::x86_64::__m512;
use std::arch::x86_64::__m512i;
use std::arch::x86_64::_mm_dpbusd_epi32;
use std::arch::x86_64::_mm_extract_epi32;
use std::arch::x86_64::_mm_hadd_epi32;
use std::arch::x86_64::_mm_set1_epi8;
use std::arch::x86_64::_mm_setzero_si128;
use std::arch::x86_64::_mm_storeu_si128;
use std::arch::x86_64::_mm256_load_si256;
use std::arch::x86_64::_mm256_maskz_loadu_epi16;
use std::arch::x86_64::_mm512_abs_ps;
use std::arch::x86_64::_mm512_add_epi32;
use std::arch::x86_64::_mm512_add_ps;
use std::arch::x86_64::_mm512_and_si512;
use std::arch::x86_64::_mm512_castps_si512;
use std::arch::x86_64::_mm512_cvtepi32_epi8;
use std::arch::x86_64::_mm512_cvtepi32_ps;
use std::arch::x86_64::_mm512_cvtph_ps;
use std::arch::x86_64::_mm512_cvtps_epi32;
use std::arch::x86_64::_mm512_dpbusd_epi32;
use std::arch::x86_64::_mm512_fmadd_ps;
use std::arch::x86_64::_mm512_load_si512;
use std::arch::x86_64::_mm512_loadu_ps;
use std::arch::x86_64::_mm512_mask_add_epi8;
use std::arch::x86_64::_mm512_mask_storeu_ps;
use std::arch::x86_64::_mm512_maskz_loadu_ps;
use std::arch::x86_64::_mm512_max_epu32;
use std::arch::x86_64::_mm512_mul_ps;
use std::arch::x86_64::_mm512_reduce_max_epu32;
use std::arch::x86_64::_mm512_set1_epi8;
use std::arch::x86_64::_mm512_set1_epi32;
use std::arch::x86_64::_mm512_set1_ps;
use std::arch::x86_64::_mm512_setzero_ps;
use std::arch::x86_64::_mm512_setzero_si512;
use std::arch::x86_64::_mm512_slli_epi32;
use std::arch::x86_64::_mm512_srli_epi16;
use std::arch::x86_64::_mm512_store_si512;
use std::arch::x86_64::_mm512_storeu_ps;
use std::arch::x86_64::_mm512_test_epi8_mask;
use std::cell::RefCell;

use super::BLOCK;
use super::BlockCodes;
use super::BlockNumbers;
use super::KernelRows;
use super::KernelTile;
use super::OutputMode;
use super::QuantizedRows;
use super::StridedMut;
use super::TileOut;
use super::attention::KvElement;
use super::attention::RightPanel;
use super::attention::StridedRows;
use super::pack::BlockOffset;
use super::pack::BlockScales;
use super::pack::CodeFormat;
use super::pack::CodeLine;
use super::prefetch::PrefetchPlan;
use super::vector::NOTHING;

/// Activation rows per kernel call: 8 float sums, 8 dot products and 8 groups of codes, with
/// temporaries, fill the 32 registers.
pub(super) const ROWS: usize = 8;
/// `f32` lanes per register.
const LANES: usize = 16;

/// Multiplies a tile by every row of `input` and writes 16 results per row to `target`.
///
/// # Panics
/// When `codes` or `scales` are shorter than `input.n_blocks` blocks.
pub(super) fn multiply_tile(
    format: CodeFormat,
    codes: &[CodeLine],
    scales: &[BlockScales],
    input: &QuantizedRows<'_>,
    target: &TileOut<'_>,
) {
    let n_blocks = input.n_blocks;
    assert!(target.n_rows == input.n_rows, "a row of results for every row");
    assert!(codes.len() >= n_blocks * format.n_lines(), "codes for every block");
    assert!(scales.len() >= n_blocks * format.n_scales(), "scales for every block");
    let is_read_once = input.n_rows <= ROWS;
    let prefetch = if is_read_once { PrefetchPlan::for_memory() } else { PrefetchPlan::Nothing };
    let tile = KernelTile { n_blocks, zero: format.zero, codes, scales, prefetch };
    let rows = |kernel: Avx512Kernel, tile: &KernelTile<'_>| {
        for group in 0..input.n_groups(ROWS) {
            let rows = input.group(group);
            // SAFETY: `Isa::is_available` saw the features; the tile's lengths were checked above,
            // or the codes are those of all blocks at 8 bits; the rows have as many blocks, and the
            // target has them.
            unsafe { kernel(tile, &rows, target) };
        }
    };
    if is_read_once || !matches!(format.bits, 5 | 6) {
        return rows(kernel(format), &tile);
    }
    // With several groups of rows, merging the single-bit lines of 5- and 6-bit codes pays once per
    // tile instead of once per group.
    WIDE.with_borrow_mut(|wide| {
        widen(format, &codes[..n_blocks * format.n_lines()], wide);
        rows(wide_kernel(format), &KernelTile { codes: wide, ..tile });
    });
}

thread_local! {
    /// One tile's codes, expanded to 8 bits.
    static WIDE: RefCell<Vec<CodeLine>> = RefCell::default();
}

/// Expands the codes of all blocks to 8 bits.
fn widen(format: CodeFormat, codes: &[CodeLine], wide: &mut Vec<CodeLine>) {
    wide.resize(codes.len() / format.n_lines() * 8, CodeLine([0; 64]));
    let blocks = codes.chunks_exact(format.n_lines()).zip(wide.chunks_exact_mut(8));
    for (lines, wide) in blocks {
        // SAFETY: `Isa::is_available` saw the features; a block has as many lines as its format, 8
        // at 8 bits.
        unsafe {
            let codes = match format.bits {
                5 => unpack::<5>(lines.as_ptr()),
                _ => unpack::<6>(lines.as_ptr()),
            };
            for (line, codes) in wide.iter_mut().zip(codes) {
                _mm512_store_si512(line.0.as_mut_ptr().cast(), codes);
            }
        }
    }
}

type Avx512Kernel = unsafe fn(&KernelTile<'_>, &KernelRows<'_>, &TileOut<'_>);

// `BlockOffset` as a const generic parameter, so that each format gets a kernel without branches.
const NONE: u8 = 0;
const MIN: u8 = 1;
const SCALE: u8 = 2;

fn kernel(format: CodeFormat) -> Avx512Kernel {
    match (format.bits, format.second) {
        (4, BlockOffset::Nothing) => rows::<4, NONE, 3>,
        (4, BlockOffset::Min) => rows::<4, MIN, 0>,
        (5, BlockOffset::Nothing) => rows::<5, NONE, 4>,
        (5, BlockOffset::Min) => rows::<5, MIN, 0>,
        (6, BlockOffset::Scale) => rows::<6, SCALE, 5>,
        (8, BlockOffset::Nothing) => rows::<8, NONE, 7>,
        other => unreachable!("no packed format is {other:?}"),
    }
}

/// The kernel for expanded codes. The zero point stays that of the narrow format.
fn wide_kernel(format: CodeFormat) -> Avx512Kernel {
    match (format.bits, format.second) {
        (5, BlockOffset::Nothing) => rows::<8, NONE, 4>,
        (5, BlockOffset::Min) => rows::<8, MIN, 0>,
        (6, BlockOffset::Scale) => rows::<8, SCALE, 5>,
        other => unreachable!("{other:?} is not widened"),
    }
}

/// Selects the kernel for the number of rows, so that loops over rows are unrolled.
///
/// # Safety
/// As [`block_rows`], for `rows.n` rows, `1..=ROWS` of them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn rows<const BITS: usize, const SECOND: u8, const ZERO: u32>(
    tile: &KernelTile<'_>,
    rows: &KernelRows<'_>,
    target: &TileOut<'_>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match rows.n {
            1 => block_rows::<1, BITS, SECOND, ZERO>(tile, rows, target),
            2 => block_rows::<2, BITS, SECOND, ZERO>(tile, rows, target),
            3 => block_rows::<3, BITS, SECOND, ZERO>(tile, rows, target),
            4 => block_rows::<4, BITS, SECOND, ZERO>(tile, rows, target),
            5 => block_rows::<5, BITS, SECOND, ZERO>(tile, rows, target),
            6 => block_rows::<6, BITS, SECOND, ZERO>(tile, rows, target),
            7 => block_rows::<7, BITS, SECOND, ZERO>(tile, rows, target),
            _ => block_rows::<8, BITS, SECOND, ZERO>(tile, rows, target),
        }
    }
}

/// Repeats a body for constant indices below a bound of at most 8. Arrays indexed by constants stay
/// in registers; a loop does not guarantee that.
macro_rules! unroll {
    ($i:ident < 4 => $body:expr) => {
        unroll!(@ $i 4, [0 1 2 3], $body)
    };
    ($i:ident < $n:expr => $body:expr) => {
        unroll!(@ $i $n, [0 1 2 3 4 5 6 7], $body)
    };
    (@ $i:ident $n:expr, [$($at:literal)*], $body:expr) => {
        $({
            const $i: usize = $at;
            if $i < $n {
                $body;
            }
        })*
    };
}

/// Multiplies the tile by the first `N` rows, block by block. `ZERO` is the binary logarithm of the
/// zero point.
///
/// # Safety
/// The processor has the features; the codes and scales of the tile and the activations are those
/// of `tile.n_blocks` blocks; the target has the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn block_rows<const N: usize, const BITS: usize, const SECOND: u8, const ZERO: u32>(
    tile: &KernelTile<'_>,
    rows: &KernelRows<'_>,
    target: &TileOut<'_>,
) {
    let n_lines = if BITS == 8 { 8 } else { BITS };
    let n_scales = if SECOND == NONE { 1 } else { 2 };
    // Macros, because closures are not always inlined into a `target_feature` function.
    //
    // Four activations of a row, broadcast to all 16 lanes.
    macro_rules! four {
        ($inputs:expr, $row:expr, $group:expr) => {{
            let inputs = $inputs.add($row).cast::<[u8; 4]>();
            _mm512_set1_epi32(i32::from_ne_bytes(*inputs.add($group)))
        }};
    }
    // Initial value of a dot product, which subtracts the zero point for free: sum (c - 2^ZERO) x =
    // sum c x - 2^ZERO * sum x.
    macro_rules! start {
        ($block:expr, $half:literal) => {
            _mm512_slli_epi32::<ZERO>(_mm512_set1_epi32(-$block.halves[$half]))
        };
    }
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for block in 0..tile.n_blocks {
        // SAFETY: the block's lines, scales and activations exist by this function's contract; what
        // is ahead is not read.
        unsafe {
            let lines = tile.codes.as_ptr().add(block * n_lines);
            let scales = tile.scales.as_ptr().add(block * n_scales);
            tile.prefetch.block((lines, n_lines), (scales, n_scales));
            let codes = unpack::<BITS>(lines);
            let first = load_scales(scales);
            let second = if SECOND == NONE { first } else { load_scales(scales.add(1)) };
            let inputs = rows.codes.as_ptr().add(block * ROWS);
            let numbers = rows.numbers.as_ptr().add(block * ROWS);
            let numbers = |row: usize| &*numbers.add(row);
            // First half of the inputs, groups 0 to 3. The group is the outer loop: N independent
            // chains of `vpdpbusd` hide its latency.
            let mut dots = [_mm512_setzero_si512(); ROWS];
            if SECOND != MIN {
                unroll!(I < N => dots[I] = start!(numbers(I), 0));
            }
            unroll!(G < 4 => unroll!(I < N => {
                dots[I] = _mm512_dpbusd_epi32(dots[I], codes[G], four!(inputs, I, G));
            }));
            let mut halves = [_mm512_setzero_ps(); ROWS];
            // With two scales the halves are scaled separately, so the integer sums start over.
            if SECOND == SCALE {
                unroll!(I < N => {
                    halves[I] = _mm512_mul_ps(first, _mm512_cvtepi32_ps(dots[I]));
                    dots[I] = start!(numbers(I), 1);
                });
            }
            if SECOND == NONE {
                unroll!(I < N => dots[I] = _mm512_add_epi32(dots[I], start!(numbers(I), 1)));
            }
            unroll!(G < 4 => unroll!(I < N => {
                dots[I] = _mm512_dpbusd_epi32(dots[I], codes[G + 4], four!(inputs, I, G + 4));
            }));
            // sums += (weight scale * activation scale) * dot (+ minimum * sum of the activations).
            unroll!(I < N => {
                let (dot, scale) = (_mm512_cvtepi32_ps(dots[I]), _mm512_set1_ps(numbers(I).scale));
                if SECOND == SCALE {
                    sums[I] = _mm512_fmadd_ps(_mm512_fmadd_ps(second, dot, halves[I]), scale, sums[I]);
                } else {
                    sums[I] = _mm512_fmadd_ps(_mm512_mul_ps(first, scale), dot, sums[I]);
                }
                if SECOND == MIN {
                    sums[I] = _mm512_fmadd_ps(second, _mm512_set1_ps(numbers(I).sum), sums[I]);
                }
            });
        }
    }
    let bias = target.bias.map_or(_mm512_setzero_ps(), |bias| {
        // SAFETY: 16 floats.
        unsafe { _mm512_loadu_ps(bias.as_ptr()) }
    });
    for (i, sum) in sums[..N].iter().enumerate() {
        let out = target.first.wrapping_add((rows.first + i) * target.stride);
        let mut sum = _mm512_add_ps(*sum, bias);
        // SAFETY: the target has 16 floats for each of the rows.
        unsafe {
            if target.write == OutputMode::Add {
                sum = _mm512_add_ps(_mm512_loadu_ps(out), sum);
            }
            _mm512_storeu_ps(out, sum);
        }
    }
}

/// Loads 16 half-precision values as `f32`.
///
/// # Safety
/// The processor has the features and `scales` points to a [`BlockScales`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_scales(scales: *const BlockScales) -> __m512 {
    // SAFETY: 32 aligned bytes.
    _mm512_cvtph_ps(unsafe { _mm256_load_si256(scales.cast()) })
}

/// Unpacks the codes of one block, one group per register.
///
/// # Safety
/// The processor has the features and `lines` points to as many lines as the format has.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn unpack<const BITS: usize>(lines: *const CodeLine) -> [__m512i; 8] {
    let mut codes = [_mm512_setzero_si512(); 8];
    // SAFETY: `BITS` lines (8 for 8 bits) exist; a line is 64 aligned bytes, 8 masks of 64 bits.
    unsafe {
        if BITS == 8 {
            for (group, code) in codes.iter_mut().enumerate() {
                *code = _mm512_load_si512(lines.add(group).cast());
            }
            return codes;
        }
        let nibble = _mm512_set1_epi8(15);
        for group in 0..4 {
            // There is no 8-bit shift; after the 16-bit one the mask removes what crossed over from
            // the neighboring byte.
            let line = _mm512_load_si512(lines.add(group).cast());
            codes[group] = _mm512_and_si512(line, nibble);
            codes[group + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibble);
        }
        // Bit `group` of every byte becomes a 64-bit mask under which bit `bit` is added to that
        // group's codes.
        for bit in 4..BITS {
            let line = _mm512_load_si512(lines.add(bit).cast());
            let value = _mm512_set1_epi8(1 << bit);
            for (group, code) in codes.iter_mut().enumerate() {
                let place = _mm512_set1_epi8(i8::from_ne_bytes([1 << group]));
                let has_bit = _mm512_test_epi8_mask(line, place);
                *code = _mm512_mask_add_epi8(*code, has_bit, *code, value);
            }
        }
    }
    codes
}

/// Calls [`add_columns`] for the number of rows as a constant, so that loops over rows are
/// unrolled.
macro_rules! by_rows {
    ($vectors:literal, $t:ty, $left:expr, $panel:expr, $places:expr, $columns:expr, $out:expr) => {
        match $places.len() {
            1 => add_columns::<1, $vectors, $t>($left, $panel, $places, $columns, $out),
            2 => add_columns::<2, $vectors, $t>($left, $panel, $places, $columns, $out),
            3 => add_columns::<3, $vectors, $t>($left, $panel, $places, $columns, $out),
            4 => add_columns::<4, $vectors, $t>($left, $panel, $places, $columns, $out),
            5 => add_columns::<5, $vectors, $t>($left, $panel, $places, $columns, $out),
            6 => add_columns::<6, $vectors, $t>($left, $panel, $places, $columns, $out),
            7 => add_columns::<7, $vectors, $t>($left, $panel, $places, $columns, $out),
            _ => add_columns::<8, $vectors, $t>($left, $panel, $places, $columns, $out),
        }
    };
}

/// Adds the product of up to 8 rows of `left` with the panel to `out`. `places` has the start of
/// each row in `left` and in `out`.
///
/// # Panics
/// When a row extends past the end of `left` or `out`, or the panel is shorter than its shape.
pub(super) fn multiply_panel<T: KvElement>(
    left: StridedRows<'_>,
    panel: &RightPanel<'_, T>,
    places: &[(usize, usize)],
    out: &mut [f32],
) {
    panel.check(left, places, out);
    let (whole, rest) = (panel.width / LANES, panel.width % LANES);
    // Columns go in pairs of vectors, so that one broadcast of `left` serves two multiplications.
    // Masks cover the rest without a scalar tail.
    let lanes = |n: usize| u16::MAX >> (LANES - n);
    let pairs = (0..whole / 2).map(|pair| (pair * 2 * LANES, [u16::MAX; 2]));
    let last = match (whole % 2, rest) {
        (0, 0) => None,
        (0, n) => Some([lanes(n), 0]),
        (_, n) => Some([u16::MAX, if n == 0 { 0 } else { lanes(n) }]),
    };
    for (column, masks) in pairs.chain(last.map(|masks| (whole / 2 * 2 * LANES, masks))) {
        // SAFETY: `Isa::is_available` saw the features; rows and panel are whole, as checked above,
        // and the masks end with its width.
        unsafe {
            let columns = (column, masks);
            if masks[1] == 0 {
                by_rows!(1, T, left, panel, places, columns, out);
            } else {
                by_rows!(2, T, left, panel, places, columns, out);
            }
        }
    }
}

/// [`multiply_panel`] for `N` rows and `VECTORS` x 16 columns starting at `column`, restricted to
/// the masks.
///
/// # Safety
/// The processor has the features; `places` has `N` places of `panel.depth` numbers in `left` and
/// `panel.width` numbers in `out`; `panel` is whole, and no column in the masks lies beyond its
/// width.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
unsafe fn add_columns<const N: usize, const VECTORS: usize, T: KvElement>(
    left: StridedRows<'_>,
    panel: &RightPanel<'_, T>,
    places: &[(usize, usize)],
    (column, masks): (usize, [u16; 2]),
    out: &mut [f32],
) {
    let places: &[(usize, usize); N] = places.first_chunk().expect("as many places as rows");
    // SAFETY: see above; all reads and writes lie within the rows and the panel.
    unsafe {
        let rows: [*const f32; N] = std::array::from_fn(|i| left.values.as_ptr().add(places[i].0));
        let outs: [*mut f32; N] =
            std::array::from_fn(|i| out.as_mut_ptr().wrapping_add(places[i].1 + column));
        // N x VECTORS sums stay in registers over the whole depth; `out` is read and written once.
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; N];
        let mut values = panel.values.as_ptr().wrapping_add(column);
        for k in 0..panel.depth {
            let mut vectors = [_mm512_setzero_ps(); VECTORS];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = load_numbers(masks[v], values.wrapping_add(v * LANES));
            }
            let at = k * left.step;
            for (sums, row) in sums.iter_mut().zip(rows) {
                let factor = _mm512_set1_ps(*row.add(at));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = _mm512_fmadd_ps(factor, vector, *sum);
                }
            }
            values = values.wrapping_add(panel.stride);
        }
        for (sums, out) in sums.into_iter().zip(outs) {
            for (v, sum) in sums.into_iter().enumerate() {
                let out = out.wrapping_add(v * LANES);
                let sum = _mm512_add_ps(_mm512_maskz_loadu_ps(masks[v], out), sum);
                _mm512_mask_storeu_ps(out, masks[v], sum);
            }
        }
    }
}

/// Loads 16 elements as `f32`; those outside the mask are 0 and not accessed.
///
/// # Safety
/// The processor has the features and the elements in the mask can be read.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn load_numbers<T: KvElement>(mask: u16, from: *const T) -> __m512 {
    // SAFETY: passed on to the caller.
    unsafe {
        if T::IS_HALF {
            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from.cast()))
        } else {
            _mm512_maskz_loadu_ps(mask, from.cast())
        }
    }
}

/// Quantizes a row; see [`super::vector::quantize`].
pub(super) fn quantize(
    values: &[f32],
    codes: &StridedMut<'_, BlockCodes>,
    numbers: &StridedMut<'_, BlockNumbers>,
) {
    // SAFETY: `Isa::is_available` saw the features.
    unsafe { quantize_row(values, codes, numbers) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn quantize_row(
    values: &[f32],
    codes: &StridedMut<'_, BlockCodes>,
    numbers: &StridedMut<'_, BlockNumbers>,
) {
    for (block, values) in values.as_chunks().0.iter().enumerate() {
        let mut block_codes = [0; BLOCK];
        numbers.set(block, quantize_block(values, &mut block_codes));
        codes.set(block, block_codes);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn quantize_block(values: &[f32; BLOCK], codes: &mut BlockCodes) -> BlockNumbers {
    // SAFETY: a block is two vectors.
    let halves = [0, 16].map(|first| unsafe { _mm512_loadu_ps(values.as_ptr().add(first)) });
    // Without the sign, the bits of floats order like their values, with NaN above infinity. An
    // integer maximum therefore propagates NaN, which `_mm512_max_ps` might drop.
    let [a, b] = halves.map(|half| _mm512_castps_si512(_mm512_abs_ps(half)));
    let largest = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b)));
    let inverse = if largest > NOTHING { 127.0 / largest } else { 0.0 };
    let [low, high] = halves.map(|half| {
        let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(half, _mm512_set1_ps(inverse)));
        _mm512_cvtepi32_epi8(rounded)
    });
    // SAFETY: a block is two times 16 codes.
    unsafe {
        _mm_storeu_si128(codes.as_mut_ptr().cast(), low);
        _mm_storeu_si128(codes.as_mut_ptr().add(16).cast(), high);
    }
    // Sums of the codes: a dot product with ones, then horizontal additions.
    let [low, high] =
        [low, high].map(|half| _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), half));
    let sums = _mm_hadd_epi32(low, high);
    let sums = _mm_hadd_epi32(sums, sums);
    BlockNumbers::new(largest / 127.0, [_mm_extract_epi32::<0>(sums), _mm_extract_epi32::<1>(sums)])
}
