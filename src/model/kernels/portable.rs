//! The kernels in plain Rust: the reference for the others, and what any machine can run.

use super::Activations;
use super::BLOCK;
use super::TILE;
use super::pack::Format;
use super::pack::Line;
use super::pack::Scales;
use super::pack::Second;

/// The codes of one block: group, then row and input (see [`super::pack`]).
pub(super) fn unpack(format: Format, lines: &[Line]) -> [[u8; 64]; 8] {
    let mut codes = [[0; 64]; 8];
    for (group, codes) in codes.iter_mut().enumerate() {
        if format.bits == 8 {
            *codes = lines[group].0;
            continue;
        }
        for (code, byte) in codes.iter_mut().zip(&lines[group % 4].0) {
            *code = byte >> (group / 4 * 4) & 15;
        }
        for (bit, line) in lines.iter().enumerate().take(format.bits).skip(4) {
            let mask = &line.0[group * 8..][..8];
            for (lane, code) in codes.iter_mut().enumerate() {
                *code |= (mask[lane / 8] >> (lane % 8) & 1) << bit;
            }
        }
    }
    codes
}

/// Multiplies a tile by every row of `input`; `done` gets each row's 16 results.
#[expect(clippy::cast_precision_loss, reason = "sums stay below 2^24")]
pub(super) fn multiply_tile(
    format: Format,
    codes: &[Line],
    scales: &[Scales],
    input: &Activations,
    mut done: impl FnMut(usize, &[f32; TILE]),
) {
    let n_blocks = input.columns / BLOCK;
    let mut results = vec![[0_f32; TILE]; input.n_rows];
    for block in 0..n_blocks {
        let codes = unpack(format, &codes[block * format.n_lines()..]);
        let scales = &scales[block * format.n_scales()..][..format.n_scales()];
        let numbers = scales.iter().map(|s| s.0.map(f32::from)).collect::<Vec<_>>();
        for (row, result) in results.iter_mut().enumerate() {
            let at = row * n_blocks + block;
            let inputs = &input.codes[row * input.columns + block * BLOCK..][..BLOCK];
            let sums = [input.sums[at * 2], input.sums[at * 2 + 1]];
            let scale = input.scales[at];
            let dots = [0, 1].map(|half| dot_half(format.zero, &codes, inputs, sums, half));
            for (i, result) in result.iter_mut().enumerate() {
                *result += match format.second {
                    Second::Scale => {
                        numbers[0][i] * scale * dots[0][i] as f32
                            + numbers[1][i] * scale * dots[1][i] as f32
                    }
                    Second::Min => {
                        numbers[0][i] * scale * (dots[0][i] + dots[1][i]) as f32
                            + numbers[1][i] * scale * (sums[0] + sums[1]) as f32
                    }
                    Second::Nothing => numbers[0][i] * scale * (dots[0][i] + dots[1][i]) as f32,
                };
            }
        }
    }
    for (row, result) in results.iter().enumerate() {
        done(row, result);
    }
}

/// `sum (code - zero) * input` over one half of a block, for the 16 rows.
fn dot_half(
    zero: i32,
    codes: &[[u8; 64]; 8],
    inputs: &[i8],
    sums: [i32; 2],
    half: usize,
) -> [i32; TILE] {
    let mut dots = [-zero * sums[half]; TILE];
    for group in half * 4..half * 4 + 4 {
        let four = &inputs[group * 4..][..4];
        for (dot, codes) in dots.iter_mut().zip(codes[group].as_chunks::<4>().0) {
            for (code, input) in codes.iter().zip(four) {
                *dot += i32::from(*code) * i32::from(*input);
            }
        }
    }
    dots
}
