//! Arguments that choose a suite, a strategy and sampling.

use std::path::Path;
use std::path::PathBuf;

use crate::cli::context::Context;
use crate::evaluation::EvaluationError;
use crate::evaluation::MeasureOptions;
use crate::evaluation::StrategyKind;
use crate::evaluation::SuiteStore;
use crate::evaluation::TaskSuite;
use crate::families::FamilySplit;
use crate::registry::Registry;
use crate::trajectory::Sampling;

/// Arguments of a measurement.
#[derive(Debug, clap::Args)]
#[group(id = "what")]
pub(super) struct SuiteArgs {
    /// Task suite: a name, a JSON Lines file, or `sessions` for the tasks of this project's
    /// sessions
    #[arg(long, value_name = "NAME|FILE.jsonl", required = true)]
    pub(super) suite: PathBuf,
    /// Folder of Python packages that answers may import
    #[arg(long, value_name = "DIR")]
    pub(super) lib: Option<PathBuf>,
    /// Answering strategy
    #[arg(long, alias = "via", default_value = "completion")]
    pub(super) strategy: StrategyName,
    /// Split of the suite
    #[arg(long, default_value = "all")]
    pub(super) split: SplitName,
    /// Measure only the first N tasks
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Number of answers per task
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) n: u32,
    /// Values of k for pass@k, at most --n
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub(super) k: Vec<u32>,
    /// Sampling temperature [default: 0 with one answer per task, else 0.8]
    #[arg(long)]
    pub(super) temperature: Option<f32>,
    /// Maximum generated tokens per task [default: 512 for a completion, else that of `rune run`]
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,
    /// Ignore cached answers
    #[arg(long)]
    pub(super) fresh: bool,
    /// Show the nearest records of earlier sessions, except those of the suite's own tasks, and
    /// passages about the packages that a task names: `auto`, `records` or `both`
    /// [default: none, so that scores do not depend on earlier sessions]
    #[arg(
        long,
        value_name = "KIND",
        hide_possible_values = true,
        value_parser = ["auto", "none", "records", "adapter", "both"]
    )]
    pub(super) memory: Option<String>,
    /// Number of code samples when the first one fails, with --strategy pipeline
    #[arg(long, value_name = "N")]
    pub(super) candidates: Option<i64>,
    /// Random seed for sampling
    #[arg(long)]
    pub(super) seed: Option<i64>,
}

/// Answering strategy, as spelled on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum StrategyName {
    /// One completion of the model
    #[value(alias = "completions")]
    Completion,
    /// Completions until one passes the visible tests, within the token budget of a run
    BestOfN,
    /// Everything that `rune run` does
    Pipeline,
}

/// Split of a suite, as spelled on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SplitName {
    All,
    Train,
    Dev,
    Gate,
    Vault,
}

impl From<StrategyName> for StrategyKind {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::Completion => Self::Completions,
            StrategyName::BestOfN => Self::BestOfN,
            StrategyName::Pipeline => Self::Pipeline,
        }
    }
}

impl SplitName {
    fn split(self) -> Option<FamilySplit> {
        match self {
            Self::All => None,
            Self::Train => Some(FamilySplit::Train),
            Self::Dev => Some(FamilySplit::Dev),
            Self::Gate => Some(FamilySplit::Gate),
            Self::Vault => Some(FamilySplit::Vault),
        }
    }
}

impl SuiteArgs {
    /// Names the measured part of the suite for the registry, because scores on different tasks
    /// cannot be compared.
    fn split_label(&self) -> String {
        let split = self.split.split().map_or("all", FamilySplit::as_str);
        self.limit.map_or_else(|| split.to_owned(), |n| format!("{split}, first {n}"))
    }

    pub(super) fn measure_options(&self, strategy: StrategyKind) -> MeasureOptions {
        let greedy = if self.n == 1 { 0.0 } else { 0.8 };
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(greedy),
            max_tokens: self.max_tokens.unwrap_or(512),
            ..Sampling::default()
        };
        MeasureOptions {
            strategy,
            split: self.split_label(),
            lib: self.lib.clone(),
            sampling,
            n_samples: self.n,
            is_fresh: self.fresh,
            is_recorded: true,
            shows_records: self.memory.as_deref().is_some_and(shows_records),
        }
    }
}

/// Whether `--memory KIND` shows records. Adapters are chosen by `--adapter` alone.
fn shows_records(kind: &str) -> bool {
    ["auto", "records", "both"].contains(&kind)
}

/// Loads the suite or file `path`, cut to the split and limit of `args`.
pub(super) fn load_suite(
    context: &Context,
    registry: &Registry,
    args: &SuiteArgs,
    path: &Path,
) -> anyhow::Result<TaskSuite> {
    let suite = SuiteStore::open(&context.home)?.find((registry, &context.project()), path)?;
    let suite = match args.split.split() {
        Some(split) => suite.part(split),
        None => suite,
    };
    let suite = match args.limit {
        Some(n) => suite.first(n),
        None => suite,
    };
    if suite.n_tasks() == 0 {
        return Err(EvaluationError::Empty(path.to_owned()).into());
    }
    Ok(suite)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::StrategyName;

    #[test]
    fn earlier_strategy_name_is_accepted_and_hidden() {
        for name in ["completion", "completions"] {
            assert_eq!(StrategyName::from_str(name, true), Ok(StrategyName::Completion));
        }
        let shown = StrategyName::value_variants()
            .iter()
            .filter_map(|name| Some(name.to_possible_value()?.get_name().to_owned()));
        assert_eq!(shown.collect::<Vec<_>>(), ["completion", "best-of-n", "pipeline"]);
    }
}
