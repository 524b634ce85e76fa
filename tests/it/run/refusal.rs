//! What `rune run` refuses or can't do: the exit code, and one clear line.

use std::process::Command;

use super::Answer;
use super::Bench;
use super::Ended;
use super::SOLUTION;
use super::TASK;
use super::end;
use super::fenced;
use super::prelude;
use super::script;
use crate::skip::skip;

/// Exit code and error line; makes sure that there is one such line and no trace of the inside.
fn told(ended: &Ended) -> String {
    let errors: Vec<&str> =
        ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{ended:?}");
    for inside in ["panicked", "RUST_BACKTRACE", "Some(", "Err(", "src/", ".rs:", "{ "] {
        assert!(!ended.stderr.contains(inside), "{inside}: {ended:?}");
    }
    assert_eq!(ended.stdout, "", "{ended:?}");
    format!("{} {}", ended.code.unwrap(), errors[0])
}

#[test]
fn missing_or_invalid_input_is_exit_code_3() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let check = |arguments: &[&str]| told(&bench.call(&[&["run"], arguments].concat()));
    let tests = |name: &str, text: &[u8]| {
        bench.write(name, text);
        check(&[TASK, "--script", "script.jsonl", "--tests", name])
    };
    assert!(check(&[TASK, "--model", "nope"]).starts_with("3 error: unknown model `nope`"));
    insta::assert_snapshot!(check(&[TASK, "--model", "nope.gguf"]),
        @"3 error: cannot read the model `nope.gguf`: No such file or directory (os error 2)");
    insta::assert_snapshot!(check(&[TASK, "--tests", "none.py"]),
        @"3 error: no test file or folder at `none.py`");
    insta::assert_snapshot!(tests("empty.py", b""),
        @"3 error: the test files contain no test that can fail");
    insta::assert_snapshot!(tests("alone.py", b"import os\nassert os.sep == '/'\n"),
        @"3 error: the tests pass without any solution");
    insta::assert_snapshot!(tests("broken.py", b"def test(:\n"),
        @"3 error: test file `broken.py`, line 1: invalid syntax");
    std::fs::create_dir(bench.path("folder")).unwrap();
    insta::assert_snapshot!(check(&[TASK, "--tests", "folder"]),
        @"3 error: no Python test file in `folder`");
    insta::assert_snapshot!(check(&[" "]), @"3 error: the task is empty");
    insta::assert_snapshot!(check(&["--task", "none.jsonl"]),
        @"3 error: cannot open the task file `none.jsonl`: No such file or directory (os error 2)");
    insta::assert_snapshot!(check(&[TASK, "--script", "none.jsonl"]),
        @"3 error: cannot read the script `none.jsonl`: No such file or directory (os error 2)");
    insta::assert_snapshot!(check(&[TASK, "--provider", "oracle"]),
        @r#"3 error: `run.provider` must be one of `in-process`, `llama-cpp`, `vllm`, `ollama`, `openai`, `scripted`, found "oracle"; set in the command line"#);
    insta::assert_snapshot!(check(&[TASK, "--provider", "vllm"]),
        @"3 error: the provider `vllm` needs the URL of a server");
    assert_eq!(bench.call(&["sessions", "list", "--json"]).stdout, "", "no session was begun");
}

#[test]
fn oversized_task_is_exit_code_4() {
    let bench = Bench::with(&script(&[SOLUTION]));
    let mut command = bench.rune();
    let task = "Write adder.py with add(a, b). ".repeat(60);
    command.args(["run", &task, "--tests", "test_adder.py", "--script", "script.jsonl"]);
    command.env("RUNE_ENGINE_CONTEXT", "256");
    let told = told(&end(command));
    assert!(told.starts_with("4 error: prompt too long: "), "{told}");
    assert_eq!(bench.session()["status"], "failed");
}

#[test]
fn oversized_tests_are_cut_in_the_prompt_with_a_warning() {
    // The brief prompt, which has no tests, has to fail first.
    let wrong = "def add(a, b):\n    return a - b\n";
    let mut answers = script(&[wrong; 4]);
    answers.push(Answer::new(&[], fenced(SOLUTION)).repeat());
    let bench = Bench::with(&answers);
    let many: Vec<String> = (0..200)
        .map(|n| {
            format!("\n    def test_{n}(self):\n        self.assertEqual(add({n}, 1), {})\n", n + 1)
        })
        .collect();
    bench.write("test_adder.py", format!("{}{}", super::TESTS, many.concat()));
    let mut command = bench.rune();
    command.args(["run", TASK, "--tests", "test_adder.py", "--script", "script.jsonl"]);
    command.env("RUNE_ENGINE_CONTEXT", "2048");
    let ended = end(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("was cut to fit the context window: tests"), "{ended:?}");
    assert!(ended.stderr.contains("203 of 203 tests passed"), "{ended:?}");
}

