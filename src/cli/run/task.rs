//! Reads the task from an argument, stdin or a file.

use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;

use crate::cli::run::RunArgs;
use crate::documents::Document;
use crate::pipeline;
use crate::pipeline::ReadTask;

/// Maximum bytes of a task on stdin.
const MAX_BYTES: u64 = 64 << 20;

/// Reads the task given by the arguments.
pub(super) fn read(args: &RunArgs) -> anyhow::Result<ReadTask> {
    let task = match (&args.task_file, &args.task) {
        (Some(file), _) => from_file(file)?,
        (None, Some(text)) if text == "-" => plain(&stdin()?)?,
        (None, Some(text)) => plain(text)?,
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

fn plain(text: &str) -> anyhow::Result<ReadTask> {
    Ok(pipeline::plain_task(text).context("the task is empty")?.into())
}

fn from_file(argument: &str) -> anyhow::Result<ReadTask> {
    let (path, id) = match argument.rsplit_once(':') {
        Some((path, id)) if !Path::new(argument).exists() => (Path::new(path), Some(id)),
        _ => (Path::new(argument), None),
    };
    Ok(pipeline::read_task(path, id)?)
}

fn stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_BYTES).read_to_string(&mut text);
    read.context("cannot read the task from stdin")?;
    Ok(text)
}
