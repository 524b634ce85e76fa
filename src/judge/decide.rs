//! From what arrived on the channel to a verdict.

use std::time::Duration;

use super::channel::Record;
use super::collect::Collected;
use super::collect::Expected;
use super::harness::tail;
use super::verdict::Assurance;
use super::verdict::Outcome;
use super::verdict::Status;
use super::verdict::TestResult;
use super::verdict::Verdict;
use crate::sandbox;
use crate::sandbox::Exit;

/// All that a verdict is made of.
pub(super) struct Evidence<'a> {
    pub(super) collected: &'a Collected,
    pub(super) records: Result<Vec<Record>, String>,
    pub(super) canary: &'a str,
    pub(super) run: &'a sandbox::Outcome,
}

/// A test's row with what the suite says of it; `None` for a test that only the run knows.
type Row<'a> = (TestResult, Option<&'a Expected>);

impl Verdict {
    /// The verdict of a suite that can't fail.
    pub(super) fn of_nothing() -> Self {
        Self {
            outcome: Outcome::NoTests,
            assurance: None,
            reason: String::new(),
            tests: Vec::new(),
            n_passed: 0,
            n_total: 0,
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            stdout: String::new(),
            stderr: String::new(),
        }
    }
}

impl<'a> Evidence<'a> {
    pub(super) fn decide(&self) -> Verdict {
        let rows = self.rows();
        let outcome = self.outcome(&rows);
        let passed = rows.iter().filter(|(test, _)| test.status == Status::Passed).count();
        let total = rows.iter().filter(|row| !excused(row)).count();
        Verdict {
            assurance: (outcome == Outcome::Pass).then_some(Assurance::SameProcess),
            reason: String::new(),
            outcome,
            n_passed: passed,
            n_total: total,
            tests: rows.into_iter().map(|(test, _)| test).collect(),
            cpu: self.run.cpu,
            wall: self.run.wall,
            stdout: tail(&self.run.stdout),
            stderr: tail(&self.run.stderr),
        }
    }

    fn records(&self) -> &[Record] {
        self.records.as_deref().unwrap_or_default()
    }

    fn is_canary(&self, id: &str) -> bool {
        id.contains(self.canary)
    }

