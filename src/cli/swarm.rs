//! `rune swarm`.

mod screen;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit::HintedError;
use crate::cli::model_args::ModelArgs;
use crate::cli::model_args::absolute;
use crate::cli::output;
use crate::cli::train::OptionArgs;
use crate::cli::workflow;
use crate::config::Config;
use crate::evaluation::SuiteStore;
use crate::pipeline;
use crate::registry::Registry;
use crate::registry::SwarmRow;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::swarm;
use crate::swarm::SwarmConfig;
use crate::swarm::SwarmLimits;
use crate::swarm::SwarmReport;
use crate::swarm::SwarmRequest;
use crate::swarm::SwarmTasks;
use crate::swarm::TrainShare;

use screen::SwarmScreen;

/// Solve many tasks unattended, and learn from those that were solved
///
/// Agents solve tasks with one model, in one batch. From what they solve, adapters are trained;
/// those that help on held-out tasks are promoted and used for the next tasks. What is unsolved is
/// tried again in the next generation. Families of tasks that measure adapters are never given to
/// agents. Ctrl-C leaves a swarm that `--resume` continues.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rune swarm --tasks tasks.jsonl --hours 8
  rune swarm --suite mbpp --generations 2 --anchor humaneval
  rune swarm --resume 01k9zz --hours 8
  rune swarm report 01k9zz

Each line of a task file is {\"id\": .., \"task\": .., \"tests\": a path, text or files}, with \"task_type\" and \"family\"
if they are known."
)]
pub(super) struct SwarmArgs {
    #[command(subcommand)]
    command: Option<SwarmCommand>,
    /// Tasks to solve: a JSON Lines file
    #[arg(long, value_name = "FILE.jsonl", required_unless_present_any = ["suite", "resume"])]
    tasks: Option<PathBuf>,
    /// Tasks to solve: the train families of a suite from `rune eval suites list`
    #[arg(long, value_name = "NAME", conflicts_with = "tasks")]
    suite: Option<PathBuf>,
    /// Solve only the first N tasks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Number of concurrent sessions, or `auto` for as many as the model serves well
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = n_agents)]
    agents: AgentCount,
    /// Hours after which no session and no training is begun
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    hours: Option<f64>,
    /// Maximum number of generations
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    generations: u32,
    /// Number of newly solved tasks after which an adapter is trained, 0 for never
    #[arg(long, value_name = "N", default_value_t = 24)]
    train_every: u32,
    /// Whether sessions run while an adapter is trained
    #[arg(long, value_name = "SHARE", default_value = "exclusive")]
    train_share: ShareName,
    /// Generated tokens after which no session is begun
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// Suite that base and adapters are also measured on, to show what is forgotten; repeatable
    #[arg(long, value_name = "NAME")]
    anchor: Vec<String>,
    /// Folder of Python packages that solutions may import
    #[arg(long, value_name = "DIR")]
    lib: Option<PathBuf>,
    /// Continue a swarm that was stopped, with the settings that it was started with
    #[arg(long, value_name = "ID", conflicts_with_all = ["tasks", "suite", "limit", "generations", "train_every", "train_share", "anchor", "lib", "agents", "ModelArgs", "project", "OptionArgs"])]
    resume: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    #[command(flatten)]
    model: ModelArgs,
    /// Project that sessions and adapters belong to
    #[arg(long, value_name = "KEY")]
    project: Option<String>,
    #[command(flatten)]
    training: OptionArgs,
}

