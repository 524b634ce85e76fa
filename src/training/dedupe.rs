//! Records that say the same again.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::registry::sha256;

use super::record::Record;

/// Words of a shingle.
const SHINGLE: usize = 5;
/// Hashes that stand for a text.
const N_HASHES: usize = 64;
/// Questions that share at least this part of their shingles, as MinHash estimates it, are one question.
const ALIKE: f64 = 0.8;

/// Keeps the first of all records whose answers are the same but for blanks and comments, and whose questions are alike
/// (Broder 1997, "On the resemblance and containment of documents").
pub(super) fn distinct(records: Vec<Record>) -> Vec<Record> {
    let mut seen: HashMap<String, Vec<[u64; N_HASHES]>> = HashMap::new();
    let mut kept = Vec::new();
    for record in records {
        let answers: Vec<String> = record.answers().map(essence).collect();
        let questions = seen.entry(sha256(answers.join("\n").as_bytes())).or_default();
        let question = signature(&asked(&record));
        if questions.iter().any(|other| resemblance(&question, other) >= ALIKE) {
            continue;
        }
        questions.push(question);
        kept.push(record);
    }
    kept
}

/// All that is said to the model.
fn asked(record: &Record) -> String {
    let asked = record.messages.iter().filter(|m| m.role != crate::trajectory::Role::Assistant);
    asked.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

/// An answer without what Python does not read: comments after a blank, blanks at line ends, empty lines.
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

fn signature(text: &str) -> [u64; N_HASHES] {
    let words: Vec<&str> = text.split_whitespace().collect();
    let shingles: HashSet<u64> =
        words.windows(SHINGLE.min(words.len()).max(1)).map(hash_of).collect();
    let mut least = [u64::MAX; N_HASHES];
    for shingle in shingles {
        for (i, least) in (1_u64..).zip(&mut least) {
            *least = (*least).min(mixed(shingle ^ mixed(i)));
        }
    }
    least
}

fn hash_of(words: &[&str]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in words.iter().flat_map(|word| word.bytes().chain([b' '])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash
}

/// The finaliser of `SplitMix64`.
fn mixed(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[expect(clippy::cast_precision_loss, reason = "at most 64")]
fn resemblance(a: &[u64; N_HASHES], b: &[u64; N_HASHES]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / N_HASHES as f64
}

#[cfg(test)]
mod tests {
    use super::distinct;
    use crate::training::Record;
    use crate::trajectory::Message;

    #[test]
    fn the_same_answer_to_nearly_the_same_question_is_kept_once() {
        let long = "Write a function that adds two whole numbers and gives back their sum, \
                    with a docstring of one line and no imports, in plain Python, please.";
        let record = |question: &str, answer: &str| {
            Record::new("f", vec![Message::user(question), Message::assistant(answer)])
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
