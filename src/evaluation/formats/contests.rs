//! Contest problems: programs on standard input and output, or methods of a class `Solution`.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::evaluation::task::AnswerCheck;
use crate::evaluation::task::EvalTask;
use crate::evaluation::task::FunctionCheck;
use crate::evaluation::task::ProgramCheck;

/// A line of `LiveCodeBench`'s `test*.jsonl`.
#[derive(Deserialize)]
struct LiveRow {
    question_id: String,
    question_content: String,
    #[serde(default)]
    starter_code: String,
    public_test_cases: String,
    private_test_cases: String,
    #[serde(default)]
    metadata: String,
}

/// Test case of `LiveCodeBench`. `testtype` is `stdin`, or `functional` with one JSON argument per
/// line.
#[derive(Deserialize)]
struct LiveCase {
    input: String,
    output: String,
    testtype: String,
}

#[derive(Deserialize)]
struct LiveMetadata {
    func_name: Option<String>,
}

/// Maximum bytes of a problem's uncompressed tests.
const MAX_BYTES: u64 = 256 << 20;

pub(super) fn live_code_bench(line: &str, group: &str) -> Result<EvalTask, String> {
    let row: LiveRow = super::row(line)?;
    let cases = |text: &str| {
        serde_json::from_str::<Vec<LiveCase>>(text).map_err(|error| format!("its tests: {error}"))
    };
    let mut all = cases(&row.public_test_cases)?;
    all.extend(match cases(&row.private_test_cases) {
        Ok(plain) => plain,
        Err(_) => cases(&unpacked(&row.private_test_cases)?)?,
    });
    let metadata = row.metadata.as_str();
    let name =
        serde_json::from_str::<LiveMetadata>(if metadata.is_empty() { "{}" } else { metadata })
            .map_err(|error| format!("its metadata: {error}"))?
            .func_name;
    let is_functional = all.iter().any(|case| case.testtype == "functional");
    let check = match (is_functional, name) {
        (false, _) => {
            let cases = all.into_iter().map(|case| (case.input, case.output)).collect();
            AnswerCheck::Program(ProgramCheck { cases })
        }
        (true, None) => return Err("its tests call a function that its metadata don't name".into()),
        (true, Some(name)) => {
            let cases = all.iter().map(|case| {
                let arguments: Result<Vec<Value>, _> =
                    case.input.lines().map(serde_json::from_str).collect();
                Ok((arguments?, vec![serde_json::from_str(&case.output)?]))
            });
            let cases = cases
                .collect::<Result<Vec<_>, serde_json::Error>>()
                .map_err(|error| format!("its tests: {error}"))?;
            method(&name, &cases)
        }
    };
    Ok(task(row.question_id, group, (&row.question_content, &row.starter_code), check, ""))
}

/// A line of APPS's `train.jsonl` or `test.jsonl`; tests and solutions are JSON in texts.
#[derive(Deserialize)]
struct AppsRow {
    #[serde(alias = "problem_id")]
    id: Value,
    question: String,
    #[serde(default)]
    solutions: String,
    input_output: String,
    #[serde(default)]
    starter_code: String,
}

#[derive(Deserialize)]
struct AppsCases {
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    fn_name: Option<String>,
}

pub(super) fn apps(line: &str, group: &str) -> Result<EvalTask, String> {
    let row: AppsRow = super::row(line)?;
    let cases: AppsCases =
        serde_json::from_str(&row.input_output).map_err(|error| format!("its tests: {error}"))?;
    let solutions: Vec<String> = serde_json::from_str(&row.solutions).unwrap_or_default();
    let pairs = cases.inputs.into_iter().zip(cases.outputs);
    let check = match &cases.fn_name {
        None => AnswerCheck::Program(ProgramCheck {
            cases: pairs.map(|(input, output)| (lines(input), lines(output))).collect(),
        }),
        Some(name) => {
            let wanted = |output: Value| match output {
                // Some outputs stand in a list of their own.
                Value::Array(one) if one.len() == 1 => vec![one[0].clone(), Value::Array(one)],
                output => vec![output],
            };
            let arguments = |input: Value| match input {
                Value::Array(arguments) => arguments,
                one => vec![one],
            };
            let cases: Vec<_> =
                pairs.map(|(input, output)| (arguments(input), wanted(output))).collect();
            method(name, &cases)
        }
    };
    let id = format!("apps/{}", row.id.to_string().trim_matches('"'));
    let answer = solutions.first().map_or("", String::as_str);
    Ok(task(id, group, (&row.question, &row.starter_code), check, answer))
}

