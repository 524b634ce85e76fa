//! Extracts records from the trajectories of solved sessions: accepted answers and successful
//! repairs.

use crate::trajectory::Attempt;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Message;
use crate::trajectory::Phase;
use crate::trajectory::Role;
use crate::trajectory::Session;

use super::record::RecordSource;
use super::record::TrainingRecord;
use super::record::WeightedPart;

/// Weight of lines that a repair left unchanged.
const UNCHANGED: f32 = 0.3;

/// Extracts the records of a session: accepted answers of every part, successful repairs, and the
/// decompositions and plans that led to them. `family` is that of its task, and `shown_families`
/// are those of the records of earlier sessions that it has shown.
///
/// Returns nothing unless the session is solved by the user's tests with a recorded assurance. Code
/// that only generated tests verify may be wrong, and so may code judged by an earlier version.
pub fn records(
    session: &Session,
    attempts: &[Attempt],
    (family, shown_families): (&str, &[String]),
) -> Vec<TrainingRecord> {
    if !session.is_sound() {
        return Vec::new();
    }
    // `Accepted` means that no test decided. Only the outcome of the session shows that such code
    // is right, and the outcome is that of the last accepted version.
    let is_last = |attempt: &Attempt| {
        let is_same = |candidate: &&Attempt| {
            (candidate.phase, &candidate.subtask) == (attempt.phase, &attempt.subtask)
                && candidate.verdict == AttemptVerdict::Accepted
        };
        attempts.iter().rfind(is_same).is_some_and(|last| last.seq == attempt.seq)
    };
    let is_learned = |attempt: &&Attempt| {
        let is_right = match attempt.verdict {
            AttemptVerdict::Passed => true,
            AttemptVerdict::Accepted => is_last(attempt),
            _ => false,
        };
        // Nothing verifies a diagnosis, even if the repair that follows succeeds.
        is_right && attempt.phase != Phase::Diagnose
    };
    let record = |attempt: &Attempt| {
        let mut messages = without_memory(&attempt.prompt);
        messages.push(Message::assistant(closed(&attempt.completion.text)));
        // Most of a repair repeats the broken code. The weight is on the lines that it changes.
        let failed = (attempt.phase == Phase::Repair).then(|| failed_before(attempt, attempts));
        let weights = failed
            .flatten()
            .map(|failed| vec![unchanged_lines(&failed.completion.text, &attempt.completion.text)]);
        let attempts = vec![attempt.seq];
        let task = session.task.text.clone();
        let source = Some(RecordSource {
            session: session.id.clone(),
            attempts,
            task,
            shown_families: shown_families.to_vec(),
        });
        TrainingRecord {
            messages,
            family: family.to_owned(),
            source,
            weights: weights.unwrap_or_default(),
        }
    };
    attempts.iter().filter(is_learned).map(record).collect()
}

/// Returns a prompt without the records of earlier sessions that it shows: the model has learned
/// them from their own sessions, and should not learn to expect them.
fn without_memory(prompt: &[Message]) -> Vec<Message> {
    let last = prompt.iter().rposition(|message| message.role == Role::User);
    let is_kept = |index: usize, role: Role| role == Role::System || Some(index) == last;
    let own = prompt.iter().enumerate().filter(|(index, message)| is_kept(*index, message.role));
    own.map(|(_, message)| message.clone()).collect()
}

/// Closes the last code fence of an answer.
fn closed(answer: &str) -> String {
    // The pipeline stops generation at the closing fence, which is then missing from the text. A
    // model trained on that would not learn to end its code.
    let n_fences = answer.lines().filter(|line| line.starts_with("```")).count();
    let answer = answer.trim_end();
    if n_fences % 2 == 0 { answer.to_owned() } else { format!("{answer}\n```") }
}

/// Returns the last failed attempt at the same part before `attempt`.
fn failed_before<'a>(attempt: &Attempt, attempts: &'a [Attempt]) -> Option<&'a Attempt> {
    attempts.iter().rev().find(|earlier| {
        earlier.seq < attempt.seq
            && earlier.subtask == attempt.subtask
            && earlier.verdict == AttemptVerdict::Failed
            && matches!(earlier.phase, Phase::Code | Phase::Integrate | Phase::Repair)
    })
}

/// Returns the lines of `new` that form a longest common subsequence with the lines of `old`, as
/// parts with weight [`UNCHANGED`].
fn unchanged_lines(old: &str, new: &str) -> Vec<WeightedPart> {
    let old: Vec<&str> = old.lines().collect();
    let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
    let line = |index: usize| new_lines[index].trim_end_matches(['\n', '\r']);
    // `longest[i][j]`: length of the longest common subsequence of `old[i..]` and `new[j..]`.
    let (n, m) = (old.len(), new_lines.len());
    let mut longest = vec![vec![0_u32; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            longest[i][j] = if old[i] == line(j) {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    // Byte offset of each line of `new`.
    let starts: Vec<usize> = new_lines
        .iter()
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start)
        })
        .collect();
    let (mut i, mut j, mut parts) = (0, 0, Vec::new());
    while i < n && j < m {
        if old[i] == line(j) {
            let start = starts[j];
            parts.push(WeightedPart { start, end: start + new_lines[j].len(), weight: UNCHANGED });
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::unchanged_lines;
    use super::without_memory;
    use crate::trajectory::Message;

    #[test]
    fn shown_records_are_not_learned() {
        let (system, own) = (Message::system("system"), Message::user("own"));
        let (question, answer) = (Message::user("earlier"), Message::assistant("code"));
        let prompt =
            [system.clone(), question.clone(), answer.clone(), question, answer, own.clone()];
        assert_eq!(without_memory(&prompt), [system.clone(), own.clone()]);
        assert_eq!(without_memory(&[system.clone(), own.clone()]), [system, own]);
    }

    #[test]
    fn lines_changed_by_a_repair_get_full_weight() {
        let old = "def f(x):\n    y = x\n    return y\n";
        let new = "def f(x):\n    y = x + 1\n    return y\n";
        let parts = unchanged_lines(old, new);
        let texts: Vec<&str> = parts.iter().map(|part| &new[part.start..part.end]).collect();
        assert_eq!(texts, ["def f(x):\n", "    return y\n"]);
    }
}
