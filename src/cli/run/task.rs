//! The task, from wherever the user has it.

use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use serde::Deserialize;

use crate::cli::run::Args;
use crate::judge::Suite;
use crate::task::SourceFile;
use crate::task::Task;
use crate::task::TaskId;
use crate::task::TaskType;

/// The most bytes of a task or a file of tasks.
const MAX_BYTES: u64 = 64 << 20;

/// A line of a task file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    task: String,
    #[serde(default)]
    tests: Option<Tests>,
    #[serde(default)]
    task_type: Option<TaskType>,
    #[serde(default)]
    family: Option<String>,
}

/// Tests of a task file: a path relative to it, or the text itself, or files.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tests {
    Text(String),
    Files(Vec<SourceFile>),
}

/// Reads the task that the arguments name.
pub(super) fn read(args: &Args) -> anyhow::Result<Task> {
    let mut task = match (&args.task_file, &args.task) {
        (Some(file), _) => from_file(file)?,
        (None, Some(text)) if text == "-" => plain(&read_text(std::io::stdin(), "stdin")?)?,
        (None, Some(text)) => plain(text)?,
        (None, None) => bail!("no task was given"),
    };
    if let Some(path) = &args.tests {
        task.tests = Suite::load(path)?.files().to_vec();
    }
    Ok(task)
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
    })
}

fn from_file(argument: &str) -> anyhow::Result<Task> {
    let (path, id) = match argument.rsplit_once(':') {
        Some((path, id)) if !Path::new(argument).exists() => (PathBuf::from(path), Some(id)),
        _ => (PathBuf::from(argument), None),
    };
    let file = std::fs::File::open(&path)
        .with_context(|| format!("cannot open the task file `{}`", path.display()))?;
    let text = read_text(file, &path.display().to_string())?;
    let mut ids = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line)
            .with_context(|| format!("line {} of `{}`", number + 1, path.display()))?;
        if id.is_none_or(|id| id == line.id) {
            return task(line, path.parent().unwrap_or(Path::new(".")));
        }
        ids.push(line.id);
    }
    match id {
        Some(id) => bail!("no task `{id}` in `{}`; it has: {}", path.display(), ids.join(", ")),
        None => bail!("no task in `{}`", path.display()),
    }
}

fn task(line: Line, folder: &Path) -> anyhow::Result<Task> {
    let tests = match line.tests {
        None => Vec::new(),
        Some(Tests::Files(files)) => files,
        Some(Tests::Text(text)) if text.contains('\n') || !text.trim_end().ends_with(".py") => {
            vec![SourceFile::new("test_task.py", text)]
        }
        Some(Tests::Text(path)) => Suite::load(&folder.join(path.trim()))?.files().to_vec(),
    };
    Ok(Task {
        id: TaskId(line.id),
        task_type: line.task_type.unwrap_or_default(),
        family: line.family,
        tests,
        ..plain(&line.task)?
    })
}

fn read_text(source: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = source.take(MAX_BYTES).read_to_string(&mut text);
    read.with_context(|| format!("cannot read the task from {name}"))?;
    Ok(text)
}
