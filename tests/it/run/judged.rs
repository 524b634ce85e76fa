//! `rune judge`: the tests that lie on disk against the code that lies on disk.

use std::fs;

use serde_json::Value;

use super::Bench;
use super::Ended;
use super::SOLUTION;
use super::TESTS;
use crate::lines::events;

const WRONG: &str = "def add(a, b):\n    return a + abs(b)\n";

/// A bench with the tests of [`super::TASK`], a solution and a wrong one.
fn bench() -> Bench {
    let bench = Bench::with(&[]);
    bench.write("adder.py", SOLUTION);
    fs::create_dir(bench.path("wrong")).unwrap();
    bench.write("wrong/adder.py", WRONG);
    bench
}

fn judge(bench: &Bench, arguments: &[&str]) -> Ended {
    bench.call(&[&["judge"], arguments].concat())
}

/// Exit code and output, times left out.
fn shown(ended: &Ended) -> String {
    let times = regex::Regex::new(r"\d+\.\d+ s").unwrap();
    let text = format!("{}\n{}{}", ended.code.unwrap(), ended.stdout, ended.stderr);
    times.replace_all(&text, "TIME").into_owned()
}

#[test]
fn pass_says_where_it_was_decided() {
    let ended = judge(&bench(), &["adder.py", "--tests", "test_adder.py"]);
    let text = shown(&ended);
    assert!(text.starts_with("0\n3 passed in TIME\ndecided in "), "{text}");
}

#[test]
fn failures_are_shown_with_their_reasons_and_passes_on_request() {
    let bench = bench();
    insta::assert_snapshot!(shown(&judge(&bench, &["wrong", "--tests", "test_adder.py"])), @"
    1
    failed  test_adder.py::TestAdd::test_one_negative  TIME  8 != 2
    2 passed, 1 failed in TIME
    wrong
    ");
    let more = shown(&judge(&bench, &["wrong", "--tests", "test_adder.py", "-v"]));
    assert_eq!(more.lines().filter(|line| line.starts_with("passed")).count(), 2, "{more}");
}

#[test]
fn json_lines_fit_the_schema_and_end_with_the_verdict() {
    let bench = bench();
    let check = |arguments: &[&str]| -> Vec<Value> {
        let ended = judge(&bench, &[arguments, &["--json"]].concat());
        let lines = events(&ended.stdout);
        assert_eq!(lines.last().unwrap()["exit_code"], ended.code.unwrap());
        lines
    };
    let passed = check(&["adder.py", "--tests", "test_adder.py"]);
    let last = passed.last().unwrap();
    assert_eq!((passed.len(), &last["type"]), (4, &"judge.completed".into()));
    assert_eq!((&last["outcome"], &last["n_passed"]), (&"pass".into(), &3.into()));
    assert!(last["assurance"].is_string(), "{last}");
    let failed = check(&["wrong", "--tests", "test_adder.py"]);
    let last = failed.last().unwrap();
    assert_eq!((&last["outcome"], &last["assurance"]), (&"wrong".into(), &Value::Null));
    let statuses: Vec<&str> =
        failed[..3].iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == "failed").count(), 1, "{statuses:?}");
    let refused = check(&["none.py", "--tests", "test_adder.py"]);
    assert_eq!((refused.len(), &refused[0]["type"]), (1, &"judge.failed".into()));
    assert_eq!(refused[0]["error"], "no solution file or folder at `none.py`");
}

#[test]
fn junit_report_is_written_whole_or_not_at_all() {
    let bench = bench();
    let arguments = ["wrong", "--tests", "test_adder.py", "--junit", "reports/junit.xml"];
    assert_eq!(judge(&bench, &arguments).code, Some(1));
    let report = bench.read("reports/junit.xml");
    assert!(report.contains("tests=\"3\" failures=\"1\" errors=\"0\""), "{report}");
    assert!(report.contains("<property name=\"assurance\" value=\"none\"/>"), "{report}");
    assert_eq!(fs::read_dir(bench.path("reports")).unwrap().count(), 1);
    let arguments = ["adder.py", "--tests", "none.py", "--junit", "reports/none.xml"];
    assert_eq!(judge(&bench, &arguments).code, Some(3));
    assert!(!bench.path("reports/none.xml").exists());
}

#[test]
fn tests_and_solution_in_one_folder_are_separated() {
    let bench = bench();
    let passes = |arguments: &[&str]| {
        let ended = judge(&bench, arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    };
    passes(&["adder.py", "--tests", "."]);
    fs::create_dir(bench.path("both")).unwrap();
    bench.write("both/adder.py", SOLUTION);
    bench.write("both/test_adder.py", TESTS);
    passes(&["both", "--tests", "both"]);
    passes(&["both", "--tests", "both/test_adder.py"]);
    passes(&["both/adder.py", "--tests", "both/test_adder.py"]);
    // A solution elsewhere is judged, not the one beside the tests.
    assert_eq!(judge(&bench, &["wrong", "--tests", "both"]).code, Some(1));
    fs::create_dir(bench.path("both/tests")).unwrap();
    fs::rename(bench.path("both/test_adder.py"), bench.path("both/tests/test_adder.py")).unwrap();
    passes(&["both", "--tests", "both/tests"]);
    passes(&["both", "--tests", "both/tests/test_adder.py"]);
}

#[test]
fn libraries_and_interpreter_are_those_of_the_flags() {
    let bench = bench();
    for (folder, module) in [("lib_a", "first"), ("lib_b", "second")] {
        fs::create_dir(bench.path(folder)).unwrap();
        bench.write(&format!("{folder}/{module}.py"), "ONE = 1\n");
    }
    bench.write("uses.py", "from first import ONE\nfrom second import ONE as TWO\n\n\ndef both():\n    return ONE + TWO\n");
    bench.write(
        "test_uses.py",
        "from uses import both\n\n\ndef test_both():\n    assert both() == 2\n",
    );
    let arguments = ["uses.py", "--tests", "test_uses.py"];
    assert_eq!(judge(&bench, &arguments).code, Some(1));
    let libs = ["--lib", "lib_a", "--lib", "lib_b"];
    assert_eq!(judge(&bench, &[&arguments[..], &libs].concat()).code, Some(0));
    let missing = judge(&bench, &[&arguments[..], &["--lib", "lib_c"]].concat());
    assert!(missing.stderr.starts_with("error: cannot find the library folder `lib_c`"));
    let python = judge(&bench, &[&arguments[..], &["--python", "/no/python"]].concat());
    assert_eq!(python.code, Some(3), "{python:?}");
}

#[test]
fn solution_has_to_fit_the_work_directory() {
    let bench = bench();
    let large = fs::File::create(bench.path("wrong/large.bin")).unwrap();
    large.set_len(1 << 30).unwrap();
    let ended = judge(&bench, &["wrong", "--tests", "test_adder.py"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.stderr.contains("its largest parts: `large.bin` (1.0 GiB in 1 file)"),
        "{ended:?}"
    );
}
