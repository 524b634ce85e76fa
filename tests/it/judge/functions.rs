//! Functions are judged by their outputs, with the oracle out of their reach.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rune::judge::Check;
use rune::judge::FunctionJudge;
use rune::judge::FunctionTask;
use rune::judge::Outcome;
use rune::judge::Verdict;
use rune::sandbox::Limits;
use rune::sandbox::Sandbox;
use serde_json::Value;

use super::sandbox;

pub(super) async fn judge(sandbox: &Sandbox) -> FunctionJudge<'_> {
    let limits = Limits {
        cpu: Duration::from_secs(2),
        wall: Duration::from_secs(10),
        processes: 8,
        ..Limits::default()
    };
    FunctionJudge::start(sandbox, &sandbox.interpreter(None).unwrap(), limits).await.unwrap()
}

fn task(test: &str) -> FunctionTask {
    FunctionTask { entry_point: "f".to_owned(), prelude: String::new(), test: test.to_owned() }
}

async fn verdict(judge: &FunctionJudge<'_>, test: &str, solution: &str) -> Verdict {
    let check = judge.read(task(test)).await.unwrap();
    judge.run(&check, solution, 1).await.unwrap()
}

/// One task of HumanEval: what to judge, and its canonical solution.
struct HumanEval {
    id: String,
    task: FunctionTask,
    prompt: String,
    canonical: String,
}

/// Lines of a file, and what they hold.
fn rows(path: &Path) -> Vec<(String, Value)> {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    // Python's own JSON has numbers that are none elsewhere.
    let plain = |line: &str| {
        let named = [("-Infinity", "\"@-inf\""), ("Infinity", "\"@inf\""), ("NaN", "\"@nan\"")];
        named.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
    };
    let row = |line: &str| -> Value {
        let parsed = serde_json::from_str(line);
        parsed.unwrap_or_else(|_| serde_json::from_str(&plain(line)).unwrap())
    };
    text.lines().map(|line| (line.to_owned(), row(line))).collect()
}

fn field(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap().to_owned()
}

fn human_eval() -> Vec<HumanEval> {
    let task = |row: &Value| {
        let prompt = field(row, "prompt");
        let entry_point = field(row, "entry_point");
        // Helpers of the prompt belong to the check as well: some use them.
        let prelude = format!("{prompt}    pass\n");
        let task = FunctionTask { entry_point, prelude, test: field(row, "test") };
        let (id, canonical) = (field(row, "task_id"), field(row, "canonical_solution"));
        HumanEval { id, task, prompt, canonical }
    };
    let rows = rows(Path::new("tests/fixtures/judge/HumanEval.jsonl.gz"));
    rows.iter().map(|(_, row)| task(row)).collect()
}

/// What a check of MBPP+ needs: the reference in a space of its own, and inputs with the types of the base asserts, since
/// the file has lists for tuples and sets, and texts for complex numbers.
const MBPP_PLUS: &str = r"
import ast, copy, json, math, sys
def the_reference(code, space):
    exec(code, space)
    return space['ENTRY']
