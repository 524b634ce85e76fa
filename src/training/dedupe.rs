//! Removal of near-duplicate records.

use std::collections::HashMap;

use crate::digest::sha256;
use crate::minhash::MinHashSignature;

use super::record::TrainingRecord;

/// Number of words per shingle.
const SHINGLE: usize = 5;
/// Minimum Jaccard similarity of two questions' shingles, as estimated by MinHash, for them to
/// count as the same question.
const ALIKE: f64 = 0.8;

/// Drops near-duplicates: of records with similar questions and with answers that differ only in
/// whitespace and comments, the first is kept.
pub(super) fn distinct(records: Vec<TrainingRecord>) -> Vec<TrainingRecord> {
    // Signatures of the questions, by a digest of their common answer. Only records with equal
    // answers are compared, which keeps this far from quadratic.
    let mut seen: HashMap<String, Vec<MinHashSignature>> = HashMap::new();
    let mut unique = Vec::new();
    for record in records {
        let answers: Vec<String> = record.answers().map(essence).collect();
        let questions = seen.entry(sha256(answers.join("\n").as_bytes())).or_default();
        let question = MinHashSignature::new(&asked(&record), SHINGLE);
        if questions.iter().any(|other| question.resemblance(other) >= ALIKE) {
            continue;
        }
        questions.push(question);
        unique.push(record);
    }
    unique
}

/// The text of all messages to the model.
fn asked(record: &TrainingRecord) -> String {
    let prompts = record.messages.iter().filter(|m| m.role != crate::trajectory::Role::Assistant);
    prompts.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

/// Normalizes an answer: strips comments, trailing whitespace and empty lines.
fn essence(answer: &str) -> String {
    let line = |line: &str| {
        // A `#` right after other text is more likely part of a string, such as a color.
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
    fn equal_answers_to_similar_questions_are_kept_once() {
        let long = "Write a function that adds two whole numbers and gives back their sum, \
                    with a docstring of one line and no imports, in plain Python, please.";
        let record = |question: &str, answer: &str| {
            TrainingRecord::new("f", vec![Message::user(question), Message::assistant(answer)])
        };
        let unique = distinct(vec![
            record(long, "def add(a, b):\n    return a + b\n"),
            record(&format!("{long} Thanks."), "def add(a, b):  # adds\n\n    return a + b"),
            record("Sort a list.", "def add(a, b):\n    return a + b\n"),
            record(long, "def add(a, b):\n    return b + a\n"),
        ]);
        assert_eq!(unique.len(), 3);
    }
}
