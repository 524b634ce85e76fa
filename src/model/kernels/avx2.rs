//! The kernels on AVX2, FMA and F16C.
//!
//! `vpmaddubsw` multiplies unsigned codes by signed activations and adds pairs into 16 bits, where as many pairs are
//! gathered as fit: all eight groups of 4-bit codes (8 * 2 * 15 * 127 < 2^15), four of 5 bits, two of 6. Only
//! then `vpmaddwd` widens them. Codes of 8 bits are taken as signed ones, whose sign goes to the activation.

#![expect(unsafe_code, reason = "vector loads through pointers; each block has its SAFETY line")]

use std::arch::x86_64::__m256;
use std::arch::x86_64::__m256i;
use std::arch::x86_64::_mm_load_si128;
use std::arch::x86_64::_mm256_abs_epi8;
use std::arch::x86_64::_mm256_add_epi16;
use std::arch::x86_64::_mm256_add_epi32;
use std::arch::x86_64::_mm256_and_si256;
use std::arch::x86_64::_mm256_cvtepi32_ps;
use std::arch::x86_64::_mm256_cvtph_ps;
use std::arch::x86_64::_mm256_fmadd_ps;
use std::arch::x86_64::_mm256_load_si256;
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
use std::arch::x86_64::_mm256_xor_si256;

use super::Activations;
use super::BLOCK;
use super::TILE;
use super::pack::Format;
use super::pack::Line;
use super::pack::Scales;
use super::pack::Second;

/// Activation rows that are computed together: their sums and eight groups of codes fill 16 registers.
const ROWS: usize = 4;
/// Rows of a tile in one register.
const LANES: usize = 8;

/// Multiplies a tile by every row of `input`; `done` gets each row's 16 results.
///
/// # Panics
/// When the slices are shorter than `input.columns` asks for.
pub(super) fn multiply_tile(
    format: Format,
    codes: &[Line],
    scales: &[Scales],
    input: &Activations,
    mut done: impl FnMut(usize, &[f32; TILE]),
) {
    let n_blocks = input.columns / BLOCK;
    assert!(codes.len() >= n_blocks * format.n_lines(), "codes for every block");
    assert!(scales.len() >= n_blocks * format.n_scales(), "scales for every block");
    assert!(input.codes.len() >= input.n_rows * input.columns, "activations are quantised");
    assert!(input.blocks.len() >= input.n_rows * n_blocks, "activations are quantised");
    let kernel = kernel(format);
    let mut row = 0;
    let mut results = [[0.0; TILE]; ROWS];
    while row < input.n_rows {
        let n = ROWS.min(input.n_rows - row);
        let tile = Tile { zero: format.zero, codes, scales, input, row };
        // SAFETY: `Isa::is_available` saw the features; lengths were checked above, and rows `row..row + n` exist.
        unsafe { kernel(n, &tile, &mut results) };
        for (i, result) in results[..n].iter().enumerate() {
            done(row + i, result);
        }
        row += n;
    }
}

/// What a kernel works on.
struct Tile<'a> {
    zero: f32,
    codes: &'a [Line],
    scales: &'a [Scales],
    input: &'a Activations,
    /// The first activation row.
    row: usize,
}

