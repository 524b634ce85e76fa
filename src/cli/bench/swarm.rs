//! `rune bench swarm`.

use std::process::ExitCode;

use serde_json::json;

use crate::bench;
use crate::bench::QueueBenchmark;
use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::screen::Screen;

/// Measure the queue of swarms: time and memory of queueing, claiming and ending jobs
///
/// The registry is a new one on the disk of Rune's home. Jobs do nothing; each is claimed and ended
/// in two transactions, which are on the disk before they return, so the disk sets the pace.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BenchSwarmArgs {
    /// Number of jobs to queue
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Number of those to claim and end
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..))]
    ended: u32,
    /// Number of threads that claim at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    claimers: u16,
}

pub(super) fn run(context: &Context, args: &BenchSwarmArgs) -> anyhow::Result<ExitCode> {
    context.make_home()?;
    let screen = Screen::of_document(context);
    let request = QueueBenchmark {
        n_queued: args.jobs as usize,
        n_ended: args.ended.min(args.jobs) as usize,
        n_claimers: usize::from(args.claimers),
    };
    let found = bench::swarm(context.home.path(), request, &screen);
    screen.close();
    let found = found?;
    if context.json {
        output::print(&format!("{}\n", json!(found)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = [
        ("queued", format!("{} jobs in {:.2} s", found.n_queued, found.queue_seconds)),
        ("memory", format!("{} MiB more", found.memory_bytes >> 20)),
        (
            "claimed and ended",
            format!("{:.0} jobs/s, {} threads", found.jobs_per_second, found.n_claimers),
        ),
        ("claim, median", format!("{:.2} ms", found.claim_p50_ms)),
        ("claim, 99 %", format!("{:.2} ms", found.claim_p99_ms)),
        ("a durable write", format!("{:.2} ms", found.fsync_ms)),
    ];
    output::print(&output::table(&rows.map(|(name, value)| vec![name.to_owned(), value])))?;
    Ok(ExitCode::SUCCESS)
}
