//! The kernels on AVX-512 VNNI.

#![expect(unsafe_code, reason = "vector loads through pointers; each block has its SAFETY line")]

use std::arch::x86_64::__m512;
use std::arch::x86_64::__m512i;
use std::arch::x86_64::_mm256_load_si256;
use std::arch::x86_64::_mm512_and_si512;
use std::arch::x86_64::_mm512_cvtepi32_ps;
use std::arch::x86_64::_mm512_cvtph_ps;
use std::arch::x86_64::_mm512_dpbusd_epi32;
use std::arch::x86_64::_mm512_fmadd_ps;
use std::arch::x86_64::_mm512_load_si512;
use std::arch::x86_64::_mm512_mask_add_epi8;
use std::arch::x86_64::_mm512_mul_ps;
use std::arch::x86_64::_mm512_set1_epi8;
use std::arch::x86_64::_mm512_set1_epi32;
use std::arch::x86_64::_mm512_set1_ps;
use std::arch::x86_64::_mm512_setzero_ps;
use std::arch::x86_64::_mm512_setzero_si512;
use std::arch::x86_64::_mm512_srli_epi16;
use std::arch::x86_64::_mm512_storeu_ps;
use std::arch::x86_64::_mm512_test_epi8_mask;

use super::Activations;
use super::BLOCK;
use super::TILE;
use super::pack::Format;
use super::pack::Line;
use super::pack::Scales;
use super::pack::Second;

/// Activation rows that are computed together: 8 sums, 8 groups of codes and their helpers fill 32 registers.
const ROWS: usize = 8;

/// Multiplies a tile by every row of `input`; `done` gets each row's 16 results.
///
/// # Panics
/// When the slices are shorter than `input.columns` asks for.
pub(super) fn multiply_tile(
    format: Format,
    codes: &[Line],
    scales: &[Scales],
    input: &Activations,
    mut done: impl FnMut(usize, &mut [f32; TILE]),
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
        // SAFETY: `Isa::detect` saw the features; lengths were checked above, and rows `row..row + n` exist.
        unsafe { kernel(n, &tile, &mut results) };
        for (i, result) in results[..n].iter_mut().enumerate() {
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

/// Picks the kernel for the number of rows, so that the loop over rows is unrolled.
///
/// # Safety
/// As [`block_rows`], for `n` rows; `n` in `1..=ROWS`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn rows<const BITS: usize, const SECOND: u8>(
    n: usize,
    tile: &Tile<'_>,
    results: &mut [[f32; TILE]; ROWS],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match n {
            1 => block_rows::<1, BITS, SECOND>(tile, results),
            2 => block_rows::<2, BITS, SECOND>(tile, results),
            3 => block_rows::<3, BITS, SECOND>(tile, results),
            4 => block_rows::<4, BITS, SECOND>(tile, results),
            5 => block_rows::<5, BITS, SECOND>(tile, results),
            6 => block_rows::<6, BITS, SECOND>(tile, results),
            7 => block_rows::<7, BITS, SECOND>(tile, results),
            _ => block_rows::<8, BITS, SECOND>(tile, results),
        }
    }
}

/// Repeats a body for the constants below the bound, at most 8: the arrays indexed by them then live in
/// registers, which a loop does not promise.
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

/// Multiplies the tile by `N` rows of activations, block after block.
///
/// # Safety
/// The processor has the features; `tile.codes` and `tile.scales` hold all blocks of `input.columns`; rows
/// `tile.row..tile.row + N` exist in `tile.input` and are quantised.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn block_rows<const N: usize, const BITS: usize, const SECOND: u8>(
    tile: &Tile<'_>,
    results: &mut [[f32; TILE]; ROWS],
) {
    let input = tile.input;
    let n_blocks = input.columns / BLOCK;
    let n_lines = if BITS == 8 { 8 } else { BITS };
    let n_scales = if SECOND == NOTHING { 1 } else { 2 };
    let zero = _mm512_set1_ps(-tile.zero);
    // Macros and not closures: the compiler would leave calls to those.
    macro_rules! at {
        ($i:expr, $block:expr) => {
            (tile.row + $i) * n_blocks + $block
        };
    }
    macro_rules! four {
        ($at:expr, $group:expr) => {{
            let inputs = input.codes.as_ptr().add($at * BLOCK).cast::<[u8; 4]>();
            _mm512_set1_epi32(i32::from_ne_bytes(*inputs.add($group)))
        }};
    }
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for block in 0..n_blocks {
        // SAFETY: the block's lines, scales and activations exist by this function's contract.
        unsafe {
            let codes = unpack::<BITS>(tile.codes.as_ptr().add(block * n_lines));
            let scales = tile.scales.as_ptr().add(block * n_scales);
            let first = load_scales(scales);
            let second = if SECOND == NOTHING { first } else { load_scales(scales.add(1)) };
            let mut dots = [_mm512_setzero_si512(); ROWS];
            unroll!(G < 4 => unroll!(I < N => {
                dots[I] = _mm512_dpbusd_epi32(dots[I], codes[G], four!(at!(I, block), G));
            }));
            if SECOND == SCALE {
                let min = _mm512_mul_ps(first, zero);
                unroll!(I < N => {
                    let block = &*input.blocks.as_ptr().add(at!(I, block));
                    let weight = _mm512_mul_ps(first, _mm512_set1_ps(block.scale));
                    sums[I] = _mm512_fmadd_ps(weight, _mm512_cvtepi32_ps(dots[I]), sums[I]);
                    sums[I] = _mm512_fmadd_ps(min, _mm512_set1_ps(block.halves[0]), sums[I]);
                    dots[I] = _mm512_setzero_si512();
                });
            }
            unroll!(G < 4 => unroll!(I < N => {
                dots[I] = _mm512_dpbusd_epi32(dots[I], codes[G + 4], four!(at!(I, block), G + 4));
            }));
            let weight = if SECOND == SCALE { second } else { first };
            let min = if SECOND == MIN { second } else { _mm512_mul_ps(weight, zero) };
            unroll!(I < N => {
                let block = &*input.blocks.as_ptr().add(at!(I, block));
                let sum = if SECOND == SCALE { block.halves[1] } else { block.sum };
                let weight = _mm512_mul_ps(weight, _mm512_set1_ps(block.scale));
                sums[I] = _mm512_fmadd_ps(weight, _mm512_cvtepi32_ps(dots[I]), sums[I]);
                sums[I] = _mm512_fmadd_ps(min, _mm512_set1_ps(sum), sums[I]);
            });
        }
    }
    for (result, sum) in results[..N].iter_mut().zip(sums) {
        // SAFETY: a result is 16 floats.
        unsafe { _mm512_storeu_ps(result.as_mut_ptr(), sum) };
    }
}

/// Reads 16 half-precision numbers.
///
/// # Safety
/// The processor has the features and `scales` points to a [`Scales`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_scales(scales: *const Scales) -> __m512 {
    // SAFETY: 32 aligned bytes.
    _mm512_cvtph_ps(unsafe { _mm256_load_si256(scales.cast()) })
}

/// The codes of one block, a group a register.
///
/// # Safety
/// The processor has the features and `lines` points to as many lines as the format has.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn unpack<const BITS: usize>(lines: *const Line) -> [__m512i; 8] {
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
            let line = _mm512_load_si512(lines.add(group).cast());
            codes[group] = _mm512_and_si512(line, nibble);
            codes[group + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibble);
        }
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
