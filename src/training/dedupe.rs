//! Records that say the same again.

use std::collections::HashMap;

use crate::digest::sha256;
use crate::minhash::MinHashSignature;

use super::record::TrainingRecord;

/// Words of a shingle.
const SHINGLE: usize = 5;
/// Questions that share at least this part of their shingles, as MinHash estimates it, are one
/// question.
const ALIKE: f64 = 0.8;

/// Keeps the first of all records whose answers are the same but for blanks and comments, and whose
/// questions are alike.
pub(super) fn distinct(records: Vec<TrainingRecord>) -> Vec<TrainingRecord> {
    let mut seen: HashMap<String, Vec<MinHashSignature>> = HashMap::new();
    let mut kept = Vec::new();
    for record in records {
        let answers: Vec<String> = record.answers().map(essence).collect();
        let questions = seen.entry(sha256(answers.join("\n").as_bytes())).or_default();
        let question = MinHashSignature::new(&asked(&record), SHINGLE);
        if questions.iter().any(|other| question.resemblance(other) >= ALIKE) {
            continue;
        }
        questions.push(question);
        kept.push(record);
    }
    kept
}

/// All that is said to the model.
fn asked(record: &TrainingRecord) -> String {
    let asked = record.messages.iter().filter(|m| m.role != crate::trajectory::Role::Assistant);
    asked.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

/// An answer without what Python does not read: comments after a blank, blanks at line ends, empty
/// lines.
fn essence(answer: &str) -> String {
    let line = |line: &str| {
        let code = match line.split_once('#') {
            Some((code, _)) if code.is_empty() || code.ends_with(' ') => code,
            _ => line,
        };
        code.trim_end().to_owned()
    };
    let lines: Vec<String> = answer.lines().map(line).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::distinct;
    use crate::training::TrainingRecord;
    use crate::trajectory::Message;

    #[test]
    fn the_same_answer_to_nearly_the_same_question_is_kept_once() {
        let long = "Write a function that adds two whole numbers and gives back their sum, \
                    with a docstring of one line and no imports, in plain Python, please.";
        let record = |question: &str, answer: &str| {
            TrainingRecord::new("f", vec![Message::user(question), Message::assistant(answer)])
        };
        let kept = distinct(vec![
            record(long, "def add(a, b):\n    return a + b\n"),
            record(&format!("{long} Thanks."), "def add(a, b):  # adds\n\n    return a + b"),
            record("Sort a list.", "def add(a, b):\n    return a + b\n"),
            record(long, "def add(a, b):\n    return b + a\n"),
        ]);
        assert_eq!(kept.len(), 3);
    }
}
