//! `rune judge`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::context::Context;
use crate::cli::context::GlobalArgs;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::output::escape;
use crate::cli::output::escape_line;
use crate::cli::output::paint;
use crate::cli::runtime;
use crate::cli::screen;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::durable;
use crate::error_class::ErrorClass;
use crate::event::Event;
use crate::judge::Assurance;
use crate::judge::JudgeReport;
use crate::judge::JudgeRequest;
use crate::judge::PytestSource;
use crate::judge::TestResult;
use crate::judge::TestStatus;
use crate::judge::Verdict;
use crate::judge::VerdictOutcome;
use crate::judge::junit_xml;
use crate::sandbox::Limits;

/// Run tests against code in the sandbox, and report whether the result can be trusted
///
/// Tests are unittest, pytest or plain-assert files. They run together with the files around them:
/// helpers, conftest.py, data files and pytest's configuration. A pass is confirmed by a second run
/// with the solution in a separate process, where it cannot reach the tests; the last line says
/// whether that was possible. The second run may take ten times as long as the first plus twenty
/// seconds, but no more than four times the configured limits. There the solution can open data
/// files in the tests' folder, except those that the tests themselves read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune judge primes.py --tests test_primes.py
  rune judge src --tests tests --lib vendor --python .venv/bin/python
  rune judge build --tests tests --junit report.xml --json

Exit code 0 means that every test passed and the result can be trusted; 1 means that it did not.")]
pub(super) struct JudgeArgs {
    /// The code: a file, or a folder of importable modules
    solution: PathBuf,
    /// The tests: a file or a folder
    #[arg(long, value_name = "PATH")]
    tests: PathBuf,
    /// Folder of Python packages that tests and code may import; repeatable
    #[arg(long, value_name = "DIR")]
    lib: Vec<PathBuf>,
    /// Python interpreter for the tests [default: `sandbox.python`, else the first `python3` in
    /// PATH]
    #[arg(long, value_name = "PATH")]
    python: Option<String>,
    /// Also write a JUnit XML report to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl JudgeArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let python = self.python.clone().map(toml::Value::String);
        python.into_iter().map(|python| ("sandbox.python", python)).collect()
    }

    fn request(&self, context: &Context) -> JudgeRequest {
        let config = &context.config;
        let configured = (!config.run.lib.is_empty()).then(|| PathBuf::from(&config.run.lib));
        let libs =
            if self.lib.is_empty() { configured.into_iter().collect() } else { self.lib.clone() };
        let python = &config.sandbox.python;
        JudgeRequest {
            solution: self.solution.clone(),
            tests: self.tests.clone(),
            libs,
            python: (!python.is_empty()).then(|| PathBuf::from(python)),
            limits: Limits::from(&config.sandbox),
            pytest: PytestSource {
                home: context.home.clone(),
                python: context.python().unwrap_or_default(),
            },
        }
    }
}

/// Reports a failure to judge as the only JSON line.
pub(super) fn refuse(globals: &GlobalArgs, error: &anyhow::Error) {
    if globals.json() && !exit::is_broken_pipe(error) {
        let exit_code = i32::from(exit::code(error));
        let event = Event::JudgeFailed { exit_code, error: format!("{error:#}") };
        screen::print_only_line(&event);
    }
}

