//! `rune doctor`.

use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::context::Context;
use crate::cli::output;
use crate::doctor::CheckStatus;
use crate::doctor::DoctorCheck;
use crate::doctor::DoctorInput;
use crate::doctor::run_checks;
use crate::error_class::ErrorClass;
use crate::sandbox::Sandbox;

/// Check what works on this machine, and print how to fix the rest
///
/// Each warning and failure comes with a remedy (`fix:`) and the section of the documentation that
/// explains it (`see:`). The exit code is 3 if something that Rune needs is missing.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {}

pub(super) fn run(context: &Context, _args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    // The helper is forked before this process has other threads.
    let sandbox = Sandbox::start(&std::env::current_exe()?).map(Arc::new);
    context.make_home()?;
    let (home, config) = (&context.home, &context.config);
    let checks = run_checks(&DoctorInput { home, config, python: context.python(), sandbox });
    let text = if context.json {
        json_lines(&checks)?
    } else {
        checks.iter().map(|check| line(check, context.color)).collect()
    };
    output::print(&text)?;
    let has_failed = checks.iter().any(|check| check.status == CheckStatus::Fail);
    Ok(if has_failed {
        ExitCode::from(ErrorClass::Environment.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}

fn line(check: &DoctorCheck, color: bool) -> String {
    let (word, style) = match check.status {
        CheckStatus::Ok => ("ok  ", "32"),
        CheckStatus::Warn => ("warn", "33"),
        CheckStatus::Fail => ("FAIL", "1;31"),
    };
    let word = output::paint(word, style, color);
    let advice = [("fix", &check.fix), ("see", &check.docs)];
    let advice = advice.map(|(label, text)| {
        text.as_ref().map(|text| format!("\n      {label}: {text}")).unwrap_or_default()
    });
    let detail = output::escape_line(&check.detail);
    format!("{word}  {}: {detail}{}\n", check.name, advice.concat())
}

fn json_lines(checks: &[DoctorCheck]) -> anyhow::Result<String> {
    let lines = checks.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.join("\n") + "\n")
}
