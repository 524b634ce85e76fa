//! What a session leaves to learn from, and the user's own packages.

use std::fs;

use serde_json::Value;

use super::Answer;
use super::Bench;
use super::SOLUTION;
use super::TESTS;
use super::fenced;
use super::script;
use crate::model::tiny;

const WRONG: &str = "def add(a, b):\n    return a - b\n";

/// What `rune train` would do with the newest session.
fn plan(bench: &Bench, further: &[&str]) -> Value {
    bench.write("m.gguf", tiny::model("llama", tiny::Q8_0, 64, 96).encode().1);
    let id = bench.session_id();
    let own =
        ["train", "--session", &id, "--model", "m.gguf", "--max-length", "20000", "--dry-run"];
    let ended = bench.call(&[&own[..], &["--json"], further].concat());
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[test]
fn solved_session_yields_the_code_that_passed() {
    let bench = Bench::with(&script(&[SOLUTION]));
    assert_eq!(bench.solve(&[]).code, Some(0));
    let plan = plan(&bench, &[]);
    assert_eq!((&plan["n_train"], &plan["n_families"]), (&1.into(), &1.into()), "{plan}");
    assert!(plan["labelled_tokens"].as_u64() < plan["tokens"].as_u64());
}

#[test]
fn failed_code_is_not_learned_but_its_repair_is() {
    // No plan is made before the brief question has failed four times.
    let bench = Bench::with(&script(&[WRONG, WRONG, WRONG, WRONG, SOLUTION]));
    assert_eq!(bench.solve(&[]).code, Some(0));
    // The plan and the code that passed; failed code is not an answer to learn.
    assert_eq!(plan(&bench, &[])["n_train"], 2, "{}", bench.verdicts());

    let mut answers = script(&[]);
    answers.push(Answer::new(&[], fenced(WRONG)).repeat());
    let bench = Bench::with(&answers);
    assert_eq!(bench.solve(&["--candidates", "1", "--attempts", "1"]).code, Some(1));
    let id = bench.session_id();
    let ended = bench.call(&["train", "--session", &id, "--model", "m.gguf", "--dry-run"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("it was not verified by the user's tests"), "{ended:?}");
}

#[test]
fn solution_may_import_the_users_packages() {
    let solution = "import zorb\n\n\ndef add(a, b):\n    return zorb.plus(a, b)\n";
    let bench = Bench::with(&script(&[solution]));
    fs::create_dir_all(bench.path("lib/zorb")).unwrap();
    bench.write("lib/zorb/__init__.py", "from zorb.sums import plus\n");
    bench.write("lib/zorb/sums.py", "def plus(a, b):\n    return a + b\n");
    // Rune must not write a package of the user just because the tests import it.
    bench.write("test_adder.py", format!("import zorb\n{TESTS}"));
    let ended = bench.solve(&["--lib", "lib"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "out/adder.py\n"), "{ended:?}");
    assert_eq!(bench.session()["config_json"]["run"]["lib"], "lib");
    let missing = bench.solve(&["--lib", "nowhere", "--force"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(missing.stderr.contains("cannot find the library folder `nowhere`"), "{missing:?}");
}

#[test]
fn missing_adapter_is_refused_and_none_is_recorded() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let ended = bench.solve(&["--adapter", "missing"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no adapter `missing`"), "{ended:?}");
    assert_eq!(bench.solve(&["--adapter", "none"]).code, Some(0));
    assert_eq!(bench.session()["adapter_reason"], "none: none was wanted");
    assert_eq!(bench.solve(&["--force"]).code, Some(0));
    let reason = bench.session()["adapter_reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("none: none was measured to be better"), "{reason}");
}
