//! The JSON lines of `--json`: every command that reports on its work prints the same envelope.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use rune::event::SCHEMA;
use serde_json::Value;
use wiremock::MockServer;

use crate::model::smollm2_file;

const QWEN: &str = "qwen2.5-coder-0.5b-instruct";
const SMOLLM2: &str = "smollm2-135m-instruct";

/// The events that a command printed; each line fits the schema, and none is missing.
pub(super) fn events(stdout: &str) -> Vec<Value> {
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let parse = |line| serde_json::from_str::<Value>(line).unwrap();
    let events: Vec<Value> = stdout.lines().map(parse).collect();
    for (seq, event) in events.iter().enumerate() {
        schema.validate(event).map_err(|error| format!("{error}: {event}")).unwrap();
        assert_eq!(event["seq"], seq, "{event}");
    }
    events
}

fn pull(home: &Path, model: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
    command.arg("--home").arg(home).args(["models", "pull", model, "--json"]);
    command.args(args).output().unwrap()
}

/// Type and source of each line of a pull of `model`.
fn sources(output: &Output, model: &str) -> Vec<(String, String)> {
    let events = events(std::str::from_utf8(&output.stdout).unwrap());
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    assert!(events.iter().all(|event| event["subject"] == model), "{events:?}");
    events.iter().map(|event| (word(event, "type"), word(event, "source"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_reports_every_source_that_it_tries() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |kind: &str, source: &str| (kind.to_owned(), source.to_owned());
    // Nothing is mounted: every path is unknown.
    let server = MockServer::start().await;
    let (home, endpoint) = (folder.path().join("none"), server.uri());
    let missing = move || pull(&home, QWEN, &["--from", "hub", "--endpoint", &endpoint]);
    let missing = tokio::task::spawn_blocking(missing).await.unwrap();
    assert_eq!(sources(&missing, QWEN), [pair("pull.trying", "hub"), pair("pull.failed", "hub")]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    // Another file is copied, looked at and refused.
    let other = folder.path().join("other.gguf");
    fs::write(&other, "other").unwrap();
    let refused = pull(&folder.path().join("file"), QWEN, &["--file", other.to_str().unwrap()]);
    let kinds = [("pull.trying", "file"), ("pull.verifying", ""), ("pull.failed", "file")];
    assert_eq!(sources(&refused, QWEN), kinds.map(|(kind, source)| pair(kind, source)));
}

#[test]
fn a_pull_of_a_model_that_exists_is_completed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("models")).unwrap();
    symlink(smollm2_file(), folder.path().join("models/smollm2-135m-instruct.gguf")).unwrap();
    let pulled = pull(folder.path(), SMOLLM2, &[]);
    assert_eq!(sources(&pulled, SMOLLM2), [("pull.completed".to_owned(), "here".to_owned())]);
}
