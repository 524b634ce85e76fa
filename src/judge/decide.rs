//! From what the processes reported to a verdict.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use super::harness::tail;
use super::record::CoordinatorRecord;
use super::record::RecordAuthor;
use super::verdict::Assurance;
use super::verdict::TestResult;
use super::verdict::TestStatus;
use super::verdict::Verdict;
use super::verdict::VerdictOutcome;
use crate::sandbox;
use crate::sandbox::ExitKind;

/// All that a verdict is made of.
pub(super) struct Evidence<'a> {
    run: &'a sandbox::ExecOutcome,
    same: ProcessReport<'a>,
    tester: Option<ProcessReport<'a>>,
    lies: Vec<&'a str>,
    findings: &'a [(String, u32, String)],
    screened: bool,
    /// Tests that have to be reported, where the run itself does not say.
    expected: Vec<String>,
}

/// What one process reported.
#[derive(Default)]
struct ProcessReport<'a> {
    tests: Vec<TestResult>,
    /// The test that had begun and not ended.
    running: Option<&'a str>,
    collected: Option<Vec<&'a str>>,
    raised: bool,
    limit: &'a str,
    given_up: Option<&'a str>,
    is_garbled: bool,
    has_ended: bool,
    exit: Option<ProcessExit<'a>>,
}

/// How a process ended.
#[derive(Clone, Copy)]
struct ProcessExit<'a> {
    why: &'a str,
    signal: i32,
    code: i32,
    cpu: f64,
    wall: f64,
    stdout: &'a str,
    stderr: &'a str,
}

impl ProcessExit<'_> {
    /// The outcome where a limit ended it.
    fn limit(&self) -> Option<VerdictOutcome> {
        match (self.why, self.signal) {
            ("cpu", _) => Some(VerdictOutcome::CpuLimit),
            ("wall", _) => Some(VerdictOutcome::WallLimit),
            ("output", _) => Some(VerdictOutcome::OutputLimit),
            // Nobody else sends it: the kernel was out of memory.
            ("", libc::SIGKILL) => Some(VerdictOutcome::MemoryLimit),
            _ => None,
        }
    }

    fn words(&self) -> String {
        match (self.why, self.signal, self.code) {
            ("cpu", ..) => "the processor time limit was reached (an endless loop?)".into(),
            ("wall", ..) => "the time limit was reached (an endless loop?)".into(),
            ("output", ..) => "it wrote without end".into(),
            ("over", ..) => "the other process ended".into(),
            (_, libc::SIGKILL, _) => "the memory limit was reached".into(),
            (_, libc::SIGSEGV, _) => "signal 11 killed it (too deep a recursion?)".into(),
            (_, 0, code) => format!("it exited with status {code}"),
            (_, signal, _) => format!("signal {signal} killed it"),
        }
    }
}

impl<'a> ProcessReport<'a> {
    fn take(&mut self, record: &'a CoordinatorRecord) {
        match record {
            CoordinatorRecord::Collected { ids, .. } => {
                self.collected.get_or_insert_default().extend(ids.iter().map(String::as_str));
            }
            CoordinatorRecord::Begin { id, .. } => self.running = Some(id),
            CoordinatorRecord::Test {
                id, status, message, trace, seconds, raised, limit, ..
            } => {
                self.running = None;
                if !is_good(*status) {
                    self.raised |= raised;
                    self.limit = if self.limit.is_empty() { limit } else { self.limit };
                }
                let (id, message, trace) = (id.clone(), message.clone(), trace.clone());
                let (status, seconds) = (*status, *seconds);
                self.tests.push(TestResult { id, status, message, trace, seconds });
            }
            CoordinatorRecord::End { .. } => self.has_ended = true,
            CoordinatorRecord::Garbled { .. } => self.is_garbled = true,
            CoordinatorRecord::Ended { why, signal, code, cpu, wall, stdout, stderr, .. } => {
                let (signal, code, cpu, wall) = (*signal, *code, *cpu, *wall);
                self.exit = Some(ProcessExit { why, signal, code, cpu, wall, stdout, stderr });
            }
            _ => {}
        }
    }

