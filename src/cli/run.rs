//! `rune run`.

use std::process::ExitCode;

use crate::cli::context::Context;

/// Solve a coding task
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to do, in your own words
    task: Option<String>,
    /// Seed of all sampling
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
}

impl Args {
    /// The settings that the flags stand for.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        self.seed.map(|seed| ("run.seed", toml::Value::Integer(seed))).into_iter().collect()
    }
}

pub(super) fn run(_context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`rune run` is not built yet: {}", args.task.as_deref().unwrap_or("no task"))
}
