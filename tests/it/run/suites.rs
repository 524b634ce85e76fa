//! Tests as they lie on disk: helpers, data, packages that are missing, answers that are there
//! already.

use std::fs;
use std::os::unix::fs::symlink;

use super::Answer;
use super::Bench;
use super::Ended;
use super::SOLUTION;
use super::TASK;
use super::TESTS;
use super::fenced;
use super::json_lines;
use super::script;

/// A run on `task` in which the same code answers everything, with one try.
fn run(bench: &Bench, task: &str, tests: &str, code: &str) -> Ended {
    bench.script(&[Answer::new(&[], fenced(code)).repeat()]);
    let own = ["run", task, "--tests", tests, "--script", "script.jsonl", "--out", "out"];
    bench.call(&[&own[..], &["--attempts", "1", "--candidates", "1", "--force"]].concat())
}

/// A bench with these files.
fn bench(files: &[(&str, &[u8])]) -> Bench {
    let bench = Bench::new();
    for (name, content) in files {
        let path = bench.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    bench
}

/// Names of the files in `out`.
fn written(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.path("out")).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn missing_packages_are_named_before_the_first_prompt() {
    let test = b"from parameterized import parameterized\nfrom adder import add\nimport unittest\n\n\n\
        class T(unittest.TestCase):\n    @parameterized.expand([(1, 2, 3)])\n    def test_sum(self, a, b, want):\n        \
        self.assertEqual(add(a, b), want)\n";
    let bench = bench(&[("test_adder.py", test)]);
    let ended = run(&bench, TASK, "test_adder.py", SOLUTION);
    insta::assert_snapshot!(format!("{}\n{}", ended.code.unwrap(), ended.stderr), @"
    3
    error: the tests import `parameterized`, which this Python does not have
    hint: pass their folder with `--lib DIR`, or install them for the Python of `sandbox.python`; a module that Rune should write must be named in the task
    ");
    assert_eq!(bench.call(&["sessions", "list", "--json"]).stdout, "", "no session was begun");
    // With a library that has it, it is no longer missing.
    fs::create_dir(bench.path("lib")).unwrap();
    bench.write(
        "lib/parameterized.py",
        "class parameterized:\n    @staticmethod\n    def expand(cases):\n        def wrap(function):\n            \
         def test(self):\n                for case in cases:\n                    function(self, *case)\n            \
         return test\n        return wrap\n",
    );
    let own = ["run", TASK, "--tests", "test_adder.py", "--script", "script.jsonl"];
    let ended = bench.call(&[&own[..], &["--out", "out", "--lib", "lib"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(written(&bench), ["adder.py"]);
}

#[test]
fn helpers_and_data_of_tests_are_never_written() {
    let test = "import json\nfrom pathlib import Path\nfrom adder import add\nfrom helpers import CASES\n\n\
        MORE = json.loads((Path(__file__).parent / 'more.json').read_text())\n\n\n\
        def test_cases():\n    for a, b, want in CASES + MORE:\n        assert add(a, b) == want\n";
    let files: [(&str, &[u8]); 3] = [
        ("tests/test_adder.py", test.as_bytes()),
        ("tests/helpers.py", b"CASES = [[1, 2, 3]]\n"),
        ("tests/more.json", b"[[0, 0, 0]]"),
    ];
    for tests in ["tests/test_adder.py", "tests"] {
        let bench = bench(&files);
        let ended = run(&bench, TASK, tests, SOLUTION);
        assert_eq!(ended.code, Some(0), "{tests}: {ended:?}");
        assert_eq!(written(&bench), ["adder.py"]);
    }
}

#[test]
fn linked_test_files_count() {
    let bench = bench(&[
        ("p/tests/test_adder.py", TESTS.as_bytes()),
        (
            "p/shared/test_strict.py",
            b"from adder import add\n\n\ndef test_strict():\n    assert add('a', 'b') == 'ab'\n",
        ),
    ]);
    symlink("../shared/test_strict.py", bench.path("p/tests/test_strict.py")).unwrap();
    let lax = "def add(a, b):\n    return int(a) + int(b)\n";
    assert_eq!(run(&bench, TASK, "p/tests", lax).code, Some(1));
    assert_eq!(run(&bench, TASK, "p/tests", SOLUTION).code, Some(0));
}

#[test]
fn solution_beside_its_tests_is_not_a_helper() {
    let bench = bench(&[
        ("test_adder.py", TESTS.as_bytes()),
        ("adder.py", b"def add(a, b):\n    return 0\n"),
    ]);
    for tests in ["test_adder.py", "."] {
        let ended = run(&bench, TASK, tests, SOLUTION);
        assert_eq!(ended.code, Some(0), "{tests}: {ended:?}");
        assert_eq!(bench.read("out/adder.py"), SOLUTION);
    }
}

#[test]
fn omitted_files_are_reported_and_recorded() {
    let bench = bench(&[("tests/test_adder.py", TESTS.as_bytes())]);
    symlink("/etc/hostname", bench.path("tests/host.txt")).unwrap();
    let ended = run(&bench, TASK, "tests", SOLUTION);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("\nwarning: left out `"), "{}", ended.stderr);
    let events = bench.call(&["events", &bench.session_id()]).stdout;
    assert!(events.contains("host.txt`: a link to `/etc/hostname`"), "{events}");
    let own = [
        "run",
        TASK,
        "--tests",
        "tests",
        "--script",
        "script.jsonl",
        "--force",
        "--json",
        "--memory",
        "none",
    ];
    let lines = json_lines(&bench.call(&[&own[..], &["--out", "out"]].concat()).stdout);
    let kinds: Vec<&str> = lines[..2].iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["session.started", "warning"]);
}

#[test]
fn empty_method_is_not_a_fault_when_tests_pass() {
    let code = "class NullLog:\n    def write(self, text):\n        pass\n\n\ndef run(log):\n    log.write('a')\n    return 3\n";
    let test = b"import unittest\nfrom work import NullLog, run\n\n\nclass T(unittest.TestCase):\n    def test_run(self):\n        \
        self.assertEqual(run(NullLog()), 3)\n";
    let bench = bench(&[("test_work.py", test)]);
    let task = "Write work.py with the names that the tests use.";
    let ended = run(&bench, task, "test_work.py", code);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Where they fail, that is what is wrong.
    let ended = run(&bench, task, "test_work.py", &code.replace("return 3", "return 4"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(bench.verdicts().contains("malformed"), "{}", bench.verdicts());
}

#[test]
fn byte_order_marks_of_task_files_and_chats_are_skipped() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let task = serde_json::json!({ "id": "x", "task": TASK, "tests": TESTS });
    bench.write("tasks.jsonl", format!("\u{feff}{task}\n"));
    let own = ["run", "--task", "tasks.jsonl", "--script", "script.jsonl", "--out", "out"];
    let ended = bench.call(&own);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let chat = r#"{"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "One."}]}"#;
    bench.write("chats.jsonl", format!("\u{feff}{chat}\n"));
    let ended =
        bench.call(&["train", "--dataset", "chats.jsonl", "--model", "m.gguf", "--dry-run"]);
    assert!(!ended.stderr.contains("line 1"), "{ended:?}");
}

#[test]
fn tests_passing_on_a_stub_warn_or_fail_when_strict() {
    let weak = "import unittest\nimport adder\n\n\nclass TestAdd(unittest.TestCase):\n    \
                def test_it_is_there(self):\n        self.assertTrue(callable(adder.add))\n";
    let bench = bench(&[("tests/test_adder.py", weak.as_bytes())]);
    let ended = run(&bench, TASK, "tests", SOLUTION);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("warning: the tests pass on a stub of"), "{}", ended.stderr);
    let events = bench.call(&["events", &bench.session_id()]).stdout;
    assert!(events.contains("the tests pass on a stub of"), "{events}");
    let own = ["run", TASK, "--tests", "tests", "--script", "script.jsonl", "--strict-tests"];
    let strict = bench.call(&[&own[..], &["--out", "strict"]].concat());
    assert_eq!(strict.code, Some(1), "{strict:?}");
    assert!(strict.stderr.contains("not solved: 1 of 1 tests passed"), "{}", strict.stderr);
    assert!(!bench.path("strict").exists());
}
