//! `rune run` from end to end, on canned answers: the real binary, the real jail, no model.

mod answers;
mod interrupt;
mod json;
mod judged;
mod memory;
mod model;
mod outcome;
mod parts;
mod refusal;
mod solve;
mod suites;

pub(super) use model::real_home;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;

use assert_cmd::Command;
use rune::sandbox::Interpreter;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

/// What each phase's prompt says and no other's; the words of `templates/`.
const DECOMPOSE: &str = "Split the code of this task";
const PLAN: &str = "Write the signatures";
const DIAGNOSE: &str = "Write no code";
const REPAIR: &str = "Write the corrected";
const ASSERTS: &str = "assert statements";
const CUT_OFF: &str = "was cut off";

/// A task of one function, with tests and a solution.
const TASK: &str = "Write adder.py with add(a, b), which returns the sum of two numbers.";
const TESTS: &str = "\
import unittest
from adder import add


class TestAdd(unittest.TestCase):
    def test_both_positive(self):
        self.assertEqual(add(1, 2), 3)

    def test_one_negative(self):
        self.assertEqual(add(5, -3), 2)

    def test_zero(self):
        self.assertEqual(add(0, 0), 0)
";
const SOLUTION: &str = "def add(a, b):\n    return a + b\n";

/// A canned answer: see `provider/scripted.rs`.
struct Answer(Value);

impl Answer {
    /// To the first prompt that holds all of `when`.
    fn new(when: &[&str], text: impl Into<String>) -> Self {
        Self(json!({ "when": when, "text": text.into() }))
    }

    fn repeat(mut self) -> Self {
        self.0["repeat"] = json!(true);
        self
    }

    fn delay(mut self, milliseconds: u64) -> Self {
        self.0["delay_ms"] = json!(milliseconds);
        self
    }

    fn cut_off(mut self) -> Self {
        self.0["finish_reason"] = json!("length");
        self
    }
}

/// Code as models wrap it.
fn fenced(code: &str) -> String {
    format!("Here it is:\n\n```python\n{code}\n```\n")
}

/// Answers to what comes before the code of [`TASK`].
fn prelude() -> Vec<Answer> {
    let signature = "def add(a, b):\n    \"\"\"Returns the total of both.\"\"\"\n    ...\n";
    vec![
        Answer::new(&[DECOMPOSE], "1. add - adds two numbers (needs: nothing)"),
        Answer::new(&[PLAN], fenced(signature)),
    ]
}

/// [`prelude`], then these codes in this order, whatever is asked.
fn script(codes: &[&str]) -> Vec<Answer> {
    let mut answers = prelude();
    answers.extend(codes.iter().map(|code| Answer::new(&[], fenced(code))));
    answers
}

/// A run that is over.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// `rune` in an empty folder, with a home and a folder for the result in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A bench with the tests of [`TASK`] and a script.
    fn with(answers: &[Answer]) -> Self {
        let bench = Self::new();
        bench.write("test_adder.py", TESTS);
        bench.script(answers);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn script(&self, answers: &[Answer]) {
        let lines: Vec<String> = answers.iter().map(|answer| answer.0.to_string()).collect();
        self.write("script.jsonl", lines.join("\n"));
    }

    /// Program, folder and variables of every `rune` here.
    fn set_up(&self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("RUNE_HOME", self.path("home"))
            .env("RUNE_SANDBOX_PYTHON", python());
        command
    }

    fn rune(&self) -> std::process::Command {
        self.set_up(env!("CARGO_BIN_EXE_rune"))
    }

    fn call(&self, arguments: &[&str]) -> Ended {
        let mut command = self.rune();
        command.args(arguments);
        end(command)
    }

    /// `rune run` on [`TASK`] with its tests and the script, writing to `out`.
    fn solve(&self, further: &[&str]) -> Ended {
        let own = ["run", TASK, "--tests", "test_adder.py", "--script", "script.jsonl"];
        self.call(&[&own[..], &["--out", "out"], further].concat())
    }

    /// All sessions, the newest first.
    fn sessions(&self) -> Vec<Value> {
        json_lines(&self.call(&["sessions", "list", "--json"]).stdout)
    }

    fn session(&self) -> Value {
        self.sessions().remove(0)
    }

    fn session_id(&self) -> String {
        self.session()["id"].as_str().unwrap().to_owned()
    }

    /// The attempts of the newest session.
    fn attempts(&self) -> Vec<Value> {
        let exported = self.call(&["sessions", "export", &self.session_id()]);
        json_lines(&exported.stdout).into_iter().skip(1).collect()
    }

    /// Phase and verdict of each attempt of the newest session.
    fn verdicts(&self) -> String {
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let show = |attempt: &Value| word(&attempt["phase"]) + " " + &word(&attempt["verdict"]);
        self.attempts().iter().map(show).collect::<Vec<_>>().join("\n")
    }

    /// The user's part of the prompt of each attempt in `phase`.
    fn prompts(&self, phase: &str) -> Vec<String> {
        let of_phase = |attempt: &Value| attempt["phase"] == phase;
        let prompt = |attempt: Value| {
            let messages = attempt["prompt"].as_array().unwrap();
            messages.last().unwrap()["content"].as_str().unwrap().to_owned()
        };
        self.attempts().into_iter().filter(of_phase).map(prompt).collect()
    }

    /// The file kept for an unsolved session.
    fn kept(&self, name: &str) -> String {
        self.read(&format!("home/sessions/{}/{name}", self.session_id()))
    }
}

/// Waits for the end, with a limit far beyond what any run here takes.
fn end(command: std::process::Command) -> Ended {
    let limit = std::time::Duration::from_mins(2);
    let output = Command::from_std(command).timeout(limit).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The real interpreter: a shim in front of it would cost every run half a second.
fn python() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| Interpreter::find(None).unwrap().executable().to_owned())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
