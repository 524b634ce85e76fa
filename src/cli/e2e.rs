//! `rune e2e`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::runtime;
use crate::cli::screen::Screen;
use crate::e2e;
use crate::e2e::E2eProfile;
use crate::e2e::E2eReport;
use crate::e2e::E2eRequest;
use crate::e2e::E2eStep;
use crate::e2e::StepOutcome;
use crate::hub;
use crate::hub::ModelCatalogue;

/// Model of the profile `smoke`, unless another is given.
const SMOKE_MODEL: &str = "smollm2-135m-instruct";

/// Prove the whole loop on this machine, from a task to an adapter in use
///
/// Runs `rune` in a temporary home, with real models: tasks are solved, adapters are trained,
/// measured, merged, promoted and used, and what is killed on the way is resumed. Every step
/// asserts its outcome. The exit code is 0 only if all steps held, and 1 if one did not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune e2e
  rune e2e --faults --junit e2e.xml
  rune e2e --profile full --keep

A model that is not there is downloaded. The profile `smoke` takes minutes, `full` hours.")]
pub(super) struct E2eArgs {
    /// How much is done
    #[arg(long, value_name = "PROFILE", default_value = "smoke")]
    profile: ProfileName,
    /// Model that learns and solves: a name from `rune models list` [default: with `smoke`,
    /// smollm2-135m-instruct learns, and the default model solves if it is there]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Take every step with a fault first, which it has to notice
    #[arg(long)]
    faults: bool,
    /// Also write the outcome as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Keep the temporary home, and print its path
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileName {
    /// The smallest model is drilled in libraries of one wording
    Smoke,
    /// The default model learns libraries from several wordings, and is asked in others
    Full,
}

impl From<ProfileName> for E2eProfile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Smoke => Self::Smoke,
            ProfileName::Full => Self::Full,
        }
    }
}

pub(super) fn run(context: &Context, args: &E2eArgs) -> anyhow::Result<ExitCode> {
    context.make_home()?;
    let scratch = tempfile::Builder::new().prefix("rune-e2e-").tempdir();
    let mut scratch = scratch.context("cannot create a temporary folder")?;
    scratch.disable_cleanup(args.keep);
    let request = request(context, args, scratch.path())?;
    let screen = Screen::of_document(context);
    let shown = &screen;
    let report = runtime::block_on(|shutdown| async move {
        let mut show = |step: E2eStep, outcome: Option<&StepOutcome>| match outcome {
            None => shown.say(&format!("{} ...", step.as_str())),
            // A closed stdout is noticed at the end.
            Some(outcome) => drop(output::print(&lines(context, outcome))),
        };
        Ok(e2e::run(&request, &shutdown, &mut show).await?)
    });
    if args.keep {
        screen.say(&format!("kept: {}", scratch.path().display()));
    }
    let report = report?;
    if let Some(path) = &args.junit {
        fs::write(path, report.to_junit())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    output::print(&text(context, &report))?;
    Ok(if report.has_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn request(context: &Context, args: &E2eArgs, folder: &Path) -> anyhow::Result<E2eRequest> {
    let catalogue = ModelCatalogue::embedded();
    let default = &context.config.run.model;
    let learns = match (&args.model, args.profile) {
        (Some(model), _) => model,
        (None, ProfileName::Smoke) => SMOKE_MODEL,
        (None, ProfileName::Full) => default,
    };
    catalogue.get(learns)?;
    let is_there = |name: &str| {
        catalogue.get(name).is_ok_and(|model| hub::path(&context.home, model).is_some())
    };
    let solves = if args.model.is_none() && is_there(default) { default } else { learns };
    Ok(E2eRequest {
        profile: args.profile.into(),
        executable: std::env::current_exe()?,
        folder: folder.to_owned(),
        user: context.home.clone(),
        python: context.config.sandbox.python.clone(),
        model: learns.to_owned(),
        solver: solves.to_owned(),
        tries_faults: args.faults,
    })
}

/// Renders what a step has found.
fn lines(context: &Context, outcome: &StepOutcome) -> String {
    if context.json {
        return json!(outcome).to_string() + "\n";
    }
    let (word, style) = match outcome.failure {
        None => ("ok  ", "32"),
        Some(_) => ("FAIL", "1;31"),
    };
    let word = output::paint(word, style, context.color);
    let all = outcome.figures.iter().chain(&outcome.failure);
    let shown: Vec<String> =
        all.map(|line| format!("      {}\n", output::escape_line(line))).collect();
    format!("{word}  {}, {:.1} s\n{}", outcome.step.as_str(), outcome.seconds, shown.concat())
}

fn text(context: &Context, report: &E2eReport) -> String {
    let n_held = report.steps.iter().filter(|step| step.failure.is_none()).count();
    let seconds: f64 = report.steps.iter().map(|step| step.seconds).sum();
    if context.json {
        let line = json!({ "passed": report.has_passed(), "n_held": n_held, "seconds": seconds });
        return format!("{line}\n");
    }
    format!("{n_held} of {} steps held, in {seconds:.0} s\n", E2eStep::ALL.len())
}
