//! `BigCodeBench`: functions over many libraries, judged by a unittest class.

use serde::Deserialize;

use crate::evaluation::task::Check;
use crate::evaluation::task::SuiteCheck;
use crate::evaluation::task::Task;
use crate::trajectory::Message;

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
    let question = format!(
        "Complete this Python function. Answer with one block of code that holds the whole function and all that it \
         imports.\n\n```python\n{}\n```\n",
        row.complete_prompt.trim_end()
    );
    Ok(Task {
        family: row.task_id.clone(),
        id: row.task_id,
        group: group.to_owned(),
        is_control: false,
        messages: vec![Message::user(question)],
        work: None,
        answer: format!("```python\n{}{}\n```\n", row.code_prompt, row.canonical_solution),
        check: Check::Suite(SuiteCheck {
            // The tests name what stands in the module without importing it.
            tests: format!("from solution import *\n{}", row.test),
            prompt: row.code_prompt,
            entry_point: row.entry_point,
        }),
    })
}
