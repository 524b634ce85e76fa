//! Claims: one holder at a time can write to a session or a training run, and a holder that lost
//! its claim cannot write any more.

use std::fs;
use std::path::Path;
use std::process;
use std::time::Duration;
use std::time::SystemTime;

use rune::adapter::AdapterId;
use rune::event::Event;
use rune::event::timestamp;
use rune::job::JobKind;
use rune::registry::ClaimHolder;
use rune::registry::DatasetKind;
use rune::registry::DatasetRow;
use rune::registry::NewJob;
use rune::registry::RecordKind;
use rune::registry::Registry;
use rune::registry::RegistryError;
use rune::registry::RunStatus;
use rune::registry::SwarmRow;
use rune::registry::TrainingRun;
use serde_json::json;

use super::INTERRUPTED;
use super::attempt;
use super::begin;
use super::first_session;
use super::reopen;
use super::resumed;
use super::session;
use super::sqlite;
use super::started;
use super::warning;
use super::with_session;
use super::writer;

/// A lease that outlasts the test.
const LONG: Duration = Duration::from_hours(1);
/// A lease that expires when it is granted.
const EXPIRED: Duration = Duration::ZERO;

fn worker(id: &str, lease: Duration) -> ClaimHolder {
    ClaimHolder::Worker { id: id.to_owned(), lease }
}

fn message<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn claims_of_dead_processes_are_taken_over_but_not_of_living() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rune.db");
    drop(Registry::open(&path).unwrap());
    let mut child = writer(&path);
    let registry = Registry::open(&path).unwrap();
    let id = first_session(&registry);
    let expected = format!("session `{id}` is in use by process {}", child.id());
    assert_eq!(message(reopen(&registry, &id)), expected);
    assert_eq!(message(registry.resumable(&id)), expected);
    child.kill().unwrap();
    child.wait().unwrap();
    let n_attempts = u32::try_from(registry.attempts(&id).unwrap().len()).unwrap();
    registry.resumable(&id).unwrap();
    let claim = reopen(&registry, &id).unwrap();
    registry.append_attempt(&claim, &attempt(n_attempts), &warning("w")).unwrap();
    registry.end_session(&claim, &INTERRUPTED, &warning("w")).unwrap();
    reopen(&registry, &id).unwrap();
    assert_eq!(registry.session(&id).unwrap().ended_at, None);
}

#[test]
fn a_process_holds_several_claims_but_none_twice() {
    let home = tempfile::tempdir().unwrap();
    let (registry, first) = with_session(home.path());
    let second = begin(&registry, "s2").unwrap();
    let expected = format!("session `s1` is in use by process {}", process::id());
    assert_eq!(message(reopen(&registry, "s1")), expected);
    registry.append_event(&first, &warning("w")).unwrap();
    registry.end_session(&second, &INTERRUPTED, &warning("w")).unwrap();
    registry.append_attempt(&first, &attempt(0), &warning("w")).unwrap();
    registry.end_session(&first, &INTERRUPTED, &warning("w")).unwrap();
    insta::assert_snapshot!(message(registry.append_event(&first, &warning("w"))),
        @"session `s1` has already ended");
    // A new claim by the same process invalidates its old claim.
    reopen(&registry, "s1").unwrap();
    let expected = format!("session `s1` was taken over by process {}", process::id());
    assert_eq!(message(registry.append_event(&first, &warning("w"))), expected);
}

