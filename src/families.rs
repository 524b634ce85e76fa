//! Families of near-duplicate tasks, and the split that each family belongs to.
//!
//! A family is never divided: what is trained on one of its tasks must not be measured on another.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;

use serde::Serialize;

use crate::digest::sha256;
use crate::minhash::NEAR_DUPLICATE;
use crate::minhash::shingles_of_question;

/// Number of different texts, and of different tests, from which a shingle is a common preamble,
/// which does not tell one task from another.
const COMMON: usize = 3;

/// Split of tasks by permitted use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FamilySplit {
    /// Training: 60 % of all families.
    Train,
    /// Model selection, without limit: 20 %.
    Dev,
    /// Promotion decisions only: 15 %.
    Gate,
    /// Final check of the whole process: 5 %.
    Vault,
}

impl FamilySplit {
    /// Returns the split of a family. It depends only on the family's digest, so it is the same in
    /// every suite and never changes.
    pub fn of(family: &str) -> Self {
        let digest = sha256(format!("split {family}").as_bytes());
        match u64::from_str_radix(&digest[..8], 16).unwrap_or(0) % 100 {
            0..60 => Self::Train,
            60..80 => Self::Dev,
            80..95 => Self::Gate,
            _ => Self::Vault,
        }
    }

    /// Returns the name of the split in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Gate => "gate",
            Self::Vault => "vault",
        }
    }
}

/// What tells whether two tasks are near-duplicates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskTraits<'a> {
    /// Text of the task.
    pub(crate) text: &'a str,
    /// Digest of its tests.
    pub(crate) tests: &'a str,
    /// Family that its user gave it, or the default that follows from its text.
    pub(crate) family: &'a str,
}

/// Tasks with their families. Each new task gets that of the earlier tasks that it resembles, so
/// the family of a task never changes.
///
/// Two tasks are near-duplicates if they have the same tests or were given the same family, or if
/// half of their runs of 13 words are the same. Runs of words that several tasks with other texts
/// and other tests have, such as instructions that a user always gives, do not count.
#[derive(Debug, Default)]
pub(crate) struct FamilyIndex {
    tasks: Vec<IndexedTask>,
    by_tests: HashMap<String, Vec<usize>>,
    by_name: HashMap<String, Vec<usize>>,
    by_shingle: HashMap<u64, Occurrences>,
}

#[derive(Debug)]
struct IndexedTask {
    family: Option<String>,
    shingles: Vec<u64>,
}

/// Tasks that contain a shingle, until it is common.
#[derive(Debug, Default)]
struct Occurrences {
    tasks: Vec<usize>,
    texts: BTreeSet<String>,
    tests: BTreeSet<String>,
}

impl FamilyIndex {
    /// Returns the family of a new task; `None` if it resembles tasks of different splits, so that
    /// no split may have it.
    pub(crate) fn family_of(&self, task: TaskTraits<'_>) -> Option<String> {
        let of_task = |index: usize| self.tasks[index].family.as_deref();
        let families = self.alike(task).into_iter().map(of_task).collect::<Option<Vec<&str>>>()?;
        let Some(first) = families.first() else { return Some(task.family.to_owned()) };
        let split = FamilySplit::of(first);
        families.iter().all(|family| FamilySplit::of(family) == split).then(|| (*first).to_owned())
    }

    /// Adds a task with the family that it has got.
    pub(crate) fn add(&mut self, task: TaskTraits<'_>, family: Option<String>) {
        let index = self.tasks.len();
        let shingles: Vec<u64> = shingles_of_question(task.text).into_iter().collect();
        let text = sha256(task.text.as_bytes());
        for shingle in &shingles {
            let found = self.by_shingle.entry(*shingle).or_default();
            if !found.is_common() {
                found.tasks.push(index);
                found.texts.insert(text.clone());
                found.tests.insert(task.tests.to_owned());
            }
        }
        self.by_tests.entry(task.tests.to_owned()).or_default().push(index);
        self.by_name.entry(task.family.to_owned()).or_default().push(index);
        self.tasks.push(IndexedTask { family, shingles });
    }

