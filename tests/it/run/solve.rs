//! Tasks that are solved, whatever form task and tests come in.

use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use rune::home::Home;
use rune::hub;

use super::Bench;
use super::SOLUTION;
use super::TASK;
use super::TESTS;
use super::python;
use super::script;
use crate::skip::skip;

#[test]
fn a_function_with_tests_is_solved_and_its_path_printed() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let ended = bench.solve(&[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "out/adder.py\n"), "{ended:?}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
    let told = "solved: 3 of 3 tests passed (decided in ";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    let session = bench.session();
    assert_eq!((&session["status"], &session["exit_code"]), (&"solved".into(), &0.into()));
    assert_eq!(session["verified_by"], "user_tests");
    assert!(session["assurance"].is_string(), "{session}");
    let shown = bench.call(&["sessions", "show", session["id"].as_str().unwrap()]);
    let told = "solved (verified by user_tests, decided in ";
    assert!(shown.stdout.contains(told), "{}", shown.stdout);
    assert_eq!(session["sandbox_tier"], "namespaces");
    // The user's own runner agrees.
    let outside = Command::new(python())
        .args(["-m", "unittest", "test_adder"])
        .current_dir(bench.path("."))
        .env("PYTHONPATH", bench.path("out"))
        .output()
        .unwrap();
    let told = String::from_utf8(outside.stderr).unwrap();
    assert!(outside.status.success() && told.contains("Ran 3 tests"), "{told}");
}

#[test]
fn tests_are_unittest_pytest_or_plain_asserts() {
    let bench = Bench::with(&script(&[SOLUTION]));
    for (name, text, n) in [
        ("asserts", "from adder import add\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n", 1),
        ("functions", "from adder import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n", 1),
    ] {
        bench.write("test_adder.py", text);
        let ended = bench.solve(&["--force"]);
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        assert!(ended.stderr.contains(&format!("{n} of {n} tests passed")), "{ended:?}");
    }
}

#[test]
fn pytest_suite_runs_with_the_installed_pytest() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let has_own = Command::new(python()).args(["-c", "import pytest"]).output().unwrap();
    if !has_own.status.success() {
        let home = super::model::real_home();
        let Some(folder) = hub::pytest_path(&Home::new(&home)) else {
            return skip("needs pytest: `rune judge` with a pytest suite installs it");
        };
        let own = bench.path("home").join(folder.strip_prefix(&home).unwrap());
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(folder, own).unwrap();
    }
    let tests = "import pytest\nfrom adder import add\n\n\n@pytest.mark.parametrize('n', [1, 2, 3])\ndef test_add(n):\n    assert add(n, n) == 2 * n\n";
    bench.write("test_adder.py", tests);
    let ended = bench.solve(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("3 of 3 tests passed"), "{ended:?}");
}

#[test]
fn task_file_has_tests_as_text_files_or_path() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let files = serde_json::json!([{ "path": "test_x.py", "text": TESTS }]);
    let tasks: Vec<String> = [
        serde_json::json!({ "id": "text", "task": TASK, "tests": TESTS, "family": "f" }),
        serde_json::json!({ "id": "files", "task": TASK, "tests": files, "task_type": "function" }),
        serde_json::json!({ "id": "path", "task": TASK, "tests": "test_adder.py" }),
    ]
    .iter()
    .map(|line| format!("{line}\n"))
    .collect();
    std::fs::create_dir(bench.path("sub")).unwrap();
    bench.write("sub/tasks.jsonl", tasks.concat());
    bench.write("sub/test_adder.py", TESTS);
    std::fs::remove_file(bench.path("test_adder.py")).unwrap();
    for id in ["text", "files", "path"] {
        let task = format!("sub/tasks.jsonl:{id}");
        let ended = bench.call(&["run", "--task", &task, "--script", "script.jsonl", "--out", id]);
        assert_eq!(ended.code, Some(0), "{id}: {ended:?}");
        assert_eq!(bench.session()["task"]["id"], id);
    }
    let families: Vec<_> =
        bench.sessions().iter().map(|one| one["task"]["family"].clone()).collect();
    assert_eq!(families, [serde_json::Value::Null, serde_json::Value::Null, "f".into()]);
    assert_eq!(bench.sessions()[1]["task"]["task_type"], "function");
    let unknown = bench.call(&["run", "--task", "sub/tasks.jsonl:nope"]);
    let expected = "error: no task `nope` in `sub/tasks.jsonl`\n\
                    hint: the file has the tasks text, files, path\n";
    assert_eq!((unknown.code, unknown.stderr.as_str()), (Some(2), expected));
}

#[test]
fn a_task_is_read_from_stdin() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let mut command = bench.rune();
    command.args(["run", "-", "--tests", "test_adder.py", "--script", "script.jsonl"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(TASK.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"./adder.py\n"[..]));
    assert_eq!(bench.session()["task"]["text"], TASK);
}

#[test]
fn dry_run_prints_the_plan_and_does_nothing() {
    let bench = Bench::with(&[]);
    let ended = bench.solve(&["--dry-run", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let plan = &super::json_lines(&ended.stdout)[0];
    assert_eq!(plan["files"], serde_json::json!(["adder.py"]));
    assert_eq!(plan["tests"], serde_json::json!(["test_adder.py"]));
    assert_eq!(plan["sandbox"]["tier"], "namespaces");
    assert_eq!(bench.call(&["sessions", "list", "--json"]).stdout, "");
    assert!(!bench.path("out").exists());
}

#[test]
fn a_run_without_a_sandbox_is_recorded_as_such() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let ended = bench.solve(&["--unsafe-no-sandbox"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(bench.session()["sandbox_tier"], "none");
}
