//! `rune eval`: what is refused, and that nothing is asked twice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rune::home::Home;
use rune::hub;
use rune::hub::ModelCatalogue;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::lines::events;
use crate::model::tiny;
use crate::run::real_home;

/// A home, a tiny model, and a suite of three tasks that it fails.
struct Bench {
    folder: TempDir,
}

fn task(id: &str, answer: &str) -> Value {
    json!({
        "id": id,
        "group": "small",
        "family": id,
        "messages": [{ "role": "user", "content": id }],
        "check": {
            "kind": "function", "entry_point": "f", "prompt": "", "prelude": "",
            "test": "assert f(1) == 2\nassert f(4) == 5",
        },
        "answer": answer,
    })
}

const RIGHT: &str = "def f(x):\n    return x + 1\n";

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let model = tiny::model("llama", tiny::Q8_0, 64, 96).encode().1;
        fs::write(bench.path("m.gguf"), model).unwrap();
        bench.write("s.jsonl", &["a", "b", "c"].map(|id| task(id, RIGHT)));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, tasks: &[Value]) {
        let lines: Vec<String> = tasks.iter().map(ToString::to_string).collect();
        fs::write(self.path(name), lines.join("\n")).unwrap();
    }

    fn call(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
        command.arg("--home").arg(self.path("home")).args(args.split_whitespace());
        command.current_dir(self.folder.path()).output().unwrap()
    }

    fn ok(&self, args: &str) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &str) -> String {
        let output = self.call(args);
        let said = String::from_utf8(output.stderr).unwrap();
        let line = said.lines().find(|line| line.starts_with("error: ")).unwrap_or(&said);
        format!("{} {line}", output.status.code().unwrap())
    }

    /// An adapter that was trained on records of these families.
    fn trained_on(&self, families: &[&str]) -> String {
        let record = |family: &&str| {
            json!({ "messages": [
                { "role": "user", "content": family },
                { "role": "assistant", "content": "no" },
            ], "family": family })
        };
        self.write("d.jsonl", &families.iter().map(record).collect::<Vec<_>>());
        let train = "train --dataset d.jsonl --model m.gguf --validation 0 --max-steps 1 --rehearsal 0 --quiet";
        self.ok(train).trim().to_owned()
    }

    /// Outcomes in the registry.
    #[expect(clippy::disallowed_types, reason = "the test goes round the registry on purpose")]
    fn n_outcomes(&self) -> u32 {
        let db = rusqlite::Connection::open(self.path("home/rune.db")).unwrap();
        db.query_row("SELECT count(*) FROM outcome", [], |row| row.get(0)).unwrap()
    }

    /// Key and time of each.
    #[expect(clippy::disallowed_types, reason = "the test goes round the registry on purpose")]
    fn outcomes(&self) -> Vec<(String, String)> {
        let db = rusqlite::Connection::open(self.path("home/rune.db")).unwrap();
        let mut all = db.prepare("SELECT key, at FROM outcome").unwrap();
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

#[test]
fn cached_answers_are_not_asked_again() {
    let bench = Bench::new();
    let eval = |more: &str| {
        bench.ok(&format!(
            "eval --suite s.jsonl --model m.gguf --max-tokens 8 --quiet --json {more}"
        ))
    };
    let part = eval("--limit 2");
    assert_eq!((part.lines().count(), bench.n_outcomes()), (3, 2));
    let first = eval("");
    assert_eq!((first.lines().count(), bench.n_outcomes()), (4, 3));
    let without_time = |stdout: &str| {
        let mut lines = events(stdout);
        for line in &mut lines {
            line["ts"] = Value::Null;
        }
        lines
    };
    assert_eq!(without_time(&eval("")), without_time(&first));
    let score: Value = serde_json::from_str(first.lines().last().unwrap()).unwrap();
    assert_eq!((&score["score"]["n_tasks"], &score["score"]["passed"]), (&json!(3), &json!(0)));
    eval("--n 2 --k 1,2");
    assert_eq!(bench.n_outcomes(), 9);
    // Another seed gives other answers, and so does another temperature.
    eval("--seed 5");
    assert_eq!(bench.n_outcomes(), 12);
}

#[test]
fn unjudgeable_task_is_skipped_and_named() {
    let bench = Bench::new();
    let tasks = [task("a", RIGHT), task("w", "def f(x):\n    return x\n"), task("c", RIGHT)];
    bench.write("mixed.jsonl", &tasks);
    let eval = "eval --suite mixed.jsonl --model m.gguf --max-tokens 8";
    let lines = bench.ok(&format!("{eval} --json"));
    let lines = events(&lines);
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("evaluation.outcome").len(), 2, "{lines:?}");
    assert_eq!(of("evaluation.answered").len(), 2, "{lines:?}");
    assert_eq!(of("evaluation.void")[0]["id"], "w");
    assert_eq!(of("evaluation.score")[0]["score"]["n_tasks"], 2);
    let said = String::from_utf8(bench.call(eval).stderr).unwrap();
    assert!(said.contains("left out, as it cannot be judged here: `w`"), "{said}");
}

