//! Families of near-duplicate tasks, and the split that each family belongs to.

use serde::Serialize;

use crate::digest::sha256;
use crate::minhash::MinHashSignature;

use super::task::AnswerCheck;
use super::task::EvalTask;

/// Split of a suite, by permitted use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SuiteSplit {
    /// Training: 60 % of all families.
    Train,
    /// Model selection, without limit: 20 %.
    Dev,
    /// Promotion decisions only: 15 %.
    Gate,
    /// Final check of the whole process: 5 %.
    Vault,
}

impl SuiteSplit {
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

/// Joins near-duplicate tasks into one family, that of the first of them. Tasks are near-duplicates
/// if their questions share half of their shingles, or if they ask for the same function.
pub(super) fn join(tasks: &mut [EvalTask]) {
    let signatures: Vec<MinHashSignature> =
        tasks.iter().map(|task| MinHashSignature::of_question(&asked(task))).collect();
    let heads: Vec<Option<String>> = tasks.iter().map(head).collect();
    let mut first: Vec<usize> = (0..tasks.len()).collect();
    for later in 0..tasks.len() {
        for earlier in 0..later {
            let is_same = heads[later].is_some() && heads[later] == heads[earlier]
                || signatures[later].is_near_duplicate(&signatures[earlier]);
            // Union-find, with the earliest task as the root of its family.
            if is_same {
                let (a, b) = (root(&first, earlier), root(&first, later));
                first[a.max(b)] = a.min(b);
            }
        }
    }
    let families: Vec<String> =
        (0..tasks.len()).map(|index| tasks[root(&first, index)].family.clone()).collect();
    for (task, family) in tasks.iter_mut().zip(families) {
        task.family = family;
    }
}

fn root(first: &[usize], mut index: usize) -> usize {
    while first[index] != index {
        index = first[index];
    }
    index
}

fn asked(task: &EvalTask) -> String {
    task.messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

/// Returns the signature of the function that a task asks for, without whitespace.
fn head(task: &EvalTask) -> Option<String> {
    let AnswerCheck::Function(check) = &task.check else { return None };
    let start = format!("def {}(", check.entry_point);
    let line = task.answer.lines().find(|line| line.starts_with(&start))?;
    Some(line.split_whitespace().collect())
}