#[test]
fn holder_of_an_expired_lease_cannot_write_after_takeover() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::open(&home.path().join("rune.db")).unwrap();
    let old = registry.begin_session(&session("s1"), &worker("w1", EXPIRED), &started()).unwrap();
    // The lease has expired, but nobody else has claimed the row.
    registry.append_attempt(&old, &attempt(0), &warning("w")).unwrap();
    let new = registry.reopen_session("s1", &worker("w2", LONG), resumed).unwrap();
    let n_events = registry.events(0, None, 100).unwrap().len();
    for refused in [
        registry.append_attempt(&old, &attempt(1), &warning("w")),
        registry.append_event(&old, &warning("w")).map(drop),
        registry.end_session(&old, &INTERRUPTED, &warning("w")),
        registry.renew_claim(&old),
    ] {
        let kind = RecordKind::Session;
        assert!(
            matches!(&refused, Err(RegistryError::ClaimLost { kind: found, .. }) if *found == kind)
        );
        insta::allow_duplicates! {
            insta::assert_snapshot!(message(refused), @"session `s1` was taken over by worker `w2`");
        }
    }
    assert_eq!(registry.events(0, None, 100).unwrap().len(), n_events);
    insta::assert_snapshot!(message(reopen(&registry, "s1")), @"session `s1` is in use by worker `w2`");
    registry.append_attempt(&new, &attempt(1), &warning("w")).unwrap();
    registry.end_session(&new, &INTERRUPTED, &warning("w")).unwrap();
    insta::assert_snapshot!(message(registry.append_event(&old, &warning("w"))),
        @"session `s1` was taken over by another holder");
}

#[test]
fn heartbeats_renew_leases_and_processes_need_none() {
    let home = tempfile::tempdir().unwrap();
    let (registry, mine) = with_session(home.path());
    let leased = registry.begin_session(&session("s2"), &worker("w", LONG), &started()).unwrap();
    sqlite(
        &home.path().join("rune.db"),
        "UPDATE session SET expires_at = '2000-01-01T00:00:00.000Z' WHERE id = 's2'",
    );
    registry.resumable("s2").unwrap();
    registry.renew_claim(&leased).unwrap();
    insta::assert_snapshot!(message(registry.resumable("s2")), @"session `s2` is in use by worker `w`");
    registry.renew_claim(&mine).unwrap();
    let expected = format!("session `s1` is in use by process {}", process::id());
    assert_eq!(message(registry.resumable("s1")), expected);
}

#[test]
fn training_runs_are_claimed_like_sessions() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::open(&home.path().join("rune.db")).unwrap();
    let (dataset, run) = (dataset(), training_run());
    let old = registry.begin_training(&dataset, &run, &worker("w1", EXPIRED)).unwrap();
    registry.record_metrics(&old, (1, 9), &[("loss", 1.5)]).unwrap();
    insta::assert_snapshot!(message(registry.begin_training(&dataset, &run, &ClaimHolder::ThisProcess)),
        @"training run `t1` already exists");
    let (taken, new) = registry.reopen_training("t1", &worker("w2", LONG)).unwrap();
    assert_eq!((taken.status, taken.step), (RunStatus::Running, 1));
    let n_events = registry.events(0, None, 100).unwrap().len();
    let adapter = AdapterId::parse("a").unwrap();
    for refused in [
        registry.record_metrics(&old, (2, 9), &[("loss", 9.0)]),
        registry.complete_training(&old, &adapter),
        registry.fail_training(&old, RunStatus::Failed, "crash: x"),
        registry.reopen_training("t1", &ClaimHolder::ThisProcess).map(drop),
    ] {
        let expected = message(refused);
        assert!(expected.ends_with(" by worker `w2`"), "{expected}");
    }
    assert_eq!(registry.metrics("t1").unwrap().len(), 1);
    assert_eq!(registry.events(0, None, 100).unwrap().len(), n_events);
    registry.fail_training(&new, RunStatus::Interrupted, "interrupted: x").unwrap();
    insta::assert_snapshot!(message(registry.record_metrics(&new, (2, 9), &[])),
        @"training run `t1` has already ended");
    registry.reopen_training("t1", &ClaimHolder::ThisProcess).unwrap();
}

#[test]
fn schema_requires_a_new_epoch_for_each_claim() {
    let home = tempfile::tempdir().unwrap();
    let (_registry, _claim) = with_session(home.path());
    let check = |sql: &str| sqlite(&home.path().join("rune.db"), sql);
    insta::assert_snapshot!(check("UPDATE session SET owner = 'x'"),
        @"every claim has an epoch of its own");
    insta::assert_snapshot!(check("UPDATE session SET epoch = 0"), @"an epoch never goes back");
}

