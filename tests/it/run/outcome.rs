//! What counts as solved, and what is kept of the rest.

use super::ASSERTS;
use super::Answer;
use super::Bench;
use super::DECOMPOSE;
use super::DIAGNOSE;
use super::PLAN;
use super::REPAIR;
use super::SOLUTION;
use super::TASK;
use super::fenced;
use super::prelude;
use super::script;

/// Passes two, one and none of the three tests.
const TWO: &str = "def add(a, b):\n    return a + abs(b)\n";
const ONE: &str = "def add(a, b):\n    return a * b\n";
const NONE: &str = "def add(a, b):\n    return 'sum'\n";

#[test]
fn unsolved_task_keeps_the_best_candidate_not_the_last() {
    let mut answers = prelude();
    answers.push(Answer::new(&[DIAGNOSE], "Something is wrong.").repeat());
    answers.push(Answer::new(&[REPAIR], fenced(NONE)).repeat());
    answers.extend([ONE, TWO, NONE].map(|code| Answer::new(&[], fenced(code))));
    let bench = Bench::with(&answers);
    let ended = bench.solve(&["--candidates", "3"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert_eq!(bench.kept("adder.py"), TWO);
    assert!(!bench.path("out").exists());
    assert!(ended.stderr.contains("not solved: 2 of 3 tests passed: wrong"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the best candidate is kept: "), "{}", ended.stderr);
    // Every repair starts from the best, also after one that made things worse.
    let repairs = bench.prompts("repair");
    assert!(!repairs.is_empty() && repairs.iter().all(|prompt| prompt.contains("abs(b)")));
    assert_eq!(bench.session()["status"], "unsolved");
}

#[test]
fn a_used_up_budget_ends_with_exit_code_6_and_the_best_candidate() {
    let long = format!("{TWO}{}", "# a comment that costs tokens\n".repeat(100));
    let bench = Bench::with(&script(&[&long]));
    let ended = bench.solve(&["--max-tokens", "500"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(6), ""), "{ended:?}");
    let told = "2 of 3 tests passed: wrong (test_adder.py::TestAdd::test_one_negative); the budget of 500 generated tokens is used up";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert!(bench.kept("adder.py").starts_with(TWO));
    // With a larger budget, the same session resumes from there.
    bench.script(&[Answer::new(&[], fenced(SOLUTION))]);
    let id = bench.session_id();
    let ended = bench.call(&["run", "--resume", &id, "--max-tokens", "5000"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
}

#[test]
fn a_session_without_any_code_says_so() {
    let bench = Bench::with(&[Answer::new(&[], "I am sorry.").repeat()]);
    let ended = bench.solve(&["--candidates", "2"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("not solved: no usable code was written"), "{}", ended.stderr);
}

#[test]
fn a_cheat_is_never_solved() {
    let cheats = [
        "import os\nos._exit(0)\n\n\ndef add(a, b):\n    return 0\n",
        "import sys\n\n\ndef add(a, b):\n    return 0\n\n\nprint('Ran 3 tests in 0.001s')\nprint()\nprint('OK')\nsys.stderr.write('Ran 3 tests in 0.001s\\n\\nOK\\n')\nsys.exit(0)\n",
        "import atexit\nimport os\n\natexit.register(os._exit, 0)\n\n\ndef add(a, b):\n    return 0\n",
        "import unittest\n\nunittest.TestCase.assertEqual = lambda *_: None\n\n\ndef add(a, b):\n    return 0\n",
        "def add(a, b):\n    raise SystemExit(0)\n",
    ];
    let mut answers = prelude();
    answers.push(Answer::new(&[DIAGNOSE], "It cheats.").repeat());
    answers.extend(cheats.map(|cheat| Answer::new(&[], fenced(cheat))));
    answers.push(Answer::new(&[], "I give up.").repeat());
    let bench = Bench::with(&answers);
    let ended = bench.solve(&["--candidates", "5"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert_eq!(bench.verdicts().matches("code failed").count(), 5, "{}", bench.verdicts());
    assert!(!bench.path("out").exists());
}

/// A bench without tests: generated asserts, then these codes, the last one again and again.
fn without_tests(asserts: &str, codes: &[&str]) -> Bench {
    let bench = Bench::new();
    let mut answers = vec![
        Answer::new(&[ASSERTS], fenced(asserts)).repeat(),
        Answer::new(&[DECOMPOSE], "1. add - adds two numbers").repeat(),
        Answer::new(&[PLAN], fenced("def add(a, b):\n    ...")).repeat(),
    ];
    answers.extend(codes.iter().map(|code| Answer::new(&[], fenced(code))));
    let last = codes.last().unwrap();
    answers.push(Answer::new(&[], fenced(last)).repeat());
    bench.script(&answers);
    bench
}

const RUN: [&str; 6] = ["run", TASK, "--script", "script.jsonl", "--out", "out"];

#[test]
fn generated_tests_solve_a_task_when_solutions_agree() {
    let asserts = "assert add(1, 2) == 3\nassert add(5, -3) == 2\nassert add(0, 0) == 0\nassert add(1, 1) == 3\nassert True or add(1, 1) == 5\n";
    let bench = without_tests(asserts, &[NONE, SOLUTION]);
    let ended = bench.call(&[&RUN[..], &["--candidates", "2"]].concat());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "out/adder.py\n"), "{ended:?}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
    let told = "solved by its own measure, with generated tests: 3 of 3 tests passed";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert_eq!(bench.session()["verified_by"], "generated_tests");
    // The tests are kept: neither the wrong one nor the one that cannot fail is among them.
    let kept = bench.kept("test_generated.py");
    assert!(kept.contains("add(5, -3) == 2") && !kept.contains("== 5"), "{kept}");
}

#[test]
fn asserts_that_cannot_fail_never_count() {
    let asserts = "assert True or add(1, 2) == 4\nassert add(1, 2) == add(1, 2) or True\nassert add is not None or add(1) == 2\n";
    let bench = without_tests(asserts, &[SOLUTION]);
    let ended = bench.call(&[&RUN[..], &["--candidates", "2"]].concat());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("not verified: there was nothing to judge"), "{}", ended.stderr);
    assert_eq!(bench.kept("adder.py"), SOLUTION);
}

#[test]
fn single_solution_is_not_an_agreement() {
    let asserts = "assert add(1, 2) == 3\nassert add(5, -3) == 2\nassert add(0, 0) == 0\n";
    let bench = without_tests(asserts, &[SOLUTION, TWO, ONE, NONE]);
    let ended = bench.call(&[&RUN[..], &["--candidates", "2"]].concat());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert_eq!(bench.session()["verified_by"], "none");
}