/// Reads a string or a list of lines.
fn lines(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(lines) => lines.into_iter().map(|line| lines_of(line) + "\n").collect(),
        other => other.to_string(),
    }
}

fn lines_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Builds the check of a function, or of a method of a class `Solution`: for each list of
/// arguments, it must return one of the accepted values.
fn method(name: &str, cases: &[(Vec<Value>, Vec<Value>)]) -> AnswerCheck {
    let assert = |(arguments, wanted): &(Vec<Value>, Vec<Value>)| {
        let call = format!("{name}(*value({}))", json!(json!(arguments).to_string()));
        match wanted.as_slice() {
            [one] => format!("assert {call} == value({})\n", json!(one.to_string())),
            several => format!("assert {call} in value({})\n", json!(json!(several).to_string())),
        }
    };
    AnswerCheck::Function(FunctionCheck {
        entry_point: name.to_owned(),
        prompt: String::new(),
        prelude: "from json import loads as value\n".to_owned(),
        test: cases.iter().map(assert).collect(),
        epilogue: format!(
            "\n\nif \"Solution\" in globals() and \"{name}\" not in globals():\n    \
                 def {name}(*arguments):\n        \
                     return Solution().{name}(*arguments)\n"
        ),
    })
}

fn task(
    id: String,
    group: &str,
    (text, starter): (&str, &str),
    check: AnswerCheck,
    answer: &str,
) -> EvalTask {
    let form = match &check {
        AnswerCheck::Program(_) => {
            "Write a Python program that reads standard input and writes standard output."
        }
        _ => "Complete the Python code.",
    };
    let starter = match starter.trim() {
        "" => String::new(),
        starter => format!("\n\n```python\n{starter}\n```"),
    };
    let question = format!("{}\n\n{form} Answer with one block of code.{starter}\n", text.trim());
    let answer = match answer {
        "" => String::new(),
        answer => format!("```python\n{answer}\n```\n"),
    };
    super::task(id, group, question, check, answer)
}

/// Decodes tests packed as base64 of zlib of a pickled string. The pickle is parsed, never
/// executed; anything else in it is an error.
fn unpacked(text: &str) -> Result<String, String> {
    let packed = STANDARD.decode(text.trim()).map_err(|error| format!("its tests: {error}"))?;
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice())
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("its tests: {error}"))?;
    let text =
        pickled_text(&bytes).ok_or("its tests are a pickle of something else than a text")?;
    String::from_utf8(text.to_vec()).map_err(|error| format!("its tests: {error}"))
}

/// Extracts the only string of a pickle (protocols 2 to 5: PEP 3154).
fn pickled_text(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(b"\x80")?.get(1..)?;
    // FRAME and its length.
    let rest = rest.strip_prefix(b"\x95").map_or(Some(rest), |rest| rest.get(8..))?;
    let (opcode, rest) = rest.split_first()?;
    let n_digits = match opcode {
        0x8c => 1,
        b'X' => 4,
        0x8d => 8,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(n_digits)?;
    let n = digits.iter().rev().fold(0_usize, |n, digit| n << 8 | usize::from(*digit));
    let (text, end) = rest.split_at_checked(n)?;
    // MEMOIZE or BINPUT 0, then STOP.
    matches!(end, b"." | b"\x94." | b"q\x00.").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_is_taken_from_a_pickle() {
        assert_eq!(
            pickled_text(b"\x80\x04\x95\x06\0\0\0\0\0\0\0\x8c\x02hi\x94."),
            Some(&b"hi"[..])
        );
        assert_eq!(pickled_text(b"\x80\x02X\x02\0\0\0hiq\0."), Some(&b"hi"[..]));
        assert_eq!(pickled_text(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93."), None);
        assert_eq!(pickled_text(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffhi."), None);
        assert_eq!(pickled_text(b"\x80"), None);
    }
}
