//! Files of tasks: JSON Lines, one task a line.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;

use crate::error_class::ErrorClass;
use crate::error_class::with_causes;
use crate::judge::OmittedFile;
use crate::judge::SuiteError;
use crate::judge::TestSuite;
use crate::task::SourceFile;
use crate::task::Task;
use crate::task::TaskId;
use crate::task::TaskType;

/// Maximum bytes of a task file.
const MAX_BYTES: u64 = 64 << 20;
/// Maximum faults that an error lists.
const MAX_FAULTS: usize = 20;

/// Line of a task file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskLine {
    /// Name of the task, unique in the file.
    id: String,
    /// The task in words.
    task: String,
    /// The tests that decide: a path relative to the file, the text of a test file, or files.
    #[serde(default)]
    tests: Option<TestsField>,
    /// The kind of work; `function` unless it is given.
    #[serde(default)]
    task_type: Option<TaskType>,
    /// Tasks of one family are alike: they are never split between training and validation.
    #[serde(default)]
    family: Option<String>,
}

/// Tests of a task file: a path relative to it, source text, or files.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TestsField {
    Text(String),
    Files(Vec<SourceFile>),
}

/// Task that was read, with files near its tests that were not loaded.
#[derive(Debug, Clone)]
pub struct ReadTask {
    /// The task with its tests.
    pub task: Task,
    /// Files near the tests that were left out.
    pub left_out: Vec<OmittedFile>,
}

/// Errors of a task file.
#[derive(Debug, thiserror::Error)]
pub enum TaskFileError {
    /// The file cannot be read.
    #[error("cannot open the task file `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Cause reported by the system.
        source: io::Error,
    },
    /// Lines are not tasks.
    #[error("`{}` has {} of {n_lines} lines that are no tasks:{}", path.display(), faults.len(), listed(faults))]
    Faults {
        /// Path of the file.
        path: PathBuf,
        /// Number of lines that are not empty.
        n_lines: usize,
        /// Line numbers from 1, with what is wrong.
        faults: Vec<(usize, String)>,
    },
    /// No task has this id.
    #[error("no task `{id}` in `{}`", path.display())]
    NoTask {
        /// Path of the file.
        path: PathBuf,
        /// Id that was looked up.
        id: String,
        /// Ids of the file.
        known: Vec<String>,
    },
    /// The file has no lines.
    #[error("no task in `{}`", .0.display())]
    Empty(PathBuf),
}

