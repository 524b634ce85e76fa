//! [`RankWindow`]: the entries of a tensor whose magnitudes have ranks within a range, found
//! without sorting and without holding the tensor.
//!
//! The bits of a non-negative float are in the order of its value. Two passes over the entries give
//! the exact k-th smallest: the first counts the upper halves of the bits, the second the lower
//! halves of those with the right upper half.

use std::ops::Range;

/// Upper halves of the bits of magnitudes: the sign bit is 0.
const N_UPPER: usize = 1 << 15;
const N_LOWER: usize = 1 << 16;

/// Bits of the magnitude of a number.
pub(super) fn magnitude_bits(value: f32) -> u32 {
    value.abs().to_bits()
}

/// Counts of the first pass.
#[derive(Debug, Clone)]
pub(super) struct UpperCounts(Vec<u64>);

impl UpperCounts {
    pub(super) fn new() -> Self {
        Self(vec![0; N_UPPER])
    }

    pub(super) fn add(&mut self, value: f32) {
        self.0[(magnitude_bits(value) >> 16) as usize] += 1;
    }

    /// Number of entries counted.
    fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Search for the entry of one rank, between the two passes.
#[derive(Debug, Clone)]
struct RankSearch {
    rank: u64,
    upper: u32,
    /// Number of entries whose upper half is smaller.
    n_below: u64,
    lower: Vec<u64>,
}

impl RankSearch {
    fn new(counts: &UpperCounts, rank: u64) -> Self {
        let (upper, n_below) = bin_of(&counts.0, rank);
        Self { rank, upper, n_below, lower: vec![0; N_LOWER] }
    }

    fn add(&mut self, bits: u32) {
        if bits >> 16 == self.upper {
            self.lower[(bits & 0xFFFF) as usize] += 1;
        }
    }

    fn found(&self) -> RankedValue {
        let (lower, n_below) = bin_of(&self.lower, self.rank - self.n_below);
        RankedValue { bits: self.upper << 16 | lower, n_below: self.n_below + n_below }
    }
}

/// Returns the bin that holds the entry of `rank`, and the number of entries in bins before it.
fn bin_of(counts: &[u64], rank: u64) -> (u32, u64) {
    let mut n_below = 0;
    for (bin, count) in (0..).zip(counts) {
        if n_below + count > rank {
            return (bin, n_below);
        }
        n_below += count;
    }
    unreachable!("the rank is below the number of entries")
}

/// A magnitude and the number of smaller ones.
#[derive(Debug, Clone, Copy)]
struct RankedValue {
    bits: u32,
    n_below: u64,
}

/// Search for a window, between the two passes.
#[derive(Debug, Clone)]
pub(super) struct WindowSearch {
    ranks: Range<u64>,
    ends: Option<[RankSearch; 2]>,
}

impl WindowSearch {
    /// Starts the second pass for the entries of `ranks`, from the smallest magnitude; `ranks` is a
    /// function of the number of entries.
    pub(super) fn new(counts: &UpperCounts, ranks: impl Fn(u64) -> Range<u64>) -> Self {
        let ranks = ranks(counts.total());
        let search = |rank| RankSearch::new(counts, rank);
        let ends = (!ranks.is_empty()).then(|| [search(ranks.start), search(ranks.end - 1)]);
        Self { ranks, ends }
    }

    pub(super) fn add(&mut self, value: f32) {
        let bits = magnitude_bits(value);
        self.ends.iter_mut().flatten().for_each(|end| end.add(bits));
    }

    pub(super) fn found(self) -> RankWindow {
        let ends = self.ends.as_ref().map(|ends| [ends[0].found(), ends[1].found()]);
        RankWindow { ranks: self.ranks, ends, n_seen: [0; 2] }
    }
}

/// Decides, entry after entry, whether it is within a range of ranks. Of equal magnitudes, the
/// earlier entry has the smaller rank, so exactly as many entries are kept as there are ranks.
#[derive(Debug, Clone)]
pub(super) struct RankWindow {
    ranks: Range<u64>,
    /// The smallest and the largest magnitude of the window; `None` if it is empty.
    ends: Option<[RankedValue; 2]>,
    /// How many entries equal to each end were seen.
    n_seen: [u64; 2],
}

impl RankWindow {
    /// Whether the next entry is within the window. All entries must be asked for, in order.
    pub(super) fn keeps(&mut self, value: f32) -> bool {
        let Some(ends) = self.ends else { return false };
        let bits = magnitude_bits(value);
        if bits < ends[0].bits || bits > ends[1].bits {
            return false;
        }
        let Some(end) = ends.iter().position(|end| end.bits == bits) else { return true };
        let rank = ends[end].n_below + self.n_seen[end];
        self.n_seen[end] += 1;
        self.ranks.contains(&rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn kept(values: &[f32], ranks: Range<u64>) -> Vec<usize> {
        let mut counts = UpperCounts::new();
        for value in values {
            counts.add(*value);
        }
        let mut search = WindowSearch::new(&counts, |_| ranks.clone());
        for value in values {
            search.add(*value);
        }
        let mut window = search.found();
        (0..values.len()).filter(|index| window.keeps(values[*index])).collect()
    }

    #[test]
    fn windows_equal_those_of_a_sort() {
        let mut random = SplitMix64::new(5);
        // Few distinct values, so that many are equal; and zeros of both signs.
        let few: Vec<f32> = (0..500).map(|_| (random.uniform() * 8.0).floor() - 4.0).collect();
        let many: Vec<f32> = (0..500).map(|_| random.uniform() - 0.5).collect();
        for values in [few, many, vec![0.0; 500]] {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|one, other| values[*one].abs().total_cmp(&values[*other].abs()));
            for ranks in [0..500, 0..1, 499..500, 100..101, 250..495, 7..7] {
                let range =
                    usize::try_from(ranks.start).unwrap()..usize::try_from(ranks.end).unwrap();
                let mut wanted = order[range].to_vec();
                wanted.sort_unstable();
                assert_eq!(kept(&values, ranks), wanted);
            }
        }
    }
}
