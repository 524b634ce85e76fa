//! Packed weight matrices: tiles of 16 rows by blocks of 32 inputs, in the order in which kernels
//! read them.
//!
//! ```text
//! matrix (rows, columns)              tile 1, block 2: 16 rows x 32 inputs in 8 groups
//!         32     32     32
//!      +------+------+------+                  group 0    group 1          group 7
//!   16 | t0b0 | t0b1 | t0b2 |                  in 0..4    in 4..8   ...    in 28..32
//!      +------+------+------+          row 0   [c c c c]  [c c c c]        [c c c c]
//!   16 | t1b0 | t1b1 | t1b2 |          row 1   [c c c c]  [c c c c]        [c c c c]
//!      +------+------+------+          ...
//!                                      row 15  [c c c c]  [c c c c]        [c c c c]
//!
//! in memory, tile by tile and block by block within a tile:
//!   group    64 bytes: row 0's four codes, row 1's, ..., row 15's  (one `vpdpbusd`)
//!   scales   16 x f16, one per row; then 16 minimums, or 16 scales of inputs 16..32
//!
//! a block's code lines of 64 bytes; byte k of a line belongs to byte k of its groups:
//!   8 bits   lines 0-7: group g is line g
//!   4 bits   lines 0-3: group g in the low nibbles of line g, group g + 4 in the high ones
//!   5 bits   lines 0-3 as for 4 bits, line 4: bit g of a byte is bit 4 of group g's code
//!   6 bits   as for 5 bits, line 5: bit g of a byte is bit 5 of group g's code
//! ```
//!
//! One `vpdpbusd` multiplies a group by four activations, broadcast to all lanes, and adds to 16
//! sums: one per row of the tile.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::PoisonError;

use half::f16;

use super::BLOCK;
use super::Isa;
use super::QuantizedRows;
use super::SharedMut;
use super::TILE;
use super::ThreadPool;
use super::TileOut;
#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::memory::Arena;
use super::memory::MappedBlock;
use super::memory::Plain;
use super::portable;
use crate::model::quant::GgmlType;

/// 64 bytes of codes: one cache line, one AVX-512 register.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct CodeLine(pub(super) [u8; 64]);

/// 16 half-precision values, one per row of a tile.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(in crate::model) struct BlockScales(pub(super) [f16; TILE]);

#[expect(unsafe_code, reason = "see the SAFETY line")]
// SAFETY: bytes; zero is a value of theirs.
unsafe impl Plain for CodeLine {}
#[expect(unsafe_code, reason = "see the SAFETY line")]
// SAFETY: the bits of numbers; zero is one.
unsafe impl Plain for BlockScales {}

#[expect(unsafe_code, reason = "see the SAFETY line")]
// SAFETY: the bits of a number; zero is one.
unsafe impl Plain for f16 {}

/// Encoding of weights: `x = scale * (code - zero)`, or `x = scale * code + min` where minimums are
/// stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CodeFormat {
    /// Bits per code: 4, 5, 6 or 8.
    pub(super) bits: usize,
    /// Zero point; 0 where minimums are stored.
    pub(super) zero: f32,
    /// Meaning of a block's second vector of half-precision values.
    pub(super) second: BlockOffset,
}

/// The second vector stored for a block, after its scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockOffset {
    /// None: one scale per row and block.
    Nothing,
    /// Minimums, one per row.
    Min,
    /// Scales of the last 16 inputs; the first vector then covers the first 16.
    Scale,
}

impl CodeFormat {
    fn of(kind: GgmlType) -> Option<Self> {
        let (bits, zero, second) = match kind {
            GgmlType::Q4_0 => (4, 8.0, BlockOffset::Nothing),
            GgmlType::Q4_1 | GgmlType::Q4K => (4, 0.0, BlockOffset::Min),
            GgmlType::Q5_0 => (5, 16.0, BlockOffset::Nothing),
            GgmlType::Q5_1 | GgmlType::Q5K => (5, 0.0, BlockOffset::Min),
            GgmlType::Q6K => (6, 32.0, BlockOffset::Scale),
            GgmlType::Q8_0 => (8, 128.0, BlockOffset::Nothing),
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => return None,
        };
        Some(Self { bits, zero, second })
    }