    /// Returns the tasks of which `task` is a near-duplicate.
    fn alike(&self, task: TaskTraits<'_>) -> BTreeSet<usize> {
        let same = [self.by_tests.get(task.tests), self.by_name.get(task.family)];
        let mut alike: BTreeSet<usize> = same.into_iter().flatten().flatten().copied().collect();
        let own: HashSet<u64> = self.distinctive(shingles_of_question(task.text));
        let mut n_shared: HashMap<usize, usize> = HashMap::new();
        for shingle in &own {
            for index in self.by_shingle.get(shingle).into_iter().flat_map(|found| &found.tasks) {
                *n_shared.entry(*index).or_default() += 1;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of words")]
        let is_near = |(index, n_shared): &(usize, usize)| {
            let other = self.distinctive(self.tasks[*index].shingles.iter().copied());
            let n_all = own.len() + other.len() - n_shared;
            *n_shared as f64 >= NEAR_DUPLICATE * n_all as f64
        };
        alike.extend(n_shared.into_iter().filter(is_near).map(|(index, _)| index));
        alike
    }

    /// Keeps the shingles that are not common.
    fn distinctive(&self, shingles: impl IntoIterator<Item = u64>) -> HashSet<u64> {
        let is_common =
            |shingle: &u64| self.by_shingle.get(shingle).is_some_and(Occurrences::is_common);
        shingles.into_iter().filter(|shingle| !is_common(shingle)).collect()
    }
}

impl Occurrences {
    fn is_common(&self) -> bool {
        self.texts.len() >= COMMON && self.tests.len() >= COMMON
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const PREAMBLE: &str = "You are working in a repository of small Python modules. Write plain \
                            code with type annotations and without any dependencies, and do not \
                            print anything.";

    /// Places tasks, given as text, tests and family, in turn.
    fn families(tasks: &[(&str, &str, &str)]) -> Vec<Option<String>> {
        let mut index = FamilyIndex::default();
        let place = |(text, tests, family): &(&str, &str, &str)| {
            let task = TaskTraits { text, tests, family };
            let found = index.family_of(task);
            index.add(task, found.clone());
            found
        };
        tasks.iter().map(place).collect()
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| Some((*name).to_owned())).collect()
    }

    #[test]
    fn a_task_joins_the_family_of_what_it_resembles() {
        let task = "Write kv.py with a class Store that has get, set and delete for keys and \
                    values, and a method keys that lists all of them in the order of insertion.";
        let again = format!("{task} Use a dict.");
        let found = families(&[
            (task, "t1", "a"),
            (&again, "t2", "b"),
            ("Something else entirely", "t1", "c"),
            ("Explicitly of the first family", "t3", "a"),
            ("Parse a ledger", "t4", "d"),
        ]);
        assert_eq!(found, some(&["a", "a", "a", "a", "d"]));
    }

    #[test]
    fn common_preambles_do_not_join_tasks_but_edited_tests_do_not_part_them() {
        let texts: Vec<String> =
            ["Reverse a list.", "Sum a list.", "Sort a list.", "Find the mode."]
                .map(|task| format!("{PREAMBLE} {task}"))
                .into();
        let rows: Vec<(&str, String, String)> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| (text.as_str(), format!("t{at}"), format!("f{at}")))
            .collect();
        let rows: Vec<(&str, &str, &str)> = rows
            .iter()
            .map(|(text, tests, family)| (*text, tests.as_str(), family.as_str()))
            .collect();
        // Until three tasks have shown it, the preamble may be the task itself.
        let found = families(&rows);
        assert_eq!(found, some(&["f0", "f0", "f0", "f3"]));
        let task = "Write kv.py with a class Store that has get, set and delete for keys.";
        let versions = ["t1", "t2", "t3", "t4", "t5"].map(|tests| (task, tests, "f"));
        assert_eq!(families(&versions), some(&["f"; 5]));
    }

    #[test]
    fn a_task_between_two_splits_belongs_to_none() {
        let (train, gate) = (of_split(FamilySplit::Train, 0), of_split(FamilySplit::Gate, 0));
        let found = families(&[
            ("Parse a ledger", "t1", &train),
            ("Sort a list", "t2", &gate),
            ("Something new", "t2", &train),
            ("And a follower of that", "t2", "c"),
        ]);
        assert_eq!(found, [Some(train.clone()), Some(gate.clone()), None, None]);
    }

    /// Returns the `index`-th number, from 0, whose name is that of a family of a split.
    pub(crate) fn of_split(split: FamilySplit, index: usize) -> String {
        let names = (0..1000).map(|n| n.to_string());
        names.filter(|name| FamilySplit::of(name) == split).nth(index).unwrap()
    }
}
