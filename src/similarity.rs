//! [`TaskProfile`]: how near a task is to those that an adapter was trained on.
//!
//! Texts are compared as sets of terms, by the cosine of their weights. A term weighs more the
//! fewer general questions about Python contain it, and more again the more of the training tasks
//! contain it: what runs through all of them, such as the name of a library, is what they are
//! about. A task is as near as the nearest of the training tasks.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::Serialize;

use crate::terms::terms;

/// Similarity from which a task is near.
///
/// Calibrated by `examples/similarity.rs` on invented libraries of seeds 1 and 7: tasks about the
/// library itself have 0.75 or more; tasks about another library, with the same wordings but for
/// its names, 0.59 or less; `HumanEval` and MBPP 0.47 or less. Trained on 500 tasks of MBPP, half
/// of its others are near, and fewer than 5 % of `HumanEval`.
pub const NEAR: f64 = 0.65;

/// How many times its weight a term gains when all training tasks contain it.
const COMMON: f64 = 4.0;

/// General questions about Python, the background that terms are rare against.
const BACKGROUND: &str = include_str!("training/rehearsal.txt");

/// The terms of a text.
type Terms = BTreeSet<String>;

/// The tasks that an adapter was trained on, as sets of terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskProfile(BTreeSet<Terms>);

impl TaskProfile {
    /// Creates the profile of tasks by their texts. Texts with the same terms count once.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self(texts.into_iter().map(terms).filter(|terms| !terms.is_empty()).collect())
    }

    /// Returns how near `text` is to the nearest task, `0.0..=1.0`; 0 without tasks.
    pub fn similarity(&self, text: &str) -> f64 {
        self.card().similarity(text)
    }

    /// Returns the profile in its compact form.
    pub fn card(&self) -> ProfileCard {
        let all: BTreeSet<&String> = self.0.iter().flatten().collect();
        // Indices have 16 bits, of which the largest ends a task.
        let terms: Vec<String> = all.into_iter().take(usize::from(u16::MAX)).cloned().collect();
        let index = |term: &String| u16::try_from(terms.binary_search(term).ok()?).ok();
        let tasks = self.0.iter().map(|task| task.iter().filter_map(index).collect()).collect();
        ProfileCard { terms, tasks }
    }
}

/// A profile in a compact form, which is read in a fraction of a millisecond: every term once, and
/// each task as indices into them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileCard {
    /// Terms of all tasks, sorted.
    terms: Vec<String>,
    tasks: Vec<Vec<u16>>,
}

impl ProfileCard {
    /// Whether it has any tasks to compare with.
    pub fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Returns the terms, sorted.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// Encodes the tasks: little-endian indices of terms, each task ended by 0xFFFF.
    pub fn task_bytes(&self) -> Vec<u8> {
        let ended = |task: &Vec<u16>| task.iter().copied().chain([u16::MAX]).collect::<Vec<u16>>();
        self.tasks.iter().flat_map(ended).flat_map(u16::to_le_bytes).collect()
    }

    /// Decodes a card from its terms, separated by spaces, and the bytes of its tasks.
    pub fn decode(terms: &str, tasks: &[u8]) -> Self {
        let terms: Vec<String> = terms.split_whitespace().map(str::to_owned).collect();
        let numbers: Vec<u16> =
            tasks.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let known = |index: &u16| usize::from(*index) < terms.len();
        let tasks = numbers
            .split(|number| *number == u16::MAX)
            .map(|task| task.iter().copied().filter(known).collect::<Vec<u16>>())
            .filter(|task| !task.is_empty())
            .collect();
        Self { terms, tasks }
    }

    /// Returns how near `text` is to the nearest task, `0.0..=1.0`; 0 without tasks.
    pub fn similarity(&self, text: &str) -> f64 {
        let weights = self.weights();
        let (mut own, mut square) = (vec![false; self.terms.len()], 0.0);
        for term in terms(text) {
            square += match self.terms.binary_search(&term) {
                Ok(index) => {
                    own[index] = true;
                    weights[index]
                }
                Err(_) => rarity(&term).powi(2),
            };
        }
        let length = square.sqrt();
        let cosine = |task: &Vec<u16>| {
            let (mut shared, mut all) = (0.0, 0.0);
            for index in task {
                let index = usize::from(*index);
                all += weights[index];
                shared += if own[index] { weights[index] } else { 0.0 };
            }
            let product = all.sqrt() * length;
            if product > 0.0 { shared / product } else { 0.0 }
        };
        self.tasks.iter().map(cosine).fold(0.0, f64::max)
    }

