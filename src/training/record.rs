//! A chat to learn from, one line of JSON.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::digest::sha256;
use crate::synthetic::LibraryRecord;
use crate::trajectory::Message;
use crate::trajectory::Role;

use super::TrainingError;

/// What lines count that an earlier message has as they are.
const REPEATED: f32 = 0.1;

/// A chat whose answers are to be learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// The turns; at least one of them is the model's.
    pub messages: Vec<Message>,
    /// Records of one family belong to one task: they are never split into training and validation.
    /// The digest of the first question, but for blanks and cases, where none is given.
    #[serde(default)]
    pub family: String,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RecordSource>,
    /// For each answer the parts that count other than 1. Of answers without any, lines that an
    /// earlier message has as they are count a tenth: what is to be learned is what the model adds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Vec<WeightedPart>>,
}

/// The attempts of a session that a record was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSource {
    /// The session.
    pub session: String,
    /// The attempts.
    pub attempts: Vec<u32>,
}

/// A part of an answer and what its tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedPart {
    /// First byte of the answer.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// The weight, `0.0..=1.0`.
    pub weight: f32,
}

impl From<LibraryRecord> for TrainingRecord {
    fn from(record: LibraryRecord) -> Self {
        Self::new(record.family, record.messages)
    }
}

impl TrainingRecord {
    /// A question and its answer.
    pub fn new(family: impl Into<String>, messages: Vec<Message>) -> Self {
        Self { messages, family: family.into(), source: None, weights: Vec::new() }
    }

    /// Reads a file of records, one a line; empty lines are passed over.
    ///
    /// # Errors
    /// [`TrainingError::Files`]; [`TrainingError::BadRecord`] for the first line that is no record.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, TrainingError> {
        let files = |source| TrainingError::Files { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(files)?;
        // Editors may begin a file with a byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(index, line)| {
                let bad = |reason| TrainingError::BadRecord {
                    path: path.to_owned(),
                    line: index + 1,
                    reason,
                };
                let record: Self =
                    serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
                record.checked().map_err(bad)
            })
            .collect()
    }

    fn checked(mut self) -> Result<Self, String> {
        let answers = || self.messages.iter().filter(|message| message.role == Role::Assistant);
        if answers().next().is_none() {
            return Err("no message is the assistant's: there is nothing to learn".to_owned());
        }
        if answers().any(|message| message.content.trim().is_empty()) {
            return Err("an answer is empty".to_owned());
        }
        for (answer, parts) in answers().zip(&self.weights) {
            let fits = |part: &WeightedPart| {
                part.start <= part.end
                    && part.end <= answer.content.len()
                    && (0.0..=1.0).contains(&part.weight)
            };
            if !parts.iter().all(fits) {
                return Err(
                    "a weighted part lies outside its answer, or weighs not 0 to 1".to_owned()
                );
            }
        }
        if self.weights.len() > answers().count() {
            return Err("there are weights for more answers than there are".to_owned());
        }
        if self.family.is_empty() {
            self.family = family_of(self.question());
        }
        Ok(self)
    }

    /// The first thing that the user says.
    pub(super) fn question(&self) -> &str {
        let question = self.messages.iter().find(|message| message.role == Role::User);
        question.or(self.messages.first()).map_or("", |message| message.content.as_str())
    }

    /// For each answer the parts that count other than 1.
    pub(super) fn weighted(&self) -> Vec<Vec<WeightedPart>> {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut all = Vec::new();
        for message in &self.messages {
            if message.role == Role::Assistant {
                all.push(match self.weights.get(all.len()) {
                    Some(given) => given.clone(),
                    None => repeated(&message.content, &seen),
                });
            }
            seen.extend(message.content.lines());
        }
        all
    }

    /// All answers, one after the other.
    pub(super) fn answers(&self) -> impl Iterator<Item = &str> {
        let answers = self.messages.iter().filter(|message| message.role == Role::Assistant);
        answers.map(|message| message.content.as_str())
    }
}

/// The lines of `answer` that are in `seen`.
fn repeated(answer: &str, seen: &HashSet<&str>) -> Vec<WeightedPart> {
    let mut parts = Vec::new();
    let mut start = 0;
    for line in answer.split_inclusive('\n') {
        let end = start + line.len();
        if seen.contains(line.trim_end_matches(['\n', '\r'])) {
            parts.push(WeightedPart { start, end, weight: REPEATED });
        }
        start = end;
    }
    parts
}

/// The family of what is asked in these words: other blanks or cases are the same question.
pub(super) fn family_of(question: &str) -> String {
    let words: Vec<&str> = question.split_whitespace().collect();
    sha256(words.join(" ").to_lowercase().as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_the_question_has_count_a_tenth() {
        let question = "Complete.\n```python\nimport zorb\nresult =\n```";
        let answer = "```python\nimport zorb\nresult = zorb.fold(xs)\n```";
        let messages = vec![Message::user(question), Message::assistant(answer)];
        let record = TrainingRecord::new("zorb", messages);
        let parts = record.weighted().remove(0);
        let texts: Vec<&str> = parts.iter().map(|part| &answer[part.start..part.end]).collect();
        assert_eq!(texts, ["```python\n", "import zorb\n", "```"]);
        assert!(parts.iter().all(|part| part.weight == REPEATED));
        let given = vec![vec![WeightedPart { start: 0, end: 3, weight: 0.5 }]];
        assert_eq!(TrainingRecord { weights: given.clone(), ..record }.weighted(), given);
    }
}
