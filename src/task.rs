//! What is asked: a [`Task`], its tests, and the subtasks it is cut into.

use serde::Deserialize;
use serde::Serialize;

/// Names a task within its file or session: `[a-z0-9][a-z0-9._-]{0,127}` is not required here, any
/// non-empty text will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of work a task is; sessions, datasets and adapters are keyed by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskType {
    /// One function.
    Function,
    /// One or more modules written from nothing.
    #[default]
    Module,
    /// A command-line program.
    Cli,
    /// A repair of given code.
    Fix,
    /// A change to a repository.
    Repo,
}

impl TaskType {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Module => "module",
            Self::Cli => "cli",
            Self::Fix => "fix",
            Self::Repo => "repo",
        }
    }
}

/// A text file by its path relative to the work directory: `/` between parts, no `..`, no root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Relative path.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// A file of `text` at `path`.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The dotted module name of a Python file, such as `shop.cart` for `shop/cart.py`; `None` for
    /// any other file.
    pub fn module(&self) -> Option<String> {
        let stem = self.path.strip_suffix(".py")?;
        let stem = stem.strip_suffix("/__init__").unwrap_or(stem);
        Some(stem.replace('/', "."))
    }
}

/// A coding task as the user gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The task's name.
    pub id: TaskId,
    /// What is to be done, in the user's words.
    pub text: String,
    /// The kind of work.
    #[serde(default)]
    pub task_type: TaskType,
    /// Tasks of one family share a template; held-out splits are made by family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The user's test files; empty when none were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<SourceFile>,
}

/// One part of a task, as decompose yields it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtask {
    /// A short name, unique within its task.
    pub name: String,
    /// What the part has to do.
    pub description: String,
    /// The file that the part is written to; several subtasks may share one.
    pub file: String,
    /// Indices of the subtasks that have to be finished first. Acyclic, never the subtask itself.
    pub depends_on: Vec<usize>,
}