def calls(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'ENTRY':
            try: yield [ast.literal_eval(part) for part in node.args]
            except ValueError: yield [eval(ast.unparse(part)) for part in node.args]
def cast(like, value):
    if isinstance(value, list) and isinstance(like, (list, tuple, set, frozenset)):
        likes = list(like)
        if isinstance(like, (set, frozenset)) or len(likes) != len(value):
            likes = likes[:1] * len(value)
        return type(like)(cast(*pair) for pair in zip(likes, value)) if likes else type(like)(value)
    if isinstance(value, dict) and isinstance(like, dict) and like:
        key, item = next(iter(like.items()))
        return {cast(key, k): cast(item, v) for k, v in value.items()}
    return value
def argument(like, value):
    if isinstance(value, str) and isinstance(like, (int, float, complex)):
        try: return complex(value)
        except ValueError: pass
    return cast(like, value)
def inputs(assertion, row):
    like = next(calls(assertion))
    return [[argument(*pair) for pair in zip(like, args)] for args in json.loads(row)['plus_input']]
";

/// Tasks whose canonical solution does not pass, and why.
const MBPP_PLUS_FAULTS: &[(u32, &str)] = &[
    (164, "the canonical solution contradicts a base assert"),
    (295, "likewise"),
    (255, "the answers to all inputs take more than 4 GiB"),
    (630, "the answers to all inputs take more than a frame of 16 MiB"),
    (580, "the nesting of tuples can't be told from the base asserts"),
    (737, "gives a match object, which is no plain data"),
    (787, "likewise"),
    (794, "likewise"),
];

fn mbpp_plus(line: &str, row: &Value) -> FunctionTask {
    let (entry_point, assertion) = (field(row, "entry_point"), field(row, "assertion"));
    let quoted = |value: &str| serde_json::to_string(value).unwrap();
    let canonical = quoted(&field(row, "canonical_solution"));
    let prelude = MBPP_PLUS.replace("ENTRY", &entry_point)
        + &format!("reference = the_reference({canonical}, {{}})\n");
    let (base, line) = (quoted(&assertion), quoted(line));
    let test = format!(
        "{assertion}\nfor args in inputs({base}, {line}):\n    assert {entry_point}(*args) == reference(*copy.deepcopy(args))\n"
    );
    FunctionTask { entry_point, prelude, test }
}

#[tokio::test]
async fn canonical_solutions_of_mbpp_plus_pass() {
    let Some(path) = std::env::var_os("MBPP_PLUS_FILE") else {
        return eprintln!("skipped: MBPP_PLUS_FILE does not name MbppPlus-v0.1.0.jsonl.gz");
    };
    let sandbox = sandbox();
    let limits = Limits {
        cpu: Duration::from_secs(20),
        wall: Duration::from_secs(200),
        address_bytes: 4 << 30,
        ..Limits::default()
    };
    let interpreter = sandbox.interpreter(None).unwrap();
    let judge = FunctionJudge::start(&sandbox, &interpreter, limits).await.unwrap();
    let rows = rows(Path::new(&path));
    let (mut n_data, mut wrong) = (0, Vec::new());
    for (line, row) in &rows {
        let id = field(row, "task_id");
        let check = match judge.read(mbpp_plus(line, row)).await {
            Ok(check) => check,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        n_data += usize::from(check.is_data());
        let verdict = judge.run(&check, &field(row, "canonical_solution"), 3).await.unwrap();
        if !verdict.passed() {
            let first = verdict.first_failure().map_or("", |test| &test.message);
            wrong.push(format!("{id}: {}: {first}", verdict.summary()));
        }
        let stub = format!("def {}(*args):\n    pass\n", field(row, "entry_point"));
        if judge.run(&check, &stub, 3).await.unwrap().passed() {
            wrong.push(format!("{id}: a stub passes"));
        }
    }
    println!("{} tasks, {n_data} of them data\n{}", rows.len(), wrong.join("\n"));
    wrong.retain(|text| {
        !MBPP_PLUS_FAULTS.iter().any(|(id, _)| text.starts_with(&format!("Mbpp/{id}:")))
    });
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test]
async fn canonical_solutions_of_human_eval_pass_and_stubs_fail() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let (mut n_data, mut wrong) = (0, Vec::new());
    let tasks = human_eval();
    for HumanEval { id, task, prompt, canonical } in &tasks {
        let check: Check = judge.read(task.clone()).await.unwrap();
        n_data += usize::from(check.is_data());
        let reference = format!("{prompt}{canonical}");
        let stub = format!("{prompt}    pass\n");
        let verdict = judge.run(&check, &stub, 7).await.unwrap();
        if !matches!(verdict.outcome, Outcome::Wrong | Outcome::Exception) {
            wrong.push(format!("{id}, stub: {}", verdict.summary()));
        }
        match judge.prove(check, &reference, &stub).await {
            Ok(check) => {
                let verdict = judge.run(&check, &reference, 7).await.unwrap();
                if !verdict.passed() {
                    wrong.push(format!("{id}: {}", verdict.summary()));
                }
            }
            Err(error) => wrong.push(format!("{id}: {error}")),
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!((tasks.len(), n_data), (164, 161));
}

#[tokio::test]
async fn every_way_of_failing_has_its_word() {
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let test = "assert f(1) == 2\nassert f(2) == [3]\nassert f(x=[1]) is None\nassert not f('')\nassert abs(f(0.5) - 1.5) < 1e-6\nassert f(9)\n";
    let table = [
        (
            "def f(x): return {1: 2, 2: [3], '': 0, 0.5: 1.5000001, 9: 1}.get(x) if not isinstance(x, list) else None",
            "6 of 6 tests passed",
        ),
        ("def f(x): return 2", "2 of 6 tests passed: wrong (2)"),
        ("def f(x): return x.y", "0 of 6 tests passed: raised an exception (6)"),
        ("def f(x:", "0 of 6 tests passed: raised an exception (import)"),
        ("g = 1", "0 of 6 tests passed: raised an exception (import)"),
        (
            "class E:\n  def __eq__(s, o): return True\ndef f(x): return E()",
            "0 of 6 tests passed: returned no plain data (6)",
        ),
        ("def f(x):\n  while True: pass", "0 of 6 tests passed: out of processor time (6)"),
        ("def f(x): return bytearray(1 << 40)", "0 of 6 tests passed: out of memory (6)"),
        ("import os\ndef f(x): os._exit(0)", "0 of 6 tests passed: raised an exception (6)"),
        (
            "def f(x):\n  import ctypes; ctypes.string_at(0)",
            "0 of 6 tests passed: raised an exception (6)",
        ),
    ];
    for (solution, expected) in table {
        let shown = verdict(&judge, test, solution).await.summary();
        let same = |text: &str| text.split(" (").next().unwrap().to_owned();
        assert_eq!(same(&shown), same(expected), "{solution}: {shown}");
    }
    let check = judge.read(task(test)).await.unwrap();
    let unproven = judge.prove(check.clone(), "def f(x): return 2", "f = None").await.unwrap_err();
    assert!(unproven.to_string().contains("its reference: 2 of 6 tests passed"), "{unproven}");
    let unproven = judge.prove(check, table[0].0, table[0].0).await.unwrap_err();
    assert!(unproven.to_string().contains("passes on a stub"), "{unproven}");
    let counts = "n = [0]\ndef f(x):\n  n[0] += 1\n  return x if n[0] <= 99 else -x - 1";
    let many = "for i in range(99):\n  assert f(i) == i";
    let flaky = verdict(&judge, many, counts).await;
    assert_eq!(flaky.outcome, Outcome::Flaky, "{}", flaky.summary());
}
