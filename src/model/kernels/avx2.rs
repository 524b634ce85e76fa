//! The kernels on AVX2, FMA and F16C.
//!
//! `vpmaddubsw` multiplies unsigned codes by signed activations and adds pairs into 16 bits, where
//! as many pairs are gathered as fit: all eight groups of 4-bit codes (8 * 2 * 15 * 127 < 2^15),
//! four of 5 bits, two of 6. Only then `vpmaddwd` widens them. Codes of 8 bits are taken as signed
//! ones, whose sign goes to the activation.

#![expect(
    clippy::needless_range_loop,
    reason = "indices name registers, of several arrays at once"
)]
#![expect(unsafe_code, reason = "vector loads through pointers; each block has its SAFETY line")]

use std::arch::x86_64::__m256;
use std::arch::x86_64::__m256i;
use std::arch::x86_64::_mm_load_si128;
use std::arch::x86_64::_mm_loadu_si128;
use std::arch::x86_64::_mm256_abs_epi8;
use std::arch::x86_64::_mm256_add_epi16;
use std::arch::x86_64::_mm256_add_epi32;
use std::arch::x86_64::_mm256_add_ps;
use std::arch::x86_64::_mm256_and_si256;
use std::arch::x86_64::_mm256_cvtepi32_ps;
use std::arch::x86_64::_mm256_cvtph_ps;
use std::arch::x86_64::_mm256_fmadd_ps;
use std::arch::x86_64::_mm256_load_si256;
use std::arch::x86_64::_mm256_loadu_ps;
use std::arch::x86_64::_mm256_madd_epi16;
use std::arch::x86_64::_mm256_maddubs_epi16;
use std::arch::x86_64::_mm256_mul_ps;
use std::arch::x86_64::_mm256_or_si256;
use std::arch::x86_64::_mm256_set1_epi8;
use std::arch::x86_64::_mm256_set1_epi16;
use std::arch::x86_64::_mm256_set1_epi32;
use std::arch::x86_64::_mm256_set1_ps;
use std::arch::x86_64::_mm256_setzero_ps;
use std::arch::x86_64::_mm256_setzero_si256;
use std::arch::x86_64::_mm256_sign_epi8;
use std::arch::x86_64::_mm256_slli_epi16;
use std::arch::x86_64::_mm256_srli_epi16;
use std::arch::x86_64::_mm256_storeu_ps;
use std::arch::x86_64::_mm256_sub_epi32;
use std::arch::x86_64::_mm256_xor_si256;

use super::BlockCodes;
use super::KernelRows;
use super::KernelTile;
use super::OutputMode;
use super::QuantizedRows;
use super::TileOut;
use super::attention::KvElement;
use super::attention::RightPanel;
use super::attention::StridedRows;
use super::pack::BlockOffset;
use super::pack::BlockScales;
use super::pack::CodeFormat;
use super::pack::CodeLine;
use super::prefetch::PrefetchPlan;

/// Activation rows per kernel call: two sums per row and a pair of code registers, with
/// temporaries, fill the 16 registers.
pub(super) const ROWS: usize = 6;
/// Rows per panel product: 6 x 16 sums fill 12 of 16 registers.
pub(super) const PANEL_ROWS: usize = 6;
/// Panel columns per kernel call.
const WIDTH: usize = 16;
/// `f32` lanes per register: half the rows of a tile.
const LANES: usize = 8;

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
    let kernel = kernel(format);
    let prefetch =
        if input.n_rows <= ROWS { PrefetchPlan::for_memory() } else { PrefetchPlan::Nothing };
    let tile = KernelTile { n_blocks, zero: format.zero, codes, scales, prefetch };
    for group in 0..input.n_groups(ROWS) {
        let rows = input.group(group);
        // SAFETY: `Isa::is_available` saw the features; the tile's lengths were checked above; the
        // rows have as many blocks, and the target has them.
        unsafe { kernel(&tile, &rows, target) };
    }
}

