//! Memory for weights, in huge pages where the system grants them.
//!
//! Decoding reads all weights once per token. With 4 KiB pages, TLB misses take a good part of that
//! time, and hardware prefetching stops at every page boundary; so matrices share a few large
//! mappings.

#![expect(unsafe_code, reason = "maps memory; each block has its SAFETY line")]

use std::alloc::Layout;
use std::alloc::handle_alloc_error;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ops::DerefMut;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman;

/// Size of a huge page in bytes.
const HUGE_PAGE: usize = 2 << 20;
/// Size of a mapping in bytes, unless one matrix needs more. Untouched pages take no memory.
const CHUNK: usize = 64 << 20;
/// Alignment of blocks: a cache line.
const ALIGNMENT: usize = 64;

/// Types for which zeroed memory is a valid value.
///
/// # Safety
/// All-zero bytes must be valid, there must be nothing to drop, and the alignment must be at most
/// [`ALIGNMENT`].
pub(super) unsafe trait Plain: Copy {}

/// A bump allocator over mappings. Its blocks keep their mapping alive and may outlive it.
#[derive(Default)]
pub(in crate::model) struct Arena {
    chunk: Option<Arc<MemoryMapping>>,
    /// Bytes of the current chunk already allocated.
    used: usize,
}

impl Arena {
    /// Allocates `n` zeroed values.
    pub(super) fn zeroed<T: Plain>(&mut self, n: usize) -> MappedBlock<T> {
        let n_bytes = (n * size_of::<T>()).next_multiple_of(ALIGNMENT);
        let left = self.chunk.as_ref().map_or(0, |chunk| chunk.n_bytes - self.used);
        let chunk = match &self.chunk {
            Some(chunk) if n_bytes <= left => Arc::clone(chunk),
            _ => {
                // The rest of the old chunk is wasted, but was never touched: it costs address
                // space alone.
                self.used = 0;
                let chunk = Arc::new(MemoryMapping::new(n_bytes.max(CHUNK)));
                Arc::clone(self.chunk.insert(chunk))
            }
        };
        // SAFETY: `used + n_bytes` bytes are mapped, as just seen.
        let first = unsafe { chunk.first.byte_add(self.used) }.cast();
        self.used += n_bytes;
        MappedBlock { first, length: n, _chunk: chunk, _values: PhantomData }
    }
}

/// An owned slice within a mapping.
pub(in crate::model) struct MappedBlock<T> {
    first: NonNull<T>,
    length: usize,
    _chunk: Arc<MemoryMapping>,
    _values: PhantomData<T>,
}

// SAFETY: it is the only one to reach its values.
unsafe impl<T: Send> Send for MappedBlock<T> {}
// SAFETY: as with any slice.
unsafe impl<T: Sync> Sync for MappedBlock<T> {}

impl<T: Plain> Deref for MappedBlock<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `length` values are mapped for as long as the chunk is held, aligned, valid as
        // zeros (`Plain`) or as written, and of no other block.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.length) }
    }
}

impl<T: Plain> DerefMut for MappedBlock<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.length) }
    }
}

/// A buffer aligned to cache lines: vector loads that cross a line cost twice.
#[derive(Default)]
pub(in crate::model) struct AlignedBuffer<T = f32> {
    values: Vec<T>,
    first: usize,
    length: usize,
}

impl<T: Copy + Default> AlignedBuffer<T> {
    /// Creates a buffer of `n` zeros.
    pub(in crate::model) fn zeroed(n: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(n);
        buffer
    }

    /// Sets the length to `n`. Contents are unspecified afterwards; the caller overwrites them.
    pub(in crate::model) fn resize(&mut self, n: usize) {
        // `Vec` aligns to `T` alone; one cache line of spare elements leaves space to skip to the
        // next line.
        let spare = ALIGNMENT / size_of::<T>();
        if self.values.len() < n + spare {
            self.values = vec![T::default(); n + spare];
            self.first = self.values.as_ptr().align_offset(ALIGNMENT).min(spare);
        }
        self.length = n;
    }
}

impl<T> Deref for AlignedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.first..][..self.length]
    }
}

impl<T> DerefMut for AlignedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.first..][..self.length]
    }
}

/// An anonymous mapping, used from its first huge-page boundary on.
struct MemoryMapping {
    whole: NonNull<c_void>,
    whole_bytes: NonZeroUsize,
    first: NonNull<c_void>,
    n_bytes: usize,
}

// SAFETY: an address range; who may read and write it is decided by the blocks in it.
unsafe impl Send for MemoryMapping {}
// SAFETY: likewise.
unsafe impl Sync for MemoryMapping {}

impl MemoryMapping {
    fn new(n_bytes: usize) -> Self {
        let n_bytes = n_bytes.next_multiple_of(HUGE_PAGE);
        let whole_bytes = NonZeroUsize::MIN.saturating_add(n_bytes + HUGE_PAGE - 1);
        let flags = mman::MapFlags::MAP_PRIVATE;
        let protection = mman::ProtFlags::PROT_READ | mman::ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping, wherever the system likes.
        let mapped = unsafe { mman::mmap_anonymous(None, whole_bytes, protection, flags) };
        let Ok(whole) = mapped else {
            let layout = Layout::from_size_align(n_bytes, HUGE_PAGE);
            handle_alloc_error(layout.unwrap_or(Layout::new::<u8>()))
        };
        let address = whole.as_ptr().addr();
        // SAFETY: one huge page more than is needed was mapped.
        let first = unsafe { whole.byte_add(address.next_multiple_of(HUGE_PAGE) - address) };
        // SAFETY: within the mapping; advice changes no contents. Small pages do as well, so a
        // refusal is no fault.
        let _advised = unsafe { mman::madvise(first, n_bytes, mman::MmapAdvise::MADV_HUGEPAGE) };
        Self { whole, whole_bytes, first, n_bytes }
    }
}

impl Drop for MemoryMapping {
    fn drop(&mut self) {
        // SAFETY: as it was mapped; no block is left.
        let unmapped = unsafe { mman::munmap(self.whole, self.whole_bytes.get()) };
        debug_assert!(unmapped.is_ok(), "a whole mapping can be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack::BlockScales;
    use super::super::pack::CodeLine;
    use super::Arena;
    use super::CHUNK;

    #[test]
    fn arena_blocks_are_zeroed_aligned_disjoint_and_outlive_it() {
        let mut arena = Arena::default();
        let mut small = arena.zeroed::<BlockScales>(3);
        let mut odd = arena.zeroed::<CodeLine>(5);
        let mut big = arena.zeroed::<CodeLine>(CHUNK / 64 + 1);
        drop(arena);
        assert!(odd.iter().chain(big.iter()).all(|line| line.0 == [0; 64]));
        assert_eq!((small.len(), odd.len(), big.len()), (3, 5, CHUNK / 64 + 1));
        odd.iter_mut().for_each(|line| line.0 = [1; 64]);
        big.iter_mut().for_each(|line| line.0 = [2; 64]);
        assert!(small.iter().all(|scales| scales.0.iter().all(|n| n.to_f32() == 0.0)));
        small[2].0[15] = half::f16::ONE;
        assert!(odd.iter().all(|line| line.0 == [1; 64]));
        assert_eq!(odd.as_ptr().addr() % 64 + big.as_ptr().addr() % 64, 0);
    }
}