pub(super) fn run(context: &Context, args: &JudgeArgs) -> anyhow::Result<ExitCode> {
    context.make_home()?;
    let JudgeReport { verdict, left_out } = judge(&args.request(context))?;
    for omitted in left_out.iter().filter(|_| !context.quiet && !context.json) {
        output::note(&format!("warning: left out {omitted}"));
    }
    if let Some(path) = &args.junit {
        let name = args.tests.display().to_string();
        durable::write(path, junit_xml(&name, &verdict).as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let code = if verdict.passed() { 0 } else { ErrorClass::Unsolved.exit_code() };
    if context.json {
        Screen::new(context).report_all(&events(&verdict, code));
    } else {
        output::print(&report(context, &verdict))?;
    }
    Ok(ExitCode::from(code))
}

fn judge(request: &JudgeRequest) -> anyhow::Result<JudgeReport> {
    let sandbox = workflow::sandbox()?;
    let (request, sandbox) = (&request, &sandbox);
    runtime::block_on(
        |shutdown| async move { Ok(shutdown.or_stop(request.judge(sandbox)).await??) },
    )
}

fn events(verdict: &Verdict, code: u8) -> Vec<Event> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let of_test = |test: &TestResult| Event::JudgeTest {
        id: test.id.clone(),
        status: test.status.as_str().to_owned(),
        message: test.message.clone(),
        seconds: test.seconds,
    };
    let assurance = match (&verdict.outcome, verdict.assurance) {
        (VerdictOutcome::Unconfirmed(_), _) => Some("unconfirmed"),
        (_, assurance) => assurance.map(Assurance::as_str),
    };
    let completed = Event::JudgeCompleted {
        outcome: verdict.outcome.as_str().to_owned(),
        assurance: assurance.map(str::to_owned),
        reason: verdict.why().to_owned(),
        n_passed: count(verdict.n_passed),
        n_total: count(verdict.n_total),
        seconds: verdict.wall.as_secs_f64(),
        exit_code: i32::from(code),
    };
    verdict.tests.iter().map(of_test).chain([completed]).collect()
}

/// Renders a row for each test that did not pass, the counts, and whether to trust the result.
fn report(context: &Context, verdict: &Verdict) -> String {
    let is_shown = |test: &&TestResult| context.verbose || test.status != TestStatus::Passed;
    let rows: Vec<_> =
        verdict.tests.iter().filter(is_shown).map(|test| row(context, test)).collect();
    let style = if verdict.passed() { "32" } else { "31" };
    let counts = format!("{} in {:.1} s", counts(verdict), verdict.wall.as_secs_f64());
    let counts = paint(&counts, style, context.color);
    format!("{}{counts}\n{}\n", output::table(&rows), escape(&describe_assurance(verdict)))
}

fn row(context: &Context, test: &TestResult) -> Vec<String> {
    let style = match test.status {
        TestStatus::Passed => "32",
        TestStatus::Skipped | TestStatus::ExpectedFailure => "33",
        TestStatus::Failed | TestStatus::Error | TestStatus::Missing => "31",
    };
    let reason = test.message.lines().next().unwrap_or_default();
    vec![
        paint(words(test.status), style, context.color),
        escape_line(&test.id).into_owned(),
        format!("{:.2} s", test.seconds),
        escape_line(reason).into_owned(),
    ]
}

fn words(status: TestStatus) -> &'static str {
    match status {
        TestStatus::ExpectedFailure => "expected failure",
        other => other.as_str(),
    }
}

/// Counts tests by status, as in `23 passed, 1 failed, 2 skipped`.
fn counts(verdict: &Verdict) -> String {
    use TestStatus::{Error, ExpectedFailure, Failed, Missing, Passed, Skipped};
    let counted = [Passed, Failed, Error, Missing, Skipped, ExpectedFailure]
        .map(|status| (status, verdict.count(status)));
    let counted = counted.iter().filter(|(status, count)| *count > 0 || *status == Passed);
    let word = |status: TestStatus, count: usize| match (status, count) {
        (TestStatus::Error, 2..) => "errors",
        (TestStatus::ExpectedFailure, 2..) => "expected failures",
        _ => words(status),
    };
    counted
        .map(|(status, count)| format!("{count} {}", word(*status, *count)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Describes how the verdict was reached, and why no better assurance was possible.
fn describe_assurance(verdict: &Verdict) -> String {
    match (verdict.assurance, verdict.reason.as_str()) {
        (Some(assurance), "") => assurance.to_string(),
        (Some(assurance), reason) => format!("{assurance}: {reason}"),
        (None, "") => verdict.outcome.to_string(),
        (None, reason) => format!("{}: {reason}", verdict.outcome),
    }
}
