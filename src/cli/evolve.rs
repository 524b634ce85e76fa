//! `rune evolve`.

mod report;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::adapter::AdapterId;
use crate::cli::adapters::ScopeName;
use crate::cli::context::Context;
use crate::cli::ledger;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::error_class::ErrorClass;
use crate::evaluation;
use crate::evaluation::SuiteStore;
use crate::evolution;
use crate::evolution::EvolveRequest;
use crate::evolution::ReplayOutcome;
use crate::registry::LedgerFilter;
use crate::registry::Registry;

/// Improve a project's adapters, changing nothing without evidence
///
/// Measures the adapters of a project on its own tasks, archives those that are worse than the base
/// model, promotes one that passes the gate, and merges adapters that are good at different tasks.
/// The gate compares an adapter with the base and with the adapter in use, on tasks that nothing is
/// trained or selected on. Without evidence nothing changes; a second call changes nothing; an
/// interrupted call resumes where it stopped.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rune evolve
  rune evolve --dry-run
  rune evolve --suite tasks.jsonl --lib packages --budget 3600
  rune evolve ledger
  rune evolve rollback 01k9zz"
)]
pub(super) struct EvolveArgs {
    #[command(subcommand)]
    command: Option<EvolveCommand>,
    /// Project whose adapters evolve [default: this one]
    #[arg(long, value_name = "KEY", conflicts_with = "all")]
    project: Option<String>,
    /// Evolve the adapters of every project that has any
    #[arg(long)]
    all: bool,
    /// Tasks that decide: a name, a JSON Lines file, or `sessions` for those of the project's
    /// sessions
    #[arg(long, value_name = "NAME|FILE.jsonl", default_value = "sessions")]
    suite: PathBuf,
    /// Folder of Python packages that answers may import
    #[arg(long, value_name = "DIR")]
    lib: Option<PathBuf>,
    /// Stop after one round instead of when a round decides nothing
    #[arg(long)]
    once: bool,
    /// Print what would be measured, and ask nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop asking tasks after this time; the next call resumes
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Base model: a name from `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
}

/// Subcommands of `rune evolve`.
#[derive(Debug, clap::Subcommand)]
enum EvolveCommand {
    /// Make this project use an adapter from now on, without evidence
    Promote {
        /// Adapter id
        id: String,
        /// Tasks that the adapter may be selected for
        #[arg(long, default_value = "project")]
        scope: ScopeName,
    },
    /// Return to what this project used before an adapter was promoted
    Rollback {
        /// Id of the adapter that the project uses now
        id: String,
    },
    /// Rebuild a merged adapter from its parents, and compare it byte for byte; exit code 1 if it
    /// differs
    Replay {
        /// Adapter id
        id: String,
    },
    /// Print what was decided, newest first, with the evidence
    Ledger {
        /// Adapter id
        id: Option<String>,
        /// Print the decisions of every project
        #[arg(long)]
        all: bool,
        /// Maximum number of decisions
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Compare the gain of the adapter in use on the tasks of race, gate and vault; exit code 1 if
    /// the gains differ by more than chance
    Audit {
        /// Tasks: a name, a JSON Lines file, or `sessions`
        #[arg(long, value_name = "NAME|FILE.jsonl", default_value = "sessions")]
        suite: PathBuf,
        /// Folder of Python packages that answers may import
        #[arg(long, value_name = "DIR")]
        lib: Option<PathBuf>,
    },
}

impl EvolveArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let set = |name, value: &Option<String>| Some((name, toml::Value::from(value.clone()?)));
        let settings = [set("run.model", &self.model), set("run.project", &self.project)];
        settings.into_iter().flatten().collect()
    }
}

pub(super) fn run(context: &Context, args: &EvolveArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    match &args.command {
        None => evolve(context, args),
        Some(EvolveCommand::Replay { id }) => replay(context, &AdapterId::parse(id)?),
        Some(EvolveCommand::Promote { id, scope }) => {
            let adapter = (&AdapterId::parse(id)?, (*scope).into());
            let place = (&*registry, &context.home);
            let row = evolution::promote(place, &context.project(), adapter)?;
            output::print(&ledger::text(context, &[row])?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(EvolveCommand::Rollback { id }) => {
            let id = AdapterId::parse(id)?;
            let place = (&*registry, &context.home);
            let row = evolution::rollback(place, &context.project(), &id)?;
            output::print(&ledger::text(context, &[row])?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(EvolveCommand::Ledger { id, all, limit }) => {
            let project = (!all && id.is_none()).then(|| context.project());
            let filter = LedgerFilter { project, subject: id.clone() };
            let rows = registry.ledger(&filter, *limit)?;
            output::print(&ledger::text(context, &rows)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(EvolveCommand::Audit { suite, lib }) => {
            let request = request(context, &registry, (&context.project(), suite, lib.as_deref()))?;
            audit(context, &request)
        }
    }
}

fn request(
    context: &Context,
    registry: &Registry,
    (project, suite, lib): (&str, &Path, Option<&Path>),
) -> anyhow::Result<EvolveRequest> {
    Ok(EvolveRequest {
        project: project.to_owned(),
        suite: SuiteStore::open(&context.home)?.find((registry, project), suite)?,
        modules: evaluation::modules_of(lib)?,
        lib: lib.map(Path::to_owned),
        is_once: false,
        deadline: None,
    })
}

fn evolve(context: &Context, args: &EvolveArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let projects = if args.all { registry.adapter_projects()? } else { vec![context.project()] };
    let seconds = args.budget.map(Duration::from_secs);
    let deadline = seconds.and_then(|budget| Instant::now().checked_add(budget));
    let mut requests = Vec::new();
    for project in &projects {
        let what = (project.as_str(), args.suite.as_path(), args.lib.as_deref());
        requests.push(EvolveRequest {
            is_once: args.once,
            deadline,
            ..request(context, &registry, what)?
        });
    }
    let sandbox = workflow::sandbox()?;
    let screen = Arc::new(Screen::of_document(context));
    let is_dry_run = args.dry_run;
    let (reporter, stored) = (screen.clone(), Arc::clone(&registry));
    let done = workflow::run(context, &registry, screen.clone(), |services| async move {
        for request in &requests {
            let text = if is_dry_run {
                report::plan(context, request, &evolution::plan(&services, request).await?)?
            } else {
                let report = evolution::evolve((&services, &sandbox), request).await?;
                report::evolved(context, &stored, &report)?
            };
            reporter.close();
            output::print(&text)?;
        }
        Ok(())
    });
    screen.close();
    done.map(|()| ExitCode::SUCCESS)
}

fn audit(context: &Context, request: &EvolveRequest) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let sandbox = workflow::sandbox()?;
    let screen = Arc::new(Screen::of_document(context));
    let audited = workflow::run(context, &registry, screen.clone(), |services| async move {
        Ok(evolution::audit((&services, &sandbox), request).await?)
    });
    screen.close();
    let audited = audited?;
    output::print(&report::audit(context, &audited)?)?;
    let code = if audited.has_gap() { ErrorClass::Unsolved.exit_code() } else { 0 };
    Ok(ExitCode::from(code))
}

fn replay(context: &Context, id: &AdapterId) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let screen = Arc::new(Screen::of_document(context));
    let outcome = workflow::run(context, &registry, screen.clone(), |services| async move {
        Ok(evolution::replay(&services, id).await?)
    });
    screen.close();
    let ReplayOutcome { stored, rebuilt, is_identical } = outcome?;
    if context.json {
        let line = json!({ "adapter": id, "identical": is_identical, "stored": stored, "rebuilt": rebuilt });
        output::print(&format!("{line}\n"))?;
    } else if is_identical {
        output::print(&format!("{id} is identical to its rebuilt file, {stored}\n"))?;
    } else {
        output::print(&format!("{id} differs: {stored} is stored, {rebuilt} was rebuilt\n"))?;
    }
    let code = if is_identical { 0 } else { ErrorClass::Unsolved.exit_code() };
    Ok(ExitCode::from(code))
}