    /// Code lines per block.
    pub(super) fn n_lines(self) -> usize {
        if self.bits == 8 { 8 } else { self.bits }
    }

    /// Scale vectors per block.
    pub(super) fn n_scales(self) -> usize {
        if self.second == BlockOffset::Nothing { 1 } else { 2 }
    }
}

thread_local! {
    /// Raw rows of one tile, as read from the file.
    static BYTES: RefCell<Vec<u8>> = RefCell::default();
}

/// Source of the rows of a matrix to pack.
pub(in crate::model) struct PackSource<'a> {
    /// Storage type of the rows.
    pub(in crate::model) kind: GgmlType,
    /// Fills a slice with the tensor's bytes, starting at an offset.
    pub(in crate::model) read: &'a (dyn Fn(usize, &mut [u8]) -> std::io::Result<()> + Sync),
    /// Maps a row of the packed matrix to its row in the tensor.
    pub(in crate::model) order: &'a (dyn Fn(usize) -> usize + Sync),
}

/// A quantized matrix in tiles. The last tile is padded with zero rows.
pub(in crate::model) struct PackedMatrix {
    rows: usize,
    columns: usize,
    format: CodeFormat,
    codes: MappedBlock<CodeLine>,
    scales: MappedBlock<BlockScales>,
}

