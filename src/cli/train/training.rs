//! Turns arguments into a training run, and its plan or adapter into text.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::error_class::with_causes;
use crate::event::Event;
use crate::event::Reporter;
use crate::parking;
use crate::parking::ParkOptions;
use crate::registry::AdapterStore;
use crate::services::Services;
use crate::training;
use crate::training::TrainingError;
use crate::training::TrainingPlan;
use crate::training::TrainingRequest;

use super::TrainArgs;

pub(super) fn run(context: &Context, args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let screen = Arc::new(Screen::new(context));
    let registry = context.registry()?;
    let shown = &screen;
    let result = workflow::run(context, &registry, screen.clone(), |services| async move {
        train(context, args, &services, shown).await
    });
    screen.close();
    result
}

async fn train(
    context: &Context,
    args: &TrainArgs,
    services: &Services,
    screen: &Screen,
) -> anyhow::Result<ExitCode> {
    let request = match &args.resume {
        Some(_) => None,
        None => Some(request(services, args)?),
    };
    if let (Some(request), true) = (&request, args.dry_run) {
        let plan = training::plan(services, request).await?;
        show_plan(context, &plan, request, screen)?;
        return Ok(ExitCode::SUCCESS);
    }
    let work = async {
        match (&request, &args.resume) {
            (Some(request), _) => training::train(services, request).await,
            (None, id) => {
                let id = id.as_deref().unwrap_or_default();
                training::resume(services, id, args.checkpoint_seconds).await
            }
        }
    };
    let (trained, woken) = match args.park {
        Some(server) => {
            let options = ParkOptions::new(&services.config, server.into());
            parking::while_parked(services, &options, work).await?
        }
        None => (work.await, Ok(())),
    };
    // The adapter is there, whatever has become of the server.
    if let (Ok(adapter), false) = (&trained, context.json) {
        screen.print(&format!("{adapter}\n"))?;
    }
    if let (Err(_), Err(asleep)) = (&trained, &woken) {
        services.notice(with_causes(asleep));
    }
    trained?;
    woken?;
    Ok(ExitCode::SUCCESS)
}

/// Collects the training data and options that `args` name.
fn request(services: &Services, args: &TrainArgs) -> anyhow::Result<TrainingRequest> {
    let registry = &services.registry;
    let mut options = args.options.options();
    let from = match &args.from {
        Some(id) => Some(registry.adapter(&AdapterId::parse(id)?)?),
        None => None,
    };
    if let Some(from) = &from {
        options.take_form(&AdapterStore::open(registry, &services.home)?.path(&from.id))?;
    }
    options.check()?;
    let replayed = from.as_ref().filter(|_| !args.no_replay);
    let data = training::collect(registry, &args.data.request()?, replayed, &*services.reporter)?;
    if args.scope() == Scope::Task && data.task_type.is_none() {
        let reason = "--scope task requires sessions with one task type";
        return Err(TrainingError::BadOption(reason.to_owned()).into());
    }
    let session_id = match args.data.session.as_slice() {
        [only] if args.data.sessions.is_none() => Some(only.clone()),
        _ => None,
    };
    let name = args.name.clone().or_else(|| from.as_ref()?.name.clone());
    Ok(TrainingRequest {
        data,
        options,
        name,
        scope: args.scope(),
        session_id,
        from,
        checkpoint_seconds: args.checkpoint_seconds,
        job_id: None,
    })
}

/// Prints the dataset and the estimated memory and time.
fn show_plan(
    context: &Context,
    plan: &TrainingPlan,
    request: &TrainingRequest,
    screen: &Screen,
) -> anyhow::Result<()> {
    if context.json {
        screen.report("", &planned(plan, request)?);
        return Ok(());
    }
    if plan.lacks_rehearsal {
        screen.say(
            "the first training run also generates the base's own answers to general questions; \
             they are not counted here",
        );
    }
    let (n_steps, n_threads) = (plan.dataset.steps.n_steps, plan.n_threads);
    let mut text = plan.dataset.summary() + "\n";
    let _infallible = write!(
        text,
        "memory: about {} MiB\ntime: about {:.0} minutes for {n_steps} steps on {n_threads} threads (rough estimate)\n",
        plan.memory_bytes >> 20,
        (plan.seconds / 60.0).max(1.0),
    );
    if let Some(record) = plan.dataset.records.first() {
        text += "\nfirst record:\n";
        for message in &record.messages {
            let role = serde_json::to_value(message.role)?;
            let role = role.as_str().unwrap_or_default();
            let content = output::escape(message.content.trim_end());
            let _infallible = writeln!(text, "--- {role}\n{content}");
        }
    }
    Ok(screen.print(&text)?)
}

/// Turns the plan into an event.
fn planned(plan: &TrainingPlan, request: &TrainingRequest) -> anyhow::Result<Event> {
    let dataset = &plan.dataset;
    let (tokens, labelled_tokens) = dataset.n_tokens();
    Ok(Event::TrainingPlanned {
        dataset_digest: dataset.digest.clone(),
        n_train: dataset.examples.train.len(),
        n_validation: dataset.examples.validation.len(),
        n_families: dataset.n_families,
        tokens,
        labelled_tokens,
        n_duplicates: dataset.n_duplicates,
        n_too_long: dataset.n_too_long,
        n_secrets: dataset.n_secrets,
        n_rehearsal: dataset.examples.rehearsal.len(),
        n_rehearsal_validation: dataset.examples.rehearsal_validation.len(),
        rehearsal_share: dataset.steps.mean_share,
        min_rehearsal_share: dataset.steps.min_share,
        n_steps: dataset.steps.n_steps,
        tokens_per_step: dataset.steps.tokens_per_step().round(),
        memory_bytes: plan.memory_bytes,
        seconds: plan.seconds.round(),
        options: serde_json::to_value(&request.options)?,
    })
}