#[test]
fn sessions_of_older_versions_resume_once_their_process_is_dead() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rune.db");
    version_6(&path);
    let living = owner();
    for (id, status, owner) in [
        ("living", "running", Some(living.as_str())),
        ("dead", "running", Some("5a0c2c3e-0000-4000-8000-000000000000:1:1")),
        ("stopped", "interrupted", None),
    ] {
        let owner = owner.map_or("NULL".to_owned(), |owner| format!("'{owner}'"));
        let ended_at = if status == "running" { "NULL" } else { "'2026-01-01T00:00:09.000Z'" };
        let task = json!(session(id).task);
        let sql = format!(
            "INSERT INTO session (id, project, task_json, task_type, provider, base_model, base_digest, adapter_reason,
                 status, verified_by, sandbox_tier, seed, config_json, tokens_in, tokens_out, started_at, ended_at, owner)
             VALUES ('{id}', 'none', '{task}', 'function', 'scripted', 'm', 'd', 'r', '{status}', 'none', 'full', 1,
                 '{{}}', 0, 0, '2026-01-01T00:00:00.000Z', {ended_at}, {owner})"
        );
        assert_eq!(sqlite(&path, &sql), "done");
    }
    let registry = Registry::open(&path).unwrap();
    let expected = format!("session `living` is in use by process {}", process::id());
    assert_eq!(message(reopen(&registry, "living")), expected);
    for id in ["dead", "stopped"] {
        let claim = reopen(&registry, id).unwrap();
        registry.append_attempt(&claim, &attempt(0), &warning("w")).unwrap();
        registry.end_session(&claim, &INTERRUPTED, &warning("w")).unwrap();
    }
}

/// Creates a registry with schema version 6.
fn version_6(path: &Path) {
    for version in 1..=6 {
        let step = fs::read_to_string(format!("src/registry/schema_{version}.sql")).unwrap();
        assert_eq!(sqlite(path, &step), "done");
    }
    let header = "PRAGMA application_id = 0x52554E45; PRAGMA user_version = 6";
    assert_eq!(sqlite(path, header), "done");
}

/// Identity of this process as older versions stored it: boot id, pid and start time.
fn owner() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
    format!("{}:{}:{start}", boot.trim(), process::id())
}

fn dataset() -> DatasetRow {
    DatasetRow {
        digest: "0".repeat(64),
        project: "none".into(),
        kind: DatasetKind::File,
        n_records: 1,
        families: Vec::new(),
        source: json!({}),
        profile: None,
    }
}

fn training_run() -> TrainingRun {
    TrainingRun {
        id: "t1".into(),
        project: "none".into(),
        config: json!({}),
        dataset_digest: dataset().digest,
        base_model: "m".into(),
        base_digest: "b".into(),
        status: RunStatus::Running,
        step: 0,
        total_steps: 0,
        best_val_loss: None,
        adapter_id: None,
        error: None,
        job_id: None,
        started_at: "2026-01-01T00:00:00.000Z".into(),
        ended_at: None,
    }
}

#[test]
fn a_clock_that_was_set_back_delays_no_job() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rune.db");
    let registry = Registry::open(&path).unwrap();
    let swarm = SwarmRow::new("p", json!({})).unwrap();
    let (key, payload) = ("k".to_owned(), json!({}));
    let job = NewJob { kind: JobKind::Solve, key, generation: 1, payload };
    registry.begin_swarm(&swarm, &[job], &Event::notice("")).unwrap();
    let due = |seconds: u64| {
        let at = timestamp(SystemTime::now() + Duration::from_secs(seconds));
        assert_eq!(sqlite(&path, &format!("UPDATE job SET run_at = '{at}'")), "done");
        registry.is_job_due(&swarm.id, JobKind::Solve).unwrap()
    };
    assert!(due(0));
    // A pause after an error, and a job that was queued by a clock an hour ahead.
    assert!(!due(90));
    assert!(due(3600));
}