type Kernel = unsafe fn(usize, &Tile<'_>, &mut [[f32; TILE]; ROWS]);

const NOTHING: u8 = 0;
const MIN: u8 = 1;
const SCALE: u8 = 2;

fn kernel(format: Format) -> Kernel {
    match (format.bits, format.second) {
        (4, Second::Nothing) => rows::<4, NOTHING>,
        (4, Second::Min) => rows::<4, MIN>,
        (5, Second::Nothing) => rows::<5, NOTHING>,
        (5, Second::Min) => rows::<5, MIN>,
        (6, Second::Scale) => rows::<6, SCALE>,
        (8, Second::Nothing) => rows::<8, NOTHING>,
        other => unreachable!("no packed format is {other:?}"),
    }
}

/// Computes `n` rows. One row reads the tile once, front to back, as memory likes it; several rows read each half of
/// it by itself, so that their sums stay in registers.
///
/// # Safety
/// The processor has the features; `tile.codes` and `tile.scales` hold all blocks of `input.columns`; rows
/// `tile.row..tile.row + n` exist in `tile.input` and are quantised; `n` in `1..=ROWS`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const BITS: usize, const SECOND: u8>(
    n: usize,
    tile: &Tile<'_>,
    results: &mut [[f32; TILE]; ROWS],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        if n == 1 {
            sweep::<1, 2, BITS, SECOND>(tile, 0, results);
            return;
        }
        for half in 0..2 {
            match n {
                2 => sweep::<2, 1, BITS, SECOND>(tile, half, results),
                3 => sweep::<3, 1, BITS, SECOND>(tile, half, results),
                _ => sweep::<4, 1, BITS, SECOND>(tile, half, results),
            }
        }
    }
}

/// Goes once through the tile, for `N` rows of activations and `HALVES` halves of the tile from `first_half` on.
///
/// # Safety
/// As [`rows`], for `N` rows; `first_half + HALVES <= 2`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn sweep<const N: usize, const HALVES: usize, const BITS: usize, const SECOND: u8>(
    tile: &Tile<'_>,
    first_half: usize,
    results: &mut [[f32; TILE]; ROWS],
) {
    let n_blocks = tile.input.columns / BLOCK;
    let n_lines = if BITS == 8 { 8 } else { BITS };
    let n_scales = if SECOND == NOTHING { 1 } else { 2 };
    let zero = _mm256_set1_ps(-tile.zero);
    let mut sums = [[_mm256_setzero_ps(); HALVES]; N];
    for block in 0..n_blocks {
        for h in 0..HALVES {
            let half = first_half + h;
            // SAFETY: the block's lines, scales and activations exist by this function's contract.
            unsafe {
                let codes = unpack::<BITS>(tile.codes.as_ptr().add(block * n_lines), half);
                let scales = tile.scales.as_ptr().add(block * n_scales);
                let first = load_scales(scales, half);
                let second =
                    if SECOND == NOTHING { first } else { load_scales(scales.add(1), half) };
                for (i, sums) in sums.iter_mut().enumerate() {
                    let at = (tile.row + i) * n_blocks + block;
                    let inputs = tile.input.codes.as_ptr().add(at * BLOCK);
                    let numbers = &*tile.input.blocks.as_ptr().add(at);
                    let scale = _mm256_set1_ps(numbers.scale);
                    let dots = dots::<BITS>(&codes, inputs).map(|dot| {
                        // The scale of activations first: it is the same for both halves of a block.
                        _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale)
                    });
                    let mut sum = _mm256_fmadd_ps(dots[0], first, sums[h]);
                    if SECOND == SCALE {
                        let [low, high] = numbers.halves;
                        sum = _mm256_fmadd_ps(dots[1], second, sum);
                        sum = _mm256_fmadd_ps(_mm256_mul_ps(first, zero), _mm256_set1_ps(low), sum);
                        sum =
                            _mm256_fmadd_ps(_mm256_mul_ps(second, zero), _mm256_set1_ps(high), sum);
                    } else if SECOND == MIN {
                        sum = _mm256_fmadd_ps(second, _mm256_set1_ps(numbers.sum), sum);
                    } else if BITS != 8 {
                        let min = _mm256_mul_ps(first, zero);
                        sum = _mm256_fmadd_ps(min, _mm256_set1_ps(numbers.sum), sum);
                    }
                    sums[h] = sum;
                }
            }
        }
    }
    for (result, sums) in results.iter_mut().zip(sums) {
        for (h, sum) in sums.into_iter().enumerate() {
            let place = &mut result[(first_half + h) * LANES..][..LANES];
            // SAFETY: `place` is 8 floats.
            unsafe { _mm256_storeu_ps(place.as_mut_ptr(), sum) };
        }
    }
}

