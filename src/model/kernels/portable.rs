//! Portable kernels in plain Rust: the reference for the vector kernels, and the fallback on other
//! processors.

use super::BlockNumbers;
use super::QuantizedRows;
use super::TILE;
use super::TileOut;
use super::pack::BlockOffset;
use super::pack::BlockScales;
use super::pack::CodeFormat;
use super::pack::CodeLine;

/// Unpacks the codes of one block into its eight groups of 64 bytes (see [`super::pack`]).
pub(super) fn unpack(format: CodeFormat, lines: &[CodeLine]) -> [[u8; 64]; 8] {
    let mut codes = [[0; 64]; 8];
    for (group, codes) in codes.iter_mut().enumerate() {
        if format.bits == 8 {
            *codes = lines[group].0;
            continue;
        }
        for (code, byte) in codes.iter_mut().zip(&lines[group % 4].0) {
            *code = byte >> (group / 4 * 4) & 15;
        }
        // Lines 4 and 5, if any, hold one further bit of every group.
        for (bit, line) in lines.iter().enumerate().take(format.bits).skip(4) {
            for (code, byte) in codes.iter_mut().zip(&line.0) {
                *code |= (byte >> group & 1) << bit;
            }
        }
    }
    codes
}

/// Multiplies a tile by every row of `input` and writes 16 results per row to `target`.
#[expect(clippy::cast_precision_loss, reason = "dot products stay below 2^24")]
pub(super) fn multiply_tile(
    format: CodeFormat,
    codes: &[CodeLine],
    scales: &[BlockScales],
    input: &QuantizedRows<'_>,
    target: &TileOut<'_>,
) {
    let mut results = vec![[0_f32; TILE]; input.n_rows];
    for block in 0..input.n_blocks {
        let codes = unpack(format, &codes[block * format.n_lines()..]);
        let scales = &scales[block * format.n_scales()..][..format.n_scales()];
        let numbers = scales.iter().map(|s| s.0.map(f32::from)).collect::<Vec<_>>();
        for (row, result) in (0..input.n_groups(1)).zip(&mut results) {
            let row = input.group(row);
            let inputs = &row.codes[block];
            let BlockNumbers { scale, halves, sum } = row.numbers[block];
            // With x = scale * input: sum w x = scale * (w_scale * dot - w_scale * zero *
            // sum(inputs)), or scale * w_scale * dot + min * scale * sum(inputs).
            let dots = [0, 1].map(|half| dot_half(&codes, inputs, half));
            for (i, result) in result.iter_mut().enumerate() {
                let first = numbers[0][i];
                *result += match format.second {
                    BlockOffset::Scale => {
                        let dot =
                            |half: usize| dots[half][i] as f32 - format.zero * halves[half] as f32;
                        first * scale * dot(0) + numbers[1][i] * scale * dot(1)
                    }
                    BlockOffset::Min => {
                        first * scale * (dots[0][i] + dots[1][i]) as f32 + numbers[1][i] * sum
                    }
                    BlockOffset::Nothing => {
                        first * scale * (dots[0][i] + dots[1][i]) as f32 - format.zero * first * sum
                    }
                };
            }
        }
    }
    for (row, result) in results.iter().enumerate() {
        target.put(row, result);
    }
}

/// Computes `sum code * input` over one half of a block, for all 16 rows.
fn dot_half(codes: &[[u8; 64]; 8], inputs: &[i8], half: usize) -> [i32; TILE] {
    let mut dots = [0; TILE];
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
