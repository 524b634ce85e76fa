//! The registry: committed changes are durable, and invalid changes are rejected.

mod claims;

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rune::event::Event;
use rune::event::SCHEMA_VERSION;
use rune::registry::ClaimHolder;
use rune::registry::HeldClaim;
use rune::registry::Registry;
use rune::registry::RegistryError;
use rune::registry::SessionEnd;
use rune::registry::SessionFilter;
use rune::registry::new_id;
use rune::task::SourceFile;
use rune::task::Task;
use rune::task::TaskId;
use rune::task::TaskType;
use rune::trajectory::Assurance;
use rune::trajectory::Attempt;
use rune::trajectory::AttemptVerdict;
use rune::trajectory::Completion;
use rune::trajectory::FinishReason;
use rune::trajectory::Message;
use rune::trajectory::Phase;
use rune::trajectory::Sampling;
use rune::trajectory::Session;
use rune::trajectory::SessionStatus;
use rune::trajectory::VerifiedBy;
use serde_json::json;

fn session(id: &str) -> Session {
    Session {
        id: id.to_owned(),
        project: "none".into(),
        task: Task {
            id: TaskId("t".into()),
            text: "Write add(a, b).".into(),
            task_type: TaskType::Function,
            family: None,
            tests: vec![SourceFile::new("test_add.py", "assert True")],
            test_targets: vec![],
        },
        workspace: None,
        provider: "scripted".into(),
        base_model: "scripted".into(),
        base_digest: "0".repeat(64),
        adapter_id: None,
        adapter_reason: "there is none".into(),
        propensity: None,
        memory: vec![],
        passages: vec![],
        status: SessionStatus::Running,
        verified_by: VerifiedBy::None,
        assurance: None,
        sandbox_tier: "full".into(),
        seed: u64::MAX,
        config_json: json!({"run": {"seed": 1}}),
        tokens_in: 0,
        tokens_out: 0,
        started_at: "2026-01-01T00:00:00.000Z".into(),
        ended_at: None,
        exit_code: None,
        job_id: None,
    }
}

fn attempt(seq: u32) -> Attempt {
    Attempt {
        seq,
        phase: Phase::Code,
        subtask: Some("add".into()),
        candidate: 1,
        prompt: vec![Message::system("s"), Message::user("u\u{0}\u{1b}")],
        completion: Completion {
            text: "```python\n```".into(),
            finish_reason: FinishReason::Length,
            tokens_in: 10,
            tokens_out: 3,
            prefill_ms: 5,
            decode_ms: 6,
            logprobs: Some(vec![-0.5, -0.25]),
        },
        sampling: Sampling { seed: u64::MAX, ..Sampling::default() },
        adapter_id: Some(rune::adapter::AdapterId::parse("a1").unwrap()),
        verdict: AttemptVerdict::Failed,
        verdict_json: json!({"why": ["x"]}),
        files: vec![SourceFile::new("add.py", "x")],
        at: "2026-01-01T00:00:01.000Z".into(),
    }
}

fn started() -> Event {
    Event::SessionStarted {
        schema: SCHEMA_VERSION,
        task: "Write add(a, b).".into(),
        task_type: TaskType::Function,
        provider: "scripted".into(),
        model: "scripted".into(),
        seed: u64::MAX,
    }
}

fn warning(message: &str) -> Event {
    Event::Warning { message: message.into() }
}

fn resumed(n_attempts: u32) -> Event {
    Event::SessionResumed { schema: SCHEMA_VERSION, n_attempts }
}

const SOLVED: SessionEnd = SessionEnd {
    status: SessionStatus::Solved,
    verified_by: VerifiedBy::UserTests,
    assurance: Some(Assurance::Separate),
    exit_code: 0,
};
const INTERRUPTED: SessionEnd = SessionEnd {
    status: SessionStatus::Interrupted,
    verified_by: VerifiedBy::None,
    assurance: None,
    exit_code: 130,
};

/// A registry with one running session `s1` that this process has claimed.
fn with_session(folder: &Path) -> (Registry, HeldClaim) {
    let registry = Registry::open(&folder.join("rune.db")).unwrap();
    let claim = begin(&registry, "s1").unwrap();
    (registry, claim)
}

fn begin(registry: &Registry, id: &str) -> Result<HeldClaim, RegistryError> {
    registry.begin_session(&session(id), &ClaimHolder::ThisProcess, &started())
}

fn reopen(registry: &Registry, id: &str) -> Result<HeldClaim, RegistryError> {
    registry.reopen_session(id, &ClaimHolder::ThisProcess, resumed)
}

