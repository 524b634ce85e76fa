//! `rune bench merge`.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::bench;
use crate::bench::MergeOptions;
use crate::bench::MergeReport;
use crate::bench::MergeSize;
use crate::cli::context::Context;
use crate::cli::merge::method_parser;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::merge::MergeMethod;
use crate::merge::MergeRecipe;
use crate::merge::MergeSpace;
use crate::merge::OutputSize;
use crate::provider::engine_options;

use super::machine_line;
use super::metric_table;

/// Measure merges of adapters: time, processor time, and memory beside the inputs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rune bench merge
  rune bench merge --size qwen2.5-1.5b --adapters 4 --rank 16
  rune bench merge --size matrix --adapters 4 --rank 16 --peer ~/venv/bin/python --peer-type svd

The adapters have random weights. The peer is a Python with torch and peft, which merges adapters of the same sizes in
turn with Rune. Only figures of a quiet machine mean anything.")]
pub(in crate::cli) struct BenchMergeArgs {
    /// Model whose linear layers the adapters have; `matrix` is a single layer of 1536 x 1536
    #[arg(long, default_value = "smollm2-135m")]
    size: SizeName,
    /// Numbers of adapters to merge, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "3,10", value_parser = clap::value_parser!(u16).range(1..=64))]
    adapters: Vec<u16>,
    /// Rank of every adapter, and of the result
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    rank: u16,
    /// Merge method
    #[arg(long, default_value = MergeMethod::default().as_str(), value_parser = method_parser())]
    method: MergeMethod,
    /// Use the shared bases of the deltas instead of their entries, for elementwise methods
    #[arg(long)]
    core: bool,
    /// A Python with PEFT, to merge the same
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Type of PEFT's merge
    #[arg(long, default_value = "svd", value_parser = ["svd", "linear", "cat"])]
    peer_type: String,
    /// Measurements of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SizeName {
    Matrix,
    #[value(name = "smollm2-135m")]
    Smollm2,
    #[value(name = "qwen2.5-1.5b")]
    Qwen15,
    #[value(name = "qwen2.5-7b")]
    Qwen7,
}

impl From<SizeName> for MergeSize {
    fn from(name: SizeName) -> Self {
        match name {
            SizeName::Matrix => Self::Matrix,
            SizeName::Smollm2 => Self::Smollm2,
            SizeName::Qwen15 => Self::Qwen15,
            SizeName::Qwen7 => Self::Qwen7,
        }
    }
}

pub(super) fn run(context: &Context, args: &BenchMergeArgs) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(context);
    let rank = usize::from(args.rank);
    let options = MergeOptions {
        size: MergeSize::from(args.size),
        adapters: args.adapters.iter().map(|n| usize::from(*n)).collect(),
        rank,
        recipe: MergeRecipe {
            method: args.method,
            space: if args.core { MergeSpace::Core } else { MergeSpace::Delta },
            size: match args.method {
                MergeMethod::Cat => OutputSize::default(),
                _ => OutputSize::Rank(rank),
            },
            ..MergeRecipe::default()
        },
        peer_type: args.peer_type.clone(),
        n_threads: engine_options(&context.config).n_threads,
        n_runs: args.runs.into(),
        merger: vec![env::current_exe()?.into_os_string(), "bench".into(), "merger".into()],
        peer: args.peer.clone(),
    };
    let report = bench::merge(&options, &screen);
    screen.close();
    let MergeReport { machine, metrics } = report?;
    if !context.json {
        let figures = metric_table(&metrics, options.peer.is_some());
        let what = format!("merging adapters of rank {rank} on {} threads", options.n_threads);
        output::print(&format!("{what}\n{}\n{figures}", machine_line(&machine)))?;
    }
    Ok(ExitCode::SUCCESS)
}
