//! Decides the verdict from the reports of the processes.

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

/// Everything that a verdict is based on.
pub(super) struct Evidence<'a> {
    run: &'a sandbox::ExecOutcome,
    /// Report of the process with both tests and solution, which may be forged.
    same: ProcessReport<'a>,
    /// Report of the tester, if it ran.
    tester: Option<ProcessReport<'a>>,
    /// Reasons why the tester caught the solution in deceiving the tests.
    lies: Vec<&'a str>,
    /// Suspicious constructs in the solution: path, line, description.
    findings: &'a [(String, u32, String)],
    screened: bool,
    /// Tests that must be reported, if the run itself did not collect them.
    expected: Vec<String>,
}

/// The report of one process.
#[derive(Default)]
struct ProcessReport<'a> {
    tests: Vec<TestResult>,
    /// The test that has started but not ended.
    running: Option<&'a str>,
    collected: Option<Vec<&'a str>>,
    raised: bool,
    limit: &'a str,
    given_up: Option<&'a str>,
    is_garbled: bool,
    has_ended: bool,
    exit: Option<ProcessExit<'a>>,
}

/// The end of a process, with its resource usage and the end of its output.
#[derive(Clone, Copy)]
struct ProcessExit<'a> {
    /// The reason for which the coordinator killed it; empty if it did not.
    why: &'a str,
    signal: i32,
    code: i32,
    cpu: f64,
    wall: f64,
    stdout: &'a str,
    stderr: &'a str,
}

