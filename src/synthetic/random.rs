//! Random numbers that a seed gives again.

use crate::rng::SplitMix64;
use crate::rng::mixed;

/// Gives random numbers.
pub(super) struct SeededRng(SplitMix64);

impl SeededRng {
    /// Starts the stream that belongs to `seed` and `purpose`; streams of two purposes have nothing
    /// to do with each other.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(SplitMix64::new(mixed(seed) ^ hash(purpose)))
    }

    /// Gives one of `0..n`; `n` is at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }

    /// Gives an integer from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let n = usize::try_from(high - low + 1).unwrap_or(1);
        low + i64::try_from(self.below(n)).unwrap_or(0)
    }

    /// Gives one item of `items`, which are never empty.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts `items` into a random order (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// Gives `n` different items of `items`, or all of them when there are fewer.
    pub(super) fn sample<'a, T>(&mut self, items: &'a [T], n: usize) -> Vec<&'a T> {
        let mut all: Vec<&T> = items.iter().collect();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }
}

/// Hashes a text (FNV-1a, then spread).
pub(super) fn hash(text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mixed(text.bytes().fold(start, fold))
}