#[test]
fn trajectories_are_read_back_as_stored() {
    let home = tempfile::tempdir().unwrap();
    let (registry, claim) = with_session(home.path());
    for seq in 0..3 {
        registry.append_attempt(&claim, &attempt(seq), &warning("w")).unwrap();
    }
    drop(registry);
    let registry = Registry::open(&home.path().join("rune.db")).unwrap();
    let expected = Session { tokens_in: 30, tokens_out: 9, ..session("s1") };
    assert_eq!(registry.session("s1").unwrap(), expected);
    assert_eq!(registry.attempts("s1").unwrap(), [attempt(0), attempt(1), attempt(2)]);
    registry.end_session(&claim, &SOLVED, &warning("end")).unwrap();
    let ended = registry.session("s1").unwrap();
    assert_eq!((ended.status, ended.exit_code), (SessionStatus::Solved, Some(0)));
    assert_eq!(ended.assurance, Some(Assurance::Separate));
    assert!(ended.ended_at.is_some());
    assert_eq!(registry.quick_check().unwrap(), [""; 0]);
}

#[test]
fn invalid_changes_are_rejected_with_typed_errors() {
    let home = tempfile::tempdir().unwrap();
    let (registry, claim) = with_session(home.path());
    let check = |result: Result<(), RegistryError>| result.unwrap_err().to_string();
    insta::assert_snapshot!(check(begin(&registry, "s1").map(drop)),
        @"session `s1` already exists");
    insta::assert_snapshot!(check(registry.append_attempt(&claim, &attempt(1), &warning("w"))),
        @"attempt 1 of session `s1` is out of order: expected attempt 0");
    insta::assert_snapshot!(check(reopen(&registry, "s2").map(drop)),
        @"no session `s2`");
    let unverified = SessionEnd { verified_by: VerifiedBy::None, ..SOLVED };
    insta::assert_snapshot!(check(registry.end_session(&claim, &unverified, &warning("w"))),
        @"registry database error");
    insta::assert_snapshot!(check(begin(&registry, "../x").map(drop)),
        @"registry database error");
    registry.end_session(&claim, &SOLVED, &warning("end")).unwrap();
    insta::assert_snapshot!(check(registry.append_attempt(&claim, &attempt(0), &warning("w"))),
        @"session `s1` has already ended");
    insta::assert_snapshot!(check(reopen(&registry, "s1").map(drop)),
        @"session `s1` is solved");
    // No rejected change left an event behind.
    assert_eq!(registry.events(0, None, 100).unwrap().len(), 2);
}

#[test]
fn schema_rejects_changes_to_write_once_rows() {
    let home = tempfile::tempdir().unwrap();
    let (registry, claim) = with_session(home.path());
    registry.append_attempt(&claim, &attempt(0), &warning("w")).unwrap();
    registry.end_session(&claim, &SOLVED, &warning("end")).unwrap();
    let check = |sql: &str| sqlite(&home.path().join("rune.db"), sql);
    insta::assert_snapshot!(check("UPDATE attempt SET verdict = 'passed'"), @"attempts never change");
    insta::assert_snapshot!(check("DELETE FROM attempt"), @"attempts are never deleted");
    insta::assert_snapshot!(check("UPDATE event SET type = 'x'"), @"events never change");
    insta::assert_snapshot!(check("DELETE FROM event"), @"events are never deleted");
    insta::assert_snapshot!(check("DELETE FROM session"), @"sessions are never deleted");
    insta::assert_snapshot!(check("UPDATE session SET task_json = '{}'"),
        @"a solved session never changes");
    insta::assert_snapshot!(
        check("INSERT INTO event SELECT 9, 'i', source, type, subject, time, data_json FROM event LIMIT 1"),
        @"events are numbered without gaps");
    insta::assert_snapshot!(check("PRAGMA user_version = 0"), @"done");
}

