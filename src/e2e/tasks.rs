//! What the steps ask for: lessons about invented libraries, and arithmetic that small models can
//! do.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use crate::evaluation::AnswerCheck;
use crate::evaluation::EvalTask;
use crate::evaluation::FunctionCheck;
use crate::evaluation::TaskSuite;
use crate::families::FamilySplit;
use crate::synthetic::LibraryRecord;
use crate::synthetic::LibraryTask;
use crate::synthetic::RecordOptions;
use crate::synthetic::SyntheticLibrary;
use crate::training::TrainingRecord;
use crate::trajectory::Message;

use super::report::StepFailure;

/// Operations on two numbers, as a noun and a Python expression of `a` and `b`.
const ARITHMETIC: [(&str, &str); 5] = [
    ("sum", "a + b"),
    ("difference", "a - b"),
    ("product", "a * b"),
    ("larger", "max(a, b)"),
    ("smaller", "min(a, b)"),
];
/// Number of tasks for each operation.
const N_VARIANTS: usize = 16;
/// Arguments of all tests.
const PAIRS: &str = "[(1, 2), (5, -3), (7, 7), (0, 4)]";

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum E2eProfile {
    /// Minutes: libraries are drilled in one wording, which the smallest model learns.
    Smoke,
    /// An hour or more: libraries are taught in several wordings and asked about in others.
    Full,
}

/// A library with its files: the package, what teaches it, and what tells whether it was learned.
#[derive(Debug)]
pub(super) struct Lesson {
    pub(super) library: SyntheticLibrary,
    /// Folder of the package.
    pub(super) lib: PathBuf,
    /// File of training records.
    pub(super) dataset: PathBuf,
    /// Tasks that nothing is trained on.
    pub(super) suite: PathBuf,
}

impl Lesson {
    /// Invents a library and writes its files into a new folder.
    pub(super) fn write(
        folder: &Path,
        seed: u64,
        profile: E2eProfile,
    ) -> Result<Self, StepFailure> {
        let library = SyntheticLibrary::invent(seed, 8);
        let (records, tasks): (Vec<LibraryRecord>, Vec<LibraryTask>) = match profile {
            E2eProfile::Smoke => (library.drill_records(), library.drill_tasks(6)),
            E2eProfile::Full => (library.training(RecordOptions::default()), library.tasks(4)),
        };
        let tasks = tasks.into_iter().map(EvalTask::from).chain(arithmetic()).filter(|task| {
            matches!(FamilySplit::of(&task.family), FamilySplit::Dev | FamilySplit::Gate)
        });
        let suite = TaskSuite::new(library.name(), tasks.collect());
        let lines = records
            .into_iter()
            .map(|record| Ok(serde_json::to_string(&TrainingRecord::from(record))? + "\n"));
        let lines = lines.collect::<Result<String, serde_json::Error>>()?;
        let folder = folder.join(library.name());
        let (lib, dataset) = (folder.join("lib"), folder.join("records.jsonl"));
        let written = folder.join("suite.jsonl");
        fs::create_dir_all(lib.join(library.name()))?;
        fs::write(lib.join(library.name()).join("__init__.py"), library.module_source())?;
        fs::write(&dataset, lines)?;
        fs::write(&written, suite.to_lines())?;
        Ok(Self { library, lib, dataset, suite: written })
    }
}

/// Returns small functions that need no library, each of a family of its own.
fn arithmetic() -> impl Iterator<Item = EvalTask> {
    variants().map(|(name, noun, expression)| {
        let prompt = format!("def {name}(a, b):\n    \"\"\"Return the {noun} of a and b.\"\"\"\n");
        let test = format!(
            "def check(candidate):\n    for a, b in {PAIRS}:\n        \
             assert candidate(a, b) == {expression}\n"
        );
        let question = format!("Complete this Python function.\n\n```python\n{prompt}```");
        EvalTask {
            id: format!("arithmetic/{name}"),
            group: "arithmetic".to_owned(),
            is_control: true,
            family: family(&name),
            messages: vec![Message::user(question)],
            work: None,
            check: AnswerCheck::Function(FunctionCheck {
                entry_point: name.clone(),
                prelude: format!("{prompt}    pass\n"),
                test,
                epilogue: String::new(),
                prompt: prompt.clone(),
            }),
            answer: format!("```python\n{prompt}    return {expression}\n```"),
        }
    })
}

/// Returns `n` lines of a task file that agents may be given.
pub(super) fn task_lines(n: usize) -> String {
    let tasks =
        variants().filter(|(name, _, _)| FamilySplit::of(&family(name)) == FamilySplit::Train);
    let line = |(name, noun, expression): (String, &str, &str)| {
        let text =
            format!("Write {name}.py with {name}(a, b), which returns the {noun} of a and b.");
        let tests = format!(
            "from {name} import {name}\n\nfor a, b in {PAIRS}:\n    \
             assert {name}(a, b) == {expression}\n"
        );
        let family = family(&name);
        json!({ "id": name, "task": text, "tests": tests, "family": family }).to_string() + "\n"
    };
    tasks.take(n).map(line).collect()
}

/// Returns name, noun and expression of every task of arithmetic, one operation after the other.
fn variants() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    (1..=N_VARIANTS).flat_map(|number| {
        ARITHMETIC.map(|(noun, expression)| (format!("{noun}_{number}"), noun, expression))
    })
}

fn family(name: &str) -> String {
    format!("arithmetic/{name}")
}
