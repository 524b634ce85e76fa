//! `--json`: what a program that reads `rune run` sees.

use serde_json::Value;

use super::Answer;
use super::Bench;
use super::Ended;
use super::SOLUTION;
use super::parts;
use super::script;
use crate::lines::events;

/// The lines of a run, once they are seen to be what the schema and the counters promise.
fn stream(ended: &Ended) -> Vec<Value> {
    let lines = events(&ended.stdout);
    let last = lines.last().unwrap();
    assert!(
        last["type"] == "session.completed" || last["type"] == "session.failed",
        "{}",
        ended.stdout
    );
    assert_eq!(last["exit_code"], ended.code.unwrap());
    let is_end = |line: &&Value| line["exit_code"].is_number();
    assert_eq!(lines.iter().filter(is_end).count(), 1, "{}", ended.stdout);
    lines
}

#[test]
fn every_json_line_of_a_run_fits_the_schema() {
    let bench = parts::bench();
    let ended = bench.call(&[&parts::RUN[..], &["--json"]].concat());
    let lines = stream(&ended);
    assert_eq!((&lines[0]["type"], &lines[0]["schema"]), (&"session.started".into(), &1.into()));
    let id = bench.session_id();
    assert!(lines.iter().all(|line| line["subject"] == id.as_str()), "{}", ended.stdout);
    let last = lines.last().unwrap();
    assert_eq!(last["type"], "session.completed");
    assert_eq!(last["files"], serde_json::json!(["out/shapes.py"]));
    assert_eq!(last["verified_by"], "user_tests");
    assert!(last["assurance"].is_string(), "{last}");
    let attempts = lines.iter().filter(|line| line["type"] == "attempt.completed").count();
    assert_eq!(attempts, bench.attempts().len());
    // Nothing but the events goes to stdout, nothing at all to stderr.
    assert_eq!(ended.stderr, "");
}

#[test]
fn early_failure_is_one_json_line() {
    let bench = Bench::with(&[]);
    let check = |arguments: &[&str]| {
        let ended = bench.call(&[&["run", "x", "--json"], arguments].concat());
        let lines = stream(&ended);
        assert_eq!((lines.len(), &lines[0]["type"]), (1, &"session.failed".into()), "{ended:?}");
        assert_eq!(lines[0]["subject"], "");
        format!("{} {}", lines[0]["exit_code"], lines[0]["error"].as_str().unwrap())
    };
    assert!(check(&["--model", "nope"]).starts_with("3 unknown model `nope`"));
    assert_eq!(check(&["--tests", "none.py"]), "3 no test file or folder at `none.py`");
    bench.write("rune.toml", "[run]\natempts = 1\n");
    assert!(check(&[]).starts_with("3 unknown key `run.atempts`"));
    assert_eq!(bench.call(&["config", "show"]).code, Some(3));
}

#[test]
fn failed_session_ends_with_the_reason() {
    let bench = Bench::with(&[Answer::new(&[], "1. add - adds")]);
    let ended = bench.solve(&["--json"]);
    let lines = stream(&ended);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(lines[0]["type"], "session.started");
    let error = lines.last().unwrap()["error"].as_str().unwrap();
    assert!(error.starts_with("the script has no answer left"), "{error}");
    assert_eq!(bench.session()["status"], "failed");
    // It can be resumed, and the first line says how many attempts are reused.
    bench.script(&script(&[SOLUTION]));
    let resumed = bench.call(&["run", "--resume", &bench.session_id(), "--json"]);
    let lines = stream(&resumed);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(lines[0]["type"], "session.resumed");
    assert_eq!((&lines[0]["schema"], &lines[0]["n_attempts"]), (&1.into(), &1.into()));
}

#[test]
fn an_unsolved_session_is_completed_with_exit_code_1() {
    let bench = Bench::with(&script(&[]));
    let mut answers = super::prelude();
    answers.push(Answer::new(&[], super::fenced("def add(a, b):\n    return 0\n")).repeat());
    bench.script(&answers);
    let ended = bench.solve(&["--json", "--candidates", "1"]);
    let lines = stream(&ended);
    let last = lines.last().unwrap();
    assert_eq!((ended.code, &last["status"]), (Some(1), &"unsolved".into()), "{ended:?}");
    assert_eq!(last["verified_by"], "none");
}
