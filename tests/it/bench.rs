//! `rune bench` prints every figure, and reports a failing peer in the peer's own words. Timings
//! are not asserted.
//!
//! SmolLM2 has to be here (`rune models pull smollm2-135m-instruct`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use assert_cmd::Command;
use rune::home::Home;
use rune::hub;
use rune::hub::ModelCatalogue;
use serde_json::json;
use wiremock::Mock;
use wiremock::MockServer;
use wiremock::ResponseTemplate;
use wiremock::matchers::body_partial_json;
use wiremock::matchers::method;
use wiremock::matchers::path;

use crate::lines::events;
use crate::model::tiny;

pub(crate) fn smollm2_file() -> PathBuf {
    let home = match std::env::var_os("RUNE_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().unwrap().join(".rune"),
    };
    let catalogue = ModelCatalogue::embedded();
    let file = hub::path(&Home::new(home), catalogue.get("smollm2-135m-instruct").unwrap());
    file.expect("this test needs a model: cargo run --release -- models pull smollm2-135m-instruct")
}

/// Exit code, stdout and stderr of one run with SmolLM2 and an empty home.
fn infer(arguments: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("rune").unwrap();
    command.current_dir(home.path()).env("HOME", home.path()).env_remove("RUNE_HOME");
    command.args(["bench", "infer", "--runs", "1", "--threads", "2", "--context", "2048"]);
    if !arguments.contains(&"--model") {
        command.arg("--model").arg(smollm2_file());
    }
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const METRICS: [&str; 21] = [
    "prompt_tokens_per_s",
    "decode_tokens_per_s",
    "first_token_cold_s",
    "first_token_warm_s",
    "first_token_cold_to_warm",
    "peak_rss_bytes",
    "file_and_kv_to_peak_rss",
    "batch_1_tokens_per_s",
    "batch_2_tokens_per_s",
    "batch_4_tokens_per_s",
    "batch_8_tokens_per_s",
    "batch_2_to_1",
    "batch_4_to_1",
    "batch_8_to_1",
    "adapter_decode_tokens_per_s",
    "adapter_to_none",
    "batch_8_adapters_tokens_per_s",
    "batch_8_adapters_to_1",
    "grammar_decode_tokens_per_s",
    "grammar_to_none",
    "load_s",
];

#[test]
fn every_figure_is_in_the_table() {
    let (code, stdout, stderr) = infer(&[]);
    assert_eq!(code, 0, "{stderr}");
    for word in ["METRIC", "prompt, 512 tokens", "8 at a time, by one", "peak memory", "load"] {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
    assert!(!stdout.contains("PEER"), "{stdout}");
    assert!(stderr.contains("reading a prompt"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_asked_for_the_same_and_its_own_times_count() {
    let server = MockServer::start().await;
    let healthy = ResponseTemplate::new(200).set_body_json(json!({ "status": "ok" }));
    Mock::given(path("/health")).respond_with(healthy).mount(&server).await;
    let timings =
        json!({ "prompt_n": 512, "prompt_ms": 1024.0, "predicted_n": 64, "predicted_ms": 630.0 });
    let asked = json!({ "temperature": 0, "ignore_eos": true });
    Mock::given(method("POST"))
        .and(path("/completion"))
        .and(body_partial_json(asked))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "timings": timings })))
        .mount(&server)
        .await;
    let uri = server.uri();
    let run = move || infer(&["--json", "--quiet", "--peer", &uri]);
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!((code, stderr.as_str()), (0, ""));
    let lines = events(&stdout);
    assert_eq!((&lines[0]["type"], &lines[0]["schema"]), (&json!("bench.started"), &json!(1)));
    assert_eq!(lines[0]["conditions"]["n_threads"], 2);
    assert!(lines[0]["machine"]["n_cores"].as_u64().unwrap() > 0, "{stdout}");
    let names: Vec<_> = lines[1..].iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, METRICS);
    for line in &lines[1..] {
        assert!(line["rune"]["median"].as_f64().unwrap() > 0.0, "{line}");
    }
    let peer = |index: usize| lines[index]["peer"]["median"].as_f64().unwrap();
    assert_eq!((peer(1), peer(2), peer(3)), (500.0, 100.0, 1.024));
    assert!(lines[1]["ratio"].as_f64().unwrap() > 0.0, "{stdout}");
    let n_asked = server
        .received_requests()
        .await
        .unwrap()
        .iter()
        .filter(|r| r.url.path() == "/completion")
        .count();
    assert_eq!(n_asked, 2 + 4, "two to warm up, four measured");
}

