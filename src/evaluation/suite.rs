//! Tasks of a suite, and how their answers are judged.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::judge::FunctionTask;
use crate::pipeline::code_blocks;
use crate::registry::sha256;

use super::library::Form;
use super::library::Task;
use super::modules::Modules;
use super::run::EvaluationError;

/// The function that judged code becomes.
const ENTRY_POINT: &str = "rune_task";

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

impl Task {
    /// What a judge asks of the function that [`Self::as_function`] makes: for every input the value of the reference,
    /// the name of its type, and whether the library was called.
    pub(super) fn question(&self) -> FunctionTask {
        let reference = self.check.reference.replace("{v}", "v");
        let inputs = json!(self.check.inputs);
        let test = format!(
            "def check(candidate):\n    \
                 reference = lambda v: {reference}\n    \
                 for items in {inputs}:\n        \
                     wanted = reference(list(items))\n        \
                     assert candidate(list(items)) == [wanted, type(wanted).__name__, True]\n"
        );
        FunctionTask { entry_point: ENTRY_POINT.to_owned(), prelude: String::new(), test }
    }

    /// The code of an answer as a function of one list that gives the value, the name of its type, and whether the
    /// function that the task is about was called.
    pub(super) fn as_function(&self, answer: &str, modules: &Modules) -> String {
        let code = json!(code_of(answer));
        let value = match &self.check.form {
            Form::Result { .. } => "names[\"result\"]".to_owned(),
            Form::Function { name } => format!("names[{}](items)", json!(name)),
        };
        let given = match &self.check.form {
            Form::Result { variable } => format!("names[{}] = items", json!(variable)),
            Form::Function { .. } => "pass".to_owned(),
        };
        let (calls, was_called) = match &self.check.required {
            Some(call) => (
                format!(
                    "import {0} as library; calls = library._calls; calls.clear()",
                    call.library
                ),
                format!("{} in calls", json!(call.function)),
            ),
            None => ("pass".to_owned(), "True".to_owned()),
        };
        format!(
            "{}\n\ndef {ENTRY_POINT}(items):\n    \
                 {calls}\n    \
                 names = {{\"__name__\": \"solution\"}}\n    \
                 {given}\n    \
                 exec({code}, names)\n    \
                 value = {value}\n    \
                 return [value, type(value).__name__, {was_called}]\n",
            modules.bootstrap(),
        )
    }
}

/// The longest block of code in an answer, or all of it where there is none.
fn code_of(answer: &str) -> String {
    let blocks = code_blocks(answer);
    let longest = blocks.into_iter().map(|block| block.code).max_by_key(String::len);
    longest.unwrap_or_else(|| answer.to_owned())
}
