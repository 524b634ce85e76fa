//! Weights as the kernels want them: tiles of 16 rows by 32 inputs.
//!
//! Within a tile, group `g` of eight holds inputs `4g..4g+4` of all 16 rows in 64 bytes
//! (row-major): what one `vpdpbusd` takes. Codes of up to 6 bits are stored as four lines of
//! nibbles (groups `g` and `g + 4` share line `g`) and a line for each bit above the fourth, in
//! which bit `g` of a byte belongs to group `g`; 8-bit codes as eight lines.

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

/// 64 aligned bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct CodeLine(pub(super) [u8; 64]);

/// 16 half-precision numbers, one a row of a tile.
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

/// How codes stand for numbers: `x = scale * (code - zero)`, or `x = scale * code + min` where
/// minimums are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CodeFormat {
    /// Bits a code: 4, 5, 6 or 8.
    pub(super) bits: usize,
    /// The code that stands for zero; 0 where minimums are stored.
    pub(super) zero: f32,
    /// What a block's second vector of numbers is, if there is one.
    pub(super) second: BlockOffset,
}

/// What is stored for a block beside its first scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockOffset {
    /// Nothing.
    Nothing,
    /// The minimum.
    Min,
    /// The scale of the last 16 inputs.
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

    /// Lines of codes a block.
    pub(super) fn n_lines(self) -> usize {
        if self.bits == 8 { 8 } else { self.bits }
    }

    /// Vectors of scales a block.
    pub(super) fn n_scales(self) -> usize {
        if self.second == BlockOffset::Nothing { 1 } else { 2 }
    }
}

thread_local! {
    /// The rows of one tile as the file has them.
    static BYTES: RefCell<Vec<u8>> = RefCell::default();
}

/// Where the rows of a matrix come from.
pub(in crate::model) struct PackSource<'a> {
    /// Their type.
    pub(in crate::model) kind: GgmlType,
    /// Reads bytes of the tensor from an offset on.
    pub(in crate::model) read: &'a (dyn Fn(usize, &mut [u8]) -> std::io::Result<()> + Sync),
    /// The row of the tensor that becomes row `i`.
    pub(in crate::model) order: &'a (dyn Fn(usize) -> usize + Sync),
}

/// A quantized matrix in tiles. Rows beyond the last are zero.
pub(in crate::model) struct PackedMatrix {
    rows: usize,
    columns: usize,
    format: CodeFormat,
    codes: MappedBlock<CodeLine>,
    scales: MappedBlock<BlockScales>,
}

impl PackedMatrix {
    /// Repacks the rows of a file, each tile by the thread that reads it, while it is in that
    /// thread's cache.
    ///
    /// # Errors
    /// The first one of `source`.
    ///
    /// # Panics
    /// When `kind` is no quantized type, or `columns` is no multiple of its block.
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

    /// Codes and scales of a tile, block after block.
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

    /// Writes row `index` as numbers.
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
                    BlockOffset::Scale if i >= 16 => scales[1].0[row].to_f32() * (code - 32.0),
                    _ => first * (code - format.zero),
                };
            }
        }
    }
}

/// Puts the blocks of one row into its tile.
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
        // Four codes at a time: a group's inputs of one row.
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
                let singles = (word >> (4 + bit) & 0x0101_0101) << group;
                for (byte, single) in line.0[place.clone()].iter_mut().zip(singles.to_le_bytes()) {
                    *byte |= single;
                }
            }
        }
    }
}
