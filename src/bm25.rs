//! [`PassageIndex`]: ranks the passages of a document by how much they say about a question.

use std::collections::HashMap;

/// Index of passages for Okapi BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance
/// Framework").
#[derive(Debug)]
pub struct PassageIndex {
    /// Term frequencies of each passage.
    counts: Vec<HashMap<String, f64>>,
    /// Number of passages with each term.
    n_with: HashMap<String, f64>,
    mean_length: f64,
}

/// BM25 parameter `k1`, the saturation of term frequency.
const K1: f64 = 1.2;
/// BM25 parameter `b`, the length normalization.
const B: f64 = 0.75;

#[expect(clippy::cast_precision_loss, reason = "texts are short")]
impl PassageIndex {
    /// Indexes at least one passage.
    pub fn new(passages: &[impl AsRef<str>]) -> Self {
        let counts: Vec<HashMap<String, f64>> = passages
            .iter()
            .map(|passage| {
                let mut counts = HashMap::new();
                for word in words(passage.as_ref()) {
                    *counts.entry(word).or_default() += 1.0;
                }
                counts
            })
            .collect();
        let n_words: f64 = counts.iter().flat_map(HashMap::values).sum();
        let mut n_with: HashMap<String, f64> = HashMap::new();
        for word in counts.iter().flat_map(HashMap::keys) {
            *n_with.entry(word.clone()).or_default() += 1.0;
        }
        Self { mean_length: n_words / passages.len() as f64, n_with, counts }
    }

    /// Returns the indices of the `n` highest-ranked passages for `question`, the best first.
    pub fn nearest(&self, question: &str, n: usize) -> Vec<usize> {
        self.ranked(question).into_iter().take(n).map(|(index, _)| index).collect()
    }

    /// Returns the indices of all passages with their scores, the best first. A passage without a
    /// word of the question has the score 0.
    pub fn ranked(&self, question: &str) -> Vec<(usize, f64)> {
        let words: Vec<String> = words(question).collect();
        let score = |counts: &HashMap<String, f64>| {
            let length = counts.values().sum::<f64>() / self.mean_length;
            words.iter().map(|word| self.score(counts, length, word)).sum()
        };
        let mut ranked: Vec<(usize, f64)> = self.counts.iter().map(score).enumerate().collect();
        ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        ranked
    }

    /// Scores one word for a passage of `length` times the mean length.
    fn score(&self, counts: &HashMap<String, f64>, length: f64, word: &str) -> f64 {
        let n = self.counts.len() as f64;
        let n_with = self.n_with.get(word).copied().unwrap_or_default();
        let rarity = ((n - n_with + 0.5) / (n_with + 0.5)).ln_1p();
        let count = counts.get(word).copied().unwrap_or_default();
        rarity * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length))
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passage_with_the_rare_words_is_found() {
        let passages = ["sum of the list", "largest of the list of the lists", "the retry count"];
        let index = PassageIndex::new(&passages.map(str::to_owned));
        let best = |question| index.nearest(question, 1)[0];
        assert_eq!([best("the largest"), best("a Retry-count of it"), best("sum")], [1, 2, 0]);
    }
}