    /// Whether it came to its end by itself.
    fn is_whole(&self) -> bool {
        let exit = self.exit.is_some_and(|exit| exit.why.is_empty() && exit.signal == 0);
        exit && self.has_ended && !self.is_garbled && self.collected.is_some()
    }

    fn all_passed(&self) -> bool {
        let mut statuses = self.tests.iter().map(|test| test.status);
        statuses.clone().all(is_good) && statuses.any(|status| status == TestStatus::Passed)
    }
}

/// Whether a test with this status is no failure.
fn is_good(status: TestStatus) -> bool {
    matches!(status, TestStatus::Passed | TestStatus::Skipped | TestStatus::ExpectedFailure)
}

impl<'a> Evidence<'a> {
    pub(super) fn new(records: &'a [CoordinatorRecord], run: &'a sandbox::ExecOutcome) -> Self {
        let mut evidence = Self {
            run,
            same: ProcessReport::default(),
            tester: None,
            lies: Vec::new(),
            findings: &[],
            screened: false,
            expected: Vec::new(),
        };
        for record in records {
            evidence.take(record);
        }
        evidence
    }

    fn take(&mut self, record: &'a CoordinatorRecord) {
        match record {
            CoordinatorRecord::Lie { reason } => self.lies.push(reason),
            CoordinatorRecord::GivenUp { reason } => {
                self.tester.get_or_insert_default().given_up = Some(reason);
            }
            CoordinatorRecord::Screen { findings } => {
                (self.findings, self.screened) = (findings, true);
            }
            CoordinatorRecord::Collected { who, .. }
            | CoordinatorRecord::Begin { who, .. }
            | CoordinatorRecord::Test { who, .. }
            | CoordinatorRecord::End { who }
            | CoordinatorRecord::Garbled { who }
            | CoordinatorRecord::Ended { who, .. } => match who {
                RecordAuthor::Same => self.same.take(record),
                RecordAuthor::Tester => self.tester.get_or_insert_default().take(record),
                RecordAuthor::Collector | RecordAuthor::Worker | RecordAuthor::Screen => {}
            },
            _ => {}
        }
    }

