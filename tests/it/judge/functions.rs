//! Functions are judged by their outputs, with the oracle out of their reach.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rune::judge::Check;
use rune::judge::FunctionJudge;
use rune::judge::FunctionTask;
use rune::judge::Outcome;
use rune::judge::Verdict;
use rune::sandbox::Interpreter;
use rune::sandbox::Limits;
use rune::sandbox::Sandbox;
use serde_json::Value;

pub(super) fn sandbox() -> Sandbox {
    Sandbox::start(Path::new(env!("CARGO_BIN_EXE_rune"))).unwrap()
}

pub(super) async fn judge(sandbox: &Sandbox) -> FunctionJudge<'_> {
    let limits = Limits {
        cpu: Duration::from_secs(2),
        wall: Duration::from_secs(10),
        processes: 8,
        ..Limits::default()
    };
    FunctionJudge::start(sandbox, &Interpreter::find(None).unwrap(), limits).await.unwrap()
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

fn human_eval() -> Vec<HumanEval> {
    let file = std::fs::File::open("tests/fixtures/judge/HumanEval.jsonl.gz").unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let field = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let task = |row: &Value| {
        let prompt = field(row, "prompt");
        let entry_point = field(row, "entry_point");
        // Helpers of the prompt belong to the check as well: some use them.
        let prelude = format!("{prompt}    pass\n");
        let task = FunctionTask { entry_point, prelude, test: field(row, "test") };
        let (id, canonical) = (field(row, "task_id"), field(row, "canonical_solution"));
        HumanEval { id, task, prompt, canonical }
    };
    text.lines().map(|line| task(&serde_json::from_str(line).unwrap())).collect()
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
        let verdict = judge.run(&check, &format!("{prompt}{canonical}"), 7).await.unwrap();
        if !verdict.passed() {
            wrong.push(format!("{id}: {}", verdict.summary()));
        }
        let stub = judge.run(&check, &format!("{prompt}    pass\n"), 7).await.unwrap();
        if !matches!(stub.outcome, Outcome::Wrong | Outcome::Exception) {
            wrong.push(format!("{id}, stub: {}", stub.summary()));
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
    let counts = "n = [0]\ndef f(x):\n  n[0] += 1\n  return x if n[0] <= 99 else -x - 1";
    let many = "for i in range(99):\n  assert f(i) == i";
    let flaky = verdict(&judge, many, counts).await;
    assert_eq!(flaky.outcome, Outcome::Flaky, "{}", flaky.summary());
}
