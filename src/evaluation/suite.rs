//! Tasks of a suite, and how their answers are judged.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::registry::sha256;

use super::run::EvaluationError;
use super::task::Task;

/// Tasks of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// The file's name.
    pub name: String,
    /// sha256 of all tasks.
    pub digest: String,
    pub(super) tasks: Vec<Task>,
}

impl Suite {
    /// A suite of these tasks.
    pub fn new(name: impl Into<String>, tasks: Vec<Task>) -> Self {
        let lines: Vec<String> = tasks.iter().map(|task| json!(task).to_string()).collect();
        Self { name: name.into(), digest: sha256(lines.join("\n").as_bytes()), tasks }
    }

    /// Reads a file of tasks, one JSON object a line.
    ///
    /// # Errors
    /// [`EvaluationError::Files`]; [`EvaluationError::BadTask`] for the first line that is no task.
    pub fn read(path: &Path) -> Result<Self, EvaluationError> {
        let files = |source| EvaluationError::Files { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(files)?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let tasks = lines.map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| EvaluationError::BadTask {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
            })
        });
        let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
        if tasks.is_empty() {
            return Err(EvaluationError::Empty(path.to_owned()));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self::new(name, tasks))
    }

    /// Tasks.
    pub fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The families of the tasks.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.family.as_str())
    }

    /// The file's text.
    pub fn to_lines(&self) -> String {
        self.tasks.iter().map(|task| json!(task).to_string() + "\n").collect()
    }
}