#[test]
fn cheating_references_are_skipped_and_large_sets_judged() {
    let bench = Bench::new();
    let with_test = |id: &str, test: &str, answer: &str| {
        let mut task = task(id, answer);
        task["check"]["test"] = json!(test);
        task
    };
    let forged = "import os, struct\ndef f(n):\n    one = b'i' + struct.pack('<i', 1)\n    \
                  body = b'(' + struct.pack('<I', 2) + b'<' + struct.pack('<I', 6) + one * 6 + b'N'\n    \
                  os.write(4, struct.pack('<I', len(body)) + b'v' + body)\n    os._exit(0)\n";
    let tasks = [
        with_test("forged", "assert f(12) == {1, 2, 3, 4, 6, 12}", forged),
        with_test(
            "ended",
            "def check(c):\n    for got, want in zip(map(c, [1, 2, 3]), [1, 4, 9]):\n        assert got == want",
            "def f(x):\n    raise StopIteration\n",
        ),
        with_test(
            "large",
            "assert f(200000) == set(range(200000))",
            "def f(n):\n    return set(range(n))\n",
        ),
    ];
    bench.write("s.jsonl", &tasks);
    let began = Instant::now();
    let lines =
        bench.ok("eval --suite s.jsonl --model m.gguf --max-tokens 4 --adapter none --json");
    let lines = events(&lines);
    let of = |kind: &str| {
        let own = lines.iter().filter(|line| line["type"] == kind);
        own.map(|line| &line["id"]).collect::<Vec<_>>()
    };
    assert_eq!(of("evaluation.void"), ["ended", "forged"], "{lines:?}");
    assert_eq!(of("evaluation.outcome"), ["large"], "{lines:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn invalid_measurements_are_refused_with_the_reason() {
    let bench = Bench::new();
    let eval = |args: &str| bench.refused(&format!("eval --model m.gguf --max-tokens 8 {args}"));
    insta::assert_snapshot!(eval("--suite s.jsonl --k 2"), @"2 error: cannot compute pass@2 from 1 answers per task");
    insta::assert_snapshot!(eval("--suite nothing"), @"2 error: no suite `nothing`");
    insta::assert_snapshot!(eval("--suite s.jsonl --adapter nobody"), @"2 error: no adapter `nobody`");
    insta::assert_snapshot!(eval("--suite s.jsonl --strategy pipeline"), @"2 error: suite `s` has no tasks for this strategy");
    insta::assert_snapshot!(eval("--suite s.jsonl --via pipeline"), @"2 error: suite `s` has no tasks for this strategy");
    insta::assert_snapshot!(bench.refused("eval compare base:best base --suite s.jsonl"), @"3 error: unknown strategy `best`");
    bench.ok("eval suites import s.jsonl --format rune --name mine");
    insta::assert_snapshot!(bench.refused("eval suites import s.jsonl --format rune --name mine"), @"7 error: suite `mine` already exists");
    insta::assert_snapshot!(bench.refused("eval suites import s.jsonl --format rune --name ../mine"), @"2 error: invalid suite name `../mine`");
    insta::assert_snapshot!(bench.refused("eval suites import s.jsonl --format mbpp --name m"), @"2 error: `s.jsonl`, line 1: missing field `task_id` at line 1 column 238");
    let stored = bench.path("home/suites/mine.jsonl");
    let text = fs::read_to_string(&stored).unwrap();
    fs::write(&stored, text.replace("f(4) == 5", "f(4) == 4")).unwrap();
    insta::assert_snapshot!(eval("--suite mine").replace(bench.folder.path().to_str().unwrap(), ""), @"3 error: `/home/suites/mine.jsonl` is damaged: its tasks do not match the digest in its first line");
    // A task that its own answer does not pass, or that passes without one, says nothing.
    bench.write("wrong.jsonl", &[task("w", "def f(x):\n    return x\n")]);
    insta::assert_snapshot!(eval("--suite wrong.jsonl"), @"3 error: task `w` cannot be judged: invalid check: its reference: 0 of 2 tests passed: wrong (1)");
    // The tasks behind a measured name must not change.
    bench.ok("eval --suite s.jsonl --model m.gguf --max-tokens 8 --quiet");
    bench.write("s.jsonl", &[task("a", RIGHT)]);
    insta::assert_snapshot!(eval("--suite s.jsonl"), @"7 error: suite `s` has changed since it was measured");
}

#[test]
fn adapter_is_not_measured_on_its_training_families() {
    let bench = Bench::new();
    let adapter = bench.trained_on(&["a", "x", "y", "z"]);
    let eval = |suite: &str| {
        bench.refused(&format!("eval --suite {suite} --model m.gguf --adapter {adapter}"))
    };
    insta::assert_snapshot!(eval("s.jsonl"), @"7 error: the adapter was trained on families of this suite, such as `a`");
    bench.write("t.jsonl", &["b", "c"].map(|id| task(id, RIGHT)));
    let other = format!(
        "eval compare base {adapter} --suite t.jsonl --model m.gguf --max-tokens 8 --quiet"
    );
    assert!(bench.ok(&other).contains("these tasks do not tell which is better"));
}

#[test]
fn near_duplicate_tasks_are_one_family() {
    let bench = Bench::new();
    let words: Vec<String> = (0..60).map(|i| format!("word{i}")).collect();
    let asking = |id: &str, question: String, name: &str| {
        let mut task = task(id, &format!("def {name}(x):\n    return x + 1\n"));
        task["messages"][0]["content"] = json!(question);
        task["check"]["entry_point"] = json!(name);
        task
    };
    let tasks = [
        asking("one", words.join(" "), "f"),
        asking("two", format!("{} more", words.join(" ")), "g"),
        asking("three", words[..30].join("-"), "h"),
        asking("four", "quite other words".to_owned(), "f"),
    ];
    bench.write("s.jsonl", &tasks);
    let shown = bench.ok("eval suites import s.jsonl --format rune --name mine --json");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    // The second is a near-duplicate of the first, and the fourth asks for the first's function.
    assert_eq!((&shown["tasks"], &shown["families"]), (&json!(4), &json!(2)));
}

#[test]
fn kill_9_loses_no_judged_answer() {
    let bench = Bench::new();
    let ids: Vec<String> = (0..60).map(|i| format!("t{i}")).collect();
    let tasks: Vec<Value> = ids.iter().map(|id| task(id, RIGHT)).collect();
    bench.write("s.jsonl", &tasks);
    let args = "eval --suite s.jsonl --model m.gguf --max-tokens 64 --quiet --json";
    bench.ok("eval --suite s.jsonl --model m.gguf --max-tokens 64 --quiet --limit 1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
    command.arg("--home").arg(bench.path("home")).args(args.split_whitespace());
    command.current_dir(bench.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while bench.n_outcomes() < 5 {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing is measured");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = bench.outcomes();
    assert!(before.len() < 60, "it was over before it was killed");
    let lines = bench.ok(args);
    assert_eq!(lines.lines().count(), 61);
    let after = bench.outcomes();
    assert_eq!(after.len(), 60);
    assert!(
        before.iter().all(|one| after.contains(one)),
        "what was measured is not measured again"
    );
}

#[test]
fn scores_are_rendered_in_every_requested_format() {
    let bench = Bench::new();
    bench.write("o.jsonl", &["a", "p", "q"].map(|id| task(id, RIGHT)));
    bench.write("seen.jsonl", &["x", "r"].map(|id| task(id, RIGHT)));
    let adapter = bench.trained_on(&["x", "y"]);
    let eval = |more: &str| {
        bench.ok(&format!("eval --suite s.jsonl --model m.gguf --max-tokens 8 --quiet {more}"))
    };
    let none = eval("--adapter none");
    assert!(!none.contains(&adapter), "{none}");
    let all = eval("--adapter all --markdown --svg s.svg --samples s.samples");
    let row = format!("| small | 3 | {adapter} | 0.0 % (0.0 to 56.1) | 0.0 | 0 | 0 |");
    assert!(all.contains("|---|---|---|") && all.contains(&row), "{all}");
    let svg = fs::read_to_string(bench.path("s.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains(&format!(">small  {adapter}<")), "{svg}");
    let samples = fs::read_to_string(bench.path("s.samples")).unwrap();
    let samples: Vec<Value> =
        samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = samples.iter().map(|s| (&s["task_id"], &s["passed"])).collect();
    let ids = ["a", "b", "c", "a", "b", "c"].map(Value::from);
    assert!(shown.iter().zip(&ids).all(|((id, passed), want)| *id == want && **passed == false));
    assert!(samples[0]["completion"].as_str().unwrap().starts_with("    pass\n"));
    let lines = events(&eval(&format!("--adapter {adapter} --ood o.jsonl --json")));
    let last = lines.last().unwrap();
    assert_eq!(last["type"], "evaluation.generalization");
    assert_eq!((&last["who"], &last["delta"]), (&json!(adapter), &json!(0.0)));
    let both = eval(&format!("--adapter {adapter} --ood o.jsonl"));
    assert!(both.contains("GENERALIZATION DELTA") && both.contains("+0.0"), "{both}");
    // With `all`, an adapter that was trained on the tasks is skipped; given by id it is refused.
    let seen =
        bench.ok("eval --suite seen.jsonl --model m.gguf --max-tokens 8 --quiet --adapter all");
    assert!(!seen.contains(&adapter), "{seen}");
}

/// A small task in each public form, whose own answer passes and whose stub does not.
#[test]
fn public_formats_are_read_and_judged() {
    let bench = Bench::new();
    // The tiny model's window is too short for such questions.
    let name = "smollm2-135m-instruct";
    let model = hub::path(&Home::new(real_home()), ModelCatalogue::embedded().get(name).unwrap());
    let model = model.unwrap_or_else(|| panic!("run `rune models pull {name}` first"));
    let model = model.display();
    let plus = json!({
        "task_id": "HumanEval/0", "entry_point": "f", "atol": 0,
        "prompt": "def f(xs):\n    \"\"\"Sums up.\n    >>> f([1, 2])\n    3\n    \"\"\"\n",
        "canonical_solution": "    return sum(xs)\n",
        "base_input": [[[1, 2]]], "plus_input": [[[]], [[4, -4, 0.5]]],
    });
    let big = json!({
        "task_id": "BigCodeBench/0", "entry_point": "task_func",
        "complete_prompt": "import math\ndef task_func(x):\n    \"\"\"The root of x.\"\"\"\n",
        "code_prompt": "import math\ndef task_func(x):\n",
        "canonical_solution": "    return math.sqrt(x)\n",
        "test": "import unittest\nclass TestCases(unittest.TestCase):\n    def test_root(self):\n        self.assertEqual(task_func(4), 2)\n",
    });
    let program = json!({
        "id": 7, "question": "Print the sum of two numbers.",
        "solutions": json!(["print(sum(map(int, input().split())))"]).to_string(),
        "input_output": json!({ "inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7.0"] }).to_string(),
    });
    let function = json!({
        "id": 8, "question": "Add.", "starter_code": "class Solution:\n    def add(self, a, b):\n",
        "solutions": json!(["class Solution:\n    def add(self, a, b):\n        return a + b"]).to_string(),
        "input_output": json!({ "fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], 7] }).to_string(),
    });
    let live = json!({
        "question_id": "abc", "question_content": "Double it.", "starter_code": "", "metadata": "{}",
        "public_test_cases": json!([{ "input": "2\n", "output": "4\n", "testtype": "stdin" }]).to_string(),
        "private_test_cases": json!([{ "input": "3", "output": "6", "testtype": "stdin" }]).to_string(),
    });
    let forms: [(&str, &[Value]); 4] = [
        ("humanevalplus", &[plus]),
        ("bigcodebench", &[big]),
        ("apps", &[program, function]),
        ("livecodebench", &[live]),
    ];
    for (form, tasks) in forms {
        bench.write("f.jsonl", tasks);
        bench.ok(&format!("eval suites import f.jsonl --format {form} --name {form}"));
        let args = format!("eval --suite {form} --max-tokens 8 --quiet --json --model {model}");
        let lines = bench.ok(&args);
        assert_eq!(lines.lines().count(), tasks.len() + 1, "{form}: {lines}");
    }
    let wrong = bench.refused("eval suites import f.jsonl --format apps --name wrong");
    insta::assert_snapshot!(wrong, @"2 error: `f.jsonl`, line 1: missing field `id` at line 1 column 258");
}