    /// Returns the squared weight of each term.
    #[expect(clippy::cast_precision_loss, reason = "tasks are few")]
    fn weights(&self) -> Vec<f64> {
        let mut counts = vec![0.0; self.terms.len()];
        for index in self.tasks.iter().flatten() {
            counts[usize::from(*index)] += 1.0;
        }
        let n_tasks = self.tasks.len().max(1) as f64;
        let square = |(term, count): (&String, f64)| {
            (rarity(term) * (1.0 + COMMON * count / n_tasks)).powi(2)
        };
        self.terms.iter().zip(counts).map(square).collect()
    }
}

/// Returns the `n` terms of a text that are rarest in the background.
pub fn rarest_terms(text: &str, n: usize) -> Vec<String> {
    let mut rarest: Vec<String> = terms(text).into_iter().collect();
    rarest.sort_by(|one, other| rarity(other).total_cmp(&rarity(one)));
    rarest.truncate(n);
    rarest
}

/// Returns the inverse document frequency of a term in the background.
fn rarity(term: &str) -> f64 {
    static COUNTS: LazyLock<(f64, BTreeMap<String, f64>)> = LazyLock::new(|| {
        let (mut n, mut counts) = (0.0, BTreeMap::new());
        for question in BACKGROUND.split("\n---\n") {
            n += 1.0;
            for term in terms(question) {
                *counts.entry(term).or_default() += 1.0;
            }
        }
        (n, counts)
    });
    let (n, counts) = &*COUNTS;
    ((n + 1.0) / (counts.get(term).copied().unwrap_or(0.0) + 0.5)).ln()
}

#[cfg(test)]
mod tests {
    use super::NEAR;
    use super::ProfileCard;
    use super::TaskProfile;
    use super::rarest_terms;
    use crate::synthetic::RecordOptions;
    use crate::synthetic::SyntheticLibrary;

    /// The similarities of the tasks of a library, its own controls, and another library's tasks
    /// to what teaches the first. No seed of these was used to choose the threshold.
    #[test]
    fn tasks_of_another_library_are_not_near() {
        for seed in [31, 32, 33] {
            let library = SyntheticLibrary::invent(seed, 8);
            let other = SyntheticLibrary::invent(seed + 100, 8);
            let records = library.training(RecordOptions::default());
            let profile =
                TaskProfile::new(records.iter().map(|record| record.messages[0].content.as_str()));
            let near = |task: &crate::synthetic::LibraryTask| {
                profile.similarity(&task.messages[0].content) >= NEAR
            };
            for task in library.tasks(2) {
                assert_eq!(near(&task), !task.is_control, "{}", task.id);
            }
            assert!(other.tasks(2).iter().all(|task| !near(task)), "{seed}");
        }
    }

    #[test]
    fn a_card_survives_its_encoding() {
        let card = TaskProfile::new(["Write kv.py, a key-value store", "Parse a ledger"]).card();
        let decoded = ProfileCard::decode(&card.terms().join(" "), &card.task_bytes());
        assert_eq!(decoded, card);
        assert_eq!(
            ProfileCard::decode("ledger", &[9, 0, 255, 255, 0]),
            ProfileCard { terms: vec!["ledger".to_owned()], tasks: Vec::new() }
        );
        assert_eq!(rarest_terms("Return the list of the ledger", 1), ["ledger"]);
    }

    #[test]
    fn similarity_is_a_share() {
        let profile = TaskProfile::new(["Write kv.py, a key-value store", "", "Parse a ledger"]);
        assert!((profile.similarity("Write kv.py, a key-value store") - 1.0).abs() < 1e-9);
        assert!(profile.similarity("Add a method to the key-value store in kv.py") > 0.5);
        assert!(profile.similarity("Reverse a string") < 0.2);
        assert!(TaskProfile::default().similarity("Write kv.py") <= 0.0);
        assert!(profile.similarity("") <= 0.0);
    }
}