/// The dot products of a block for 8 rows of the tile: of all 32 inputs in the first place, but for 6 bits, where
/// either half of the inputs has a place.
///
/// # Safety
/// The processor has the features and `inputs` points to 32 activation codes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn dots<const BITS: usize>(codes: &[__m256i; 8], inputs: *const i8) -> [__m256i; 2] {
    let ones = _mm256_set1_epi16(1);
    let widen = |pairs| _mm256_madd_epi16(pairs, ones);
    // SAFETY: the 32 codes exist; unaligned words are read as arrays of bytes.
    let four = |group: usize| unsafe {
        _mm256_set1_epi32(i32::from_ne_bytes(*inputs.cast::<[u8; 4]>().add(group)))
    };
    let mut dots = [_mm256_setzero_si256(); 2];
    if BITS == 8 {
        for group in 0..8 {
            let code = codes[group];
            let signed = _mm256_sign_epi8(four(group), code);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), signed);
            dots[0] = _mm256_add_epi32(dots[0], widen(pairs));
        }
        return dots;
    }
    let fit = match BITS {
        4 => 8,
        5 => 4,
        _ => 2,
    };
    for first in (0..8).step_by(fit) {
        let mut pairs = _mm256_maddubs_epi16(codes[first], four(first));
        for group in first + 1..first + fit {
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes[group], four(group)));
        }
        let place = usize::from(BITS == 6 && first >= 4);
        dots[place] = _mm256_add_epi32(dots[place], widen(pairs));
    }
    dots
}

/// Reads the half-precision numbers of 8 rows.
///
/// # Safety
/// The processor has the features and `scales` points to a [`Scales`]; `half` is 0 or 1.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn load_scales(scales: *const Scales, half: usize) -> __m256 {
    // SAFETY: 16 aligned bytes of 32.
    _mm256_cvtph_ps(unsafe {
        _mm_load_si128(scales.cast::<std::arch::x86_64::__m128i>().add(half))
    })
}

/// The codes of one block for 8 rows, a group a register; unsigned, but for 8 bits.
///
/// # Safety
/// The processor has the features and `lines` points to as many lines as the format has; `half` is 0 or 1.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn unpack<const BITS: usize>(lines: *const Line, half: usize) -> [__m256i; 8] {
    let mut codes = [_mm256_setzero_si256(); 8];
    // SAFETY: `BITS` lines (8 for 8 bits) exist; a line is two aligned registers.
    let load =
        |line: usize| unsafe { _mm256_load_si256(lines.add(line).cast::<__m256i>().add(half)) };
    if BITS == 8 {
        let sign = _mm256_set1_epi8(i8::MIN);
        for (group, code) in codes.iter_mut().enumerate() {
            *code = _mm256_xor_si256(load(group), sign);
        }
        return codes;
    }
    let nibble = _mm256_set1_epi8(15);
    for group in 0..4 {
        let line = load(group);
        codes[group] = _mm256_and_si256(line, nibble);
        codes[group + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(line), nibble);
    }
    for bit in 4..BITS {
        let line = load(bit);
        let mask = _mm256_set1_epi8(1 << bit);
        // Bit `group` of each byte moves to bit `bit`.
        let moved = [
            _mm256_slli_epi16::<4>(line),
            _mm256_slli_epi16::<3>(line),
            _mm256_slli_epi16::<2>(line),
            _mm256_slli_epi16::<1>(line),
            line,
            _mm256_srli_epi16::<1>(line),
            _mm256_srli_epi16::<2>(line),
            _mm256_srli_epi16::<3>(line),
            _mm256_slli_epi16::<5>(line),
        ];
        for (group, code) in codes.iter_mut().enumerate() {
            let moved = if bit == 4 { moved[group] } else { moved[(group + 8) % 9] };
            *code = _mm256_or_si256(*code, _mm256_and_si256(moved, mask));
        }
    }
    codes
}
