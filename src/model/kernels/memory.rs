//! Memory for weights, in huge pages where the system grants them.
//!
//! Decoding reads all weights once a token. With pages of 4 KiB a good part of that time goes into
//! finding them, and the processor's own reading ahead ends at each; so matrices share a few large
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

/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a mapping, unless one matrix needs more. What is never touched takes no memory.
const CHUNK: usize = 64 << 20;
/// Blocks begin at multiples of this: lines of the cache.
const ALIGNMENT: usize = 64;

/// Types that may be made of zero bytes.
///
/// # Safety
/// Zero bytes are a value, there is nothing to drop, and the alignment is at most [`ALIGNMENT`].
pub(super) unsafe trait Plain: Copy {}

/// Hands out memory; what it handed out outlives it.
#[derive(Default)]
pub(in crate::model) struct Arena {
    chunk: Option<Arc<MemoryMapping>>,
    /// Bytes of the chunk that are in use.
    used: usize,
}

impl Arena {
    /// `n` values of zero bytes.
    pub(super) fn zeroed<T: Plain>(&mut self, n: usize) -> MappedBlock<T> {
        let n_bytes = (n * size_of::<T>()).next_multiple_of(ALIGNMENT);
        let left = self.chunk.as_ref().map_or(0, |chunk| chunk.n_bytes - self.used);
        let chunk = match &self.chunk {
            Some(chunk) if n_bytes <= left => Arc::clone(chunk),
            _ => {
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

/// Values in a mapping, exclusively its own.
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

/// Numbers that begin at a line of the cache: vectors that lie across two lines cost twice.
#[derive(Default)]
pub(in crate::model) struct AlignedBuffer<T = f32> {
    values: Vec<T>,
    first: usize,
    length: usize,
}

impl<T: Copy + Default> AlignedBuffer<T> {
    /// `n` numbers, zeros at first.
    pub(in crate::model) fn zeroed(n: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(n);
        buffer
    }

    /// Becomes `n` numbers, for the caller to overwrite.
    pub(in crate::model) fn resize(&mut self, n: usize) {
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

/// Zero bytes from the system, from the first huge page on.
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
    fn blocks_are_zero_aligned_apart_and_outlive_their_arena() {
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
