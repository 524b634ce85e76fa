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
    assert_eq!(bench.session()["adapter_reason"], "none: as requested");
    assert_eq!(bench.solve(&["--force"]).code, Some(0));
    let reason = bench.session()["adapter_reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("none: no adapter near the task was measured"), "{reason}");
}

/// Another task with the same tests.
const SIMILAR: &str = "Write adder.py with add(a, b), which returns the total of two numbers.";

/// Solves `task` with the tests of [`super::TASK`].
fn solve(bench: &Bench, task: &str, further: &[&str]) -> super::Ended {
    let own = ["run", task, "--tests", "test_adder.py", "--script", "script.jsonl"];
    bench.call(&[&own[..], &["--out", "out", "--force"], further].concat())
}

/// Roles of the prompt of each attempt of the newest session that asked for code.
fn roles(bench: &Bench) -> Vec<String> {
    let of_code = |attempt: &Value| attempt["phase"] == "code";
    let roles = |attempt: Value| {
        let messages = attempt["prompt"].as_array().unwrap().clone();
        let roles = messages.iter().map(|message| message["role"].as_str().unwrap().to_owned());
        roles.collect::<Vec<_>>().join(" ")
    };
    bench.attempts().into_iter().filter(of_code).map(roles).collect()
}

const SHOWN: &str = "system user assistant user";