impl ProcessExit<'_> {
    /// Returns the outcome if a limit ended the process.
    fn limit(&self) -> Option<VerdictOutcome> {
        match (self.why, self.signal) {
            ("cpu", _) => Some(VerdictOutcome::CpuLimit),
            ("wall", _) => Some(VerdictOutcome::WallLimit),
            ("output", _) => Some(VerdictOutcome::OutputLimit),
            // Nobody else sends it: the kernel killed the process for lack of memory.
            ("", libc::SIGKILL) => Some(VerdictOutcome::MemoryLimit),
            _ => None,
        }
    }

    /// Describes the end, for a message of a test.
    fn words(&self) -> String {
        match (self.why, self.signal, self.code) {
            ("cpu", ..) => "the processor time limit was reached (an endless loop?)".into(),
            ("wall", ..) => "the time limit was reached (an endless loop?)".into(),
            ("output", ..) => "the output limit was reached".into(),
            ("over", ..) => "the other process ended".into(),
            (_, libc::SIGKILL, _) => "the memory limit was reached".into(),
            (_, libc::SIGSEGV, _) => "signal 11 killed it (infinite recursion?)".into(),
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
                    // The first limit counts: later tests may fail only because of it.
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

    /// Whether the process ran all its tests, exited by itself and sent only valid records.
    fn is_whole(&self) -> bool {
        let exit = self.exit.is_some_and(|exit| exit.why.is_empty() && exit.signal == 0);
        exit && self.has_ended && !self.is_garbled && self.collected.is_some()
    }

    fn all_passed(&self) -> bool {
        let mut statuses = self.tests.iter().map(|test| test.status);
        statuses.clone().all(is_good) && statuses.any(|status| status == TestStatus::Passed)
    }
}

/// Whether a test with this status is not a failure.
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
                // A verdict never rests on what the worker says of itself.
                RecordAuthor::Collector | RecordAuthor::Worker | RecordAuthor::Screen => {}
            },
            _ => {}
        }
    }

    /// Whether the run of tests and solution together is complete.
    pub(super) fn is_whole(&self) -> bool {
        self.same.is_whole()
    }

    /// Whether a test file could not be imported, so that its tests are unknown.
    pub(super) fn has_broken_file(&self) -> bool {
        // The id of a file has no `::`.
        self.same
            .tests
            .iter()
            .any(|test| test.status == TestStatus::Error && !test.id.contains("::"))
    }

    /// Sets the tests of the suite, as collected without the solution; `is_whole` if these are all
    /// of them.
    pub(super) fn expect(&mut self, ids: &[String], is_whole: bool) {
        // The ids of generated tests depend on the solution: then the run's own list is better.
        if is_whole || self.same.collected.is_none() {
            self.expected = ids.to_vec();
        }
        self.spread();
    }

    /// Replaces the error of a file that could not be imported by one error per test of the file.
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

    /// Decides the verdict from all reports.
    pub(super) fn decide(mut self) -> Verdict {
        self.complete();
        let (outcome, assurance, reason) = self.outcome();
        let exit = self.same.exit;
        // A test that caught the solution lying shows the tester's result, not the forged pass.
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

    /// Adds a result for the test that was interrupted, and for tests that did not run.
    fn complete(&mut self) {
        if let Some(id) = self.same.running.take() {
            let message = format!("the process ended during this test: {}", self.ending());
            self.same.tests.push(unrun(id, TestStatus::Error, message));
        }
        let reported: HashSet<&str> = self.same.tests.iter().map(|test| test.id.as_str()).collect();
        let collected = self.same.collected.iter().flatten().copied();
        let known = self.expected.iter().map(String::as_str).chain(collected);
        let mut seen = HashSet::new();
        let missing: Vec<TestResult> = known
            .filter(|id| !reported.contains(id) && seen.insert(*id))
            .map(|id| unrun(id, TestStatus::Missing, "the test was not run".to_owned()))
            .collect();
        // In a complete run, the tests of a class or file whose setup failed are missing on
        // purpose: the framework reports only the failed setup.
        if !self.same.is_whole() || reported.is_empty() || !self.expected.is_empty() {
            self.same.tests.extend(missing);
        }
    }

    /// Describes how the run ended.
    fn ending(&self) -> String {
        match self.run.exit {
            ExitKind::WallLimit => "the time limit was reached (an endless loop?)".into(),
            ExitKind::CpuLimit => "the processor time limit was reached (an endless loop?)".into(),
            ExitKind::MemoryLimit => "the memory limit was reached".into(),
            ExitKind::OutputLimit => "the output limit was reached".into(),
            ExitKind::ProcessLimit => "the limit on processes and threads was reached".into(),
            ExitKind::StackLimit => "the stack overflowed (infinite recursion?)".into(),
            ExitKind::Code(_) | ExitKind::Signal(_) => {
                self.same.exit.map_or_else(|| "it was killed".to_owned(), |exit| exit.words())
            }
        }
    }

    /// Returns the outcome, the assurance of a pass, and the reason for both. The order of the
    /// checks goes from the most specific cause to the least.
    fn outcome(&self) -> (VerdictOutcome, Option<Assurance>, String) {
        let failed = |outcome| (outcome, None, String::new());
        if let Some(outcome) = self.limit() {
            return failed(outcome);
        }
        let same = &self.same;
        if same.is_garbled {
            return failed(VerdictOutcome::HarnessVoid(
                "the test process sent invalid records".into(),
            ));
        }
        if !same.all_passed() || !same.is_whole() {
            return failed(self.failure());
        }
        self.confirmed()
    }

    /// Returns the outcome if a limit ended the run.
    fn limit(&self) -> Option<VerdictOutcome> {
        if let Some(outcome) = self.same.exit.and_then(|exit| exit.limit()) {
            return Some(outcome);
        }
        // Without a record of the process's end the whole jail was stopped, not this process alone.
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

    /// Returns the outcome of a run that did not pass and that no limit ended.
    fn failure(&self) -> VerdictOutcome {
        let tests = &self.same.tests;
        let any = |status: TestStatus| tests.iter().any(|test| test.status == status);
        let none_failed = tests.iter().all(|test| is_good(test.status));
        if none_failed && self.same.is_whole() {
            VerdictOutcome::NoTests
        } else if any(TestStatus::Error) || self.same.raised {
            // A failed check says more about the solution than an error of the framework, unless
            // the test that failed was itself ended by an exception.
            let is_wrong = any(TestStatus::Failed) && !self.same.raised;
            if is_wrong { VerdictOutcome::Wrong } else { VerdictOutcome::Exception }
        } else if any(TestStatus::Failed) {
            VerdictOutcome::Wrong
        } else if none_failed {
            let stderr = self.same.exit.map_or("", |exit| last_line(exit.stderr));
            let ending = self.ending();
            VerdictOutcome::HarnessVoid(format!("the test run is incomplete: {ending}: {stderr}"))
        } else {
            VerdictOutcome::HarnessVoid("an expected test was not reported".into())
        }
    }

    /// Returns the outcome of a pass in the first run, after the second run.
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
        // The tester could not repeat every test, so it rests on the first run: acceptable only if
        // the solution has no construct by which it could have forged it.
        match self.findings.first() {
            _ if !self.screened => (
                VerdictOutcome::Unconfirmed(format!("{reason}; the solution was not screened")),
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

    /// Describes tests that the tester ran but the first run did not: the solution has removed
    /// them.
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
        (!lost.is_empty()).then(|| format!("the solution removed tests: {}", lost.join(", ")))
    }

    /// Describes why the pass is not confirmed: the first test that did not pass again, and its
    /// reason. `None` if all are confirmed.
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
        // If the test itself was not reported, another failure of the tester (such as a file that
        // it could not import) explains it.
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

    /// The tester's failed tests by id, if it caught the solution lying.
    fn lied_tests(&self) -> HashMap<String, TestResult> {
        if self.lies.is_empty() {
            return HashMap::new();
        }
        let tests = self.tester.iter().flat_map(|tester| &tester.tests);
        let bad = tests.filter(|test| !is_good(test.status));
        bad.map(|test| (test.id.clone(), test.clone())).collect()
    }
}

/// Returns the last non-empty line of a message, which names the exception.
fn last_line(message: &str) -> &str {
    message.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").trim()
}

/// The result of a test that did not run to its end.
fn unrun(id: &str, status: TestStatus, message: String) -> TestResult {
    TestResult { id: id.to_owned(), status, message, trace: String::new(), seconds: 0.0 }
}
