//! Stopped runs: what they leave behind, and how they are resumed.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

use super::Answer;
use super::Bench;
use super::Ended;
use super::SOLUTION;
use super::TASK;
use super::fenced;
use super::json_lines;
use super::parts;
use super::prelude;
use super::script;

const WRONG: &str = "def add(a, b):\n    return a - b\n";

/// A running `rune run --json`.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    lines: Vec<Value>,
}

impl Running {
    fn start(bench: &Bench, arguments: &[&str]) -> Self {
        let mut command = bench.rune();
        command.args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, lines: Vec::new() }
    }

    /// Waits for `n` attempts in all.
    fn until_attempts(&mut self, n: usize) {
        while self.n_attempts() < n {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "over: {:?}", self.lines.last());
            self.lines.push(serde_json::from_str(&line).unwrap());
        }
    }

    fn n_attempts(&self) -> usize {
        self.lines.iter().filter(|line| line["type"] == "attempt.completed").count()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end; a process that a signal killed has no code.
    fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.stdout, &mut rest).unwrap();
        self.lines.extend(json_lines(&rest));
        (self.child.wait().unwrap().code(), self.lines)
    }
}

const RUN: [&str; 8] =
    ["run", TASK, "--tests", "test_adder.py", "--script", "script.jsonl", "--out", "out"];

fn resume(bench: &Bench, id: &str) -> Ended {
    bench.call(&["run", "--resume", id])
}

#[test]
fn session_stopped_by_a_signal_resumes_where_it_was() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut answers = script(&[WRONG]);
        answers.push(Answer::new(&[], fenced(SOLUTION)).delay(100_000));
        let bench = Bench::with(&answers);
        let mut running = Running::start(&bench, &RUN);
        running.until_attempts(1);
        let started = Instant::now();
        running.signal(signal);
        let (ended, lines) = running.end();
        assert_eq!(ended, Some(code));
        assert!(started.elapsed() < Duration::from_secs(20), "no sleep is waited out");
        let [.., interrupted, last] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(interrupted["type"], "session.interrupted");
        assert_eq!((&last["type"], &last["exit_code"]), (&"session.failed".into(), &code.into()));
        let session = bench.session();
        assert_eq!(
            (&session["status"], &session["exit_code"]),
            (&"interrupted".into(), &code.into())
        );
        assert!(!bench.path("out").exists());

        // The recorded answers are not asked for again: the script has none of them left. Nor need
        // the flags be said again.
        bench.script(&[Answer::new(&[], fenced(SOLUTION))]);
        let resumed = resume(&bench, session["id"].as_str().unwrap());
        assert_eq!(resumed.code, Some(0), "{resumed:?}");
        assert_eq!(bench.read("out/adder.py"), SOLUTION);
        let seqs: Vec<Value> = bench.attempts().iter().map(|one| one["seq"].clone()).collect();
        assert_eq!(seqs, [0, 1]);
    }
}

#[test]
fn a_signal_before_the_session_leaves_none() {
    let bench = Bench::with(&[]);
    // Slow to start, so that the signal meets the reading of the tests.
    bench.write(
        "test_adder.py",
        "import time\ntime.sleep(60)\nfrom adder import add\nassert add(1, 2) == 3\n",
    );
    let running = Running::start(&bench, &RUN);
    let pid = running.child.id().cast_signed();
    eventually("the tests run", || descendants(pid).iter().any(|one| one.name.contains("python")));
    running.signal(Signal::SIGINT);
    let (code, lines) = running.end();
    assert_eq!(code, Some(130));
    assert_eq!((lines.len(), &lines[0]["type"]), (1, &"session.failed".into()), "{lines:?}");
    assert!(bench.sessions().is_empty());
}