impl TaskFileError {
    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } => ErrorClass::Environment,
            Self::Faults { .. } | Self::Empty(_) => ErrorClass::Usage,
            Self::NoTask { .. } => ErrorClass::NotFound,
        }
    }

    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoTask { known, .. } => {
                Some(format!("the file has the tasks {}", known.join(", ")))
            }
            Self::Faults { .. } => Some(
                "each line is {\"id\": .., \"task\": .., \"tests\": ..}, with `task_type` and \
                 `family` if they are known"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn listed(faults: &[(usize, String)]) -> String {
    let mut text = String::new();
    for (line, fault) in faults.iter().take(MAX_FAULTS) {
        let _infallible = write!(text, "\n  line {line}: {fault}");
    }
    if faults.len() > MAX_FAULTS {
        let _infallible = write!(text, "\n  and {} more", faults.len() - MAX_FAULTS);
    }
    text
}

/// Reads all tasks of the file at `path`. Every fault of every line is reported at once.
///
/// # Errors
/// [`TaskFileError::Io`]; [`TaskFileError::Faults`]; [`TaskFileError::Empty`].
pub fn read_tasks(path: &Path) -> Result<Vec<ReadTask>, TaskFileError> {
    let (mut tasks, mut faults, mut n_lines) = (Vec::new(), Vec::new(), 0);
    let mut known = HashSet::new();
    for (number, line) in lines(&read_text(path)?) {
        n_lines += 1;
        match read_line(line, path) {
            Ok(read) if !known.insert(read.task.id.clone()) => {
                faults.push((number, format!("a second task has the id `{}`", read.task.id)));
            }
            Ok(read) => tasks.push(read),
            Err(fault) => faults.push((number, fault)),
        }
    }
    let path = path.to_owned();
    match (n_lines, faults.is_empty()) {
        (0, _) => Err(TaskFileError::Empty(path)),
        (_, true) => Ok(tasks),
        (_, false) => Err(TaskFileError::Faults { path, n_lines, faults }),
    }
}

/// Reads the task `id` of the file at `path`, or the first one. Other lines may have faults.
///
/// # Errors
/// Those of [`read_tasks`]; [`TaskFileError::NoTask`].
pub fn read_task(path: &Path, id: Option<&str>) -> Result<ReadTask, TaskFileError> {
    let text = read_text(path)?;
    let mut known = Vec::new();
    for (number, line) in lines(&text) {
        let fault = |fault| TaskFileError::Faults {
            path: path.to_owned(),
            n_lines: lines(&text).count(),
            faults: vec![(number, fault)],
        };
        let found = parse(line).map_err(fault)?;
        if id.is_none_or(|id| id == found.id) {
            return task(found, path).map_err(fault);
        }
        known.push(found.id);
    }
    let path = path.to_owned();
    match id {
        Some(id) => Err(TaskFileError::NoTask { path, id: id.to_owned(), known }),
        None => Err(TaskFileError::Empty(path)),
    }
}

/// Creates a task without tests from its text; `None` if that is empty.
pub fn plain_task(text: &str) -> Option<Task> {
    let text = text.trim();
    (!text.is_empty()).then(|| Task {
        id: TaskId("task".to_owned()),
        text: text.to_owned(),
        task_type: TaskType::default(),
        family: None,
        tests: Vec::new(),
        test_targets: Vec::new(),
    })
}

/// Whether `line` is a line of a task file; for fuzzing.
pub(crate) fn is_task_line(line: &str) -> bool {
    serde_json::from_str::<TaskLine>(line).is_ok()
}

impl ReadTask {
    /// Adds the tests at `path` to the task.
    ///
    /// # Errors
    /// Those of [`TestSuite::load`].
    pub fn with_tests(mut self, path: &Path) -> Result<Self, SuiteError> {
        let suite = TestSuite::load(path)?;
        self.left_out = suite.left_out().to_vec();
        (self.task.tests, self.task.test_targets) = suite.into_parts();
        Ok(self)
    }
}

impl From<Task> for ReadTask {
    fn from(task: Task) -> Self {
        Self { task, left_out: Vec::new() }
    }
}

/// Returns the lines that are not empty, with their numbers from 1. Some editors start files with a
/// byte order mark.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

fn read_text(path: &Path) -> Result<String, TaskFileError> {
    let io = |source| TaskFileError::Io { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(io)?.len();
    if size > MAX_BYTES {
        let limit = format!("it has {size} bytes, and at most {MAX_BYTES} are read");
        return Err(io(io::Error::new(io::ErrorKind::FileTooLarge, limit)));
    }
    fs::read_to_string(path).map_err(io)
}

fn read_line(line: &str, path: &Path) -> Result<ReadTask, String> {
    task(parse(line)?, path)
}

fn parse(line: &str) -> Result<TaskLine, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

fn task(line: TaskLine, path: &Path) -> Result<ReadTask, String> {
    let plain = plain_task(&line.task).ok_or("the task is empty")?;
    let mut task = Task {
        id: TaskId(line.id),
        task_type: line.task_type.unwrap_or_default(),
        family: line.family,
        ..plain
    };
    match line.tests {
        None => {}
        Some(TestsField::Files(files)) => task.tests = files,
        Some(TestsField::Text(text)) if !is_path(&text) => {
            task.tests = vec![SourceFile::new("test_task.py", text)];
        }
        Some(TestsField::Text(tests)) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            let read = ReadTask::from(task).with_tests(&folder.join(tests.trim()));
            return read.map_err(|error| with_causes(&error));
        }
    }
    Ok(task.into())
}

/// Whether the `tests` of a task file are a path rather than source text.
fn is_path(text: &str) -> bool {
    let is_python =
        || Path::new(text.trim()).extension().is_some_and(|extension| extension == "py");
    !text.trim().contains('\n') && is_python()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.jsonl");
        let lines = [
            r#"{"id": "a", "task": "Write a.", "tests": "assert True\n"}"#,
            "",
            r#"{"id": "b", "task": " "}"#,
            r#"{"id": "a", "task": "Again."}"#,
            r#"{"id": "c", "task": "Write c.", "tests": "missing.py"}"#,
            r#"{"id": "d", "task": "Write d.", "color": "red"}"#,
        ];
        fs::write(&path, lines.join("\n")).unwrap();
        let TaskFileError::Faults { n_lines, faults, .. } = read_tasks(&path).unwrap_err() else {
            panic!("the lines have faults");
        };
        let numbers: Vec<usize> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!((n_lines, numbers.as_slice()), (5, &[3, 4, 5, 6][..]), "{faults:?}");
        assert!(faults[1].1.contains("`a`") && faults[3].1.contains("color"), "{faults:?}");
        // One task can be read although others have faults.
        assert_eq!(read_task(&path, Some("a")).unwrap().task.text, "Write a.");
        fs::write(&path, lines[0]).unwrap();
        assert_eq!(read_tasks(&path).unwrap().len(), 1);
        let missing = read_task(&path, Some("z")).unwrap_err();
        assert_eq!(missing.hint().unwrap(), "the file has the tasks a");
    }
}