#[test]
fn what_is_wrong_with_a_peer_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("llama-server");
    fs::write(&script, "#!/bin/sh\necho \"model $2\"\necho 'unknown option' >&2\nexit 9\n")
        .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let last_line = |arguments: &[&str]| {
        let (code, stdout, stderr) = infer(arguments);
        assert_eq!(stdout, "");
        (code, stderr.lines().last().unwrap().to_owned())
    };
    let (code, line) = last_line(&["--peer", script.to_str().unwrap()]);
    assert_eq!(code, 3, "{line}");
    assert!(line.contains("ended before it was ready (exit status: 9)"), "{line}");
    assert!(line.contains(".gguf | unknown option"), "{line}");
    let (code, line) = last_line(&["--peer", "/nowhere/llama-server"]);
    assert_eq!(
        (code, line.contains("cannot start the peer `/nowhere/llama-server`")),
        (3, true),
        "{line}"
    );
    // Port 1 is nobody's.
    let (code, line) = last_line(&["--peer", "http://127.0.0.1:1"]);
    assert_eq!((code, line.contains("no answer from http://127.0.0.1:1")), (4, true), "{line}");
    let (code, line) = last_line(&["--peer", "http://192.0.2.1:80"]);
    assert_eq!((code, line.contains("is not a loopback http:// URL")), (3, true), "{line}");
    let (code, line) = last_line(&["--model", "smolm2"]);
    assert_eq!((code, line.contains("rune models list")), (3, true), "{line}");
}

/// Exit code, stdout and stderr of `rune bench sandbox`.
fn sandbox(arguments: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("rune").unwrap();
    command.env("HOME", home.path()).env_remove("RUNE_HOME");
    command.args(["bench", "sandbox", "--runs", "1", "--quiet"]);
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn jails_and_the_judge_are_measured() {
    let suite = "tests/fixtures/judge/HumanEval.jsonl.gz";
    let (code, stdout, stderr) = sandbox(&["--json", "--suite", suite]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let lines = events(&stdout);
    assert_eq!(lines[0]["bench"], "sandbox");
    let names: Vec<_> = lines[1..].iter().map(|line| line["name"].as_str().unwrap()).collect();
    let expected = [
        "true_start_ms",
        "true_cpu_ms",
        "python_start_ms",
        "python_cpu_ms",
        "fork_start_ms",
        "fork_cpu_ms",
        "forks_per_s",
        "deadline_jail_ms",
        "deadline_fork_ms",
        "true_start_resident_ms",
        "true_start_tree_ms",
        "judge_data_cpu_ms",
        "judge_run_cpu_ms",
        "judge_cpu_ms",
        "judge_ms",
        "judge_pss_bytes",
    ];
    assert_eq!(names, expected);
    let (code, stdout, stderr) = sandbox(&["--json", "--suite", "/nowhere.jsonl"]);
    assert!(events(&stdout).len() == 1, "{stdout}");
    assert_eq!((code, stderr.contains("/nowhere.jsonl")), (3, true), "{stderr}");
}

/// Adapters of a tiny model learn nothing; all of the benchmark's steps are taken.
#[test]
fn memory_is_measured_once_and_printed_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::model("llama", tiny::Q8_0, 64, 96).with_context(8192).encode().1;
    fs::write(folder.path().join("m.gguf"), model).unwrap();
    let memory = |more: &[&str]| -> String {
        let mut command = Command::cargo_bin("rune").unwrap();
        command.current_dir(folder.path()).arg("--home").arg(folder.path().join("home"));
        command.args(["bench", "memory", "--model", "m.gguf", "--libraries", "2", "--quiet"]);
        command.args(["--functions", "6", "--max-steps", "1", "--controls", "0"]).args(more);
        String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
    };
    let lines = events(&memory(&["--json"]));
    let count = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((count("training.completed"), count("evaluation.answered")), (2, 0));
    // The templates T1 to T8 under twelve conditions.
    assert_eq!(count("evaluation.score"), 8 * 12);
    let last = lines.last().unwrap();
    assert_eq!((&last["type"], &last["works"]), (&json!("bench.memory"), &json!(false)));
    assert_eq!(last["verdict"]["controls"][1][0], "N3");
    let cost = |name: &str| {
        let costs = last["costs"].as_array().unwrap();
        costs.iter().find(|cost| cost["condition"] == name).unwrap()["tokens_in"].as_f64().unwrap()
    };
    assert!(cost("8 records") > cost("1 record") && cost("1 record") > cost("base"), "{last}");
    // The adapter and the answers are found again.
    let again = events(&memory(&["--json"]));
    assert_eq!(again.len(), count("evaluation.score") + 1);
    let text = memory(&[]);
    let verdict = "memory does not work: the adapter is not shown to be better than its records";
    assert!(text.contains("other's adapter + README") && text.contains(verdict), "{text}");
    assert!(!text.contains("reader"), "{text}");
    // One of the adapters as a reader.
    let trained = lines.iter().find(|line| line["type"] == "training.completed").unwrap();
    let text = memory(&["--reader", trained["adapter_id"].as_str().unwrap()]);
    for row in ["reader + passage", "reader + README, new operations", "reader on N3"] {
        assert!(text.contains(row), "{row}: {text}");
    }
}