type Avx2Kernel = unsafe fn(&KernelTile<'_>, &KernelRows<'_>, &TileOut<'_>);

/// Zero point of `Q6_K`, the only format with a scale per half block.
const ZERO: i32 = 32;

// `BlockOffset` as a const generic parameter, so that each format gets a kernel without branches.
const NOTHING: u8 = 0;
const MIN: u8 = 1;
const SCALE: u8 = 2;

fn kernel(format: CodeFormat) -> Avx2Kernel {
    match (format.bits, format.second) {
        (4, BlockOffset::Nothing) => rows::<4, NOTHING>,
        (4, BlockOffset::Min) => rows::<4, MIN>,
        (5, BlockOffset::Nothing) => rows::<5, NOTHING>,
        (5, BlockOffset::Min) => rows::<5, MIN>,
        (6, BlockOffset::Scale) => rows::<6, SCALE>,
        (8, BlockOffset::Nothing) => rows::<8, NOTHING>,
        other => unreachable!("no packed format is {other:?}"),
    }
}

/// Computes up to [`ROWS`] rows. A single row sweeps over the tile once, front to back, for memory
/// bandwidth; several rows sweep over each half separately, so that their sums stay in registers.
///
/// # Safety
/// The processor has the features; the codes and scales of the tile and the activations are those
/// of `tile.n_blocks` blocks; there are `1..=ROWS` rows, and the target has them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const BITS: usize, const SECOND: u8>(
    tile: &KernelTile<'_>,
    rows: &KernelRows<'_>,
    target: &TileOut<'_>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        if rows.n == 1 {
            sweep::<1, 2, BITS, SECOND>(tile, rows, 0, target);
            return;
        }
        for half in 0..2 {
            match rows.n {
                2 => sweep::<2, 1, BITS, SECOND>(tile, rows, half, target),
                3 => sweep::<3, 1, BITS, SECOND>(tile, rows, half, target),
                4 => sweep::<4, 1, BITS, SECOND>(tile, rows, half, target),
                5 => sweep::<5, 1, BITS, SECOND>(tile, rows, half, target),
                _ => sweep::<6, 1, BITS, SECOND>(tile, rows, half, target),
            }
        }
    }
}

/// Sweeps over the tile once, for `N` activation rows and `HALVES` halves (8 tile rows each)
/// starting at `first_half`.
///
/// # Safety
/// As [`rows`], for `N` rows; `first_half + HALVES <= 2`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn sweep<const N: usize, const HALVES: usize, const BITS: usize, const SECOND: u8>(
    tile: &KernelTile<'_>,
    rows: &KernelRows<'_>,
    first_half: usize,
    target: &TileOut<'_>,
) {
    let n_lines = if BITS == 8 { 8 } else { BITS };
    let n_scales = if SECOND == NOTHING { 1 } else { 2 };
    let zero = _mm256_set1_ps(-tile.zero);
    let mut sums = [[_mm256_setzero_ps(); HALVES]; N];
    for block in 0..tile.n_blocks {
        for h in 0..HALVES {
            let half = first_half + h;
            // SAFETY: the block's lines, scales and activations exist by this function's contract;
            // what is ahead is not read.
            unsafe {
                let inputs = rows.codes.as_ptr().add(block * ROWS);
                let lines = tile.codes.as_ptr().add(block * n_lines);
                let scales = tile.scales.as_ptr().add(block * n_scales);
                // A line holds both halves, so the sweep over the first one prefetches for both.
                if half == 0 {
                    tile.prefetch.block((lines, n_lines), (scales, n_scales));
                }
                let dots = dots::<N, BITS>(lines, half, inputs);
                let first = load_scales(scales, half);
                let second =
                    if SECOND == NOTHING { first } else { load_scales(scales.add(1), half) };
                for i in 0..N {
                    let numbers = &*rows.numbers.as_ptr().add(block * ROWS + i);
                    let scale = _mm256_set1_ps(numbers.scale);
                    if SECOND == SCALE {
                        // `vpmaddubsw` has no initial value: the zero point is subtracted
                        // afterwards, as zero * sum of the inputs.
                        let [low, high] = numbers.halves.map(|half| _mm256_set1_epi32(half * ZERO));
                        let low = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots[0][i], low));
                        let high = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots[1][i], high));
                        let both = _mm256_fmadd_ps(high, second, _mm256_mul_ps(low, first));
                        sums[i][h] = _mm256_fmadd_ps(both, scale, sums[i][h]);
                        continue;
                    }
                    // dot * activation scale comes first: the product is shared by both halves of
                    // the tile.
                    let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[0][i]), scale);
                    let mut sum = _mm256_fmadd_ps(dot, first, sums[i][h]);
                    if SECOND == MIN {
                        sum = _mm256_fmadd_ps(second, _mm256_set1_ps(numbers.sum), sum);
                    // At 8 bits `dots` flips the sign bit itself, so there is no zero point left to
                    // subtract.
                    } else if BITS != 8 {
                        let min = _mm256_mul_ps(first, zero);
                        sum = _mm256_fmadd_ps(min, _mm256_set1_ps(numbers.sum), sum);
                    }
                    sums[i][h] = sum;
                }
            }
        }
    }
    for (i, sums) in sums.into_iter().enumerate() {
        for (h, mut sum) in sums.into_iter().enumerate() {
            let column = (first_half + h) * LANES;
            // SAFETY: the target has 16 floats for each of the rows, and so has the bias.
            unsafe {
                if let Some(bias) = target.bias {
                    sum = _mm256_add_ps(sum, _mm256_loadu_ps(bias.as_ptr().add(column)));
                }
                let out = target.first.add((rows.first + i) * target.stride + column);
                if target.write == OutputMode::Add {
                    sum = _mm256_add_ps(_mm256_loadu_ps(out), sum);
                }
                _mm256_storeu_ps(out, sum);
            }
        }
    }
}