#[test]
fn existing_file_is_exit_code_7_unless_forced() {
    let bench = Bench::with(&script(&[SOLUTION]));
    std::fs::create_dir(bench.path("out")).unwrap();
    bench.write("out/adder.py", "mine");
    insta::assert_snapshot!(told(&bench.solve(&[])),
        @"7 error: `out/adder.py` already exists");
    assert_eq!(bench.read("out/adder.py"), "mine");
    assert!(bench.sessions().is_empty());
    assert_eq!(bench.solve(&["--force"]).code, Some(0));
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
}

#[test]
fn unwritable_folder_ends_the_session_and_loses_nothing() {
    let bench = Bench::with(&script(&[SOLUTION]));
    bench.write("out", "a file, no folder");
    let told = told(&bench.solve(&[]));
    assert!(told.starts_with("3 error: cannot write `out/adder.py`"), "{told}");
    assert_eq!(
        (bench.session()["status"].as_str(), bench.kept("adder.py")),
        (Some("failed"), SOLUTION.to_owned())
    );
    std::fs::remove_file(bench.path("out")).unwrap();
    let resumed = bench.call(&["run", "--resume", &bench.session_id()]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(bench.read("out/adder.py"), SOLUTION);
}

/// Whether this user may make user and mount namespaces and run `script` in them.
fn can_unshare(script: &str) -> bool {
    let mut command = Command::new("unshare");
    let output =
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).output();
    output.is_ok_and(|output| output.status.success())
}

/// `rune run` on the task, behind a shell command in namespaces of its own.
fn behind(bench: &Bench, script: &str) -> Ended {
    let mut command = bench.set_up("unshare");
    let script = format!("{script} && exec \"$0\" \"$@\"");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    command.args([env!("CARGO_BIN_EXE_rune"), "run", TASK, "--tests", "test_adder.py"]);
    command.args(["--script", "script.jsonl", "--out", "out"]);
    end(command)
}

#[test]
fn a_full_disk_is_exit_code_3() {
    let mount = |size: &str| format!("mkdir -p home && mount -t tmpfs -o size={size} tmpfs home");
    let probe = tempfile::tempdir().unwrap();
    if !can_unshare(&format!("cd {} && {}", probe.path().display(), mount("64k"))) {
        return skip("this machine does not let tests mount a tmpfs");
    }
    let bench = Bench::with(&script(&[SOLUTION]));
    let check = |size: &str| {
        let ended = behind(&bench, &mount(size));
        assert!(told(&ended).starts_with("3 error: "), "{ended:?}");
        assert!(ended.stderr.contains("hint: check for free space"), "{ended:?}");
    };
    check("64k");
    let mut answers = prelude();
    answers.push(Answer::new(&[], fenced(&format!("{SOLUTION}# {}", "x".repeat(4 << 20)))));
    bench.script(&answers);
    check("2m");
    assert!(!bench.path("out").exists());
}

/// Makes the kernel forget Landlock (call 444), then becomes the program that is named.
const WITHOUT_LANDLOCK: &str = "
import ctypes, os, struct, sys
code = struct.pack('HBBIHBBIHBBIHBBI', 32, 0, 0, 0, 21, 0, 1, 444, 6, 0, 0, 0x50000 + 38, 6, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(code, len(code))
program = struct.pack('HxxxxxxQ', 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn without_namespaces_landlock_isolates_or_nothing_runs() {
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces";
    if !can_unshare(&format!("{forbid} && ! unshare --user true")) {
        return skip("this machine does not let tests forbid user namespaces");
    }
    let bench = Bench::with(&script(&[SOLUTION]));
    let held = behind(&bench, forbid);
    assert_eq!(held.code, Some(0), "{held:?}");
    assert!(held.stderr.contains("namespaces are unavailable ("), "{held:?}");
    assert_eq!(bench.sessions().len(), 1);

    let bench = Bench::with(&script(&[SOLUTION]));
    bench.write("without_landlock.py", WITHOUT_LANDLOCK.as_bytes());
    let forbid = format!("{forbid} && set -- without_landlock.py \"$0\" \"$@\"");
    let mut command = bench.set_up("unshare");
    let script = format!("{forbid} && exec python3 \"$@\"");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    command.args([env!("CARGO_BIN_EXE_rune"), "run", TASK, "--tests", "test_adder.py"]);
    let refused = told(&end(command));
    assert!(refused.starts_with("5 error: "), "{refused}");
    assert!(refused.contains("sandbox unavailable: can't make the namespaces"), "{refused}");
    assert!(bench.sessions().is_empty());
}
