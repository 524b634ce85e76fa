//! `rune swarm`: every task is tried once a generation, whatever kills the process and wherever.
//!
//! The model is a script.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rune::failpoint::Failpoint;
use rune::families::FamilySplit;
use rune::job::JobKind;
use rune::job::JobState;
use rune::registry::Job;
use rune::registry::JobFilter;
use rune::registry::SessionFilter;
use rune::trajectory::SessionStatus;
use serde_json::Value;
use serde_json::json;

use crate::merge::Bench;

/// Tasks that the model solves at once.
const EASY: [&str; 3] = ["double", "triple", "square"];
/// Tasks that it does not solve at first; `negate` is solved once the record of another is shown.
const HARD: [&str; 2] = ["negate", "riddle"];

/// Families of a split, for as many tasks as are asked for.
fn families(split: FamilySplit) -> impl Iterator<Item = String> {
    (0..)
        .map(|number: u32| format!("family {number}"))
        .filter(move |family| FamilySplit::of(family) == split)
}

/// A home with the file `tasks.jsonl` and the script of its answers, each of which takes
/// `delay_ms`, with memory of the kind `memory`.
fn bench(delay_ms: u64, memory: &str) -> Bench {
    let bench = Bench::empty();
    let names: Vec<&str> = HARD.into_iter().chain(EASY).collect();
    let train = families(FamilySplit::Train).take(names.len());
    let families = train.chain(families(FamilySplit::Gate).take(1));
    let tasks = names.iter().chain(&["held"]).zip(families);
    let tasks: Vec<String> = tasks.map(|(name, family)| task(name, &family).to_string()).collect();
    fs::write(bench.path("tasks.jsonl"), tasks.join("\n")).unwrap();
    let mut script = Vec::new();
    let mut line = |name: &str, record: &str, value: u8| {
        let text = format!("```python\ndef {name}():\n    return {value}\n```");
        let when = [&format!("{name}.py"), record];
        let line = json!({ "when": when, "text": text, "repeat": true, "delay_ms": delay_ms });
        script.push(line.to_string());
    };
    // A prompt may also show records of tasks before its own, so the last one comes first.
    line("negate", "def square", 1);
    for name in HARD {
        line(name, "", 0);
    }
    for name in EASY.iter().rev().chain(&["held"]) {
        line(name, "", 1);
    }
    fs::write(bench.path("script.jsonl"), script.join("\n")).unwrap();
    let config = format!(
        "[run]\nprovider = \"scripted\"\nscripted = \"script.jsonl\"\nproject = \"p\"\n\
         repairs = 0\ncandidates = 1\n[memory]\nkind = \"{memory}\"\n"
    );
    fs::write(bench.path("home/config.toml"), config).unwrap();
    bench
}

fn task(name: &str, family: &str) -> Value {
    json!({
        "id": name,
        "task": format!("Write {name}.py with {name}(), which returns a secret number."),
        "tests": format!("from {name} import {name}\nassert {name}() == 1\n"),
        "task_type": "function",
        "family": family,
    })
}

const SWARM: &[&str] = &["swarm", "--tasks", "tasks.jsonl", "--agents", "2"];

fn report(bench: &Bench) -> Value {
    let id = bench.registry().swarms(1).unwrap()[0].id.clone();
    serde_json::from_str(&bench.output(&["swarm", "report", &id, "--json"])).unwrap()
}

/// Checks what holds after every swarm that has ended: each job has ended and has one session, and
/// the tasks `later` were solved by the second generation.
fn check(bench: &Bench, later: &[&str]) {
    let registry = bench.registry();
    let jobs = registry.jobs(&JobFilter::default(), u32::MAX).unwrap();
    assert!(jobs.iter().all(|job| !job.state.is_open()), "{jobs:#?}");
    let solve: Vec<_> = jobs.iter().filter(|job| job.kind == JobKind::Solve).collect();
    let solved = solve.iter().filter(|job| job.result.as_ref().unwrap()["is_solved"] == true);
    let name = |job: &Job| job.payload["task"]["id"].as_str().unwrap().to_owned();
    let solved: BTreeMap<String, u32> = solved.map(|job| (name(job), job.generation)).collect();
    let at_once = EASY.iter().map(|name| ((*name).to_owned(), 1));
    let later = later.iter().map(|name| ((*name).to_owned(), 2));
    assert_eq!(solved, at_once.chain(later).collect());
    let sessions = registry.sessions(&SessionFilter::default(), u32::MAX).unwrap();
    assert_eq!((sessions.len(), solve.len()), (7, 7), "5 tasks, 2 of them again");
    assert!(sessions.iter().all(|session| session.status != SessionStatus::Running));
    let events = registry.events(0, None, u32::MAX).unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
}