/// Computes the dot products of a block, for 8 tile rows and `N` activation rows. The first array
/// covers all 32 inputs; at 6 bits, each array covers one half of them. Activation rows alternate,
/// so that no addition waits for the one before it.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn dots<const N: usize, const BITS: usize>(
    lines: *const CodeLine,
    half: usize,
    inputs: *const BlockCodes,
) -> [[__m256i; N]; 2] {
    let ones = _mm256_set1_epi16(1);
    // Rows 0-7 of a tile are the first 32 bytes of a line, rows 8-15 the last.
    // SAFETY: the lines exist; a line is two aligned registers.
    let load =
        |line: usize| unsafe { _mm256_load_si256(lines.add(line).cast::<__m256i>().add(half)) };
    // SAFETY: the codes exist; unaligned words are read as arrays of bytes.
    let four = |row: usize, group: usize| unsafe {
        let inputs = inputs.add(row).cast::<[u8; 4]>();
        _mm256_set1_epi32(i32::from_ne_bytes(*inputs.add(group)))
    };
    let mut dots = [[_mm256_setzero_si256(); N]; 2];
    if BITS == 8 {
        // `vpmaddubsw` multiplies unsigned by signed bytes. Signed codes become magnitudes, and
        // their sign moves to the activations: |c| * (sign(c) x) = c x. Two products of at most
        // 128 * 127 fit 16 bits.
        let sign = _mm256_set1_epi8(i8::MIN);
        for group in 0..8 {
            let code = _mm256_xor_si256(load(group), sign);
            let size = _mm256_abs_epi8(code);
            for i in 0..N {
                let signed = _mm256_sign_epi8(four(i, group), code);
                let pairs = _mm256_maddubs_epi16(size, signed);
                dots[0][i] = _mm256_add_epi32(dots[0][i], _mm256_madd_epi16(pairs, ones));
            }
        }
        return dots;
    }
    let bits = if BITS == 4 { [ones; 2] } else { [load(4), load(BITS - 1)] };
    // Lines whose 16-bit sums can be added before they could overflow. A pair of products is at
    // most 2 * 127 * (2^BITS - 1): 3,810 at 4 bits, 8 of which fit; 7,874 and 16,002 at 5 and 6
    // bits. A line adds two pairs, at 6 bits one to each half's sum.
    let full = if BITS == 4 { 4 } else { 2 };
    for first in (0..4).step_by(full) {
        let mut pairs = [[_mm256_setzero_si256(); N]; 2];
        for line in first..first + full {
            let codes = unpack::<BITS>(load(line), line, &bits);
            for (place, code) in codes.into_iter().enumerate() {
                for i in 0..N {
                    // The high nibbles of line g are group g + 4, the second half of the inputs.
                    let products = _mm256_maddubs_epi16(code, four(i, line + 4 * place));
                    let sums = &mut pairs[if BITS == 6 { place } else { 0 }][i];
                    *sums = _mm256_add_epi16(*sums, products);
                }
            }
        }
        for (dots, pairs) in dots.iter_mut().zip(pairs).take(if BITS == 6 { 2 } else { 1 }) {
            for i in 0..N {
                dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(pairs[i], ones));
            }
        }
    }
    dots
}