impl PackedMatrix {
    /// Reads and packs a matrix. Each tile is packed by the thread that reads it, while its bytes
    /// are in that thread's cache.
    ///
    /// # Errors
    /// The first read error of `source`.
    ///
    /// # Panics
    /// When `kind` is not a quantized type, or `columns` is not a multiple of its block size.
    pub(in crate::model) fn new(
        pool: &mut ThreadPool,
        arena: &mut Arena,
        source: &PackSource<'_>,
        (rows, columns): (usize, usize),
    ) -> std::io::Result<Self> {
        let PackSource { kind, read, order } = *source;
        let format = CodeFormat::of(kind).expect("a quantized type");
        let n_blocks = columns / BLOCK;
        let n_tiles = rows.div_ceil(TILE);
        let mut codes = arena.zeroed::<CodeLine>(n_tiles * n_blocks * format.n_lines());
        let mut scales = arena.zeroed::<BlockScales>(n_tiles * n_blocks * format.n_scales());
        let row_bytes = kind.row_bytes(columns).expect("whole blocks");
        let fault = Mutex::new(None);
        {
            let (per_tile, scales_per_tile) =
                (n_blocks * format.n_lines(), n_blocks * format.n_scales());
            let codes = SharedMut::new(&mut codes);
            let scales = SharedMut::new(&mut scales);
            let pack = |tile: usize, bytes: &mut Vec<u8>| {
                let codes = codes.slice(tile * per_tile, per_tile);
                let scales = scales.slice(tile * scales_per_tile, scales_per_tile);
                // A reordered tile (see `PackSource::order`) needs a wider span of the file than 16
                // rows, but still a contiguous one: it is read at once.
                let sources = (tile * TILE..rows.min((tile + 1) * TILE)).map(order);
                let first = sources.clone().min().unwrap_or(0);
                let end = sources.clone().max().map_or(0, |last| last + 1);
                bytes.resize((end - first) * row_bytes, 0);
                read(first * row_bytes, bytes)?;
                for (row, source) in sources.enumerate() {
                    let bytes = &bytes[(source - first) * row_bytes..][..row_bytes];
                    pack_row(format, kind, bytes, row, codes, scales);
                }
                Ok(())
            };
            pool.run(n_tiles, &|tile| {
                if let Err(error) = BYTES.with_borrow_mut(|bytes| pack(tile, bytes)) {
                    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
        if let Some(error) = fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        Ok(Self { rows, columns, format, codes, scales })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn n_bytes(&self) -> usize {
        size_of_val(&*self.codes) + size_of_val(&*self.scales)
    }

    /// Codes and scales of a tile, block by block.
    fn tile(&self, tile: usize) -> (&[CodeLine], &[BlockScales]) {
        let n_blocks = self.columns / BLOCK;
        let (lines, scales) = (n_blocks * self.format.n_lines(), n_blocks * self.format.n_scales());
        (&self.codes[tile * lines..][..lines], &self.scales[tile * scales..][..scales])
    }

    /// Multiplies one tile by all rows of `input`.
    pub(super) fn multiply_tile(
        &self,
        isa: Isa,
        tile: usize,
        input: &QuantizedRows<'_>,
        target: &TileOut<'_>,
    ) {
        let (codes, scales) = self.tile(tile);
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::multiply_tile(self.format, codes, scales, input, target),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::multiply_tile(self.format, codes, scales, input, target),
            _ => portable::multiply_tile(self.format, codes, scales, input, target),
        }
    }

    /// Dequantizes row `index` into `values`.
    pub(super) fn row(&self, index: usize, values: &mut [f32]) {
        let (codes, scales) = self.tile(index / TILE);
        let row = index % TILE;
        let format = self.format;
        for (block, values) in values.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let codes = portable::unpack(format, &codes[block * format.n_lines()..]);
            let scales = &scales[block * format.n_scales()..];
            for (i, value) in values.iter_mut().enumerate() {
                let code = f32::from(codes[i / 4][row * 4 + i % 4]);
                let first = scales[0].0[row].to_f32();
                *value = match format.second {
                    BlockOffset::Min => first * code + scales[1].0[row].to_f32(),
                    // Two scales exist in `Q6_K` alone, whose zero point is 32.
                    BlockOffset::Scale if i >= 16 => scales[1].0[row].to_f32() * (code - 32.0),
                    _ => first * (code - format.zero),
                };
            }
        }
    }
}

/// Writes the blocks of one row into its tile.
fn pack_row(
    format: CodeFormat,
    kind: GgmlType,
    bytes: &[u8],
    row: usize,
    codes: &mut [CodeLine],
    scales: &mut [BlockScales],
) {
    let blocks = codes.chunks_mut(format.n_lines()).zip(scales.chunks_mut(format.n_scales()));
    for (index, (lines, scales)) in blocks.enumerate() {
        let block = kind.block32(bytes, index);
        scales[0].0[row] = f16::from_f32(block.scale[0]);
        match format.second {
            BlockOffset::Nothing => {}
            BlockOffset::Min => scales[1].0[row] = f16::from_f32(block.min[0]),
            BlockOffset::Scale => scales[1].0[row] = f16::from_f32(block.scale[1]),
        }
        // Four codes at a time: one group of this row is one 32-bit word.
        let codes = block.codes.as_chunks::<4>().0;
        let place = row * 4..row * 4 + 4;
        if format.bits == 8 {
            for (line, four) in lines.iter_mut().zip(codes) {
                line.0[place.clone()].copy_from_slice(four);
            }
            continue;
        }
        let words: [u32; 8] = std::array::from_fn(|group| u32::from_le_bytes(codes[group]));
        let (nibbles, bits) = lines.split_at_mut(4);
        for (group, line) in nibbles.iter_mut().enumerate() {
            let word = words[group] & 0x0F0F_0F0F | (words[group + 4] & 0x0F0F_0F0F) << 4;
            line.0[place.clone()].copy_from_slice(&word.to_le_bytes());
        }
        for (bit, line) in bits.iter_mut().enumerate() {
            for (group, word) in words.iter().enumerate() {
                // Bit `4 + bit` of four codes, gathered from the word, moves to bit `group` of four
                // bytes.
                let singles = (word >> (4 + bit) & 0x0101_0101) << group;
                for (byte, single) in line.0[place.clone()].iter_mut().zip(singles.to_le_bytes()) {
                    *byte |= single;
                }
            }
        }
    }
}
