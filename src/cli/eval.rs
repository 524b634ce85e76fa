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
use clap::ValueEnum as _;

use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::model_args::ModelArgs;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::evaluation;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvaluationError;
use crate::evaluation::MeasuredAdapters;
use crate::evaluation::MeasuredOutcomes;

use suite_args::StrategyName;
use suite_args::SuiteArgs;

pub(super) use suites::human_eval;
pub(super) use tables::compared;
pub(super) use tables::scores;

/// Measure the base model and adapters on held-out tasks
///
/// Every answer runs in the sandbox. Base and adapters get the same tasks and seeds, and are
/// compared task by task. Results are cached in the registry: no question is asked twice, and an
/// interrupted evaluation resumes where it stopped. `rune run --adapter auto` selects an adapter by
/// these results.
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
    suite_args: Option<SuiteArgs>,
    #[command(flatten)]
    model: ModelArgs,
    /// Adapter to measure beside the base, repeatable; `all` for every adapter of the base model
    /// that was not trained on the tasks, `none` for only the base
    #[arg(long, value_name = "ID|all|none")]
    adapter: Vec<String>,
    /// Suite of out-of-distribution tasks, to measure how much less an adapter gains there
    #[arg(long, value_name = "NAME|FILE.jsonl")]
    ood: Option<PathBuf>,
    /// Print every failed answer
    #[arg(long)]
    failures: bool,
    /// Print tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// Write a plot of the scores with confidence intervals to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the answers in the format of human-eval, each with the judge's verdict
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
}

/// Subcommands of `rune eval`.
#[derive(Debug, clap::Subcommand)]
enum EvalCommand {
    /// List, show, download and import suites
    #[command(subcommand)]
    Suites(suites::SuitesCommand),
    /// Compare two adapters or strategies, task by task
    Compare {
        /// Adapter id or `base`; append `:completion`, `:best-of-n` or `:pipeline` to set the
        /// strategy
        a: String,
        /// The same for the candidate that may be better
        b: String,
        #[command(flatten)]
        suite_args: Box<SuiteArgs>,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Check training records for contamination with a suite; exit code 1 if there is any
    Probe(probe::ProbeArgs),
    /// Generate a synthetic Python library, records that teach it, and tasks that need it
    Library(library::LibraryArgs),
}

impl EvalArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let (args, model) = match (&self.command, &self.suite_args) {
            (Some(EvalCommand::Compare { suite_args, model, .. }), _) => (&**suite_args, model),
            (_, Some(suite_args)) => (suite_args, &self.model),
            (_, None) => return Vec::new(),
        };
        let settings = [
            ("run.candidates", args.candidates.map(toml::Value::Integer)),
            ("run.max_tokens", args.max_tokens.map(|n| toml::Value::Integer(n.into()))),
            ("run.seed", args.seed.map(toml::Value::Integer)),
            ("memory.kind", args.memory.clone().map(toml::Value::String)),
        ];
        let settings = settings.into_iter().filter_map(|(key, value)| Some((key, value?)));
        model.settings().chain(settings).collect()
    }
}

pub(super) fn run(context: &Context, args: &EvalArgs) -> anyhow::Result<ExitCode> {
    match (&args.command, &args.suite_args) {
        (Some(EvalCommand::Library(args)), _) => library::invent(args),
        (Some(EvalCommand::Probe(args)), _) => probe::run(context, args),
        (Some(EvalCommand::Suites(command)), _) => suites::run(context, command),
        (Some(EvalCommand::Compare { a, b, suite_args, .. }), _) => {
            compare_two(context, suite_args, (a, b))
        }
        (None, Some(suite_args)) => evaluate(context, args, suite_args),
        (None, None) => {
            Err(HintedError::new("no suite given", "pass --suite NAME or --suite FILE.jsonl"))?
        }
    }
}

