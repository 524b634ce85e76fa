//! On what is measured, and who.

use std::path::Path;
use std::path::PathBuf;

use crate::adapter::AdapterId;
use crate::cli::context::Context;
use crate::cli::output;
use crate::evaluation::EvaluationError;
use crate::evaluation::Split;
use crate::evaluation::Suite;
use crate::evaluation::SuiteStore;
use crate::registry::AdapterFilter;
use crate::registry::Registry;
use crate::training::family_digest;
use crate::trajectory::Sampling;

use super::measure::How;
use super::measure::Who;

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
pub(in crate::cli) enum ViaName {
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

/// The adapters that `words` stand for, none of which has seen the suite's families.
pub(super) fn who(
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

    pub(super) fn how(&self, via: ViaName) -> How<'_> {
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

/// The part that is wanted of the suite that `path` names, or of the file's.
pub(super) fn chosen(
    context: &Context,
    registry: &Registry,
    what: &SuiteArgs,
    path: &Path,
) -> anyhow::Result<Suite> {
    let suite = named(context, registry, path)?;
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

/// All of it, which is what it was when it was measured.
pub(super) fn named(context: &Context, registry: &Registry, path: &Path) -> anyhow::Result<Suite> {
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
