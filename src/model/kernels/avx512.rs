//! The kernels on AVX-512 VNNI.

#![expect(unsafe_code, reason = "vector loads through pointers; each block has its SAFETY line")]

use std::arch::x86_64::__m512;
use std::arch::x86_64::__m512i;
use std::arch::x86_64::_MM_HINT_NTA;
use std::arch::x86_64::_mm_dpbusd_epi32;
use std::arch::x86_64::_mm_extract_epi32;
use std::arch::x86_64::_mm_hadd_epi32;
use std::arch::x86_64::_mm_prefetch;
use std::arch::x86_64::_mm_set1_epi8;
use std::arch::x86_64::_mm_setzero_si128;
use std::arch::x86_64::_mm_storeu_si128;
use std::arch::x86_64::_mm256_load_si256;
use std::arch::x86_64::_mm512_abs_ps;
use std::arch::x86_64::_mm512_add_epi32;
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

use super::Activations;
use super::BLOCK;
use super::BlockNumbers;
use super::TILE;
use super::pack::Format;
use super::pack::Line;
use super::pack::Scales;
use super::pack::Second;
use super::vector::NOTHING;

/// Activation rows that are computed together: 8 sums, 8 groups of codes and their helpers fill 32 registers.
const ROWS: usize = 8;
/// Blocks between the one that is computed and the one that is asked for from memory.
const AHEAD: usize = 8;

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
    let mut tile = Tile { codes, scales, input, row: 0, is_read_once: input.n_rows <= ROWS };
    let mut results = [[0.0; TILE]; ROWS];
    let mut rows = |kernel: Kernel, tile: &mut Tile<'_>| {
        while tile.row < input.n_rows {
            let n = ROWS.min(input.n_rows - tile.row);
            // SAFETY: `Isa::is_available` saw the features; lengths were checked above, or the codes are those of all
            // blocks at 8 bits; rows `row..row + n` exist.
            unsafe { kernel(n, tile, &mut results) };
            for (i, result) in results[..n].iter_mut().enumerate() {
                done(tile.row + i, result);
            }
            tile.row += n;
        }
    };
    if tile.is_read_once || !matches!(format.bits, 5 | 6) {
        return rows(kernel(format), &mut tile);
    }
    // Single bits are put in their places once for all rows.
    WIDE.with_borrow_mut(|wide| {
        widen(format, &codes[..n_blocks * format.n_lines()], wide);
        rows(wide_kernel(format), &mut Tile { codes: wide, ..tile });
    });
}

thread_local! {
    /// The codes of one tile at 8 bits.
    static WIDE: RefCell<Vec<Line>> = RefCell::default();
}

