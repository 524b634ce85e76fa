//! On what is measured, and who.

use std::path::Path;
use std::path::PathBuf;

use crate::cli::context::Context;
use crate::evaluation::EvaluationError;
use crate::evaluation::MeasureOptions;
use crate::evaluation::StrategyKind;
use crate::evaluation::SuiteSplit;
use crate::evaluation::SuiteStore;
use crate::evaluation::TaskSuite;
use crate::registry::Registry;
use crate::trajectory::Sampling;

/// On what and how is measured.
#[derive(Debug, clap::Args)]
#[group(id = "what")]
pub(super) struct SuiteArgs {
    /// The tasks: a suite's name, or a file with one JSON object a line
    #[arg(long, value_name = "NAME|FILE.jsonl", required = true)]
    pub(super) suite: PathBuf,
    /// A folder of Python packages that answers may import
    #[arg(long, value_name = "DIR")]
    pub(super) lib: Option<PathBuf>,
    /// How answers are had
    #[arg(long, default_value = "completions")]
    pub(super) via: ViaName,
    /// The part of the suite
    #[arg(long, default_value = "all")]
    pub(super) split: SplitName,
    /// The first tasks alone
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Answers to each task
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) n: u32,
    /// For which k to print pass@k, at most --n
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub(super) k: Vec<u32>,
    /// Temperature of answers [default: 0 with one answer a task, else 0.8]
    #[arg(long)]
    pub(super) temperature: Option<f32>,
    /// The most tokens to generate for a task [default: 512 for an answer, else that of `rune run`]
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,
    /// Ask again what was asked before
    #[arg(long)]
    pub(super) fresh: bool,
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) model: Option<String>,
    /// Samples of code when the first one fails, with --via pipeline
    #[arg(long, value_name = "N")]
    pub(super) candidates: Option<i64>,
    /// Seed of all sampling
    #[arg(long)]
    pub(super) seed: Option<i64>,
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
pub(super) enum SplitName {
    All,
    Train,
    Dev,
    Gate,
    Vault,
}

impl From<ViaName> for StrategyKind {
    fn from(name: ViaName) -> Self {
        match name {
            ViaName::Completions => Self::Completions,
            ViaName::BestOfN => Self::BestOfN,
            ViaName::Pipeline => Self::Pipeline,
        }
    }
}

impl SplitName {
    fn split(self) -> Option<SuiteSplit> {
        match self {
            Self::All => None,
            Self::Train => Some(SuiteSplit::Train),
            Self::Dev => Some(SuiteSplit::Dev),
            Self::Gate => Some(SuiteSplit::Gate),
            Self::Vault => Some(SuiteSplit::Vault),
        }
    }
}

impl SuiteArgs {
    /// The part of the suite, as the registry names it: scores on other tasks are no scores to
    /// compare with.
    fn part(&self) -> String {
        let split = self.split.split().map_or("all", SuiteSplit::as_str);
        self.limit.map_or_else(|| split.to_owned(), |n| format!("{split}, first {n}"))
    }

    pub(super) fn how(&self, via: StrategyKind) -> MeasureOptions {
        let greedy = if self.n == 1 { 0.0 } else { 0.8 };
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(greedy),
            max_tokens: self.max_tokens.unwrap_or(512),
            ..Sampling::default()
        };
        MeasureOptions {
            via,
            split: self.part(),
            lib: self.lib.clone(),
            sampling,
            n_samples: self.n,
            is_fresh: self.fresh,
        }
    }
}

/// The part that is wanted of the suite that `path` names, or of the file's.
pub(super) fn chosen(
    context: &Context,
    registry: &Registry,
    what: &SuiteArgs,
    path: &Path,
) -> anyhow::Result<TaskSuite> {
    let suite = SuiteStore::open(&context.home)?.find(registry, path)?;
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
