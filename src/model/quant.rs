//! ggml block formats: storage layout and dequantization of tensor rows.
//!
//! Every quantized type is read as blocks of 32 values `x = scale * code + min` with unsigned
//! codes, the only form that the kernels know. Formats: ggml's `ggml-quants.c` and `ggml-common.h`.
//!
//! ```text
//! Q4_0   [d: f16][16 bytes: nibbles]                          x = d * (code - 8)
//! Q8_0   [d: f16][32 signed bytes]                            x = d * code
//! Q4_K   [d, dmin: f16][12 bytes: 8 x (6-bit scale, 6-bit min)][128 bytes: nibbles]
//! Q6_K   [128 bytes: low 4 bits][64 bytes: high 2 bits][16 x i8 scale][d: f16]
//! ```

use half::bf16;
use half::f16;

/// Tensor storage types that Rune reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GgmlType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// 32 consecutive values of a row as codes, with a scale and a minimum for each half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block32 {
    /// Unsigned codes below `2^bits` of their type.
    pub(super) codes: [u8; 32],
    /// Scales of the first and the last 16 values; equal except in `Q6_K`.
    pub(super) scale: [f32; 2],
    /// Offsets added to each value of the half.
    pub(super) min: [f32; 2],
}

impl Block32 {
    fn new(codes: [u8; 32], scale: f32, min: f32) -> Self {
        Self { codes, scale: [scale; 2], min: [min; 2] }
    }

    /// The 32 dequantized values.
    fn values(&self) -> [f32; 32] {
        std::array::from_fn(|i| self.scale[i / 16] * f32::from(self.codes[i]) + self.min[i / 16])
    }
}

impl GgmlType {
    /// The type with ggml's number `code` (`enum ggml_type`); `None` for types that Rune does not
    /// read.
    pub(super) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// `(values, bytes)` of one block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Bytes of a row of `columns` values; `None` when `columns` is not a multiple of the block
    /// size.
    pub(super) fn row_bytes(self, columns: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        if !columns.is_multiple_of(values) {
            return None;
        }
        (columns / values).checked_mul(bytes)
    }

    /// Whether values are stored as codes.
    pub(super) fn is_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Reads block `index` of 32 values of a row.
    ///
    /// # Panics
    /// When the type is not quantized or `row` is too short.
    pub(super) fn block32(self, row: &[u8], index: usize) -> Block32 {
        let (values, bytes) = self.block();
        let first = index * 32 / values * bytes;
        let block = &row[first..first + bytes];
        let part = index % (values / 32);
        match self {
            Self::Q4_0 => {
                let scale = half_at(block, 0);
                Block32::new(nibbles(&block[2..18]), scale, -8.0 * scale)
            }
            Self::Q4_1 => {
                Block32::new(nibbles(&block[4..20]), half_at(block, 0), half_at(block, 2))
            }
            Self::Q5_0 => {
                let scale = half_at(block, 0);
                Block32::new(five_bits(&block[2..6], &block[6..22]), scale, -16.0 * scale)
            }
            Self::Q5_1 => {
                let codes = five_bits(&block[4..8], &block[8..24]);
                Block32::new(codes, half_at(block, 0), half_at(block, 2))
            }
            Self::Q8_0 => {
                let scale = half_at(block, 0);
                // Flipping the sign bit turns a signed code into an unsigned one with an offset of
                // 128.
                let codes = std::array::from_fn(|i| block[2 + i] ^ 0x80);
                Block32::new(codes, scale, -128.0 * scale)
            }
            Self::Q4K => k_block(block, part, &block[16..144], |_| 0),
            Self::Q5K => {
                k_block(block, part, &block[48..176], |i| (block[16 + i] >> part & 1) << 4)
            }
            Self::Q6K => q6_k(block, part),
            Self::F32 | Self::F16 | Self::Bf16 => panic!("float types have no codes"),
        }
    }

    /// Dequantizes a whole row.
    pub(super) fn dequantize(self, row: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => {
                for (value, bytes) in values.iter_mut().zip(row.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16 => {
                for (value, bytes) in values.iter_mut().zip(row.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            Self::Bf16 => {
                for (value, bytes) in values.iter_mut().zip(row.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
            _ => {
                for (index, chunk) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                    *chunk = self.block32(row, index).values();
                }
            }
        }
    }
}

/// Reads the `f16` at byte `at`.
#[inline]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Unpacks 16 bytes into 32 codes: all low nibbles first, then all high ones.
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let bytes: &[u8; 16] = bytes.first_chunk().expect("half a byte a code");
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

/// Unpacks 5-bit codes: nibbles from `low`, the fifth bits from the 32-bit mask `high`.
fn five_bits(high: &[u8], low: &[u8]) -> [u8; 32] {
    let mut codes = nibbles(low);
    for (codes, bits) in codes.as_chunks_mut::<8>().0.iter_mut().zip(high) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (bits >> i & 1) << 4;
        }
    }
    codes
}

/// Sub-block `part` of `Q4_K` or `Q5_K`: 6-bit scales and minimums in 12 packed bytes, nibbles in
/// `low` (64 values in 32 bytes: low nibbles, then high ones), and further bits of value `i` from
/// `high`.
fn k_block(block: &[u8], part: usize, low: &[u8], high: impl Fn(usize) -> u8) -> Block32 {
    let packed = &block[4..16];
    // ggml's `get_scale_min_k4`: scales and minimums 0-3 fill the low 6 bits of bytes 0-7; those of
    // 4-7 have their low 4 bits in bytes 8-11 and their high 2 bits on top of bytes 0-7.
    let (scale, min) = if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        (
            packed[part + 4] & 15 | packed[part - 4] >> 6 << 4,
            packed[part + 4] >> 4 | packed[part] >> 6 << 4,
        )
    };
    let bytes = &low[part / 2 * 32..][..32];
    let shift = part % 2 * 4;
    let codes = std::array::from_fn(|i| bytes[i] >> shift & 15 | high(i));
    let scale = half_at(block, 0) * f32::from(scale);
    Block32::new(codes, scale, -half_at(block, 2) * f32::from(min))
}

/// Sub-block `part` of `Q6_K`: 4 low bits, 2 high bits, and a signed 8-bit scale per 16 values.
fn q6_k(block: &[u8], part: usize) -> Block32 {
    let (half, quarter) = (part / 4, part % 4);
    let low = &block[half * 64 + quarter % 2 * 32..][..32];
    let high = &block[128 + half * 32..][..32];
    let shift = quarter / 2 * 4;
    let codes = std::array::from_fn(|i| low[i] >> shift & 15 | (high[i] >> (2 * quarter) & 3) << 4);
    let d = half_at(block, 208);
    let scale =
        [0, 1].map(|i| d * f32::from(i8::from_le_bytes([block[192 + half * 8 + quarter * 2 + i]])));
    Block32 { codes, scale, min: scale.map(|s| -32.0 * s) }
}
