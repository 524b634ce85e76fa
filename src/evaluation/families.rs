//! Joins the near-duplicate tasks of a suite into families.

use crate::minhash::MinHashSignature;

use super::task::AnswerCheck;
use super::task::EvalTask;

/// Joins near-duplicate tasks into one family, that of the first of them. Tasks are near-duplicates
/// if their questions share half of their shingles, or if they ask for the same function.
pub fn join(tasks: &mut [EvalTask]) {
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