    /// Whether the run of tests and solution together came to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.same.is_whole()
    }

    /// Whether a test file could not be imported, so that its tests are not known.
    pub(super) fn has_broken_file(&self) -> bool {
        self.same
            .tests
            .iter()
            .any(|test| test.status == TestStatus::Error && !test.id.contains("::"))
    }

    /// Adds tests that the suite holds; `is_whole` where these are all.
    pub(super) fn expect(&mut self, ids: &[String], is_whole: bool) {
        if is_whole || self.same.collected.is_none() {
            self.expected = ids.to_vec();
        }
        self.spread();
    }

    /// What kept a file from being imported is what became of each of its tests.
    fn spread(&mut self) {
        let of = |id: &str| id.split("::").next().map(str::to_owned);
        let (broken, mut tests): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.same.tests).into_iter().partition(|test| {
                let inside = |id: &String| of(id).as_ref() == Some(&test.id) && *id != test.id;
                test.status == TestStatus::Error && self.expected.iter().any(inside)
            });
        for test in broken {
            let inside = self.expected.iter().filter(|id| of(id).as_ref() == Some(&test.id));
            tests.extend(inside.map(|id| TestResult { id: id.clone(), ..test.clone() }));
        }
        self.same.tests = tests;
    }

    pub(super) fn decide(mut self) -> Verdict {
        self.complete();
        let (outcome, assurance, reason) = self.outcome();
        let exit = self.same.exit;
        let (tests, lies) = (std::mem::take(&mut self.same.tests), self.lied_tests());
        let tests: Vec<TestResult> =
            tests.into_iter().map(|test| lies.get(&test.id).cloned().unwrap_or(test)).collect();
        let count = |status: TestStatus| tests.iter().filter(|test| test.status == status).count();
        let excused = count(TestStatus::Skipped) + count(TestStatus::ExpectedFailure);
        Verdict {
            outcome,
            assurance,
            reason,
            n_passed: count(TestStatus::Passed),
            n_total: tests.len() - excused,
            tests,
            cpu: exit.map_or(self.run.cpu, |exit| Duration::from_secs_f64(exit.cpu.max(0.0))),
            wall: exit.map_or(self.run.wall, |exit| Duration::from_secs_f64(exit.wall.max(0.0))),
            stdout: exit.map_or_else(|| tail(&self.run.stdout), |exit| exit.stdout.to_owned()),
            stderr: exit.map_or_else(|| tail(&self.run.stderr), |exit| exit.stderr.to_owned()),
        }
    }

    /// Adds a row for the test that was cut off, and for those that were never run.
    fn complete(&mut self) {
        if let Some(id) = self.same.running.take() {
            let message = format!("the process ended during this test: {}", self.ending());
            self.same.tests.push(unrun(id, TestStatus::Error, message));
        }
        let reported: HashSet<&str> = self.same.tests.iter().map(|test| test.id.as_str()).collect();
        let collected = self.same.collected.iter().flatten().copied();
        let all = self.expected.iter().map(String::as_str).chain(collected);
        let mut seen = HashSet::new();
        let missing: Vec<TestResult> = all
            .filter(|id| !reported.contains(id) && seen.insert(*id))
            .map(|id| unrun(id, TestStatus::Missing, "the test was not run".to_owned()))
            .collect();
        // Tests of a class or file whose set-up failed are reported by that alone.
        if !self.same.is_whole() || reported.is_empty() || !self.expected.is_empty() {
            self.same.tests.extend(missing);
        }
    }

    /// How the run ended, in words.
    fn ending(&self) -> String {
        match self.run.exit {
            ExitKind::WallLimit => "the time limit was reached (an endless loop?)".into(),
            ExitKind::CpuLimit => "the processor time limit was reached (an endless loop?)".into(),
            ExitKind::MemoryLimit => "the memory limit was reached".into(),
            ExitKind::OutputLimit => "it wrote without end".into(),
            ExitKind::ProcessLimit => "the limit on processes and threads was reached".into(),
            ExitKind::StackLimit => "the stack was full (an endless recursion?)".into(),
            ExitKind::Code(_) | ExitKind::Signal(_) => {
                self.same.exit.map_or_else(|| "it was killed".to_owned(), |exit| exit.words())
            }
        }
    }

    fn outcome(&self) -> (VerdictOutcome, Option<Assurance>, String) {
        let failed = |outcome| (outcome, None, String::new());
        if let Some(outcome) = self.limit() {
            return failed(outcome);
        }
        let same = &self.same;
        if same.is_garbled {
            return failed(VerdictOutcome::HarnessVoid(
                "the report of the tests is garbled".into(),
            ));
        }
        if !same.all_passed() || !same.is_whole() {
            return failed(self.failure());
        }
        self.confirmed()
    }

    /// The limit that ended the run.
    fn limit(&self) -> Option<VerdictOutcome> {
        if let Some(outcome) = self.same.exit.and_then(|exit| exit.limit()) {
            return Some(outcome);
        }
        if self.same.exit.is_none() {
            match self.run.exit {
                ExitKind::WallLimit => return Some(VerdictOutcome::WallLimit),
                ExitKind::CpuLimit => return Some(VerdictOutcome::CpuLimit),
                ExitKind::MemoryLimit => return Some(VerdictOutcome::MemoryLimit),
                ExitKind::OutputLimit => return Some(VerdictOutcome::OutputLimit),
                ExitKind::ProcessLimit => return Some(VerdictOutcome::ProcessLimit),
                ExitKind::StackLimit => return Some(VerdictOutcome::StackLimit),
                ExitKind::Code(_) | ExitKind::Signal(_) => {}
            }
        }
        match self.same.limit {
            "memory" => Some(VerdictOutcome::MemoryLimit),
            "processes" => Some(VerdictOutcome::ProcessLimit),
            _ => None,
        }
    }

    /// The outcome of a run that did not pass.
    fn failure(&self) -> VerdictOutcome {
        let tests = &self.same.tests;
        let any = |status: TestStatus| tests.iter().any(|test| test.status == status);
        let nothing = tests.iter().all(|test| is_good(test.status));
        if nothing && self.same.is_whole() {
            VerdictOutcome::NoTests
        } else if any(TestStatus::Error) || self.same.raised {
            let is_wrong = any(TestStatus::Failed) && !self.same.raised;
            if is_wrong { VerdictOutcome::Wrong } else { VerdictOutcome::Exception }
        } else if any(TestStatus::Failed) {
            VerdictOutcome::Wrong
        } else if nothing {
            let said = self.same.exit.map_or("", |exit| last_line(exit.stderr));
            VerdictOutcome::HarnessVoid(format!("the tests did not end: {}: {said}", self.ending()))
        } else {
            VerdictOutcome::HarnessVoid("an expected test was not reported".into())
        }
    }

    /// What the second run makes of a pass.
    fn confirmed(&self) -> (VerdictOutcome, Option<Assurance>, String) {
        if let Some(lie) = self.lies.first() {
            return (
                VerdictOutcome::Wrong,
                None,
                format!("the solution deceives its tests: {lie}"),
            );
        }
        if let Some(list) = self.difference() {
            return (VerdictOutcome::HarnessVoid(list), None, String::new());
        }
        let Some(reason) = self.doubt() else {
            return (VerdictOutcome::Pass, Some(Assurance::Separate), String::new());
        };
        match self.findings.first() {
            _ if !self.screened => (
                VerdictOutcome::Unconfirmed(format!("{reason}; the screen did not run")),
                None,
                String::new(),
            ),
            Some((path, line, what)) => {
                let reason = format!("{reason}; the solution {what} ({path}:{line})");
                (VerdictOutcome::Unconfirmed(reason), None, String::new())
            }
            None => (VerdictOutcome::Pass, Some(Assurance::SameProcess), reason),
        }
    }

    /// Tests of the tester that the first run does not have: somebody has taken them away.
    fn difference(&self) -> Option<String> {
        let tester = self.tester.as_ref()?.collected.as_ref()?;
        let same: HashSet<&str> = self.same.tests.iter().map(|test| test.id.as_str()).collect();
        let reported: HashSet<&str> =
            self.tester.as_ref()?.tests.iter().map(|test| test.id.as_str()).collect();
        let lost: Vec<&str> = tester
            .iter()
            .copied()
            .filter(|id| !same.contains(id) && reported.contains(id))
            .take(5)
            .collect();
        (!lost.is_empty()).then(|| format!("tests were taken away: {}", lost.join(", ")))
    }

    /// Why the pass is not confirmed: the first test that did not pass a second time, and its
    /// reason.
    fn doubt(&self) -> Option<String> {
        let Some(tester) = &self.tester else {
            return Some("there was no second run".to_owned());
        };
        let again: HashMap<&str, &TestResult> =
            tester.tests.iter().map(|test| (test.id.as_str(), test)).collect();
        let is_confirmed = |test: &TestResult| {
            again.get(test.id.as_str()).is_some_and(|again| again.status == test.status)
        };
        let mut open = self.same.tests.iter().filter(|test| !is_confirmed(test));
        let first = open.next()?;
        let n_more = open.count();
        let elsewhere = tester.tests.iter().find(|test| !is_good(test.status));
        let shown = again.get(first.id.as_str()).copied().or(elsewhere);
        let reason = match (shown, tester.given_up, tester.exit) {
            (Some(test), ..) => last_line(&test.message).to_owned(),
            (None, Some(reason), _) => reason.to_owned(),
            (None, None, Some(exit)) => exit.words(),
            (None, None, None) => format!("it was not run again: {}", self.ending()),
        };
        let more = if n_more == 0 { String::new() } else { format!(", and {n_more} more") };
        Some(format!("`{}` was not confirmed{more}: {reason}", first.id))
    }

    /// The tests in which the solution was caught, by their ids.
    fn lied_tests(&self) -> HashMap<String, TestResult> {
        if self.lies.is_empty() {
            return HashMap::new();
        }
        let tests = self.tester.iter().flat_map(|tester| &tester.tests);
        let bad = tests.filter(|test| !is_good(test.status));
        bad.map(|test| (test.id.clone(), test.clone())).collect()
    }
}

/// The line of a message that says most: for an exception the last one.
fn last_line(message: &str) -> &str {
    message.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").trim()
}

/// A test that was not run to its end.
fn unrun(id: &str, status: TestStatus, message: String) -> TestResult {
    TestResult { id: id.to_owned(), status, message, trace: String::new(), seconds: 0.0 }
}