/// Measures the base and the requested adapters, and prints and writes the scores.
fn evaluate(
    context: &Context,
    args: &EvalArgs,
    suite_args: &SuiteArgs,
) -> anyhow::Result<ExitCode> {
    let screen = Arc::new(Screen::new(context));
    let (suite, strategy) = (&suite_args.suite, suite_args.strategy);
    let measured = measure(context, &screen, suite_args, (suite, strategy), &args.adapter)?;
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
        output::print(&tables::text(&measured, &suite_args.k, args.failures, style))?;
    }
    if let Some(ood) = &args.ood {
        let elsewhere = measure(context, &screen, suite_args, (ood, strategy), &args.adapter)?;
        if context.json {
            screen.report_all(&tables::delta_events(&measured, &elsewhere));
        } else {
            output::print(&tables::deltas(&measured, &elsewhere))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn compare_two(
    context: &Context,
    args: &SuiteArgs,
    (a, b): (&str, &str),
) -> anyhow::Result<ExitCode> {
    let screen = Arc::new(Screen::of_document(context));
    let mut outcomes_a = outcomes_of(context, &screen, args, a)?;
    let mut outcomes_b = outcomes_of(context, &screen, args, b)?;
    // Some strategies cannot answer every task, and only common tasks can be compared.
    let has_task = |outcomes: &[EvalOutcome], outcome: &EvalOutcome| {
        outcomes.iter().any(|known| known.id == outcome.id)
    };
    outcomes_a.retain(|outcome| has_task(&outcomes_b, outcome));
    outcomes_b.retain(|outcome| has_task(&outcomes_a, outcome));
    output::print(&tables::versus((a, &outcomes_a), (b, &outcomes_b)))?;
    Ok(ExitCode::SUCCESS)
}

/// Measures `name`: an adapter id or `base`, optionally followed by `:STRATEGY`.
fn outcomes_of(
    context: &Context,
    screen: &Arc<Screen>,
    args: &SuiteArgs,
    name: &str,
) -> anyhow::Result<Vec<EvalOutcome>> {
    let (subject, strategy) = match name.split_once(':') {
        Some((subject, strategy)) => (subject, parse_strategy(strategy)?),
        None => (name, args.strategy),
    };
    let adapters = if subject == "base" { Vec::new() } else { vec![subject.to_owned()] };
    let mut measured = measure(context, screen, args, (&args.suite, strategy), &adapters)?;
    Ok(match measured.adapters.pop() {
        Some((_, outcomes)) => outcomes,
        None => measured.base,
    })
}

fn parse_strategy(text: &str) -> Result<StrategyName, HintedError> {
    StrategyName::from_str(text, true).map_err(|_| {
        let hint = "use `completion`, `best-of-n` or `pipeline`";
        HintedError::new(format!("unknown strategy `{text}`"), hint)
    })
}

/// Measures the base and `adapters` on the suite `path`.
fn measure(
    context: &Context,
    screen: &Arc<Screen>,
    args: &SuiteArgs,
    (path, strategy): (&Path, StrategyName),
    adapters: &[String],
) -> anyhow::Result<MeasuredOutcomes> {
    if let Some(k) = args.k.iter().find(|k| **k > args.n || **k == 0) {
        return Err(EvaluationError::BadK { k: *k, n: args.n }.into());
    }
    let registry = context.registry()?;
    let suite = suite_args::load_suite(context, &registry, args, path)?;
    let modules = evaluation::modules_of(args.lib.as_deref())?;
    let adapters = MeasuredAdapters::parse(&registry, &suite, adapters, &**screen)?;
    let sandbox = workflow::sandbox()?;
    let (suite, modules, adapters) = (&suite, &modules, &adapters);
    let options = &args.measure_options(strategy.into());
    let measured = workflow::run(context, &registry, screen.clone(), |services| async move {
        Ok(evaluation::measure((&services, &sandbox), (suite, modules), adapters, options).await?)
    });
    screen.close();
    measured
}
