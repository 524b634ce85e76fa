//! Readers of public benchmark files.

mod big_code_bench;
mod contests;
mod human_eval;
mod mbpp;

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::EvaluationError;
use super::task::AnswerCheck;
use super::task::EvalTask;
use crate::trajectory::Message;

/// Maximum bytes of an uncompressed file.
const MAX_BYTES: u64 = 1 << 30;

/// File format of a public benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuiteFormat {
    /// `HumanEval.jsonl` (Chen et al. 2021, arXiv:2107.03374).
    HumanEval,
    /// `HumanEvalPlus.jsonl` of `EvalPlus` (Liu et al. 2023, arXiv:2305.01210).
    HumanEvalPlus,
    /// `mbpp.jsonl` (Austin et al. 2021, arXiv:2108.07732).
    Mbpp,
    /// `MbppPlus.jsonl` of `EvalPlus` (Liu et al. 2023, arXiv:2305.01210).
    MbppPlus,
    /// `test*.jsonl` of `LiveCodeBench` (Jain et al. 2024, arXiv:2403.07974).
    LiveCodeBench,
    /// The lines of `BigCodeBench` (Zhuo et al. 2024, arXiv:2406.15877) as JSON.
    BigCodeBench,
    /// `train.jsonl` or `test.jsonl` of APPS (Hendrycks et al. 2021, arXiv:2105.09938).
    Apps,
}

impl SuiteFormat {
    /// Returns the license of the tasks.
    pub fn licence(self) -> &'static str {
        match self {
            Self::HumanEval | Self::Apps => "MIT",
            Self::HumanEvalPlus => "Apache-2.0, over HumanEval's MIT",
            Self::Mbpp => "CC-BY-4.0",
            Self::MbppPlus => "Apache-2.0, over MBPP's CC-BY-4.0",
            Self::LiveCodeBench => "MIT, over the contests' own terms",
            Self::BigCodeBench => "Apache-2.0",
        }
    }

    /// Reads the tasks of the file at `path`, plain or compressed with gzip, into the group
    /// `group`.
    ///
    /// # Errors
    /// [`EvaluationError::Files`]; [`EvaluationError::BadTask`] for the first invalid line.
    pub fn read(self, path: &Path, group: &str) -> Result<Vec<EvalTask>, EvaluationError> {
        let files = |source| EvaluationError::Files { path: path.to_owned(), source };
        let text = text(path).map_err(files)?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let task = |(index, line): (usize, &str)| {
            let task = match self {
                Self::HumanEval => human_eval::task(line, group),
                Self::HumanEvalPlus => human_eval::plus_task(line, group),
                Self::Mbpp => mbpp::task(line, group),
                Self::MbppPlus => mbpp::plus_task(line, group),
                Self::LiveCodeBench => contests::live_code_bench(line, group),
                Self::BigCodeBench => big_code_bench::task(line, group),
                Self::Apps => contests::apps(line, group),
            };
            let bad = |reason| EvaluationError::BadTask {
                path: path.to_owned(),
                line: index + 1,
                reason,
            };
            task.map_err(bad)
        };
        lines.map(task).collect()
    }
}

/// Creates a task that asks `question`. Its id is its family until near-duplicates are joined.
fn task(id: String, group: &str, question: String, check: AnswerCheck, answer: String) -> EvalTask {
    EvalTask {
        family: id.clone(),
        id,
        group: group.to_owned(),
        is_control: false,
        messages: vec![Message::user(question)],
        work: None,
        check,
        answer,
    }
}

/// Renders the question to complete the function that starts in `prompt`.
fn completion_of(prompt: &str) -> String {
    format!(
        "Complete this Python function. Answer with one block of code that holds the whole function and all that it \
         imports.\n\n```python\n{}\n```\n",
        prompt.trim_end()
    )
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file).take(MAX_BYTES).read_to_string(&mut text)?;
    } else {
        file.take(MAX_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Parses the needed fields of a line. Python's JSON allows `NaN` and `Infinity`; they are replaced
/// by 0, because no needed field has them.
fn row<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    let plain = || {
        let named = ["-Infinity", "Infinity", "NaN"];
        named.iter().fold(line.to_owned(), |line, name| line.replace(name, "0"))
    };
    serde_json::from_str(line)
        .or_else(|_| serde_json::from_str(&plain()))
        .map_err(|error| error.to_string())
}
