//! `rune eval`: what is refused, and that nothing is asked twice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::model::tiny;

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

    /// Outcomes in the registry.
    #[expect(clippy::disallowed_types, reason = "the test goes round the registry on purpose")]
    fn n_outcomes(&self) -> u32 {
        let db = rusqlite::Connection::open(self.path("home/rune.db")).unwrap();
        db.query_row("SELECT count(*) FROM outcome", [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn what_was_asked_is_not_asked_again() {
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
    assert_eq!(eval(""), first);
    let score: Value = serde_json::from_str(first.lines().last().unwrap()).unwrap();
    assert_eq!((&score["score"]["n_tasks"], &score["score"]["passed"]), (&json!(3), &json!(0)));
    eval("--n 2 --k 1,2");
    assert_eq!(bench.n_outcomes(), 9);
    // Other seeds are other answers, and so is another temperature.
    eval("--seed 5");
    assert_eq!(bench.n_outcomes(), 12);
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let bench = Bench::new();
    let eval = |args: &str| bench.refused(&format!("eval --model m.gguf --max-tokens 8 {args}"));
    insta::assert_snapshot!(eval("--suite s.jsonl --k 2"), @"2 error: pass@2 needs 1 to 1 answers a task: --n says how many there are");
    insta::assert_snapshot!(eval("--suite nothing"), @"2 error: no suite `nothing`: `rune eval suites list` shows all, `pull` and `import` bring more");
    insta::assert_snapshot!(eval("--suite s.jsonl --adapter nobody"), @"2 error: no adapter `nobody`");
    insta::assert_snapshot!(eval("--suite s.jsonl --via pipeline"), @"2 error: suite `s` has no tasks for the pipeline: they are asked with --via completions");
    bench.ok("eval suites import s.jsonl --format rune --name mine");
    insta::assert_snapshot!(bench.refused("eval suites import s.jsonl --format rune --name mine"), @"7 error: suite `mine` already exists");
    insta::assert_snapshot!(bench.refused("eval suites import s.jsonl --format rune --name ../mine"), @"2 error: `../mine` is no name for a suite: letters, digits, `.`, `_`, `-` and `+`, no dot first");
    insta::assert_snapshot!(bench.refused("eval suites import s.jsonl --format mbpp --name m"), @"2 error: `s.jsonl`, line 1: missing field `task_id` at line 1 column 238");
    let stored = bench.path("home/suites/mine.jsonl");
    let text = fs::read_to_string(&stored).unwrap();
    fs::write(&stored, text.replace("f(4) == 5", "f(4) == 4")).unwrap();
    insta::assert_snapshot!(eval("--suite mine").replace(bench.folder.path().to_str().unwrap(), ""), @"3 error: `/home/suites/mine.jsonl` is damaged: its tasks are not those that its first line speaks of");
    // A task that its own answer does not pass, or that passes without one, says nothing.
    bench.write("wrong.jsonl", &[task("w", "def f(x):\n    return x\n")]);
    insta::assert_snapshot!(eval("--suite wrong.jsonl"), @"3 error: the task `w` cannot be judged: the check does not run: its reference: 0 of 2 tests passed: wrong (1)");
    // A name stands for the same tasks for ever.
    bench.ok("eval --suite s.jsonl --model m.gguf --max-tokens 8 --quiet");
    bench.write("s.jsonl", &[task("a", RIGHT)]);
    insta::assert_snapshot!(eval("--suite s.jsonl"), @"7 error: suite `s` has changed since it was measured: give the new one another name");
}

#[test]
fn an_adapter_is_not_measured_on_what_it_was_trained_on() {
    let bench = Bench::new();
    let record = |family: &str| {
        json!({ "messages": [
            { "role": "user", "content": family },
            { "role": "assistant", "content": "no" },
        ], "family": family })
    };
    bench.write("d.jsonl", &["a", "x", "y", "z"].map(record));
    let adapter =
        bench.ok("train --dataset d.jsonl --model m.gguf --validation 0 --max-steps 1 --quiet");
    let adapter = adapter.trim();
    let eval = |suite: &str| {
        bench.refused(&format!("eval --suite {suite} --model m.gguf --adapter {adapter}"))
    };
    insta::assert_snapshot!(eval("s.jsonl"), @"7 error: the adapter was trained on families of this suite, such as `a`: that would measure its memory of them");
    bench.write("t.jsonl", &["b", "c"].map(|id| task(id, RIGHT)));
    let other = format!(
        "eval compare base {adapter} --suite t.jsonl --model m.gguf --max-tokens 8 --quiet"
    );
    assert!(bench.ok(&other).contains("these tasks don't tell which is better"));
}

#[test]
fn tasks_that_are_alike_are_one_family() {
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
    // The second says what the first says, and the fourth asks for the first's function.
    assert_eq!((&shown["tasks"], &shown["families"]), (&json!(4), &json!(2)));
}
