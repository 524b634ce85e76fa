//! [`SplitMix64`]: reproducible random numbers. A seed gives the same numbers on every machine and
//! in every version.

/// Step of the generator's state: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The `SplitMix64` generator (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
/// generators", figure 16). Not for cryptography.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    /// Creates the generator for `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64-bit number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mixed(self.0)
    }

    /// Returns the `index`-th number of `seed`, from 0, without those before it.
    pub(crate) fn nth(seed: u64, index: u64) -> u64 {
        mixed(seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// Returns a number in `0..n`, for `n` of at least 1. The modulo bias is below `n / 2^64`.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below n")]
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Returns a number in `0.0..1.0`, a multiple of 2^-24.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Shuffles `items` (Fisher-Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Mixes the bits of a number: the output function of the generator.
pub(crate) fn mixed(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    /// The first numbers of seed 1234567, from the reference implementation by Sebastiano Vigna,
    /// splitmix64.c.
    #[test]
    fn splitmix64_matches_the_reference() {
        let mut random = SplitMix64::new(1_234_567);
        let numbers = [(); 5].map(|()| random.next());
        assert_eq!([0, 1, 2, 3, 4].map(|index| SplitMix64::nth(1_234_567, index)), numbers);
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }
}
