//! Random numbers that a seed gives again.

/// Gives random numbers (`SplitMix64`: Steele, Lea and Flood 2014, "Fast splittable pseudorandom
/// number generators").
pub(super) struct Chance(u64);

impl Chance {
    /// Starts the stream that belongs to `seed` and `purpose`; streams of two purposes have nothing
    /// to do with each other.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(mix(seed) ^ hash(purpose))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Gives one of `0..n`; `n` is at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = n.max(1) as u64;
        usize::try_from(self.next() % n).unwrap_or(0)
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

    /// Puts `items` into an order of chance (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Gives `n` different items of `items`, or all of them when there are fewer.
    pub(super) fn sample<'a, T>(&mut self, items: &'a [T], n: usize) -> Vec<&'a T> {
        let mut all: Vec<&T> = items.iter().collect();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }
}

/// Spreads a number over all 64 bits.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Hashes a text (FNV-1a, then spread).
pub(super) fn hash(text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(text.bytes().fold(start, fold))
}
