//! `rune bench evolve`.

use std::process::ExitCode;

use serde_json::json;

use crate::bench;
use crate::bench::GateFrequencies;
use crate::bench::GateSimulation;
use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::screen::Screen;

/// Simulate the gate that decides on promotions: how often it accepts an adapter that is no better,
/// and one that is
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BenchEvolveArgs {
    /// Number of simulated comparisons of each kind
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Maximum tasks of a comparison
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u16).range(20..))]
    tasks: u16,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(context: &Context, args: &BenchEvolveArgs) -> anyhow::Result<ExitCode> {
    let screen = Screen::of_document(context);
    let n_tasks = usize::from(args.tasks);
    let options = GateSimulation { n_runs: args.runs, n_tasks, seed: args.seed };
    let found = bench::evolve(options, &screen);
    screen.close();
    let found = found?;
    if context.json {
        let lines = found.iter().map(|one| json!(one).to_string() + "\n");
        output::print(&lines.collect::<String>())?;
    } else {
        let head = ["ADAPTER", "ACCEPTED", "FUTILE", "TASKS", "ACCEPTED BY PEEKING"];
        let head = head.map(str::to_owned).to_vec();
        let rows = std::iter::once(head).chain(found.iter().map(row));
        output::print(&output::table(&rows.collect::<Vec<_>>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(one: &GateFrequencies) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    vec![
        one.contest.to_owned(),
        percent(one.accepted),
        percent(one.futile),
        one.tasks.map_or_else(|| "-".to_owned(), |tasks| format!("{tasks:.0}")),
        percent(one.naive),
    ]
}
