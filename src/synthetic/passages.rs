//! Baselines that put documentation into the prompt: the whole README, or its best passage.

use std::collections::HashMap;

use super::library::SyntheticLibrary;
use super::tasks::LibraryTask;

impl SyntheticLibrary {
    /// Returns the tasks that need the library, with its whole README before the question.
    pub fn with_document(&self, tasks: &[LibraryTask]) -> Vec<LibraryTask> {
        let document = self.readme();
        self.with(tasks, |_| document.clone())
    }

    /// Returns the tasks that need the library, with the README section that BM25 ranks first for
    /// the question.
    pub fn with_passage(&self, tasks: &[LibraryTask]) -> Vec<LibraryTask> {
        let readme = self.readme();
        let passages: Vec<String> =
            readme.split("\n## ").skip(1).map(|section| format!("## {section}")).collect();
        let index = PassageIndex::new(&passages);
        self.with(tasks, |question| passages[index.best(question)].clone())
    }

    fn with(&self, tasks: &[LibraryTask], text: impl Fn(&str) -> String) -> Vec<LibraryTask> {
        let in_front = |task: &LibraryTask| {
            let mut task = task.clone();
            let question = &mut task.messages[0].content;
            let text = text(question);
            *question = format!("From the README of {}:\n\n{text}\n\n{question}", self.name());
            task
        };
        tasks.iter().filter(|task| !task.is_control).map(in_front).collect()
    }
}

/// Index of passages for Okapi BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance
/// Framework").
struct PassageIndex {
    /// Term frequencies of each passage.
    counts: Vec<HashMap<String, f64>>,
    mean_length: f64,
}

/// BM25 parameter `k1`, the saturation of term frequency.
const K1: f64 = 1.2;
/// BM25 parameter `b`, the length normalization.
const B: f64 = 0.75;

#[expect(clippy::cast_precision_loss, reason = "texts are short")]
impl PassageIndex {
    /// Indexes at least one passage.
    fn new(passages: &[String]) -> Self {
        let counts: Vec<HashMap<String, f64>> = passages
            .iter()
            .map(|passage| {
                let mut counts = HashMap::new();
                for word in words(passage) {
                    *counts.entry(word).or_default() += 1.0;
                }
                counts
            })
            .collect();
        let n_words: f64 = counts.iter().flat_map(HashMap::values).sum();
        Self { mean_length: n_words / passages.len() as f64, counts }
    }

    /// Returns the index of the highest-ranked passage for `question`.
    fn best(&self, question: &str) -> usize {
        let scores: Vec<f64> = self
            .counts
            .iter()
            .map(|counts| words(question).map(|w| self.score(counts, &w)).sum())
            .collect();
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        best.unwrap_or_default()
    }

    fn score(&self, counts: &HashMap<String, f64>, word: &str) -> f64 {
        let n = self.counts.len() as f64;
        let n_with = self.counts.iter().filter(|counts| counts.contains_key(word)).count() as f64;
        let rarity = ((n - n_with + 0.5) / (n_with + 0.5)).ln_1p();
        let count = counts.get(word).copied().unwrap_or_default();
        let length = counts.values().sum::<f64>() / self.mean_length;
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
        let best = |question| index.best(question);
        assert_eq!([best("the largest"), best("a Retry-count of it"), best("sum")], [1, 2, 0]);
    }

    #[test]
    fn controls_get_no_document() {
        let library = SyntheticLibrary::invent(4, 6);
        let tasks = library.tasks(1);
        let with = library.with_document(&tasks);
        assert!(with.len() < tasks.len() && with.iter().all(|task| !task.is_control));
        assert!(with.iter().all(|task| task.messages[0].content.contains(&library.readme())));
        let constant = library.with_passage(&tasks).into_iter().find(|task| task.group == "T7");
        assert!(constant.unwrap().messages[0].content.contains("## Constants"));
    }
}
