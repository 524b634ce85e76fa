//! Software prefetching of weights, some blocks ahead of the computation.
//!
//! Decoding is bound by memory bandwidth. The best hint differs by vendor: on AMD, non-temporal
//! prefetches bypass the L2 cache and leave the activations there; on Intel they halve the
//! bandwidth (17 instead of 31 GB/s on two cores of a Sapphire Rapids), because few of them can be
//! in flight.

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

/// Prefetch hint and distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrefetchPlan {
    /// No prefetching: the weights are in the caches.
    Nothing,
    /// Non-temporal: bypasses the L2 cache.
    NonTemporal,
    /// Into the L2 cache.
    SecondLevel,
}

impl PrefetchPlan {
    /// The best plan on this processor for weights that are read once.
    pub(super) fn for_memory() -> Self {
        static BEST: OnceLock<PrefetchPlan> = OnceLock::new();
        *BEST.get_or_init(|| {
            // CPUID leaf 0 returns the vendor string in EBX, EDX, ECX.
            let leaf = __cpuid(0);
            match [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() {
                b"AuthenticAMD" | b"HygonGenuine" => Self::NonTemporal,
                _ => Self::SecondLevel,
            }
        })
    }

    /// Prefetches a block ahead of the one with these codes and scales.
    #[inline]
    pub(super) fn block(
        self,
        (codes, n_lines): (*const CodeLine, usize),
        (scales, n_scales): (*const BlockScales, usize),
    ) {
        // Distances in blocks. Prefetches into L2 run further ahead than non-temporal ones, few of
        // which can be in flight. Past the end of the weights they are harmless.
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
