//! Functions are judged by their outputs, with the oracle out of their reach.

use std::path::Path;
use std::time::Duration;

use rune::evaluation::Format;
use rune::evaluation::Modules;
use rune::judge::FunctionJudge;
use rune::judge::FunctionTask;
use rune::judge::Judge;
use rune::judge::Outcome;
use rune::judge::TestSuite;
use rune::judge::Verdict;
use rune::sandbox::Limits;
use rune::sandbox::Sandbox;
use rune::task::SourceFile;

use serde_json::json;

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
    let tasks = Format::MbppPlus.read(Path::new(&path), "mbppplus").unwrap();
    let modules = Modules::default();
    let (mut n_data, mut wrong) = (0, Vec::new());
    for task in &tasks {
        let id = &task.id;
        let check = match judge.read(task.question().unwrap()).await {
            Ok(check) => check,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        n_data += usize::from(check.is_data());
        let reference = task.program(&task.answer, &modules);
        let verdict = judge.run(&check, &reference, 3).await.unwrap();
        if !verdict.passed() {
            let first = verdict.first_failure().map_or("", |test| &test.message);
            wrong.push(format!("{id}: {}: {first}", verdict.summary()));
        }
        if judge.run(&check, &task.stub(&modules), 3).await.unwrap().passed() {
            wrong.push(format!("{id}: a stub passes"));
        }
    }
    println!("{} tasks, {n_data} of them data\n{}", tasks.len(), wrong.join("\n"));
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
    let path = Path::new("tests/fixtures/judge/HumanEval.jsonl.gz");
    let tasks = Format::HumanEval.read(path, "humaneval").unwrap();
    let modules = Modules::default();
    for task in &tasks {
        let id = &task.id;
        let check = judge.read(task.question().unwrap()).await.unwrap();
        n_data += usize::from(check.is_data());
        let (reference, stub) = (task.program(&task.answer, &modules), task.stub(&modules));
        let verdict = judge.run(&check, &stub, 7).await.unwrap();
        if !matches!(verdict.outcome, Outcome::Wrong | Outcome::Exception) {
            wrong.push(format!("{id}, stub: {}", verdict.summary()));
        }
        match judge.prove(check, Some(&reference), &stub).await {
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

/// What may be seen of a task has to be true of its reference.
#[tokio::test]
async fn examples_of_human_eval_hold_for_canonical_solutions() {
    let sandbox = sandbox();
    let interpreter = sandbox.interpreter(None).unwrap();
    let judge = Judge::new(&sandbox, &interpreter);
    let path = Path::new("tests/fixtures/judge/HumanEval.jsonl.gz");
    let tasks = Format::HumanEval.read(path, "humaneval").unwrap();
    let (mut n_suites, mut wrong) = (0, Vec::new());
    for task in &tasks {
        let Some(work) = &task.work else { continue };
        n_suites += 1;
        let suite = TestSuite::new(vec![SourceFile::new("test_solution.py", &work.tests)]);
        let solution =
            SourceFile::new("solution.py", task.program(&task.answer, &Modules::default()));
        let verdict = judge.run_suite(&suite, &[solution]).await.unwrap();
        if !verdict.passed() {
            wrong.push(format!("{}: {}", task.id, verdict.summary()));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(n_suites, 121);
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
    let unproven =
        judge.prove(check.clone(), Some("def f(x): return 2"), "f = None").await.unwrap_err();
    assert!(unproven.to_string().contains("its reference: 2 of 6 tests passed"), "{unproven}");
    let unproven = judge.prove(check, Some(table[0].0), table[0].0).await.unwrap_err();
    assert!(unproven.to_string().contains("passes on a stub"), "{unproven}");
    let counts = "n = [0]\ndef f(x):\n  n[0] += 1\n  return x if n[0] <= 99 else -x - 1";
    let many = "for i in range(99):\n  assert f(i) == i";
    let flaky = verdict(&judge, many, counts).await;
    assert_eq!(flaky.outcome, Outcome::Flaky, "{}", flaky.summary());
}

/// Programs are judged by the words that they write, methods by what they give.
#[tokio::test]
async fn contest_problems_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.jsonl");
    let stdin = |input: &str, output: &str| json!({ "input": input, "output": output, "testtype": "stdin" });
    let rows = [
        json!({
            "question_id": "double", "question_content": "Double each.", "metadata": "{}",
            "public_test_cases": json!([stdin("1 2\n", "2 4\n")]).to_string(),
            // [{"input": "0.5", "output": "1.0", "testtype": "stdin"}], pickled and packed by Python.
            "private_test_cases": "eJxrYJlqwwABPRbR1UqZeQWlJUpWCkoGeqZKOgpK+aUlUAFDPQOQQElqcUlJZUEqSKi4JCUzT6k2dooeAHdKE3E=",
        }),
        json!({
            "question_id": "add", "question_content": "Add.", "metadata": json!({ "func_name": "add" }).to_string(),
            "starter_code": "class Solution:\n    def add(self, a, b):\n",
            "public_test_cases": json!([{ "input": "[1]\n[2]", "output": "[1, 2]", "testtype": "functional" }]).to_string(),
            "private_test_cases": "[]",
        }),
    ];
    std::fs::write(&path, rows.map(|row| row.to_string() + "\n").concat()).unwrap();
    let tasks = Format::LiveCodeBench.read(&path, "live").unwrap();
    let sandbox = sandbox();
    let judge = judge(&sandbox).await;
    let table = [
        (0, "print(*[2 * float(x) for x in input().split()])", "2 of 2 tests passed"),
        (
            0,
            "import sys\nfor x in sys.stdin.read().split(): sys.stdout.write(f'{float(x) + float(x):g}\\n')\nsys.exit(1)",
            "2 of 2 tests passed",
        ),
        (
            0,
            "print(*[2 * int(x) for x in input().split()])",
            "1 of 2 tests passed: raised an exception (2)",
        ),
        (0, "print(2, 4)", "1 of 2 tests passed: wrong (2)"),
        (
            1,
            "class Solution:\n    def add(self, a, b):\n        return a + b",
            "1 of 1 tests passed",
        ),
        (1, "def add(a, b):\n    return a + b", "1 of 1 tests passed"),
        (
            1,
            "class Solution:\n    def add(self, a, b):\n        return b + a",
            "0 of 1 tests passed: wrong (1)",
        ),
    ];
    for (task, answer, expected) in table {
        let task = &tasks[task];
        let check = judge.read(task.question().unwrap()).await.unwrap();
        let code = task.program(&format!("```python\n{answer}\n```"), &Modules::default());
        assert_eq!(judge.run(&check, &code, 0).await.unwrap().summary(), expected, "{answer}");
    }
}
