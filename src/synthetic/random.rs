//! Reproducible random numbers.

use crate::rng::SplitMix64;
use crate::rng::mixed;

/// Random number generator with a stream per seed and purpose.
pub(super) struct SeededRng(SplitMix64);

impl SeededRng {
    /// Creates the stream of `seed` and `purpose`. Streams of different purposes are independent.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(SplitMix64::new(mixed(seed) ^ hash(purpose)))
    }

    /// Returns a number in `0..n`, with `n` at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }

    /// Returns an integer in `low..=high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let n = usize::try_from(high - low + 1).unwrap_or(1);
        low + i64::try_from(self.below(n)).unwrap_or(0)
    }

    /// Returns an item of `items`, which must not be empty.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Shuffles `items` (Fisher-Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// Draws `n` items without replacement, or all if there are fewer.
    pub(super) fn sample<'a, T>(&mut self, items: &'a [T], n: usize) -> Vec<&'a T> {
        let mut all: Vec<&T> = items.iter().collect();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }
}

/// Hashes a text with FNV-1a and a final mix.
pub(super) fn hash(text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mixed(text.bytes().fold(start, fold))
}