#[test]
fn unsolved_tasks_are_tried_again_and_all_of_it_is_reported() {
    let bench = bench(0, "records");
    let plan = bench.output(&[SWARM, &["--dry-run"]].concat());
    assert!(
        plan.contains("5 tasks of `tasks` to solve") && plan.contains("1 for the gate"),
        "{plan}"
    );
    let text = bench.output(&["swarm", "--tasks", "tasks.jsonl", "--agents", "1"]);
    check(&bench, &["negate"]);
    assert!(text.contains("- **Solved**: 4 of 5 tasks"), "{text}");
    assert!(text.contains("| 1 | 5 | 3 | 3 by user tests | 2 | 0 | 0 | 0 |"), "{text}");
    assert!(text.contains("| 2 | 2 | 1 | 1 by user tests | 1 | 0 | 0 | 0 |"), "{text}");
    assert!(text.contains("| tasks (gate) | base | none | 1 | 100.0 %"), "{text}");
    assert!(text.contains("| the best candidate fails its tests | 1 |"), "{text}");
    let report = report(&bench);
    assert_eq!(report["swarm"]["status"], "completed");
    assert_eq!(report["swarm"]["reason"], "the last generation has ended");
    let id = report["swarm"]["id"].as_str().unwrap();
    let folder = bench.path("home/swarm").join(id);
    assert_eq!(fs::read_to_string(folder.join("report.md")).unwrap().trim_end(), text);
    assert!(fs::read_to_string(folder.join("report.svg")).unwrap().contains("<polyline"));
    assert_eq!(fs::read_dir(folder.join("solved")).unwrap().count(), 4);
    assert!(bench.output(&["swarm", "list"]).contains("the last generation has ended"));
    assert!(bench.output(&["swarm", "show", id]).contains("4, 0 left"));
    let jobs = bench.output(&["jobs", "list", "--kind", "solve", "--state", "done"]);
    assert_eq!(jobs.lines().count(), 1 + 7, "{jobs}");
    let (code, stderr) = bench.failure(&["swarm", "--resume", id]);
    assert_eq!(code, Some(7), "{stderr}");
}

#[test]
fn a_kill_at_any_step_loses_nothing_and_does_nothing_twice() {
    for step in [Failpoint::JobClaimed, Failpoint::JobWorked, Failpoint::JobEnded] {
        let bench = bench(0, "none");
        assert!(!bench.call(SWARM, Some(step)).status.success(), "{step:?}");
        let id = bench.registry().swarms(1).unwrap()[0].id.clone();
        let resume = ["swarm", "--resume", &id];
        for _ in 0..2 {
            assert!(!bench.call(&resume, Some(step)).status.success(), "{step:?}");
        }
        assert!(bench.output(&resume).contains("- **Solved**: 3 of 5 tasks"), "{step:?}");
        check(&bench, &[]);
    }
}

#[test]
fn a_signal_leaves_a_swarm_that_is_resumed_and_a_second_one_is_refused() {
    let bench = bench(300, "none");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
    command.arg("--home").arg(bench.path("home")).args(SWARM).current_dir(bench.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let registry = bench.registry();
    let done = JobFilter { state: Some(JobState::Done), ..JobFilter::default() };
    let patience = Instant::now() + Duration::from_mins(1);
    while registry.jobs(&done, 1).unwrap().is_empty() {
        assert!(Instant::now() < patience, "no task was solved");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, stderr) = bench.failure(SWARM);
    assert_eq!(code, Some(7), "{stderr}");
    assert!(stderr.contains("another swarm is at work"), "{stderr}");
    let stopped = Instant::now();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    let swarm = registry.swarms(1).unwrap().remove(0);
    assert_eq!(swarm.reason.as_deref(), Some("stopped by a signal"));
    let leased = JobFilter { state: Some(JobState::Leased), ..JobFilter::default() };
    assert_eq!(registry.jobs(&leased, u32::MAX).unwrap(), []);
    bench.output(&["swarm", "--resume", &swarm.id]);
    check(&bench, &[]);
}

#[test]
fn a_job_that_fails_again_and_again_is_discarded_alone() {
    let bench = bench(0, "none");
    // Nobody answers the riddle.
    let script = fs::read_to_string(bench.path("script.jsonl")).unwrap();
    let kept: Vec<&str> = script.lines().filter(|line| !line.contains("riddle")).collect();
    fs::write(bench.path("script.jsonl"), kept.join("\n")).unwrap();
    let text = bench.output(&[SWARM, &["--generations", "1"]].concat());
    assert!(text.contains("| 1 | 5 | 3 | 3 by user tests | 1 | 1 | 0 | 0 |"), "{text}");
    let discarded = ["jobs", "list", "--state", "discarded", "--json"];
    let job: Value = serde_json::from_str(&bench.output(&discarded)).unwrap();
    let id = job["id"].as_str().unwrap();
    let shown = bench.output(&["jobs", "show", id]);
    assert!(shown.contains("attempt 3: ") && shown.contains("no answer left"), "{shown}");
    bench.output(&["jobs", "retry", id]);
    bench.output(&["jobs", "cancel", id]);
    let (code, stderr) = bench.failure(&["jobs", "cancel", id]);
    assert!(code == Some(7) && stderr.contains("is cancelled"), "{stderr}");
}

#[test]
fn a_file_with_faults_is_refused_whole() {
    let bench = bench(0, "none");
    let lines =
        "{\"id\": \"a\"}\n\n{\"id\": \"b\", \"task\": \"Write b.\", \"tests\": \"none.py\"}\n";
    fs::write(bench.path("bad.jsonl"), lines).unwrap();
    let (code, stderr) = bench.failure(&["swarm", "--tasks", "bad.jsonl"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("line 1: missing field `task`"), "{stderr}");
    assert!(stderr.contains("line 3: "), "{stderr}");
    // Tests that pass on nothing cannot decide.
    let task = json!({ "id": "a", "task": "Write a.py.", "tests": "assert True\n" });
    fs::write(bench.path("bad.jsonl"), task.to_string()).unwrap();
    let (code, stderr) = bench.failure(&["swarm", "--tasks", "bad.jsonl"]);
    assert!(code == Some(3) && stderr.contains("task `a`: the tests pass without"), "{stderr}");
    assert_eq!(bench.registry().swarms(1).unwrap(), []);
}
