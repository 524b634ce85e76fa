//! Records from the trajectories of solved sessions: what was accepted, and how mistakes were
//! mended.

use crate::trajectory::Assurance;
use crate::trajectory::Attempt;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Message;
use crate::trajectory::Phase;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::record::RecordSource;
use super::record::TrainingRecord;
use super::record::WeightedPart;
use super::record::family_of;

/// What lines count that a repair left as they were.
const UNCHANGED: f32 = 0.3;

/// The family of a session's task: the same words are the same task.
pub(super) fn family(session: &Session) -> String {
    if let Some(family) = &session.task.family {
        return family.clone();
    }
    family_of(&session.task.text)
}

/// The records of a session: for every part the answer that was accepted, for every repair that
/// helped the change, and the decompositions and plans that led there. None when the session is not
/// solved by the user's tests with a recorded assurance: what only generated tests speak for may be
/// wrong, and so may what an earlier version's judge let pass.
pub fn records(session: &Session, attempts: &[Attempt]) -> Vec<TrainingRecord> {
    if !is_sound(session) {
        return Vec::new();
    }
    let family = family(session);
    // Code without tests of its own is known to be right by the session's end alone, so only the
    // last of it counts.
    let is_last = |attempt: &Attempt| {
        let is_same = |other: &&Attempt| {
            (other.phase, &other.subtask) == (attempt.phase, &attempt.subtask)
                && other.verdict == AttemptVerdict::Accepted
        };
        attempts.iter().rfind(is_same).is_some_and(|last| last.seq == attempt.seq)
    };
    let is_learned = |attempt: &&Attempt| {
        let is_right = match attempt.verdict {
            AttemptVerdict::Passed => true,
            AttemptVerdict::Accepted => is_last(attempt),
            _ => false,
        };
        is_right && attempt.phase != Phase::Diagnose
    };
    let record = |attempt: &Attempt| {
        let mut messages = attempt.prompt.clone();
        messages.push(Message::assistant(closed(&attempt.completion.text)));
        let failed = (attempt.phase == Phase::Repair).then(|| failed_before(attempt, attempts));
        let weights = failed
            .flatten()
            .map(|failed| vec![unchanged_lines(&failed.completion.text, &attempt.completion.text)]);
        let attempts = vec![attempt.seq];
        let source = Some(RecordSource { session: session.id.clone(), attempts });
        TrainingRecord {
            messages,
            family: family.clone(),
            source,
            weights: weights.unwrap_or_default(),
        }
    };
    attempts.iter().filter(is_learned).map(record).collect()
}

/// Whether a session's code is known to be right. In the solution's own process that takes a clean
/// screen, without which the judge gives no assurance.
fn is_sound(session: &Session) -> bool {
    let is_assured =
        matches!(session.assurance, Some(Assurance::Separate | Assurance::SameProcess));
    session.status == SessionStatus::Solved
        && session.verified_by == VerifiedBy::UserTests
        && is_assured
}

/// An answer as it would stand if generation had not been ended at the end of its code: with its
/// last block closed.
fn closed(answer: &str) -> String {
    let n_fences = answer.lines().filter(|line| line.starts_with("```")).count();
    let answer = answer.trim_end();
    if n_fences % 2 == 0 { answer.to_owned() } else { format!("{answer}\n```") }
}

/// The last attempt at the same part that failed before this one mended it.
fn failed_before<'a>(attempt: &Attempt, attempts: &'a [Attempt]) -> Option<&'a Attempt> {
    attempts.iter().rev().find(|other| {
        other.seq < attempt.seq
            && other.subtask == attempt.subtask
            && other.verdict == AttemptVerdict::Failed
            && matches!(other.phase, Phase::Code | Phase::Integrate | Phase::Repair)
    })
}

/// The lines of `new` that stand in `old` as well, in the same order (a longest common
/// subsequence), as parts that count less.
fn unchanged_lines(old: &str, new: &str) -> Vec<WeightedPart> {
    let old: Vec<&str> = old.lines().collect();
    let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
    let line = |index: usize| new_lines[index].trim_end_matches(['\n', '\r']);
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

    #[test]
    fn lines_that_a_repair_changed_count_fully() {
        let old = "def f(x):\n    y = x\n    return y\n";
        let new = "def f(x):\n    y = x + 1\n    return y\n";
        let parts = unchanged_lines(old, new);
        let texts: Vec<&str> = parts.iter().map(|part| &new[part.start..part.end]).collect();
        assert_eq!(texts, ["def f(x):\n", "    return y\n"]);
    }
}
