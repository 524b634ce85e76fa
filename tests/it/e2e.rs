//! `rune e2e`: what is stopped leaves nothing behind. That every step holds and notices a fault is
//! shown by `rune e2e --faults` itself, which `.ci/run` calls.
//!
//! SmolLM2 has to be here (`rune models pull smollm2-135m-instruct`).

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rune::home::Home;
use serde_json::Value;

use crate::bench::smollm2_file;

/// A command in a home with SmolLM2 whose temporary files go to `tmp`.
fn command(folder: &tempfile::TempDir, args: &[&str]) -> Command {
    let home = Home::new(folder.path().join("home"));
    home.create().unwrap();
    if !home.models().exists() {
        symlink(smollm2_file().parent().unwrap(), home.models()).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
    command.env("RUNE_HOME", home.path()).env("TMPDIR", folder.path().join("tmp"));
    command.arg("e2e").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn unknown_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(&folder, &["--model", "smolm2"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("unknown model `smolm2`"), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_interrupt_leaves_neither_files_nor_processes() {
    let folder = tempfile::tempdir().unwrap();
    let model = ["--model", "smollm2-135m-instruct", "--json"];
    let mut child = command(&folder, &model).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let doctor: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&doctor["step"], &doctor["failure"]), (&"doctor".into(), &Value::Null));
    // The next step runs a session, which dies with it.
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    let of_test = folder.path().join("tmp").display().to_string();
    let is_left = |entry: fs::DirEntry| {
        fs::read(entry.path().join("environ"))
            .is_ok_and(|environment| String::from_utf8_lossy(&environment).contains(&of_test))
    };
    assert!(!fs::read_dir("/proc").unwrap().flatten().any(is_left));
}
