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
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for term in self.0.iter().flatten() {
            *counts.entry(term).or_default() += 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "tasks are few")]
        let n_tasks = self.0.len().max(1) as f64;
        let square = |term: &String| {
            let common = counts.get(term.as_str()).copied().unwrap_or(0.0) / n_tasks;
            (rarity(term) * (1.0 + COMMON * common)).powi(2)
        };
        let text = terms(text);
        let length = |terms: &Terms| terms.iter().map(square).sum::<f64>().sqrt();
        let text_length = length(&text);
        let cosine = |task: &Terms| {
            let product = length(task) * text_length;
            if product > 0.0 {
                task.intersection(&text).map(square).sum::<f64>() / product
            } else {
                0.0
            }
        };
        self.0.iter().map(cosine).fold(0.0, f64::max)
    }
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
    use super::TaskProfile;
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
    fn similarity_is_a_share() {
        let profile = TaskProfile::new(["Write kv.py, a key-value store", "", "Parse a ledger"]);
        assert!((profile.similarity("Write kv.py, a key-value store") - 1.0).abs() < 1e-9);
        assert!(profile.similarity("Add a method to the key-value store in kv.py") > 0.5);
        assert!(profile.similarity("Reverse a string") < 0.2);
        assert!(TaskProfile::default().similarity("Write kv.py") <= 0.0);
        assert!(profile.similarity("") <= 0.0);
    }
}
