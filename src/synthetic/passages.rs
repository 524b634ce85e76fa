//! Baselines that put documentation or training records into the prompt.

use super::library::SyntheticLibrary;
use super::records::LibraryRecord;
use super::tasks::LibraryTask;
use crate::bm25::PassageIndex;

impl SyntheticLibrary {
    /// Returns the tasks that need the library, with its whole README before the question.
    pub fn with_document(&self, tasks: &[LibraryTask]) -> Vec<LibraryTask> {
        let document = self.readme();
        self.with(tasks, |_| document.clone())
    }

    /// Returns the tasks that need the library, with the README section that BM25 ranks first for
    /// the question.
    pub fn with_passage(&self, tasks: &[LibraryTask]) -> Vec<LibraryTask> {
        let passages = self.passages();
        let index = PassageIndex::new(&passages);
        self.with(tasks, |question| passages[index.nearest(question, 1)[0]].clone())
    }

    /// Returns the tasks that need the library, with every call of it as code in front.
    pub fn with_worked_calls(&self, tasks: &[LibraryTask]) -> Vec<LibraryTask> {
        let calls = self.worked_calls();
        self.with(tasks, |_| calls.clone())
    }

    /// Returns the tasks that need the library, with the `n` records that BM25 ranks first for the
    /// question as earlier turns of the chat, the nearest one last.
    pub fn with_records(
        tasks: &[LibraryTask],
        records: &[LibraryRecord],
        n: usize,
    ) -> Vec<LibraryTask> {
        let questions: Vec<String> =
            records.iter().map(|record| record.messages[0].content.clone()).collect();
        let index = PassageIndex::new(&questions);
        let after_records = |task: &LibraryTask| {
            let mut task = task.clone();
            let nearest = index.nearest(&task.messages[0].content, n);
            let turns = nearest.iter().rev().flat_map(|index| records[*index].messages.clone());
            task.messages = turns.chain(task.messages).collect();
            task
        };
        tasks.iter().filter(|task| !task.is_control).map(after_records).collect()
    }

    /// Returns the sections of the README: one for each function, then those of the limit, the
    /// error, the protocol and the constants.
    pub(super) fn passages(&self) -> Vec<String> {
        let readme = self.readme();
        readme.split("\n## ").skip(1).map(|section| format!("## {section}")).collect()
    }

    /// Returns the indices of the passages that introduce the invented names in `code`, in order.
    pub(super) fn passages_about(&self, code: &str) -> Vec<usize> {
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric()).collect();
        let facts = self.facts();
        let functions = self.functions().iter().map(|function| vec![function.name.as_str()]);
        let constants = facts.constants.iter().map(|constant| constant.name.as_str());
        let others = [
            vec![facts.limit.as_str()],
            vec![facts.error.as_str()],
            vec![facts.opener.as_str(), facts.reader.as_str()],
            constants.collect(),
        ];
        let passages = functions.chain(others).enumerate();
        let about = passages.filter(|(_, names)| names.iter().any(|name| words.contains(name)));
        about.map(|(index, _)| index).collect()
    }

    fn with(&self, tasks: &[LibraryTask], text: impl Fn(&str) -> String) -> Vec<LibraryTask> {
        let in_front = |task: &LibraryTask| {
            let mut task = task.clone();
            let question = &mut task.messages[0].content;
            let text = text(question);
            *question = format!("From the README of {}:\n\n{text}\n\n{question}", self.name());
            task
        };
        tasks.iter().filter(|task| !task.is_control).map(in_front).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_get_no_document() {
        let library = SyntheticLibrary::invent(4, 6);
        let tasks = library.tasks(1);
        let with = library.with_document(&tasks);
        assert!(with.len() < tasks.len() && with.iter().all(|task| !task.is_control));
        assert!(with.iter().all(|task| task.messages[0].content.contains(&library.readme())));
        let constant = library.with_passage(&tasks).into_iter().find(|task| task.group == "T7");
        assert!(constant.unwrap().messages[0].content.contains("## Constants"));
    }
}
