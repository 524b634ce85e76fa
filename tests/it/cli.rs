//! The binary as users see it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use assert_cmd::Command;
use tempfile::TempDir;

/// `rune` in an empty folder with an empty home.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::cargo_bin("rune").unwrap();
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path());
        command
    }

    /// Runs `rune` and shows exit code, stdout and stderr, the bench's folder left out.
    fn run(&self, arguments: &[&str]) -> String {
        self.show(self.command().args(arguments))
    }

    fn show(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let text = format!("{}\n{stdout}{stderr}", output.status.code().unwrap());
        text.replace(self.folder.path().to_str().unwrap(), "")
    }
}

#[test]
fn settings_are_printed_with_their_origin() {
    let bench = Bench::new();
    fs::create_dir(bench.folder.path().join(".rune")).unwrap();
    bench.write(".rune/config.toml", "[run]\nattempts = 5\n[sandbox]\nmemory_mb = 1024\n");
    bench.write("rune.toml", "[run]\nattempts = 4\n");
    let mut command = bench.command();
    let shown = bench.show(command.args(["config", "show", "--origin"]).env("RUNE_RUN_SEED", "7"));
    let line = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(line("run.attempts"), @"run.attempts = 4 # `/rune.toml`");
    insta::assert_snapshot!(line("run.seed"), @"run.seed = 7 # the environment");
    insta::assert_snapshot!(line("sandbox.memory_mb"),
        @"sandbox.memory_mb = 1024 # `/.rune/config.toml`");
    insta::assert_snapshot!(line("run.repairs"), @"run.repairs = 2 # the defaults");
}