/// Subcommands of `rune swarm`.
#[derive(Debug, clap::Subcommand)]
enum SwarmCommand {
    /// List swarms, newest first
    List {
        /// Maximum number of swarms
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
    },
    /// Print what a swarm was asked, and how far it is
    Show {
        /// Swarm id
        id: String,
    },
    /// Print the report of a swarm: what it solved, learned and measured
    Report {
        /// Swarm id
        id: String,
        /// Also write the plot to this file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

/// Number of concurrent sessions; `None` for as many as the model serves well.
#[derive(Debug, Clone, Copy)]
struct AgentCount(Option<usize>);

fn n_agents(text: &str) -> Result<AgentCount, String> {
    match text.parse() {
        _ if text == "auto" => Ok(AgentCount(None)),
        Ok(n @ 1..=256) => Ok(AgentCount(Some(n))),
        _ => Err("expected a number from 1 to 256, or `auto`".to_owned()),
    }
}

fn hours(text: &str) -> Result<f64, String> {
    let hours: f64 = text.parse().map_err(|_| "expected a number of hours".to_owned())?;
    let is_possible = hours > 0.0 && hours <= 10_000.0;
    is_possible.then_some(hours).ok_or_else(|| "expected a number above 0".to_owned())
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShareName {
    /// Sessions wait: on the same cores, both would be slower
    Exclusive,
    /// Sessions go on
    Shared,
}

impl From<ShareName> for TrainShare {
    fn from(name: ShareName) -> Self {
        match name {
            ShareName::Exclusive => Self::Exclusive,
            ShareName::Shared => Self::Shared,
        }
    }
}

impl SwarmArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        // A swarm may be resumed from another folder.
        let lib = self.lib.as_ref().and_then(absolute);
        let all = [("run.lib", lib), ("run.project", self.project.clone())];
        let all =
            all.into_iter().filter_map(|(key, value)| Some((key, toml::Value::String(value?))));
        self.model.with_absolute_paths().settings().chain(all).collect()
    }

    fn limits(&self) -> SwarmLimits {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "hours are positive and few"
        )]
        let seconds = self.hours.map(|hours| (hours * 3600.0).ceil() as u64);
        SwarmLimits { seconds, max_tokens: self.max_tokens }
    }
}