#[test]
fn kill_9_loses_at_most_the_attempt_in_flight() {
    let whole = parts::bench();
    assert_eq!(whole.call(&parts::RUN).code, Some(0));
    let slow = || parts::shapes().into_iter().map(|answer| answer.delay(20)).collect::<Vec<_>>();
    for (n, pause) in [(0, 60), (3, 25), (5, 0)] {
        let bench = parts::bench();
        bench.script(&slow());
        let mut running = Running::start(&bench, &parts::RUN);
        if n == 0 {
            eventually("a session", || !bench.sessions().is_empty());
        }
        running.until_attempts(n);
        sleep(Duration::from_millis(pause));
        running.signal(Signal::SIGKILL);
        let (_, lines) = running.end();
        let told = lines.iter().filter(|line| line["type"] == "attempt.completed").count();
        let stored = bench.attempts().len();
        assert!(stored == told || stored == told + 1, "told {told}, stored {stored}");
        let session = bench.session();
        let id = session["id"].as_str().unwrap();
        let shown = bench.call(&["sessions", "show", id]);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        if session["status"] == "solved" {
            continue; // it was done before the signal came
        }
        assert_eq!(session["status"], "running");
        let resumed = resume(&bench, id);
        assert_eq!(resumed.code, Some(0), "{resumed:?}");
        assert_eq!(bench.read("out/shapes.py"), whole.read("out/shapes.py"));
        assert_eq!(bench.attempts().len(), whole.attempts().len());
        let events = json_lines(&bench.call(&["events", "--json"]).stdout);
        assert!(events.iter().enumerate().all(|(at, event)| event["seq"] == at + 1));
    }
}

#[test]
fn kill_9_during_an_endless_loop_leaves_no_process() {
    let mut answers = prelude();
    answers
        .push(Answer::new(&[], fenced("def add(a, b):\n    while True:\n        pass")).repeat());
    let bench = Bench::with(&answers);
    let running = Running::start(&bench, &RUN);
    let pid = running.child.id().cast_signed();
    // A Python that has worked for half a second is the loop.
    let loops = |one: &Process| one.name.contains("python") && one.ticks > 50;
    eventually("the loop", || descendants(pid).iter().any(loops));
    let before: BTreeSet<(i32, u64)> = descendants(pid).iter().map(Process::identity).collect();
    assert!(before.len() >= 3, "helper, supervisor, jail: {before:?}");
    running.signal(Signal::SIGKILL);
    running.end();
    eventually("all are gone", || !processes().iter().any(|one| before.contains(&one.identity())));
    let ended = bench.call(&["sessions", "show", &bench.session_id()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn only_ended_unsolved_sessions_resume() {
    let mut answers = script(&[WRONG]);
    answers.push(Answer::new(&[], fenced(SOLUTION)).delay(100_000));
    let bench = Bench::with(&answers);
    let mut running = Running::start(&bench, &RUN);
    running.until_attempts(1);
    let id = bench.session_id();
    let pid = running.child.id();
    let busy = resume(&bench, &id);
    let told = format!("error: session `{id}` is in use by process {pid}\n");
    assert_eq!((busy.code, busy.stderr.as_str()), (Some(7), told.as_str()));
    running.signal(Signal::SIGKILL);
    running.end();
    bench.script(&script(&[SOLUTION]));
    let unconfined = bench.call(&["run", "--resume", &id, "--unsafe-no-sandbox"]);
    assert_eq!(unconfined.code, Some(3), "{unconfined:?}");
    assert_eq!(resume(&bench, &id).code, Some(0));
    let solved = resume(&bench, &id);
    let told = format!("error: session `{id}` is solved\n");
    assert_eq!((solved.code, solved.stderr.as_str()), (Some(7), told.as_str()));
    let unknown = resume(&bench, "nobody");
    let told = "error: no session `nobody`\nhint: `rune sessions list` lists all sessions\n";
    assert_eq!((unknown.code, unknown.stderr.as_str()), (Some(2), told));
}

/// A living process.
struct Process {
    pid: i32,
    parent: i32,
    name: String,
    /// Time on a processor, in hundredths of a second.
    ticks: u64,
    started: u64,
}

impl Process {
    /// What no later process shares.
    fn identity(&self) -> (i32, u64) {
        (self.pid, self.started)
    }
}

/// Every process that is not a zombie.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stat = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = text.rsplit_once(')')?;
        let (pid, name) = head.split_once(" (")?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = number(11)? + number(12)?;
        let process = Process {
            pid: pid.parse().ok()?,
            parent,
            name: name.to_owned(),
            ticks,
            started: number(19)?,
        };
        (fields[0] != "Z").then_some(process)
    };
    entries.filter_map(stat).collect()
}

fn descendants(of: i32) -> Vec<Process> {
    let mut family = vec![of];
    let mut found = Vec::new();
    let mut rest = processes();
    loop {
        let (ours, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|one| family.contains(&one.parent));
        if ours.is_empty() {
            return found;
        }
        family.extend(ours.iter().map(|one| one.pid));
        found.extend(ours);
        rest = others;
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "never came true: {what}");
        sleep(Duration::from_millis(20));
    }
}