/// Writes the codes of all blocks at 8 bits.
fn widen(format: Format, codes: &[Line], wide: &mut Vec<Line>) {
    wide.resize(codes.len() / format.n_lines() * 8, Line([0; 64]));
    let blocks = codes.chunks_exact(format.n_lines()).zip(wide.chunks_exact_mut(8));
    for (lines, wide) in blocks {
        // SAFETY: `Isa::is_available` saw the features; a block has as many lines as its format, 8 at 8 bits.
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

/// What a kernel works on.
#[derive(Clone, Copy)]
struct Tile<'a> {
    codes: &'a [Line],
    scales: &'a [Scales],
    input: &'a Activations,
    /// The first activation row.
    row: usize,
    /// Whether these rows are all: the tile then comes from memory and need not stay in the caches.
    is_read_once: bool,
}

type Kernel = unsafe fn(usize, &Tile<'_>, &mut [[f32; TILE]; ROWS]);

const NONE: u8 = 0;
const MIN: u8 = 1;
const SCALE: u8 = 2;

fn kernel(format: Format) -> Kernel {
    match (format.bits, format.second) {
        (4, Second::Nothing) => rows::<4, NONE, 3>,
        (4, Second::Min) => rows::<4, MIN, 0>,
        (5, Second::Nothing) => rows::<5, NONE, 4>,
        (5, Second::Min) => rows::<5, MIN, 0>,
        (6, Second::Scale) => rows::<6, SCALE, 5>,
        (8, Second::Nothing) => rows::<8, NONE, 7>,
        other => unreachable!("no packed format is {other:?}"),
    }
}

/// The kernel for codes that were widened.
fn wide_kernel(format: Format) -> Kernel {
    match (format.bits, format.second) {
        (5, Second::Nothing) => rows::<8, NONE, 4>,
        (5, Second::Min) => rows::<8, MIN, 0>,
        (6, Second::Scale) => rows::<8, SCALE, 5>,
        other => unreachable!("{other:?} is not widened"),
    }
}

/// Picks the kernel for the number of rows, so that the loop over rows is unrolled.
///
/// # Safety
/// As [`block_rows`], for `n` rows; `n` in `1..=ROWS`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn rows<const BITS: usize, const SECOND: u8, const ZERO: u32>(
    n: usize,
    tile: &Tile<'_>,
    results: &mut [[f32; TILE]; ROWS],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match n {
            1 => block_rows::<1, BITS, SECOND, ZERO>(tile, results),
            2 => block_rows::<2, BITS, SECOND, ZERO>(tile, results),
            3 => block_rows::<3, BITS, SECOND, ZERO>(tile, results),
            4 => block_rows::<4, BITS, SECOND, ZERO>(tile, results),
            5 => block_rows::<5, BITS, SECOND, ZERO>(tile, results),
            6 => block_rows::<6, BITS, SECOND, ZERO>(tile, results),
            7 => block_rows::<7, BITS, SECOND, ZERO>(tile, results),
            _ => block_rows::<8, BITS, SECOND, ZERO>(tile, results),
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
unsafe fn block_rows<const N: usize, const BITS: usize, const SECOND: u8, const ZERO: u32>(
    tile: &Tile<'_>,
    results: &mut [[f32; TILE]; ROWS],
) {
    let input = tile.input;
    let n_blocks = input.columns / BLOCK;
    let n_lines = if BITS == 8 { 8 } else { BITS };
    let n_scales = if SECOND == NONE { 1 } else { 2 };
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
    // What the dot product starts from: the codes count from the one that stands for zero, 2^ZERO.
    macro_rules! start {
        ($block:expr, $half:literal) => {
            _mm512_slli_epi32::<ZERO>(_mm512_set1_epi32(-$block.halves[$half]))
        };
    }
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for block in 0..n_blocks {
        // SAFETY: the block's lines, scales and activations exist by this function's contract; what is ahead is not read.
        unsafe {
            let lines = tile.codes.as_ptr().add(block * n_lines);
            let scales = tile.scales.as_ptr().add(block * n_scales);
            if tile.is_read_once {
                for line in 0..n_lines {
                    let ahead = lines.wrapping_add(AHEAD * n_lines + line);
                    _mm_prefetch::<_MM_HINT_NTA>(ahead.cast());
                }
                _mm_prefetch::<_MM_HINT_NTA>(scales.wrapping_add(AHEAD * n_scales).cast());
            }
            let codes = unpack::<BITS>(lines);
            let first = load_scales(scales);
            let second = if SECOND == NONE { first } else { load_scales(scales.add(1)) };
            let numbers = |row: usize| &*input.blocks.as_ptr().add(at!(row, block));
            let mut dots = [_mm512_setzero_si512(); ROWS];
            if SECOND != MIN {
                unroll!(I < N => dots[I] = start!(numbers(I), 0));
            }
            unroll!(G < 4 => unroll!(I < N => {
                dots[I] = _mm512_dpbusd_epi32(dots[I], codes[G], four!(at!(I, block), G));
            }));
            let mut halves = [_mm512_setzero_ps(); ROWS];
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
                dots[I] = _mm512_dpbusd_epi32(dots[I], codes[G + 4], four!(at!(I, block), G + 4));
            }));
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

/// Quantises a row: see [`super::vector::quantise`].
///
/// # Panics
/// When the slices are of different lengths.
pub(super) fn quantise(values: &[f32], codes: &mut [i8], numbers: &mut [BlockNumbers]) {
    let (values, codes) = (values.as_chunks::<BLOCK>().0, codes.as_chunks_mut::<BLOCK>().0);
    assert!(values.len() == codes.len() && values.len() == numbers.len(), "blocks of one row");
    for ((values, codes), numbers) in values.iter().zip(codes).zip(numbers) {
        // SAFETY: `Isa::is_available` saw the features.
        *numbers = unsafe { quantise_block(values, codes) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn quantise_block(values: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> BlockNumbers {
    // SAFETY: a block is two vectors.
    let halves = [0, 16].map(|first| unsafe { _mm512_loadu_ps(values.as_ptr().add(first)) });
    // As integers, magnitudes are in the order of the numbers, and NaN is above all: it must not get lost.
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
    let [low, high] =
        [low, high].map(|half| _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), half));
    let sums = _mm_hadd_epi32(low, high);
    let sums = _mm_hadd_epi32(sums, sums);
    BlockNumbers::new(largest / 127.0, [_mm_extract_epi32::<0>(sums), _mm_extract_epi32::<1>(sums)])
}