pub(super) fn run(context: &Context, args: &SwarmArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    match &args.command {
        None => work(context, &registry, args),
        Some(SwarmCommand::List { limit }) => {
            output::print(&list(context, &registry.swarms(*limit)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(SwarmCommand::Show { id }) => {
            let swarm = registry.swarm(id)?;
            output::print(&if context.json {
                json!(swarm).to_string() + "\n"
            } else {
                show(&swarm, &swarm::report(&registry, id)?)
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Some(SwarmCommand::Report { id, svg }) => {
            let report = swarm::report(&registry, id)?;
            if let Some(path) = svg {
                std::fs::write(path, report.to_svg())
                    .with_context(|| format!("cannot write `{}`", path.display()))?;
            }
            output::print(&text(context, &report))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn work(context: &Context, registry: &Arc<Registry>, args: &SwarmArgs) -> anyhow::Result<ExitCode> {
    let resumed = args.resume.as_ref().map(|id| registry.swarm(id)).transpose()?;
    let context = match &resumed {
        Some(swarm) => Context { config: config_of(context, swarm)?, ..context.clone() },
        None => context.clone(),
    };
    let sandbox = workflow::sandbox()?;
    let screen = Arc::new(SwarmScreen::new(&context));
    let (context, shown) = (&context, &screen);
    let done = workflow::run(context, registry, screen.clone(), |services| async move {
        let report = if let Some(swarm) = &resumed {
            swarm::resume((&services, &sandbox), &swarm.id, args.limits()).await?
        } else {
            let request = request((&services, &sandbox), args).await?;
            if args.dry_run {
                shown.print(&plan(context, &request))?;
                return Ok(());
            }
            Box::pin(swarm::run((&services, &sandbox), request)).await?
        };
        if !context.json {
            shown.print(&text(context, &report))?;
        }
        Ok(())
    });
    screen.close();
    done.map(|()| ExitCode::SUCCESS)
}

/// Returns the settings that a swarm was started with.
fn config_of(context: &Context, swarm: &SwarmRow) -> anyhow::Result<Config> {
    let recorded = pipeline::recorded_settings(&swarm.config["settings"], &context.config);
    Config::load(&[recorded]).with_context(|| format!("the settings of swarm `{}`", swarm.id))
}

async fn request(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    args: &SwarmArgs,
) -> anyhow::Result<SwarmRequest> {
    let training = args.training.options();
    training.check()?;
    let store = SuiteStore::open(&services.home)?;
    for name in &args.anchor {
        store.read(name)?;
        if args.suite.as_deref() == Some(Path::new(name)) {
            let message = format!("`{name}` is what the swarm learns from");
            let hint = "its gate families are measured anyway; choose another suite as --anchor";
            return Err(HintedError::of_usage(message, hint).into());
        }
    }
    let mut tasks = match (&args.suite, &args.tasks) {
        (Some(name), _) => {
            let place = (&*services.registry, services.project.as_str());
            SwarmTasks::of_suite(store.find(place, name)?)?
        }
        (None, Some(path)) => {
            let checked = SwarmTasks::of_file((services, sandbox), path);
            services.shutdown.or_stop(Box::pin(checked)).await??
        }
        (None, None) => {
            return Err(HintedError::of_usage(
                "a swarm needs tasks",
                "give a file with --tasks, or a suite with --suite",
            )
            .into());
        }
    };
    if let Some(limit) = args.limit {
        tasks = tasks.first(limit as usize);
    }
    let config = SwarmConfig {
        suite: tasks.suite.name.clone(),
        agents: args.agents.0,
        generations: args.generations,
        train_every: args.train_every as usize,
        train_share: args.train_share.into(),
        training,
        anchors: args.anchor.clone(),
        lib: args.lib.as_ref().map(std::path::absolute).transpose()?,
        settings: json!(*services.config),
    };
    Ok(SwarmRequest { config, tasks, limits: args.limits() })
}

/// Renders what a swarm would do.
fn plan(context: &Context, request: &SwarmRequest) -> String {
    let SwarmRequest { config, tasks, limits } = request;
    let (n_solve, n_dev, n_gate) = (tasks.to_solve.len(), tasks.n_dev(), tasks.n_gate());
    if context.json {
        let plan = json!({
            "suite": config.suite,
            "n_tasks": n_solve,
            "n_dev": n_dev,
            "n_gate": n_gate,
            "generations": config.generations,
            "train_every": config.train_every,
            "seconds": limits.seconds,
            "max_tokens": limits.max_tokens,
        });
        return format!("{plan}\n");
    }
    let training = match config.train_every {
        0 => "no adapter is trained".to_owned(),
        n => format!("an adapter is trained after {n} newly solved tasks"),
    };
    format!(
        "{n_solve} tasks of `{}` to solve, in at most {} generations\n\
         {n_dev} tasks for the race of adapters, {n_gate} for the gate and the report\n\
         {training}\n",
        config.suite, config.generations,
    )
}

fn list(context: &Context, swarms: &[SwarmRow]) -> String {
    if context.json {
        return swarms.iter().map(|swarm| json!(swarm).to_string() + "\n").collect();
    }
    if swarms.is_empty() {
        return "no swarms yet: `rune swarm` starts one\n".to_owned();
    }
    let head = ["ID", "STATUS", "GENERATION", "STARTED", "SUITE", "ENDED BECAUSE"];
    let rows = swarms.iter().map(|swarm| {
        vec![
            swarm.id.clone(),
            swarm.status.as_str().to_owned(),
            swarm.generation.to_string(),
            swarm.started_at.chars().take(19).collect(),
            swarm.config["suite"].as_str().unwrap_or_default().to_owned(),
            swarm.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    output::table(
        &std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>(),
    )
}

fn show(swarm: &SwarmRow, report: &SwarmReport) -> String {
    let n_open: usize = report.generations.iter().map(|generation| generation.n_open).sum();
    let text = |name: &str| swarm.config[name].to_string();
    let rows = [
        ("swarm", swarm.id.clone()),
        ("status", swarm.status.as_str().to_owned()),
        ("reason", swarm.reason.clone().unwrap_or_else(|| "-".to_owned())),
        ("project", swarm.project.clone()),
        ("suite", report.suite.clone()),
        ("generation", format!("{} of {}", swarm.generation, text("generations"))),
        ("solved", format!("{}, {n_open} left in this generation", report.n_solved)),
        ("train every", text("train_every")),
        ("started", swarm.started_at.clone()),
        ("ended", swarm.ended_at.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}

fn text(context: &Context, report: &SwarmReport) -> String {
    if context.json { json!(report).to_string() + "\n" } else { report.to_markdown() }
}
