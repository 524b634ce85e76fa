//! Reads the task from an argument, stdin or a file.

use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use serde::Deserialize;

use crate::cli::exit::HintedError;
use crate::cli::run::RunArgs;
use crate::documents::Document;
use crate::judge::OmittedFile;
use crate::judge::SuiteError;
use crate::judge::TestSuite;
use crate::task::SourceFile;
use crate::task::Task;
use crate::task::TaskId;
use crate::task::TaskType;

/// Maximum bytes of a task or a task file.
const MAX_BYTES: u64 = 64 << 20;

/// Line of a task file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskLine {
    /// Name of the task, unique in the file; `--task FILE:ID` selects it.
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

/// Task, with files near its tests that were not loaded.
pub(super) struct ReadTask {
    pub(super) task: Task,
    pub(super) left_out: Vec<OmittedFile>,
}

impl From<Task> for ReadTask {
    fn from(task: Task) -> Self {
        Self { task, left_out: Vec::new() }
    }
}

impl ReadTask {
    /// Adds the tests at `path` to the task.
    fn with_tests(mut self, path: &Path) -> Result<Self, SuiteError> {
        let suite = TestSuite::load(path)?;
        self.left_out = suite.left_out().to_vec();
        (self.task.tests, self.task.test_targets) = suite.into_parts();
        Ok(self)
    }
}

/// Reads the task given by the arguments.
pub(super) fn read(args: &RunArgs) -> anyhow::Result<ReadTask> {
    let task = match (&args.task_file, &args.task) {
        (Some(file), _) => from_file(file)?,
        (None, Some(text)) if text == "-" => plain(&read_text(std::io::stdin(), "stdin")?)?.into(),
        (None, Some(text)) => plain(text)?.into(),
        (None, None) => bail!("no task given"),
    };
    Ok(match &args.tests {
        Some(path) => task.with_tests(path)?,
        None => task,
    })
}

/// Reads documents. Text that is not UTF-8 is an error.
pub(super) fn documents(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let read = |path: &PathBuf| {
        let source = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the document `{source}`"))?;
        Ok(Document { source, text })
    };
    paths.iter().map(read).collect()
}

fn plain(text: &str) -> anyhow::Result<Task> {
    if text.trim().is_empty() {
        bail!("the task is empty");
    }
    Ok(Task {
        id: TaskId("task".to_owned()),
        text: text.trim().to_owned(),
        task_type: TaskType::default(),
        family: None,
        tests: Vec::new(),
        test_targets: Vec::new(),
    })
}

fn from_file(argument: &str) -> anyhow::Result<ReadTask> {
    let (path, id) = match argument.rsplit_once(':') {
        Some((path, id)) if !Path::new(argument).exists() => (PathBuf::from(path), Some(id)),
        _ => (PathBuf::from(argument), None),
    };
    let file = std::fs::File::open(&path)
        .with_context(|| format!("cannot open the task file `{}`", path.display()))?;
    let text = read_text(file, &path.display().to_string())?;
    // Some editors start files with a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    let mut ids = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: TaskLine = serde_json::from_str(line)
            .with_context(|| format!("line {} of `{}`", number + 1, path.display()))?;
        if id.is_none_or(|id| id == line.id) {
            return task(line, path.parent().unwrap_or(Path::new(".")));
        }
        ids.push(line.id);
    }
    match id {
        Some(id) => Err(HintedError::new(
            format!("no task `{id}` in `{}`", path.display()),
            format!("the file has the tasks {}", ids.join(", ")),
        ))?,
        None => bail!("no task in `{}`", path.display()),
    }
}

/// Whether `line` is a line of a task file; for fuzzing.
pub(crate) fn is_task_line(line: &str) -> bool {
    serde_json::from_str::<TaskLine>(line).is_ok()
}

fn task(line: TaskLine, folder: &Path) -> anyhow::Result<ReadTask> {
    let mut task = Task {
        id: TaskId(line.id),
        task_type: line.task_type.unwrap_or_default(),
        family: line.family,
        ..plain(&line.task)?
    };
    match line.tests {
        None => {}
        Some(TestsField::Files(files)) => task.tests = files,
        Some(TestsField::Text(text)) if !is_path(&text) => {
            task.tests = vec![SourceFile::new("test_task.py", text)];
        }
        Some(TestsField::Text(path)) => {
            return Ok(ReadTask::from(task).with_tests(&folder.join(path.trim()))?);
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

fn read_text(source: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = source.take(MAX_BYTES).read_to_string(&mut text);
    read.with_context(|| format!("cannot read the task from {name}"))?;
    Ok(text)
}