#[test]
fn first_solved_session_is_shown_to_a_similar_task() {
    let bench = Bench::with(&script(&[SOLUTION, SOLUTION]));
    assert_eq!(bench.solve(&[]).code, Some(0));
    assert_eq!(roles(&bench), ["system user"]);
    let first = bench.session_id();
    let ended = solve(&bench, SIMILAR, &["--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = super::json_lines(&ended.stdout);
    let told = lines.iter().find(|line| line["type"] == "memory.recalled").unwrap();
    assert_eq!(told["records"][0]["session_id"], first.as_str(), "{told}");
    assert_eq!(roles(&bench), [SHOWN]);
    let prompt = &bench.attempts().pop().unwrap()["prompt"];
    assert_eq!(prompt[1]["content"], super::TASK);
    assert_eq!(prompt[2]["content"], format!("```python\n{}\n```", SOLUTION.trim_end()));
    assert!(prompt[3]["content"].as_str().unwrap().starts_with(SIMILAR));
    assert_eq!(bench.session()["memory"], told["records"]);
    let shown = bench.call(&["sessions", "show", &bench.session_id()]).stdout;
    assert!(shown.contains(&format!("{first} (similarity 0.")), "{shown}");
    // What was shown is not learned again.
    let tokens = plan(&bench, &[])["tokens"].as_u64().unwrap();
    let other = Bench::with(&script(&[SOLUTION]));
    assert_eq!(solve(&other, SIMILAR, &[]).code, Some(0));
    assert_eq!(plan(&other, &[])["tokens"].as_u64(), Some(tokens));
}

#[test]
fn nothing_is_shown_without_memory_or_to_an_unrelated_task() {
    let bench = Bench::with(&script(&[SOLUTION, SOLUTION, SOLUTION, SOLUTION]));
    assert_eq!(bench.solve(&[]).code, Some(0));
    for (task, further) in [
        (SIMILAR, &["--memory", "none"][..]),
        (SIMILAR, &["--memory", "adapter"]),
        ("Parse HTTP headers into a dictionary.", &[]),
    ] {
        let ended = solve(&bench, task, further);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(roles(&bench), ["system user"], "{task} {further:?}");
        assert_eq!(bench.session()["memory"], serde_json::json!([]));
    }
}

#[test]
fn resumed_session_shows_the_same_records() {
    let bench = Bench::with(&script(&[SOLUTION]));
    assert_eq!(bench.solve(&[]).code, Some(0));
    // The second session fails, because the script has no further answer.
    bench.script(&script(&[WRONG]));
    assert_ne!(solve(&bench, SIMILAR, &[]).code, Some(0));
    let (id, memory) = (bench.session_id(), bench.session()["memory"].clone());
    assert_eq!(memory.as_array().unwrap().len(), 1);
    // A nearer record appears in the meantime.
    bench.script(&script(&[&format!("{SOLUTION}# another answer, with other words\n")]));
    assert_eq!(solve(&bench, SIMILAR, &[]).code, Some(0));
    bench.script(&script(&[SOLUTION]));
    let ended = bench.call(&["run", "--resume", &id, "--force"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let exported = super::json_lines(&bench.call(&["sessions", "export", &id]).stdout);
    assert_eq!(exported[0]["memory"], memory);
    let prompts: Vec<&Value> = exported[1..]
        .iter()
        .filter(|attempt| attempt["phase"] == "code")
        .map(|attempt| &attempt["prompt"])
        .collect();
    assert_eq!(prompts.len(), 2);
    assert_eq!(prompts[0], prompts[1]);
}

#[test]
fn named_adapter_is_used_alone_unless_memory_says_otherwise() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let ended = bench.solve(&["--adapter", "missing", "--memory", "records"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--memory records uses no adapter"), "{ended:?}");
    let ended = bench.solve(&["--memory", "all"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

/// Text of the task in the newest session's first prompt for code, passages included.
fn asked(bench: &Bench) -> String {
    let attempts = bench.attempts();
    let attempt = attempts.iter().find(|attempt| attempt["phase"] == "code").unwrap();
    let messages = attempt["prompt"].as_array().unwrap();
    messages.last().unwrap()["content"].as_str().unwrap().to_owned()
}

#[test]
fn passages_of_documents_and_packages_are_shown() {
    let bench = Bench::with(&script(&[SOLUTION]));
    for package in ["lib/zorb", "lib/other"] {
        fs::create_dir_all(bench.path(package)).unwrap();
    }
    let source = "def plus(a, b):\n    \"\"\"Returns the sum of two numbers.\n\n    Both are added.\n    \"\"\"\n    return a + b\n";
    bench.write("lib/zorb/__init__.py", "from ._sums import plus\n");
    bench.write("lib/zorb/_sums.py", source);
    bench.write("lib/other/__init__.py", source);
    bench.write("notes.md", "# Adding\n\nTwo numbers are added with care.\n\n# Baking\n\nFlour.\n");
    let task = "Write adder.py with add(a, b), which returns the sum of two numbers, with zorb.";
    let given = ["--lib", "lib", "--doc", "notes.md"];
    let ended = solve(&bench, task, &[&given[..], &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let prompt = asked(&bench);
    let of_zorb = "From `zorb`:\n\n```python\ndef plus(a, b): ...  # Returns the sum of two numbers.\n# Both are added.\n```";
    assert!(prompt.contains(of_zorb), "{prompt}");
    assert!(prompt.contains("From `notes.md`:\n\n# Adding"), "{prompt}");
    assert!(!prompt.contains("Flour") && !prompt.contains("other"), "{prompt}");
    assert!(prompt.find("# Adding") < prompt.find(task), "{prompt}");
    let lines = super::json_lines(&ended.stdout);
    let line = lines.iter().find(|line| line["type"] == "memory.recalled").unwrap();
    assert_eq!(line["sources"], serde_json::json!(["notes.md", "zorb"]));
    let shown = bench.call(&["sessions", "show", &bench.session_id()]).stdout;
    assert!(shown.contains("notes.md (passages: 1), zorb (passages: 1)"), "{shown}");

    // Without records packages say nothing, but a document that is given is always shown.
    assert_eq!(solve(&bench, task, &[&given[..], &["--memory", "none"]].concat()).code, Some(0));
    assert!(asked(&bench).contains("# Adding") && !asked(&bench).contains("From `zorb`"));
    let missing = solve(&bench, task, &["--doc", "nowhere.md"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(missing.stderr.contains("cannot read the document `nowhere.md`"), "{missing:?}");
}

#[test]
fn resumed_session_shows_the_same_passages() {
    let bench = Bench::with(&script(&[WRONG]));
    bench.write("notes.md", "# Adding\n\nThe sum of two numbers.\n");
    // The session fails, because the script has no further answer.
    assert_ne!(solve(&bench, SIMILAR, &["--doc", "notes.md"]).code, Some(0));
    let (id, passages) = (bench.session_id(), bench.session()["passages"].clone());
    assert_eq!(passages[0]["source"], "notes.md", "{passages}");
    fs::remove_file(bench.path("notes.md")).unwrap();
    bench.script(&script(&[SOLUTION]));
    let ended = bench.call(&["run", "--resume", &id, "--force"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(bench.session()["passages"], passages);
    let of_code = |attempt: &&Value| attempt["phase"] == "code";
    let prompts = bench.attempts();
    let prompts: Vec<&Value> =
        prompts.iter().filter(of_code).map(|attempt| &attempt["prompt"]).collect();
    assert!(prompts.len() >= 2 && prompts.iter().all(|prompt| *prompt == prompts[0]));
}

#[test]
fn sessions_with_tests_are_tasks_to_measure_adapters_on() {
    let bench = Bench::with(&script(&[SOLUTION]));
    assert_eq!(bench.solve(&[]).code, Some(0));
    // The same task in other words: another task of the same family.
    bench.script(&script(&[SOLUTION]));
    let again = ["run", "Write adder.py: add(a, b) gives the sum.", "--tests", "test_adder.py"];
    let again = bench.call(&[&again[..], &["--script", "script.jsonl", "--out", "again"]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
    let shown = bench.call(&["eval", "suites", "show", "sessions", "--json"]);
    let suite: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&suite["tasks"], &suite["families"]), (&2.into(), &1.into()), "{suite}");

    bench.script(&[Answer::new(&["must pass `test_adder.py`"], fenced(SOLUTION)).repeat()]);
    let mut eval = bench.rune();
    eval.args(["eval", "--suite", "sessions", "--adapter", "none", "--json"]);
    eval.envs([("RUNE_RUN_PROVIDER", "scripted"), ("RUNE_RUN_SCRIPTED", "script.jsonl")]);
    let ended = super::end(eval);
    let passed = super::json_lines(&ended.stdout);
    let passed = passed.iter().filter(|line| line["type"] == "evaluation.outcome");
    assert!(passed.clone().all(|line| line["passed"] == true), "{ended:?}");
    assert_eq!(passed.count(), 2, "{ended:?}");
}
