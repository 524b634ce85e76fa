//! [`TaskSuite`]: tasks with a name, a digest and an origin.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::digest::sha256;
use crate::families::FamilySplit;

use super::error::EvaluationError;
use super::task::AnswerCheck;
use super::task::EvalTask;

/// Suite of evaluation tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSuite {
    /// Name of the suite; the file's name if its header has none.
    pub name: String,
    /// sha256 of all tasks.
    pub digest: String,
    /// License of the tasks.
    pub licence: String,
    /// Origin of the tasks, such as a package or a file name.
    pub source: String,
    pub(super) tasks: Vec<EvalTask>,
}

/// First line of a suite's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteHeader {
    suite: String,
    digest: String,
    licence: String,
    source: String,
}

impl TaskSuite {
    /// Creates a suite of unknown license and origin.
    pub fn new(name: impl Into<String>, tasks: Vec<EvalTask>) -> Self {
        let lines: Vec<String> = tasks.iter().map(|task| json!(task).to_string()).collect();
        let digest = sha256(lines.join("\n").as_bytes());
        let unknown = "unknown".to_owned();
        Self { name: name.into(), digest, licence: unknown.clone(), source: unknown, tasks }
    }

    /// Sets license and origin.
    #[must_use]
    pub fn with_origin(self, licence: &str, source: &str) -> Self {
        Self { licence: licence.to_owned(), source: source.to_owned(), ..self }
    }

    /// Reads a JSON Lines file of tasks, with or without a header line.
    ///
    /// # Errors
    /// [`EvaluationError::Files`]; [`EvaluationError::BadTask`] for the first invalid line;
    /// [`EvaluationError::Empty`]; [`EvaluationError::Damaged`] if the tasks do not match the
    /// digest in the header.
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

    /// Returns the number of tasks.
    pub fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Returns the family of each task, in order.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.family.as_str())
    }

    /// Returns the tasks in order.
    pub fn tasks(&self) -> &[EvalTask] {
        &self.tasks
    }

    /// Whether any task is that of a session, with tests of any framework.
    pub fn has_sessions(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.check, AnswerCheck::Session(_)))
    }

    /// Keeps only the tasks of one split. The digest remains that of the whole suite.
    #[must_use]
    pub fn part(mut self, split: FamilySplit) -> Self {
        self.tasks.retain(|task| FamilySplit::of(&task.family) == split);
        self
    }

    /// Keeps only the first `n` tasks. The digest remains that of the whole suite.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        self.tasks.truncate(n);
        self
    }

    /// Orders the tasks by the digests of their families, which is as good as random but needs no
    /// seed. Tasks of one family stand together.
    #[must_use]
    pub fn by_family(mut self) -> Self {
        self.tasks.sort_by_cached_key(|task| (sha256(task.family.as_bytes()), task.id.clone()));
        self
    }

    /// Returns the first `n` tasks and the rest of the last one's family, of a suite in the order
    /// of [`Self::by_family`].
    #[must_use]
    pub fn first_families(&self, n: usize) -> Self {
        let last = n.checked_sub(1).and_then(|last| self.tasks.get(last));
        let is_rest = |task: &&EvalTask| last.is_some_and(|last| last.family == task.family);
        let n_rest = self.tasks.iter().skip(n).take_while(is_rest).count();
        self.clone().first(n + n_rest)
    }

    /// Appends the tasks of another suite, with ids that begin with its name.
    pub fn extend(&mut self, other: Self) {
        let Self { name, tasks, .. } = other;
        let named = |task: EvalTask| EvalTask { id: format!("{name}/{}", task.id), ..task };
        self.tasks.extend(tasks.into_iter().map(named));
    }

    /// Renders the suite as JSON Lines with a header.
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
