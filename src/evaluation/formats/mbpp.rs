//! MBPP: a sentence and asserts; and MBPP+, which has many inputs more.

use serde::Deserialize;
use serde_json::json;

use crate::evaluation::task::AnswerCheck;
use crate::evaluation::task::EvalTask;
use crate::evaluation::task::FunctionCheck;
use crate::evaluation::task::PipelineTask;

/// Python code that builds the inputs of MBPP+ and calls the reference.
const PLUS: &str = include_str!("mbpp_plus.py");

#[derive(Deserialize)]
struct MbppRow {
    task_id: u32,
    text: String,
    code: String,
    test_setup_code: String,
    test_list: Vec<String>,
}

pub(super) fn task(line: &str, group: &str) -> Result<EvalTask, String> {
    let MbppRow { task_id, text, code, test_setup_code, test_list } = super::row(line)?;
    let code = code.replace('\r', "");
    let entry_point = called(&code, &test_list.join("\n"))
        .ok_or("none of the functions of its code is called by its tests")?;
    let id = format!("Mbpp/{task_id}");
    Ok(finish(
        id,
        group,
        &text,
        &test_list.join("\n"),
        CheckParts {
            answer: code,
            prelude: test_setup_code,
            test: test_list.join("\n"),
            entry_point,
        },
    ))
}

#[derive(Deserialize)]
struct MbppPlusRow {
    task_id: String,
    prompt: String,
    entry_point: String,
    canonical_solution: String,
    assertion: String,
}

pub(super) fn plus_task(line: &str, group: &str) -> Result<EvalTask, String> {
    let row: MbppPlusRow = super::row(line)?;
    let MbppPlusRow { task_id, prompt, entry_point, canonical_solution, assertion } = row;
    let prelude = PLUS.replace("ENTRY", &entry_point)
        + &format!("reference = the_reference({}, {{}})\n", json!(canonical_solution));
    let test = format!(
        "{assertion}\nfor args in inputs({}, {}):\n    assert {entry_point}(*args) == reference(*copy.deepcopy(args))\n",
        json!(assertion),
        json!(line),
    );
    let text = prompt.trim().trim_matches('"').trim();
    let (sentence, visible) = match text.find("\nassert ") {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let (sentence, visible) = (sentence.to_owned(), visible.to_owned());
    Ok(finish(
        task_id,
        group,
        &sentence,
        &visible,
        CheckParts { answer: canonical_solution, prelude, test, entry_point },
    ))
}

struct CheckParts {
    answer: String,
    prelude: String,
    test: String,
    entry_point: String,
}

/// Creates a task that shows `sentence` and the asserts `visible`.
fn finish(id: String, group: &str, sentence: &str, visible: &str, parts: CheckParts) -> EvalTask {
    let CheckParts { answer, prelude, test, entry_point } = parts;
    let tests = format!("from solution import {entry_point}\n\n{visible}\n");
    let question = format!(
        "{sentence}\n\nAnswer with one block of Python code. It has to pass:\n\n```python\n{visible}\n```\n"
    );
    let work = (!visible.is_empty()).then(|| PipelineTask {
        text: format!("{sentence}\n\nWrite it as the function {entry_point} in solution.py."),
        tests,
    });
    let answer = format!("```python\n{answer}\n```\n");
    let check = AnswerCheck::Function(FunctionCheck {
        entry_point,
        prompt: String::new(),
        prelude,
        test,
        epilogue: String::new(),
    });
    EvalTask { work, ..super::task(id, group, question, check, answer) }
}

/// Returns the last top-level function of `code` that `tests` call.
fn called(code: &str, tests: &str) -> Option<String> {
    let heads = code.lines().filter_map(|line| line.strip_prefix("def "));
    let names = heads.filter_map(|head| head.split('(').next()).map(str::trim);
    let is_called = |name: &&str| tests.contains(&format!("{name}("));
    names.rev().find(is_called).map(str::to_owned)
}
