//! `BigCodeBench`: functions over many libraries, judged by a unittest class.

use serde::Deserialize;

use crate::evaluation::task::AnswerCheck;
use crate::evaluation::task::EvalTask;
use crate::evaluation::task::SuiteCheck;

#[derive(Deserialize)]
struct BigCodeBenchRow {
    task_id: String,
    complete_prompt: String,
    code_prompt: String,
    canonical_solution: String,
    test: String,
    entry_point: String,
}

pub(super) fn task(line: &str, group: &str) -> Result<EvalTask, String> {
    let row: BigCodeBenchRow = super::row(line)?;
    let question = super::completion_of(&row.complete_prompt);
    let answer = format!("```python\n{}{}\n```\n", row.code_prompt, row.canonical_solution);
    let check = AnswerCheck::Suite(SuiteCheck {
        // The tests name what stands in the module without importing it.
        tests: format!("from solution import *\n{}", row.test),
        prompt: row.code_prompt,
        entry_point: row.entry_point,
    });
    Ok(super::task(row.task_id, group, question, check, answer))
}
