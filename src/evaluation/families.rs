//! Which tasks are about the same, and which part of a suite they are for.

use serde::Serialize;

use crate::digest::sha256;
use crate::minhash::MinHashSignature;

use super::task::AnswerCheck;
use super::task::EvalTask;

/// Words of a run, and the share of runs from which two questions are one.
const SHINGLE: usize = 13;
const ALIKE: f64 = 0.5;

/// A part of a suite: what it may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SuiteSplit {
    /// To be trained on: 60 % of all families.
    Train,
    /// To choose by, as often as one likes: 20 %.
    Dev,
    /// To decide on a promotion: 15 %.
    Gate,
    /// To see whether all that went well: 5 %.
    Vault,
}

impl SuiteSplit {
    /// The split of a family, by its digest alone: so it is the same in every suite, for ever.
    pub fn of(family: &str) -> Self {
        let digest = sha256(format!("split {family}").as_bytes());
        match u64::from_str_radix(&digest[..8], 16).unwrap_or(0) % 100 {
            0..60 => Self::Train,
            60..80 => Self::Dev,
            80..95 => Self::Gate,
            _ => Self::Vault,
        }
    }

    /// The word in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Gate => "gate",
            Self::Vault => "vault",
        }
    }
}

/// Joins tasks whose questions share half of their runs of words, or that ask for the same
/// function, into one family: that of the first of them.
pub(super) fn join(tasks: &mut [EvalTask]) {
    let signatures: Vec<MinHashSignature> =
        tasks.iter().map(|task| MinHashSignature::new(&asked(task), SHINGLE)).collect();
    let heads: Vec<Option<String>> = tasks.iter().map(head).collect();
    let mut first: Vec<usize> = (0..tasks.len()).collect();
    for later in 0..tasks.len() {
        for earlier in 0..later {
            let is_same = heads[later].is_some() && heads[later] == heads[earlier]
                || signatures[later].resemblance(&signatures[earlier]) >= ALIKE;
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

/// The head of the function that is asked for.
fn head(task: &EvalTask) -> Option<String> {
    let AnswerCheck::Function(check) = &task.check else { return None };
    let start = format!("def {}(", check.entry_point);
    let line = task.answer.lines().find(|line| line.starts_with(&start))?;
    Some(line.split_whitespace().collect())
}
