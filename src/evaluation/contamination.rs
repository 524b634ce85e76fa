//! Contamination check: finds text of a suite's tasks in training records.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::task::EvalTask;
use crate::terms::tokens;
use crate::training::TrainingRecord;

/// Run of tokens that a task and a training record share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOverlap {
    /// Id of the task.
    pub task_id: String,
    /// Whether the run is in the task's reference answer rather than in its question.
    pub is_of_answer: bool,
    /// First shared run, with its tokens separated by spaces.
    pub run: String,
    /// Family of the first record that contains it.
    pub family: String,
}

/// Finds tasks that share a run of `n` tokens (at least 1) with a record, in their question or
/// answer. A token is a word, a number or a punctuation mark. Runs of 50 tokens indicate a copy;
/// shorter ones also occur in texts on the same subject.
pub fn overlaps(records: &[TrainingRecord], tasks: &[EvalTask], n: usize) -> Vec<TextOverlap> {
    let n = n.max(1);
    let mut runs: HashMap<String, &str> = HashMap::new();
    for record in records {
        for message in &record.messages {
            for run in tokens(&message.content).windows(n) {
                if let Entry::Vacant(place) = runs.entry(run.join(" ")) {
                    place.insert(&record.family);
                }
            }
        }
    }
    let first = |text: &str| {
        let tokens = tokens(text);
        let run = tokens.windows(n).map(|run| run.join(" ")).find(|run| runs.contains_key(run))?;
        let family = runs[&run].to_owned();
        Some((run, family))
    };
    let overlap = |task: &EvalTask| {
        let question = task.messages.iter().find_map(|message| first(&message.content));
        let (is_of_answer, (run, family)) = match first(&task.answer) {
            Some(found) => (true, found),
            None => (false, question?),
        };
        Some(TextOverlap { task_id: task.id.clone(), is_of_answer, run, family })
    };
    tasks.iter().filter_map(overlap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::RecordOptions;
    use crate::synthetic::SyntheticLibrary;
    use crate::trajectory::Message;

    #[test]
    fn planted_copy_is_found_and_held_out_tasks_are_clean() {
        assert_eq!(tokens("a_1 += f(x)é"), ["a_1", "+", "=", "f", "(", "x", ")", "é"]);
        let library = SyntheticLibrary::invent(2, 6);
        let tasks: Vec<EvalTask> = library.tasks(1).into_iter().map(EvalTask::from).collect();
        let records = library.training(RecordOptions::default()).into_iter();
        let mut records: Vec<TrainingRecord> = records.map(TrainingRecord::from).collect();
        assert_eq!(overlaps(&records, &tasks, 50), []);
        let canary =
            TrainingRecord::new("planted", vec![Message::assistant(tasks[1].answer.as_str())]);
        records.push(canary);
        let found = overlaps(&records, &tasks, 20);
        assert!(
            found.iter().any(|one| one.task_id == tasks[1].id && one.is_of_answer),
            "{found:?}"
        );
        assert!(found.iter().any(|one| one.family == "planted"));
    }
}
