//! HumanEval: a function's head and docstring, and a function that checks it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use crate::evaluation::task::Check;
use crate::evaluation::task::FunctionCheck;
use crate::evaluation::task::Task;
use crate::evaluation::task::Work;
use crate::trajectory::Message;

#[derive(Deserialize)]
struct Row {
    task_id: String,
    prompt: String,
    entry_point: String,
    canonical_solution: String,
    test: String,
}

pub(super) fn task(line: &str, group: &str) -> Result<Task, String> {
    let Row { task_id, prompt, entry_point, canonical_solution, test } = super::row(line)?;
    let code = format!("```python\n{}\n```", prompt.trim_end());
    let question = format!(
        "Complete this Python function. Answer with one block of code that holds the whole function and all that it \
         imports.\n\n{code}\n"
    );
    let work = examples(&prompt, &entry_point).map(|tests| Work {
        text: format!(
            "Write solution.py with the function {entry_point}, which this code begins:\n\n{code}\n"
        ),
        tests,
    });
    Ok(Task {
        family: task_id.clone(),
        id: task_id,
        group: group.to_owned(),
        is_control: false,
        messages: vec![Message::user(question)],
        work,
        answer: format!("```python\n{prompt}{canonical_solution}\n```\n"),
        check: Check::Function(FunctionCheck {
            // Some checks use helpers of the prompt.
            prelude: format!("{prompt}    pass\n"),
            entry_point,
            prompt,
            test,
        }),
    })
}

static EXAMPLE: LazyLock<Regex> = LazyLock::new(|| {
    let forms = r"(?m)^\s*(?:>>>\s*)?(?<call>[a-z_A-Z0-9]+\(.*\))\s*(?:\n\s*|==|=>|➞|->|returns|should return|=)\s*(?<value>[-\[\]({'\x220-9TFN].*)$";
    Regex::new(forms).expect("the pattern is well formed")
});

/// The docstring's examples as a file of tests; `None` where there are none of a known form.
fn examples(prompt: &str, entry_point: &str) -> Option<String> {
    let calls = format!("{entry_point}(");
    let mut tests = format!("from solution import {entry_point}\n");
    let mut n = 0;
    for example in EXAMPLE.captures_iter(prompt) {
        let (call, value) = (&example["call"], example["value"].trim_end());
        let value =
            value.split(" #").next().unwrap_or(value).trim_end().trim_end_matches(['.', ';']);
        if call.starts_with(&calls) && is_closed(call) && is_closed(value) && is_literal(value) {
            n += 1;
            let _infallible = write!(tests, "\n\ndef test_{n}():\n    assert {call} == {value}\n");
        }
    }
    (n > 0).then_some(tests)
}

/// Whether brackets and quotes are all closed.
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

/// Whether it is a value and not words: outside of quotes there is nothing but numbers, brackets and `True`, `False`,
/// `None`.
fn is_literal(value: &str) -> bool {
    let outside: String = value.split(['"', '\'']).step_by(2).collect::<Vec<_>>().join(" ");
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
                      f('a b') == 'c d'  # so\n    For f([3]) the answer is 3.\n    f([4] => 4\n    \"\"\"\n";
        let tests = examples(prompt, "f").unwrap();
        assert_eq!(
            tests,
            "from solution import f\n\n\ndef test_1():\n    assert f([1, 2]) == 3\n\n\ndef test_2():\n    \
             assert f('a b') == 'c d'\n"
        );
        assert_eq!(examples("def f(x):\n    \"\"\"Sums up.\"\"\"\n", "f"), None);
    }
}