/// Unpacks groups `group` and `group + 4` from the line with their nibbles and the lines with bits
/// 4 and 5, which are ignored for narrower codes.
#[target_feature(enable = "avx2")]
#[inline]
fn unpack<const BITS: usize>(nibbles: __m256i, group: usize, bits: &[__m256i; 2]) -> [__m256i; 2] {
    let nibble = _mm256_set1_epi8(15);
    let mut codes = [
        _mm256_and_si256(nibbles, nibble),
        _mm256_and_si256(_mm256_srli_epi16::<4>(nibbles), nibble),
    ];
    for bit in 4..BITS {
        let line = bits[bit - 4];
        let mask = _mm256_set1_epi8(1 << bit);
        // Bit `group` of each byte moves to bit `bit`.
        let moved = match (bit, group) {
            (4, 0) => [_mm256_slli_epi16::<4>(line), line],
            (4, 1) => [_mm256_slli_epi16::<3>(line), _mm256_srli_epi16::<1>(line)],
            (4, 2) => [_mm256_slli_epi16::<2>(line), _mm256_srli_epi16::<2>(line)],
            (4, _) => [_mm256_slli_epi16::<1>(line), _mm256_srli_epi16::<3>(line)],
            (_, 0) => [_mm256_slli_epi16::<5>(line), _mm256_slli_epi16::<1>(line)],
            (_, 1) => [_mm256_slli_epi16::<4>(line), line],
            (_, 2) => [_mm256_slli_epi16::<3>(line), _mm256_srli_epi16::<1>(line)],
            _ => [_mm256_slli_epi16::<2>(line), _mm256_srli_epi16::<2>(line)],
        };
        for (code, moved) in codes.iter_mut().zip(moved) {
            *code = _mm256_or_si256(*code, _mm256_and_si256(moved, mask));
        }
    }
    codes
}

/// Loads the half-precision values of 8 rows as `f32`.
///
/// # Safety
/// The processor has the features and `scales` points to a [`BlockScales`]; `half` is 0 or 1.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn load_scales(scales: *const BlockScales, half: usize) -> __m256 {
    // SAFETY: 16 aligned bytes of 32.
    _mm256_cvtph_ps(unsafe {
        _mm_load_si128(scales.cast::<std::arch::x86_64::__m128i>().add(half))
    })
}

/// Adds the product of up to [`PANEL_ROWS`] rows of `left` with the panel to `out`. `places` has
/// the start of each row in `left` and in `out`.
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
    let wide = panel.width / WIDTH * WIDTH;
    for column in (0..wide).step_by(WIDTH) {
        // SAFETY: `Isa::is_available` saw the features; rows, panel and `WIDTH` columns exist, as
        // checked above.
        unsafe {
            match places.len() {
                1 => add_columns::<1, T>(left, panel, places, column, out),
                2 => add_columns::<2, T>(left, panel, places, column, out),
                3 => add_columns::<3, T>(left, panel, places, column, out),
                4 => add_columns::<4, T>(left, panel, places, column, out),
                5 => add_columns::<5, T>(left, panel, places, column, out),
                _ => add_columns::<{ PANEL_ROWS }, T>(left, panel, places, column, out),
            }
        }
    }
    // Remaining columns one at a time: AVX2 has no masked half-precision loads.
    for (from, to) in places {
        for column in wide..panel.width {
            let out = &mut out[to + column];
            for k in 0..panel.depth {
                let value = panel.values[k * panel.stride + column].widened();
                *out = left.values[from + k * left.step].mul_add(value, *out);
            }
        }
    }
}

/// [`multiply_panel`] for `N` rows and `WIDTH` columns starting at `column`.
///
/// # Safety
/// The processor has the features; `places` has `N` places of `panel.depth` numbers in `left` and
/// `column + WIDTH` numbers in `out`; `panel` is whole and at least `column + WIDTH` wide.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_columns<const N: usize, T: KvElement>(
    left: StridedRows<'_>,
    panel: &RightPanel<'_, T>,
    places: &[(usize, usize)],
    column: usize,
    out: &mut [f32],
) {
    let places: &[(usize, usize); N] = places.first_chunk().expect("as many places as rows");
    // SAFETY: see above; all reads and writes lie within the rows and the panel.
    unsafe {
        let rows: [*const f32; N] = std::array::from_fn(|i| left.values.as_ptr().add(places[i].0));
        let outs: [*mut f32; N] =
            std::array::from_fn(|i| out.as_mut_ptr().add(places[i].1 + column));
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        let mut values = panel.values.as_ptr().add(column);
        for k in 0..panel.depth {
            let [low, high] = [load_numbers(values), load_numbers(values.add(LANES))];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let factor = _mm256_set1_ps(*row.add(k * left.step));
                sums[0] = _mm256_fmadd_ps(factor, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(factor, high, sums[1]);
            }
            values = values.add(panel.stride);
        }
        for (sums, out) in sums.into_iter().zip(outs) {
            for (sum, out) in sums.into_iter().zip([out, out.add(LANES)]) {
                _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), sum));
            }
        }
    }
}

/// Loads 8 elements as `f32`.
///
/// # Safety
/// The processor has the features and 8 elements can be read.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn load_numbers<T: KvElement>(from: *const T) -> __m256 {
    // SAFETY: passed on to the caller.
    unsafe {
        if T::IS_HALF {
            _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
        } else {
            _mm256_loadu_ps(from.cast())
        }
    }
}