#[test]
fn wrong_settings_are_exit_code_3() {
    let bench = Bench::new();
    bench.write("rune.toml", "[sandbox]\nmemory_mb = 100000\n");
    insta::assert_snapshot!(bench.run(&["config", "show"]), @"
    3
    error: a project file may only lower `sandbox.memory_mb` (it is 512), found 100000 in `/rune.toml`
    hint: `rune config keys` describes every setting
    ");
    bench.write("rune.toml", "[run]\natempts = 1\n");
    insta::assert_snapshot!(bench.run(&["models", "list"]), @"
    3
    error: unknown key `run.atempts` in `/rune.toml`; did you mean `run.attempts`?
    hint: `rune config keys` describes every setting
    ");
}

#[test]
fn project_file_is_found_up_to_the_repository_root() {
    let bench = Bench::new();
    fs::create_dir_all(bench.folder.path().join("repo/.git")).unwrap();
    fs::create_dir_all(bench.folder.path().join("repo/src")).unwrap();
    bench.write("repo/rune.toml", "[run]\nattempts = 1\n");
    bench.write("rune.toml", "this is not TOML, and not of this repository");
    let mut command = bench.command();
    command.current_dir(bench.folder.path().join("repo/src"));
    assert!(bench.show(command.args(["config", "show"])).contains("attempts = 1"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_lists_codes() {
    let bench = Bench::new();
    assert!(bench.run(&["modles"]).starts_with("2\n"));
    let help = bench.run(&["--help"]);
    assert!(help.starts_with("0\n") && help.contains("Exit codes:"), "{help}");
    assert!(!bench.folder.path().join(".rune").exists());
}

#[test]
fn models_are_listed_and_unknown_names_rejected() {
    let bench = Bench::new();
    insta::assert_snapshot!(bench.run(&["models", "list"]), @"
    0
    NAME                           SIZE     QUANT   LICENSE     DOWNLOADED
    qwen2.5-coder-0.5b-instruct *  491 MB   Q4_K_M  Apache-2.0  no
    qwen2.5-coder-1.5b-instruct    1117 MB  Q4_K_M  Apache-2.0  no
    smollm2-135m-instruct          98 MB    Q4_1    Apache-2.0  no
    ");
    insta::assert_snapshot!(bench.run(&["models", "pull", "smolm2-135m-instruct"]), @"
    3
    error: unknown model `smolm2-135m-instruct`; did you mean `smollm2-135m-instruct`? Known: qwen2.5-coder-0.5b-instruct, qwen2.5-coder-1.5b-instruct, smollm2-135m-instruct
    hint: `rune models list` lists all models
    ");
    insta::assert_snapshot!(bench.run(&["models", "path"]), @"
    3
    error: model `qwen2.5-coder-0.5b-instruct` is not downloaded
    hint: download it with `rune models pull qwen2.5-coder-0.5b-instruct`
    ");
    bench.write("x.gguf", "no model");
    insta::assert_snapshot!(
        bench.run(&["models", "pull", "smollm2-135m-instruct", "--file", "x.gguf"]), @"
    3
    smollm2-135m-instruct: trying the file
    smollm2-135m-instruct: verifying the digest
    smollm2-135m-instruct: file failed: `x.gguf` has 8 bytes, expected 98362432
    error: `x.gguf` has 8 bytes, expected 98362432
    ");
}

#[test]
fn home_is_private_to_its_owner() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["sessions", "list", "--home", "h/e/r/e"]).lines().next(), Some("0"));
    let metadata = fs::metadata(bench.folder.path().join("h/e/r/e")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o700);
    insta::assert_snapshot!(bench.run(&["sessions", "show", "nobody"]), @"
    2
    error: no session `nobody`
    hint: `rune sessions list` lists all sessions
    ");
}

#[test]
fn recorded_session_is_shown_exported_and_replayed() {
    let bench = Bench::new();
    let home = bench.folder.path().join(".rune");
    fs::create_dir(&home).unwrap();
    fs::copy("tests/fixtures/rune-v1.db", home.join("rune.db")).unwrap();
    insta::assert_snapshot!(bench.run(&["sessions", "list"]), @"
    0
    ID  STATUS  STARTED              MODEL     TOKENS  TASK
    s1  solved  2026-01-01T00:00:00  scripted  6       Write add(a, b).
    ");
    let shown = bench.run(&["sessions", "show", "s1"]);
    assert!(shown.contains("solved (verified by user_tests), exit code 0"), "{shown}");
    // Its verdict is of a version that recorded no assurance: nothing is learned from it.
    let refused = bench.run(&["train", "--session", "s1", "--model", "m.gguf", "--dry-run"]);
    let told = "session s1: it was judged by an earlier version";
    assert!(refused.starts_with('2') && refused.contains(told), "{refused}");
    let exported = bench.run(&["sessions", "export", "s1"]);
    let kinds: Vec<_> = exported
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(kinds, ["session", "attempt", "attempt"]);
    let replayed = bench.run(&["events", "s1", "--follow", "--json"]);
    assert_eq!(replayed.lines().count(), 1 + 4, "{replayed}");
    assert!(replayed.contains(r#""specversion":"1.0""#), "{replayed}");
}

#[test]
fn closed_pipe_ends_quietly() {
    let bench = Bench::new();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rune"))
        .args(["events", "--schema"])
        .current_dir(bench.folder.path())
        .env("HOME", bench.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn colors_follow_flags_and_environment() {
    let bench = Bench::new();
    let colored = |flag: &str, variable: &str, value: &str| {
        let mut command = bench.command();
        command.args(["models", "path", "x", flag]).env(variable, value);
        let shown = bench.show(&mut command);
        assert!(!shown.contains("tracing-subscriber"), "{shown}");
        shown.contains('\u{1b}')
    };
    assert!(!colored("--color=auto", "TERM", "xterm"));
    assert!(colored("--color=always", "NO_COLOR", "1"));
    assert!(colored("--color=auto", "CLICOLOR_FORCE", "1"));
    assert!(!colored("--color=never", "CLICOLOR_FORCE", "1"));
}

#[test]
fn doctor_checks_a_model_given_by_path() {
    let bench = Bench::new();
    bench.write("m.gguf", "not a model");
    let of_model = |path: &str| {
        let mut command = bench.command();
        command.args(["doctor", "--json"]).env("RUNE_RUN_MODEL", path);
        let shown = bench.show(&mut command);
        let line = shown.lines().find(|line| line.contains(r#""name":"model "#)).unwrap();
        line.to_owned()
    };
    assert!(of_model("none.gguf").contains("No such file"), "{}", of_model("none.gguf"));
    let broken = of_model("m.gguf");
    assert!(broken.contains(r#""status":"fail""#) && !broken.contains("unknown"), "{broken}");
}

#[test]
fn doctor_reports_each_check_as_json() {
    let bench = Bench::new();
    let told = bench.run(&["doctor", "--json"]);
    let names: Vec<String> = told
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect();
    for name in [
        "kernel",
        "home",
        "python",
        "sandbox",
        "memory cap",
        "interpreter",
        "hostile programs",
        "pytest",
        "registry",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {told}");
    }
}

#[test]
fn completions_and_man_pages_are_generated() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(bench.run(&["completions", shell]).contains("rune"), "{shell}");
    }
    assert!(bench.run(&["man"]).contains(".TH rune 1"));
    assert!(bench.run(&["man", "--dir", "pages"]).starts_with("0\n"));
    assert!(bench.folder.path().join("pages/rune-models-pull.1").exists());
}