    /// Expected tests in the suite's order, each with its cases, then those that only the run knows.
    fn rows(&self) -> Vec<Row<'a>> {
        let reported = self.reported();
        let mut rows = Vec::new();
        for expected in self.collected.expected() {
            let own = reported.iter().filter(|(base, _)| *base == expected.id);
            let before = rows.len();
            rows.extend(own.map(|(_, test)| (test.clone(), Some(expected))));
            if rows.len() == before {
                rows.push((unheard(&expected.id), Some(expected)));
            }
        }
        let known = |base: &str| self.collected.expected().any(|expected| expected.id == base);
        let others = reported.iter().filter(|(base, _)| !known(base));
        rows.extend(others.map(|(_, test)| (test.clone(), None)));
        rows
    }

    /// Tests that were reported, and one that was cut off, each after its id without the case.
    fn reported(&self) -> Vec<(&str, TestResult)> {
        let mut tests = Vec::new();
        let mut running = None;
        for record in self.records() {
            match record {
                Record::Begin { id, case } if !self.is_canary(id) => running = Some((id, case)),
                Record::Test { id, case, status, message, trace } if !self.is_canary(id) => {
                    running = None;
                    let id_and_case = format!("{id}{case}");
                    let (status, message, trace) = (*status, message.clone(), trace.clone());
                    tests.push((
                        id.as_str(),
                        TestResult { id: id_and_case, status, message, trace, seconds: 0.0 },
                    ));
                }
                _ => {}
            }
        }
        if let Some((id, case)) = running {
            let message = format!("the process ended during this test: {}", self.ending());
            let cut =
                TestResult { status: Status::Error, message, ..unheard(&format!("{id}{case}")) };
            tests.push((id, cut));
        }
        tests
    }

    /// How the run ended, in words.
    fn ending(&self) -> String {
        match self.run.exit {
            Exit::Code(code) => format!("it exited with status {code}"),
            Exit::Signal(signal) => format!("signal {signal} killed it"),
            Exit::WallLimit => "the time limit was reached (an endless loop?)".into(),
            Exit::CpuLimit => "the processor time limit was reached (an endless loop?)".into(),
            Exit::MemoryLimit => "the memory limit was reached".into(),
            Exit::OutputLimit => "it wrote without end".into(),
        }
    }

    fn outcome(&self, rows: &[Row<'_>]) -> Outcome {
        if let Err(reason) = &self.records {
            return Outcome::HarnessVoid(reason.clone());
        }
        let limit = match self.run.exit {
            Exit::CpuLimit => Some(Outcome::CpuLimit),
            Exit::WallLimit => Some(Outcome::WallLimit),
            Exit::MemoryLimit => Some(Outcome::MemoryLimit),
            Exit::OutputLimit => Some(Outcome::OutputLimit),
            Exit::Code(_) | Exit::Signal(_) => None,
        };
        limit.or_else(|| self.fault(rows)).unwrap_or_else(|| judged(rows))
    }

    /// What is wrong with the reports, if anything: changed, cut off, doubled, without canaries.
    fn fault(&self, rows: &[Row<'_>]) -> Option<Outcome> {
        let void = |reason: &str| Some(Outcome::HarnessVoid(reason.to_owned()));
        let records = self.records();
        let tests = || records.iter().filter(|record| matches!(record, Record::Test { .. }));
        match records.last() {
            Some(Record::Tamper { message }) => return void(message),
            Some(Record::End { n }) if *n != tests().count().to_string() => {
                return void("the closing record does not count what was reported");
            }
            Some(Record::End { .. }) => {}
            _ if self.run.exit == Exit::Code(0) => {
                return void("the program ended before its tests did");
            }
            _ => return Some(Outcome::Exception),
        }
        let canaries = tests().filter_map(|record| match record {
            Record::Test { id, status, .. } if self.is_canary(id) => Some(*status),
            _ => None,
        });
        let (failed, other): (Vec<Status>, _) =
            canaries.partition(|status| *status == Status::Failed);
        // Where nothing could be collected there is no place for a canary, and no pass either.
        let failing =
            rows.iter().any(|(test, _)| matches!(test.status, Status::Failed | Status::Error));
        if !other.is_empty() || (!failing && failed.len() != self.collected.n_canaries()) {
            return void("a check that must fail did not");
        }
        self.doubled().and_then(|id| void(&format!("`{id}` was reported twice")))
    }

    /// A test that was reported more than once.
    fn doubled(&self) -> Option<String> {
        let mut ids: Vec<String> = self.reported().into_iter().map(|(_, test)| test.id).collect();
        ids.sort();
        ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
    }
}

/// A test of which nothing was heard.
fn unheard(id: &str) -> TestResult {
    let message = "the test was not reported".to_owned();
    TestResult {
        id: id.to_owned(),
        status: Status::Missing,
        message,
        trace: String::new(),
        seconds: 0.0,
    }
}

/// Whether the suite itself says that this test need not pass.
fn excused((test, expected): &Row<'_>) -> bool {
    expected.is_none_or(|expected| expected.optional)
        && matches!(test.status, Status::Skipped | Status::ExpectedFailure)
}

/// The outcome of a complete, honest run.
fn judged(rows: &[Row<'_>]) -> Outcome {
    let open = || rows.iter().filter(|row| !excused(row)).map(|(test, _)| test);
    let any = |status: Status| open().any(|test| test.status == status);
    if rows.iter().all(|(test, _)| test.status == Status::Skipped) {
        Outcome::NoTests
    } else if open().any(|test| test.message.starts_with("MemoryError")) {
        Outcome::MemoryLimit
    } else if any(Status::Failed) || any(Status::Skipped) || any(Status::ExpectedFailure) {
        Outcome::Wrong
    } else if any(Status::Error) {
        Outcome::Exception
    } else if any(Status::Missing) {
        Outcome::HarnessVoid("an expected test was not reported".into())
    } else if open().any(|test| test.status == Status::Passed) {
        Outcome::Pass
    } else {
        Outcome::NoTests
    }
}
