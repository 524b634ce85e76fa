//! `rune doctor`.

use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::context::Context;
use crate::cli::output;
use crate::doctor::Check;
use crate::doctor::Patient;
use crate::doctor::Status;
use crate::doctor::examine;
use crate::error_class::ErrorClass;
use crate::sandbox::Sandbox;

/// Say what works on this machine, and how to mend the rest
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(context: &Context, _args: &Args) -> anyhow::Result<ExitCode> {
    // Before any other thread: see `sandbox`.
    let sandbox = Sandbox::start(&std::env::current_exe()?).map(Arc::new);
    context.make_home()?;
    let (home, config) = (&context.home, &context.config);
    let checks = examine(&Patient { home, config, python: context.python(), sandbox });
    let text = if context.json {
        json_lines(&checks)?
    } else {
        checks.iter().map(|check| line(check, context.color)).collect()
    };
    output::print(&text)?;
    let has_failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if has_failed {
        ExitCode::from(ErrorClass::Environment.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}

fn line(check: &Check, color: bool) -> String {
    let (word, style) = match check.status {
        Status::Ok => ("ok  ", "32"),
        Status::Warn => ("warn", "33"),
        Status::Fail => ("FAIL", "1;31"),
    };
    let word = output::paint(word, style, color);
    let fix = check.fix.as_ref().map(|fix| format!("\n      fix: {fix}")).unwrap_or_default();
    format!("{word}  {}: {}{fix}\n", check.name, output::escape_line(&check.detail))
}

fn json_lines(checks: &[Check]) -> anyhow::Result<String> {
    let lines = checks.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.join("\n") + "\n")
}
