//! `BigCodeBench`: functions over many libraries, judged by a unittest class.

use serde::Deserialize;

use crate::evaluation::task::Check;
use crate::evaluation::task::SuiteCheck;
use crate::evaluation::task::Task;

#[derive(Deserialize)]
struct Row {
    task_id: String,
    complete_prompt: String,
    code_prompt: String,
    canonical_solution: String,
    test: String,
    entry_point: String,
}

pub(super) fn task(line: &str, group: &str) -> Result<Task, String> {
    let row: Row = super::row(line)?;
    let question = super::completion_of(&row.complete_prompt);
    let answer = format!("```python\n{}{}\n```\n", row.code_prompt, row.canonical_solution);
    let check = Check::Suite(SuiteCheck {
        // The tests name what stands in the module without importing it.
        tests: format!("from solution import *\n{}", row.test),
        prompt: row.code_prompt,
        entry_point: row.entry_point,
    });
    Ok(super::task(row.task_id, group, question, check, answer))
}