#[expect(clippy::disallowed_types, reason = "the test goes round the registry on purpose")]
fn sqlite(path: &Path, sql: &str) -> String {
    match rusqlite::Connection::open(path).unwrap().execute_batch(sql) {
        Ok(()) => "done".into(),
        Err(rusqlite::Error::SqliteFailure(_, message)) => message.unwrap(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn foreign_and_newer_registries_are_not_opened() {
    let home = tempfile::tempdir().unwrap();
    let check = |name: &str, sql: &str| {
        let path = home.path().join(name);
        sqlite(&path, sql);
        let error = Registry::open(&path).unwrap_err().to_string();
        error.replace(home.path().to_str().unwrap(), "")
    };
    insta::assert_snapshot!(check("a", "CREATE TABLE t (x)"),
        @"`/a` is not a Rune registry (application id 0x0)");
    insta::assert_snapshot!(check("b", "PRAGMA application_id = 7"),
        @"`/b` is not a Rune registry (application id 0x7)");
    insta::assert_snapshot!(
        check("c", "PRAGMA application_id = 0x52554E45; PRAGMA user_version = 99"),
        @"registry `/c` has schema version 99, but this rune supports only up to 15");
    std::fs::write(home.path().join("d"), "no database, but long enough".repeat(40)).unwrap();
    insta::assert_snapshot!(check("d", "SELECT 1"), @"cannot open registry `/d`");
}

#[test]
fn a_registry_of_version_1_still_opens() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rune.db");
    std::fs::copy("tests/fixtures/rune-v1.db", &path).unwrap();
    let registry = Registry::open(&path).unwrap();
    let session = registry.session("s1").unwrap();
    assert_eq!((session.status, session.seed), (SessionStatus::Solved, u64::MAX));
    assert_eq!(registry.attempts("s1").unwrap(), [attempt(0), attempt(1)]);
    assert_eq!(registry.events(0, Some("s1"), 100).unwrap().len(), 4);
}

#[test]
fn unknown_event_types_are_named_and_hide_no_others() {
    let home = tempfile::tempdir().unwrap();
    let (registry, claim) = with_session(home.path());
    sqlite(
        &home.path().join("rune.db"),
        "INSERT INTO event SELECT 2, 'i', source, 'rune.moon.risen', subject, time, '{\"type\": \"moon.risen\"}' FROM event",
    );
    registry.append_event(&claim, &warning("w")).unwrap();
    let error = registry.events(0, None, 100).unwrap_err().to_string();
    let named =
        "cannot decode column `event.data_json` of the registry: event 2, `rune.moon.risen`: ";
    assert!(error.starts_with(named), "{error}");
    assert_eq!(registry.events(0, None, 1).unwrap()[0].data, started());
    assert_eq!(registry.events(2, None, 100).unwrap()[0].data, warning("w"));
}

#[test]
fn sessions_are_listed_newest_first_and_filtered() {
    let home = tempfile::tempdir().unwrap();
    let (registry, _claim) = with_session(home.path());
    let second = begin(&registry, "s2").unwrap();
    registry.end_session(&second, &INTERRUPTED, &warning("w")).unwrap();
    let check = |status, limit| -> Vec<String> {
        let filter = SessionFilter { status, project: Some("none".into()) };
        let found = registry.sessions(&filter, limit).unwrap();
        found.into_iter().map(|session| session.id).collect()
    };
    assert_eq!(check(None, 9), ["s2", "s1"]);
    assert_eq!(check(None, 1), ["s2"]);
    assert_eq!(check(Some(SessionStatus::Running), 9), ["s1"]);
    let other = SessionFilter { project: Some("other".into()), ..SessionFilter::default() };
    assert!(registry.sessions(&other, 9).unwrap().is_empty());
}

#[test]
fn kill_9_loses_at_most_the_attempt_in_flight() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rune.db");
    drop(Registry::open(&path).unwrap());
    for round in 0..12_u64 {
        let mut child = writer(&path);
        thread::sleep(Duration::from_millis(5 + round * 7));
        child.kill().unwrap();
        let told = child.wait_with_output().unwrap().stdout;
        let told: u32 = String::from_utf8(told)
            .unwrap()
            .lines()
            .fold(0, |n, line| if line.starts_with("stored ") { n + 1 } else { n });
        let registry = Registry::open(&path).unwrap();
        assert!(registry.quick_check().unwrap().is_empty());
        let id = first_session(&registry);
        let stored = u32::try_from(registry.attempts(&id).unwrap().len()).unwrap();
        // Everything that the child saw committed is stored, and possibly one more attempt.
        assert!(stored == told || stored == told + 1, "told {told}, stored {stored}");
        assert_eq!(registry.session(&id).unwrap().tokens_out, u64::from(stored) * 3);
        let events = registry.events(0, Some(&id), 1_000_000).unwrap();
        assert_eq!(events.len(), stored as usize + 1);
    }
    let events = Registry::open(&path).unwrap().events(0, None, 1_000_000).unwrap();
    assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
}

/// Waits for the newest session.
fn first_session(registry: &Registry) -> String {
    loop {
        match registry.sessions(&SessionFilter::default(), 1).unwrap().pop() {
            Some(session) => return session.id,
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Starts this test binary as a process that starts a session and appends attempts until it is
/// killed, and waits for the session.
fn writer(path: &Path) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["registry::appends_until_killed_when_asked_to", "--exact", "--nocapture"])
        .env("RUNE_TEST_REGISTRY", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut byte = [0];
    let mut seen = Vec::new();
    let stdout = child.stdout.as_mut().unwrap();
    while !seen.ends_with(b"begun\n") {
        std::io::Read::read_exact(stdout, &mut byte).unwrap();
        seen.push(byte[0]);
    }
    child
}

/// The child process of [`writer`]; does nothing in a normal test run.
#[test]
fn appends_until_killed_when_asked_to() {
    let Some(path) = env::var_os("RUNE_TEST_REGISTRY").map(PathBuf::from) else { return };
    let registry = Registry::open(&path).unwrap();
    let id = new_id().unwrap();
    let claim = begin(&registry, &id).unwrap();
    println!("begun");
    for seq in 0.. {
        registry.append_attempt(&claim, &attempt(seq), &warning("w")).unwrap();
        println!("stored {seq}");
    }
}
