//! Text similarity: MinHash over word shingles (Broder 1997, "On the resemblance and containment of
//! documents").

use std::collections::HashSet;

use crate::rng::mixed;

/// Number of hashes per signature. The standard error of the estimate is at most `0.5 / sqrt(128)`,
/// or 4.4 percentage points.
const N_HASHES: usize = 128;

/// Number of words in a shingle of a question.
const SHINGLE_OF_QUESTION: usize = 13;
/// Resemblance from which two questions are near-duplicates.
pub(crate) const NEAR_DUPLICATE: f64 = 0.5;

/// The MinHash signature of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MinHashSignature([u64; N_HASHES]);

impl MinHashSignature {
    /// Computes the signature of `text` with shingles of `shingle` words (at least 1). A shorter
    /// text is a single shingle.
    pub(crate) fn new(text: &str, shingle: usize) -> Self {
        let mut least = [u64::MAX; N_HASHES];
        for shingle in shingles(text, shingle) {
            for (i, least) in (1_u64..).zip(&mut least) {
                *least = (*least).min(mixed(shingle ^ mixed(i)));
            }
        }
        Self(least)
    }

    /// Computes the signature of a question, for [`Self::is_near_duplicate`].
    pub(crate) fn of_question(question: &str) -> Self {
        Self::new(question, SHINGLE_OF_QUESTION)
    }

    /// Whether two questions share half of their runs of 13 words.
    pub(crate) fn is_near_duplicate(&self, other: &Self) -> bool {
        self.resemblance(other) >= NEAR_DUPLICATE
    }

    /// Estimates the Jaccard similarity of the two sets of shingles, `0.0..=1.0`.
    #[expect(clippy::cast_precision_loss, reason = "at most 128")]
    pub(crate) fn resemblance(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).filter(|(a, b)| a == b).count() as f64 / N_HASHES as f64
    }
}

/// Returns the hashes of all shingles of a question.
pub(crate) fn shingles_of_question(question: &str) -> HashSet<u64> {
    shingles(question, SHINGLE_OF_QUESTION)
}

/// Returns the hashes of all runs of `n` words (at least 1). A shorter text is a single one.
fn shingles(text: &str, n: usize) -> HashSet<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(n.min(words.len()).max(1)).map(hash_of).collect()
}

/// FNV-1a hash of a shingle.
fn hash_of(words: &[&str]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in words.iter().flat_map(|word| word.bytes().chain([b' '])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash
}
