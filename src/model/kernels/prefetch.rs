//! Asking memory for weights some blocks before they are computed.
//!
//! Decoding is bound by how fast weights come. How to ask for them differs: on AMD's processors it
//! is best to pass by the second cache, which keeps the activations there; on Intel's that halves
//! the rate (17 GB/s and not 31 on two cores of a Sapphire Rapids), since few such requests can be
//! under way.

#![expect(
    unsafe_code,
    reason = "a prefetch is unsafe to call, but reads nothing; see the SAFETY lines"
)]

use std::arch::x86_64::__cpuid;
use std::arch::x86_64::_MM_HINT_NTA;
use std::arch::x86_64::_MM_HINT_T1;
use std::arch::x86_64::_mm_prefetch;
use std::sync::OnceLock;

use super::pack::BlockScales;
use super::pack::CodeLine;

/// How the blocks ahead are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrefetchPlan {
    /// Not at all: they are in the caches.
    Nothing,
    /// Past the second cache.
    NonTemporal,
    /// Into the second cache.
    SecondLevel,
}

impl PrefetchPlan {
    /// The best for weights that are read once.
    pub(super) fn for_memory() -> Self {
        static BEST: OnceLock<PrefetchPlan> = OnceLock::new();
        *BEST.get_or_init(|| {
            let leaf = __cpuid(0);
            match [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() {
                b"AuthenticAMD" | b"HygonGenuine" => Self::NonTemporal,
                _ => Self::SecondLevel,
            }
        })
    }

    /// Asks for a block that lies ahead of the one with these codes and scales.
    #[inline]
    pub(super) fn block(
        self,
        (codes, n_lines): (*const CodeLine, usize),
        (scales, n_scales): (*const BlockScales, usize),
    ) {
        let ahead = match self {
            Self::Nothing => return,
            Self::NonTemporal => 4,
            Self::SecondLevel => 12,
        };
        for line in 0..n_lines {
            self.line(codes.wrapping_add(ahead * n_lines + line).cast());
        }
        self.line(scales.wrapping_add(ahead * n_scales).cast());
    }

    #[inline]
    fn line(self, at: *const i8) {
        if self == Self::NonTemporal {
            // SAFETY: nothing is read, whatever the address; every x86-64 processor has it.
            unsafe { _mm_prefetch::<_MM_HINT_NTA>(at) };
        } else {
            // SAFETY: likewise.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at) };
        }
    }
}
