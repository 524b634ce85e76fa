//! Turns arguments into a session, and its outcome into text.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context as _;
use anyhow::bail;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::run::RunArgs;
use crate::cli::run::task;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::config::Config;
use crate::config::ConfigLayer;
use crate::error_class::ErrorClass;
use crate::event::Event;
use crate::event::Reporter;
use crate::pipeline;
use crate::pipeline::OutputFolder;
use crate::pipeline::ReadTask;
use crate::pipeline::SessionPlan;
use crate::pipeline::SessionRequest;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::trajectory::Session;

/// Screen with the id of the session that it reports.
pub(super) struct SessionScreen {
    pub(super) screen: Screen,
    pub(super) session: OnceLock<String>,
}

impl Reporter for SessionScreen {
    fn report(&self, subject: &str, event: &Event) {
        if !subject.is_empty() {
            self.session.get_or_init(|| subject.to_owned());
        }
        self.screen.report(subject, event);
    }
}

pub(super) fn run(
    context: &Context,
    args: &RunArgs,
    shown: &Arc<SessionScreen>,
) -> anyhow::Result<ExitCode> {
    args.check()?;
    let registry = context.registry()?;
    let resumed = match &args.resume {
        Some(id) => Some(resumable(&registry, id, args)?),
        None => None,
    };
    let target = OutputFolder { folder: folder(args, resumed.as_ref()), force: args.force };
    let (request, context) = if let Some(session) = resumed {
        let config = config_of(context, &session, args)?;
        (SessionRequest::Resume(Box::new(session)), Context { config, ..context.clone() })
    } else {
        let ReadTask { task, left_out } = task::read(args)?;
        let documents = task::documents(&args.doc)?;
        (SessionRequest::New { task, left_out, documents, job_id: None }, context.clone())
    };
    // The helper is forked before this process has other threads or a model in memory.
    let executable = std::env::current_exe()?;
    let sandbox = if args.unsafe_no_sandbox {
        Sandbox::unconfined(&executable)?
    } else {
        Sandbox::start(&executable)?
    };
    if let Some(reason) = &sandbox.facilities().refused {
        shown.screen.say(&format!(
            "namespaces are unavailable ({reason}): generated code is isolated by Landlock and system call \
             filters; `rune doctor` lists the gaps"
        ));
    }
    let (context, sandbox, target) = (&context, &Arc::new(sandbox), &target);
    workflow::run(context, &registry, shown.clone(), |services| async move {
        if args.dry_run {
            let planned = dry_run(context, (&services, sandbox), request);
            return services.shutdown.or_stop(planned).await?;
        }
        let work = pipeline::run_session((&services, sandbox), request, target);
        let outcome = Box::pin(work).await?;
        if !context.json && outcome.class.is_none() {
            let lines = outcome.paths.iter().map(|path| format!("{}\n", path.display()));
            shown.screen.print(&lines.collect::<String>())?;
        }
        Ok(ExitCode::from(outcome.class.map_or(0, ErrorClass::exit_code)))
    })
}

/// Loads the session to resume. Refuses early what would fail after the model is loaded.
fn resumable(registry: &Registry, id: &str, args: &RunArgs) -> anyhow::Result<Session> {
    let session = registry.resumable(id)?;
    // A session records whether it ran without a jail, and this mark never changes.
    if args.unsafe_no_sandbox && session.sandbox_tier != "none" {
        bail!(
            "session `{id}` was started in the sandbox and cannot be resumed with --unsafe-no-sandbox"
        );
    }
    Ok(session)
}

/// Returns the settings that a session was started with, overridden by the current flags.
fn config_of(context: &Context, session: &Session, args: &RunArgs) -> anyhow::Result<Config> {
    let recorded = pipeline::recorded_settings(&session.config_json, &context.config);
    Config::load(&[recorded, ConfigLayer::from_flags(args.settings())])
        .with_context(|| format!("the recorded settings of session `{}`", session.id))
}

fn folder(args: &RunArgs, resumed: Option<&Session>) -> PathBuf {
    match (&args.out, resumed.and_then(|session| session.workspace.as_ref())) {
        (Some(out), _) => out.clone(),
        (None, Some(workspace)) => PathBuf::from(workspace),
        (None, None) => PathBuf::from("."),
    }
}

/// Prints the plan of a session without running it.
async fn dry_run(
    context: &Context,
    (services, sandbox): (&Services, &Arc<Sandbox>),
    request: SessionRequest,
) -> anyhow::Result<ExitCode> {
    let (task, left_out) = match request {
        SessionRequest::New { task, left_out, .. } => (task, left_out),
        SessionRequest::Resume(session) => (session.task, Vec::new()),
    };
    for omitted in &left_out {
        services.notice(format!("warning: left out {omitted}"));
    }
    let text = task.text.clone();
    let SessionPlan { paths, tests } = pipeline::plan_session((services, sandbox), task).await?;
    let (config, facilities) = (&context.config, sandbox.facilities());
    let plan = json!({
        "task": text,
        "files": paths,
        "tests": tests,
        "provider": config.run.provider.as_str(),
        "model": config.run.model,
        "phases": ["decompose", "plan", "code", "integrate", "diagnose", "repair"],
        "max_tokens": config.run.max_tokens,
        "max_seconds": config.run.max_seconds,
        "candidates": config.run.candidates,
        "repairs": config.run.repairs,
        "sandbox": { "tier": facilities.tier, "memory_cap": facilities.memory_cap.to_string(), "limits": config.sandbox },
    });
    let text = if context.json { format!("{plan}\n") } else { format!("{plan:#}\n") };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
