//! Tasks of a suite.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::digest::sha256;

use super::error::EvaluationError;
use super::families::SuiteSplit;
use super::task::EvalTask;

/// Tasks of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSuite {
    /// Its name; the file's where it says none.
    pub name: String,
    /// sha256 of all tasks.
    pub digest: String,
    /// Under which its tasks are given away.
    pub licence: String,
    /// Where they come from.
    pub source: String,
    pub(super) tasks: Vec<EvalTask>,
}

/// The first line of a suite's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteHeader {
    suite: String,
    digest: String,
    licence: String,
    source: String,
}

impl TaskSuite {
    /// A suite of these tasks.
    pub fn new(name: impl Into<String>, tasks: Vec<EvalTask>) -> Self {
        let lines: Vec<String> = tasks.iter().map(|task| json!(task).to_string()).collect();
        let digest = sha256(lines.join("\n").as_bytes());
        let unknown = "unknown".to_owned();
        Self { name: name.into(), digest, licence: unknown.clone(), source: unknown, tasks }
    }

    /// The same, with its licence and where it comes from.
    #[must_use]
    pub fn with_origin(self, licence: &str, source: &str) -> Self {
        Self { licence: licence.to_owned(), source: source.to_owned(), ..self }
    }

    /// Reads a file of tasks, one JSON object a line, behind a first line that names the suite or
    /// without.
    ///
    /// # Errors
    /// [`EvaluationError::Files`]; [`EvaluationError::BadTask`] for the first line that is no task;
    /// [`EvaluationError::Damaged`] when the tasks are not those that the first line speaks of.
    pub fn read(path: &Path) -> Result<Self, EvaluationError> {
        let files = |source| EvaluationError::Files { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(files)?;
        let mut lines =
            text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
        let head: Option<SuiteHeader> =
            lines.peek().and_then(|(_, line)| serde_json::from_str(line).ok());
        if head.is_some() {
            lines.next();
        }
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
        let Some(head) = head else {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Self::new(name, tasks));
        };
        let suite = Self::new(head.suite, tasks).with_origin(&head.licence, &head.source);
        if suite.digest == head.digest {
            Ok(suite)
        } else {
            Err(EvaluationError::Damaged(path.to_owned()))
        }
    }

    /// Tasks.
    pub fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The families of the tasks.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.family.as_str())
    }

    /// The tasks.
    pub fn tasks(&self) -> &[EvalTask] {
        &self.tasks
    }

    /// The same suite with the tasks of one split alone; its digest is still that of the whole.
    #[must_use]
    pub fn part(mut self, split: SuiteSplit) -> Self {
        self.tasks.retain(|task| SuiteSplit::of(&task.family) == split);
        self
    }

    /// The same suite with its first `n` tasks alone; its digest is still that of the whole.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        self.tasks.truncate(n);
        self
    }

    /// The file's text.
    pub fn to_lines(&self) -> String {
        let head = json!(SuiteHeader {
            suite: self.name.clone(),
            digest: self.digest.clone(),
            licence: self.licence.clone(),
            source: self.source.clone(),
        });
        let tasks = self.tasks.iter().map(|task| json!(task).to_string() + "\n");
        std::iter::once(format!("{head}\n")).chain(tasks).collect()
    }
}
