//! HumanEval: a function's head and docstring, and a function that checks it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use crate::evaluation::task::AnswerCheck;
use crate::evaluation::task::EvalTask;
use crate::evaluation::task::FunctionCheck;
use crate::evaluation::task::PipelineTask;

#[derive(Deserialize)]
struct HumanEvalRow {
    task_id: String,
    prompt: String,
    entry_point: String,
    canonical_solution: String,
    test: String,
}

pub(super) fn task(line: &str, group: &str) -> Result<EvalTask, String> {
    Ok(of(super::row(line)?, group))
}

fn of(row: HumanEvalRow, group: &str) -> EvalTask {
    let HumanEvalRow { task_id, prompt, entry_point, canonical_solution, test } = row;
    let code = format!("```python\n{}\n```", prompt.trim_end());
    let question = super::completion_of(&prompt);
    let is_right = !WRONG_EXAMPLES.contains(&task_id.as_str());
    let examples = is_right.then(|| examples(&prompt, &entry_point)).flatten();
    let work = examples.map(|tests| PipelineTask {
        text: format!(
            "Write solution.py with the function {entry_point}, which this code begins:\n\n{code}\n"
        ),
        tests,
    });
    let answer = format!("```python\n{prompt}{canonical_solution}\n```\n");
    let check = AnswerCheck::Function(FunctionCheck {
        // Some checks use helpers of the prompt.
        prelude: format!("{prompt}    pass\n"),
        entry_point,
        prompt,
        test,
        epilogue: String::new(),
    });
    EvalTask { work, ..super::task(task_id, group, question, check, answer) }
}

#[derive(Deserialize)]
struct HumanEvalPlusRow {
    task_id: String,
    prompt: String,
    entry_point: String,
    canonical_solution: String,
}

/// Reads a task of `EvalPlus`, which compares with the reference solution on many inputs.
pub(super) fn plus_task(line: &str, group: &str) -> Result<EvalTask, String> {
    let HumanEvalPlusRow { task_id, prompt, entry_point, canonical_solution } = super::row(line)?;
    let reference = format!(
        "import copy, json\nspace = {{}}\nexec({}, space)\nreference = space[{}]\nrow = json.loads({})\n",
        json!(format!("{prompt}{canonical_solution}")),
        json!(entry_point),
        json!(line),
    );
    let inputs = "for args in row['base_input'] + row['plus_input']:\n    ";
    // Any root of the polynomial is right.
    let assert = match entry_point.as_str() {
        "find_zero" => "assert abs(poly(args[0], find_zero(*args))) <= 1e-4\n".to_owned(),
        name => format!("assert {name}(*args) == reference(*copy.deepcopy(args))\n"),
    };
    let row = HumanEvalRow {
        task_id,
        prompt,
        entry_point,
        canonical_solution,
        test: inputs.to_owned() + &assert,
    };
    let mut task = of(row, group);
    if let AnswerCheck::Function(check) = &mut task.check {
        check.prelude += &reference;
    }
    Ok(task)
}

/// Tasks whose reference solution contradicts an example in the docstring.
const WRONG_EXAMPLES: [&str; 3] = ["HumanEval/47", "HumanEval/116", "HumanEval/130"];

static EXAMPLE: LazyLock<Regex> = LazyLock::new(|| {
    let forms = r"(?m)^\s*(?:>>>\s*)?(?<call>[a-z_A-Z0-9]+\(.*\))\s*(?:\n\s*|==|=>|➞|->|returns|should return|=)\s*(?<value>[-\[\]({'\x220-9TFN].*)$";
    Regex::new(forms).expect("the pattern is well formed")
});

/// Turns the docstring's examples into a test file; `None` if there are none in a known form.
fn examples(prompt: &str, entry_point: &str) -> Option<String> {
    let calls = format!("{entry_point}(");
    let mut tests = format!("from solution import {entry_point}\n");
    let mut n = 0;
    for example in EXAMPLE.captures_iter(prompt) {
        let (call, value) = (&example["call"], example["value"].trim_end());
        let value =
            value.split(" #").next().unwrap_or(value).trim_end().trim_end_matches(['.', ';']);
        // `f(5) == 2 + 3 = 5`
        let value = value.rsplit(" = ").next().unwrap_or(value);
        let Some(arguments) = call.strip_prefix(&calls).and_then(|rest| rest.strip_suffix(')'))
        else {
            continue;
        };
        if [arguments, value].into_iter().all(|text| is_closed(text) && is_literal(text)) {
            n += 1;
            let _infallible = write!(tests, "\n\ndef test_{n}():\n    assert {call} == {value}\n");
        }
    }
    (n > 0).then_some(tests)
}

/// Whether all brackets and quotes are closed.
fn is_closed(code: &str) -> bool {
    let mut open = Vec::new();
    let mut quote = None;
    for c in code.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('(' | '[' | '{', None) => open.push(c),
            (')', None) if open.pop() != Some('(') => return false,
            (']', None) if open.pop() != Some('[') => return false,
            ('}', None) if open.pop() != Some('{') => return false,
            _ => {}
        }
    }
    open.is_empty() && quote.is_none()
}

/// Whether the text is a literal: outside of quotes it has only numbers, brackets, `True`, `False`
/// and `None`.
fn is_literal(text: &str) -> bool {
    let outside: String = text.split(['"', '\'']).step_by(2).collect::<Vec<_>>().join(" ");
    if outside.contains("- ") || outside.contains(['+', '*', '/', '%', '=', '<', '>']) {
        return false;
    }
    let mut words = outside.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
    words.all(|word| {
        word.is_empty()
            || matches!(word, "True" | "False" | "None")
            || word.parse::<f64>().is_ok_and(f64::is_finite)
    })
}

#[cfg(test)]
mod tests {
    use super::examples;

    #[test]
    fn the_examples_of_a_docstring_are_tests() {
        let prompt = "def f(xs):\n    \"\"\"Sums up.\n    >>> f([1, 2])\n    3\n    >>> f([])\n    nothing at all\n    \
                      f('a b') == 'c d'  # so\n    For f([3]) the answer is 3.\n    f([4] => 4\n    f(abc) == 3\n    \
                      f(5) == 2 + 3 = 5\n    \"\"\"\n";
        let tests = examples(prompt, "f").unwrap();
        assert_eq!(
            tests,
            "from solution import f\n\n\ndef test_1():\n    assert f([1, 2]) == 3\n\n\ndef test_2():\n    \
             assert f('a b') == 'c d'\n\n\ndef test_3():\n    assert f(5) == 5\n"
        );
        assert_eq!(examples("def f(x):\n    \"\"\"Sums up.\"\"\"\n", "f"), None);
    }
}
