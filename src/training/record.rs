//! [`TrainingRecord`]: a chat to train on, one line of a JSON Lines file.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::synthetic::LibraryRecord;
use crate::trajectory::Message;
use crate::trajectory::Role;
use crate::trajectory::family_of;

use super::TrainingError;

/// Weight of lines that an earlier message contains verbatim.
const REPEATED: f32 = 0.1;

/// A chat whose assistant messages are the training targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// The messages; at least one of them is the assistant's.
    pub messages: Vec<Message>,
    /// Family of the task. Records of one family are never split between training and validation.
    /// Defaults to a digest of the first question that ignores whitespace and case.
    #[serde(default)]
    pub family: String,
    /// The session the record was extracted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RecordSource>,
    /// For each answer, the parts with a weight other than 1. In an answer without an entry, lines
    /// that an earlier message contains verbatim get a tenth of the weight: the model should learn
    /// what it adds, not how to copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Vec<WeightedPart>>,
}

/// The attempts of a session that a record was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSource {
    /// Id of the session.
    pub session: String,
    /// Numbers of the attempts in the session.
    pub attempts: Vec<u32>,
    /// Text of the session's task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Families of the earlier sessions whose records the session has shown to the model, and of
    /// those that these have shown: the answer may repeat them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown_families: Vec<String>,
}

/// A byte range of an answer and the weight of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedPart {
    /// Start of the range, inclusive.
    pub start: usize,
    /// End of the range, exclusive.
    pub end: usize,
    /// Loss weight of the tokens, `0.0..=1.0`.
    pub weight: f32,
}

impl From<LibraryRecord> for TrainingRecord {
    fn from(record: LibraryRecord) -> Self {
        Self::new(record.family, record.messages)
    }
}

impl TrainingRecord {
    /// Creates a record without a source and with default weights.
    pub fn new(family: impl Into<String>, messages: Vec<Message>) -> Self {
        Self { messages, family: family.into(), source: None, weights: Vec::new() }
    }

    /// Returns the families of the records that its session has shown, whose answers it may repeat.
    pub(super) fn shown_families(&self) -> impl Iterator<Item = &str> {
        let shown = self.source.iter().flat_map(|source| &source.shown_families);
        shown.map(String::as_str)
    }

    /// Reads a file of records, one per line; blank lines are skipped.
    ///
    /// # Errors
    /// [`TrainingError::Files`] when the file cannot be read; [`TrainingError::BadRecord`] for the
    /// first invalid line.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, TrainingError> {
        let files = |source| TrainingError::Files { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(files)?;
        // Some editors start a file with a byte order mark, which is not valid JSON.
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
            return Err("the record has no message of the assistant".to_owned());
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
                return Err("a weighted part is outside its answer, or its weight is not \
                            between 0 and 1"
                    .to_owned());
            }
        }
        if self.weights.len() > answers().count() {
            return Err("there are more weights than answers".to_owned());
        }
        if self.family.is_empty() {
            self.family = family_of(self.question());
        }
        Ok(self)
    }

    /// Returns the text of the task: the session's, or the first message of the user.
    pub(super) fn task(&self) -> &str {
        let of_session = self.source.as_ref().map(|source| source.task.as_str());
        of_session.filter(|task| !task.is_empty()).unwrap_or_else(|| self.question())
    }

    /// Returns the first message of the user.
    pub(super) fn question(&self) -> &str {
        let question = self.messages.iter().find(|message| message.role == Role::User);
        question.or(self.messages.first()).map_or("", |message| message.content.as_str())
    }

    /// Returns, for each answer, the parts with a weight other than 1.
    pub(super) fn weighted(&self) -> Vec<Vec<WeightedPart>> {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut answers = Vec::new();
        for message in &self.messages {
            if message.role == Role::Assistant {
                answers.push(match self.weights.get(answers.len()) {
                    Some(given) => given.clone(),
                    None => repeated(&message.content, &seen),
                });
            }
            // Answers count as seen too: a later answer may repeat an earlier one.
            seen.extend(message.content.lines());
        }
        answers
    }

    /// Returns the contents of all assistant messages, in order.
    pub(super) fn answers(&self) -> impl Iterator<Item = &str> {
        let answers = self.messages.iter().filter(|message| message.role == Role::Assistant);
        answers.map(|message| message.content.as_str())
    }
}

/// Returns the lines of `answer` that are in `seen`, as parts with weight [`REPEATED`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_repeated_from_the_question_get_a_tenth_of_the_weight() {
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
