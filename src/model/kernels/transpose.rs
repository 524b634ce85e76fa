//! Transposed weight matrices, for the backward pass through a linear layer: `dx = dy W`.

use half::f16;

use super::BLOCK;
use super::DenseMatrix;
use super::PackSource;
use super::PackedMatrix;
use super::SharedMut;
use super::WeightMatrix;
use super::memory::Arena;
use super::pool::ThreadPool;
use crate::model::quant::GgmlType;

/// Bytes of a `Q8_0` block: an `f16` scale and 32 codes.
const Q8_BYTES: usize = 34;

impl WeightMatrix {
    /// Returns the transposed matrix. Packed weights become 8-bit codes with a scale per 32 of the
    /// former rows, which adds about the rounding error of quantized activations. Weights whose row
    /// count is not a multiple of 32 become `f32`.
    pub(in crate::model) fn transposed(&self, pool: &mut ThreadPool, arena: &mut Arena) -> Self {
        let (rows, columns) = (self.rows(), self.columns());
        if matches!(self, Self::Packed(_)) && rows.is_multiple_of(BLOCK) {
            return Self::Packed(self.packed_transposed(pool, arena));
        }
        let mut values = vec![0.0; rows * columns];
        let mut line = vec![0.0; columns];
        for row in 0..rows {
            self.row(row, &mut line);
            for (column, value) in line.iter().enumerate() {
                values[column * rows + row] = *value;
            }
        }
        Self::Dense(DenseMatrix::new(rows, values))
    }

    fn packed_transposed(&self, pool: &mut ThreadPool, arena: &mut Arena) -> PackedMatrix {
        let (rows, columns) = (self.rows(), self.columns());
        let n_blocks = rows / BLOCK;
        let row_bytes = n_blocks * Q8_BYTES;
        let mut bytes = vec![0; columns * row_bytes];
        let out = SharedMut::new(&mut bytes);
        // A unit dequantizes 32 rows and writes one block of every transposed row: reads stay
        // sequential, and units write disjoint blocks.
        pool.run(n_blocks, &|block| {
            let mut values = vec![0.0; BLOCK * columns];
            for (i, line) in values.chunks_exact_mut(columns).enumerate() {
                self.row(block * BLOCK + i, line);
            }
            for column in 0..columns {
                let numbers = std::array::from_fn(|i| values[i * columns + column]);
                let at = column * row_bytes + block * Q8_BYTES;
                out.slice(at, Q8_BYTES).copy_from_slice(&q8_block(&numbers));
            }
        });
        let read = |at: usize, part: &mut [u8]| {
            part.copy_from_slice(&bytes[at..][..part.len()]);
            Ok(())
        };
        let source = PackSource { kind: GgmlType::Q8_0, read: &read, order: &|row| row };
        let packed = PackedMatrix::new(pool, arena, &source, (columns, rows));
        packed.expect("bytes in memory can be read")
    }
}

/// Quantizes 32 values as ggml's `Q8_0`: an `f16` scale `max |x| / 127` and 32 signed codes.
pub(super) fn q8_block(numbers: &[f32; BLOCK]) -> [u8; Q8_BYTES] {
    let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let scale = f16::from_f32(largest / 127.0);
    // Inverting the rounded scale, not the exact one, minimizes the error of what is decoded.
    let inverse = if scale == f16::ZERO { 0.0 } else { scale.to_f32().recip() };
    let mut bytes = [0; Q8_BYTES];
    bytes[..2].copy_from_slice(&scale.to_le_bytes());
    for (byte, number) in bytes[2..].iter_mut().zip(numbers) {
        #[expect(clippy::cast_possible_truncation, reason = "the cast keeps within -128..=127")]
        let code = (number * inverse).round() as i8;
        *byte = code.cast_unsigned();
    }
    bytes
}
