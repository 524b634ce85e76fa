//! A run, from its data to its adapter.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context as _;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::Parent;
use crate::adapter::Scope;
use crate::adapter::Source;
use crate::cli::context::Context;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::run::prepare;
use crate::event::timestamp;
use crate::failpoint;
use crate::failpoint::Failpoint;
use crate::model;
use crate::registry::AdapterStore;
use crate::registry::DatasetRow;
use crate::registry::PeftFiles;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::RunStatus;
use crate::registry::TrainingRun;
use crate::registry::new_id;
use crate::registry::sha256;
use crate::task::TaskType;
use crate::training;
use crate::training::Dataset;
use crate::training::FailureKind;
use crate::training::Job;
use crate::training::Record;
use crate::training::Rehearsal;
use crate::training::Report;
use crate::training::TrainingError;
use crate::training::TrainingOptions;
use crate::training::Worker;

use super::Args;
use super::display::Display;
use super::records;
use super::records::Collected;
use super::rehearse;

/// The hidden subcommand that becomes a worker.
pub(in crate::cli) const WORKER: &str = "train-worker";

/// What a run was asked, as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    options: TrainingOptions,
    model: PathBuf,
    name: Option<String>,
    scope: Scope,
    session_id: Option<String>,
    #[serde(default)]
    task_type: TaskType,
    /// The adapter that is gone on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<AdapterId>,
}

/// What an adapter is to be made of, and how.
pub(in crate::cli) struct Order {
    pub(in crate::cli) records: Vec<Record>,
    /// `sessions` or `file`.
    pub(in crate::cli) kind: &'static str,
    /// The sessions or files, for the registry.
    pub(in crate::cli) source: Value,
    pub(in crate::cli) options: TrainingOptions,
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) scope: Scope,
    pub(in crate::cli) session_id: Option<String>,
    /// The kind of all its tasks, where they are of one.
    pub(in crate::cli) task_type: Option<TaskType>,
    /// The adapter that is gone on from.
    pub(in crate::cli) from: Option<Adapter>,
    pub(in crate::cli) checkpoint_seconds: u64,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    // The worker ends with the thread that started it: this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let registry = context.registry()?;
    let trained = if let Some(id) = &args.resume {
        let run = registry.reopen_training(id)?;
        let config: Config = serde_json::from_value(run.config.clone())
            .context("this run was asked by another version of rune")?;
        let found = model::identify(&config.model)?.base_digest;
        if found != run.base_digest {
            registry.fail_training(&run.id, RunStatus::Interrupted, "the model has changed")?;
            bail!("`{}` is not the model any more that the run began with", config.model.display());
        }
        drive(context, &registry, &run, &config, (&runtime, args.checkpoint_seconds))?
    } else {
        let order = order(context, &registry, args)?;
        if args.dry_run {
            let (model, _) = runtime.block_on(prepare::model(context))?;
            let base_digest = model::identify(&model)?.base_digest;
            let rehearsal = Rehearsal::of(&context.home, &base_digest).read()?;
            if rehearsal.is_none() && order.options.rehearsal_share > 0.0 && !context.json {
                output::note(
                    "the base's own answers to general questions are made before the first training, and come beside",
                );
            }
            let dataset = dataset(&order, &rehearsal.unwrap_or_default(), &model)?;
            output::print(&dry(context, &dataset, &model, &order.options)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        train(context, &registry, &runtime, &order)?
    };
    match trained {
        Ok(adapter) if context.json => {
            let line = json!({ "type": "train.completed", "adapter": adapter, "exit_code": 0 });
            output::print(&format!("{line}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(adapter) => {
            output::print(&format!("{adapter}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(code),
    }
}

/// What a command line asks for.
fn order(context: &Context, registry: &Registry, args: &Args) -> anyhow::Result<Order> {
    let mut options = args.options.options();
    let from = match &args.from {
        Some(id) => Some(registry.adapter(&AdapterId::parse(id)?)?),
        None => None,
    };
    if let Some(from) = &from {
        options.take_form(&AdapterStore::open(registry, &context.home)?.path(&from.id))?;
    }
    options.check()?;
    let Collected { records, kind, source, task_type } =
        records::collect(registry, &args.data, from.as_ref().filter(|_| !args.no_replay))?;
    if records.is_empty() {
        return Err(TrainingError::NoData("there are no records".to_owned()).into());
    }
    if args.scope() == Scope::Task && task_type.is_none() {
        let reason = "--scope task wants sessions whose tasks are all of one kind";
        return Err(TrainingError::BadOption(reason.to_owned()).into());
    }
    let session_id = match args.data.session.as_slice() {
        [only] if args.data.sessions.is_none() => Some(only.clone()),
        _ => None,
    };
    let name = args.name.clone().or_else(|| from.as_ref()?.name.clone());
    Ok(Order {
        records,
        kind,
        source,
        options,
        name,
        scope: args.scope(),
        session_id,
        task_type,
        from,
        checkpoint_seconds: args.checkpoint_seconds,
    })
}

fn dataset(order: &Order, rehearsal: &[Record], model: &Path) -> anyhow::Result<Dataset> {
    let home = std::env::home_dir().unwrap_or_default().display().to_string();
    let known = order.from.as_ref().map_or(&[][..], |from| &from.train_families);
    Ok(Dataset::build((order.records.clone(), rehearsal), model, &home, known, &order.options)?)
}

/// Trains an adapter and takes it into the registry. `Err` is the exit code of a run that failed, which was told.
pub(in crate::cli) fn train(
    context: &Context,
    registry: &Registry,
    runtime: &tokio::runtime::Runtime,
    order: &Order,
) -> anyhow::Result<Result<AdapterId, ExitCode>> {
    let (model, hub_id) = runtime.block_on(prepare::model(context))?;
    let identity = model::identify(&model)?;
    if let Some(from) = &order.from {
        check_fits(from, &identity, &hub_id)?;
    }
    let rehearsal = if order.options.rehearsal_share > 0.0 {
        let is_sound = || dataset(order, &[], &model).map(drop);
        match runtime.block_on(rehearse::records(context, &identity.base_digest, &is_sound))? {
            Ok(records) => records,
            Err(code) => return Ok(Err(code)),
        }
    } else {
        Vec::new()
    };
    let dataset = dataset(order, &rehearsal, &model)?;
    let config = Config {
        options: order.options.clone(),
        model: fs::canonicalize(&model)?,
        name: order.name.clone(),
        scope: order.scope,
        session_id: order.session_id.clone(),
        task_type: order.task_type.unwrap_or_default(),
        from: order.from.as_ref().map(|from| from.id.clone()),
    };
    let run = TrainingRun {
        id: new_id()?,
        project: prepare::project(context),
        config: serde_json::to_value(&config)?,
        dataset_digest: dataset.digest.clone(),
        base_model: format!("{hub_id}@{}", identity.tokenizer_digest),
        base_digest: identity.base_digest,
        status: RunStatus::Running,
        step: 0,
        total_steps: 0,
        best_val_loss: None,
        adapter_id: None,
        error: None,
        started_at: timestamp(SystemTime::now()),
        ended_at: None,
    };
    let before = registry.trained_before(&run.dataset_digest, &run.base_digest, &run.config)?;
    if let Some(adapter) = before {
        return Err(RegistryError::AdapterExists(adapter).into());
    }
    let folder = folder(context, &run.id);
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    training::write_whole(&folder.join(Job::EXAMPLES), &serde_json::to_vec(&dataset.examples)?)?;
    let row = DatasetRow {
        digest: dataset.digest.clone(),
        project: run.project.clone(),
        kind: order.kind.to_owned(),
        n_records: dataset.records.len() as u64,
        families: dataset.train_families.clone(),
        source: order.source.clone(),
    };
    registry.begin_training(&row, &run)?;
    if !context.quiet && !context.json {
        output::note(&summary(&dataset));
    }
    drive(context, registry, &run, &config, (runtime, order.checkpoint_seconds))
}

/// Going on from an adapter wants the very weights that it was trained on.
fn check_fits(
    from: &Adapter,
    identity: &model::Identity,
    hub_id: &str,
) -> Result<(), RegistryError> {
    if from.base_digest == identity.base_digest {
        return Ok(());
    }
    Err(RegistryError::DoesNotFit {
        id: from.id.clone(),
        base_model: format!("{hub_id} with the digest {}", identity.base_digest),
    })
}

/// Removes the folders of runs that are over, and those that no run came of; what can't be removed now is tried again
/// next time.
fn sweep(context: &Context, registry: &Registry) {
    let Ok(entries) = fs::read_dir(context.home.join("training")) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_over = match registry.training_run(&id) {
            Ok(run) => run.status == RunStatus::Completed,
            Err(RegistryError::NoTraining(_)) => is_old(&path),
            Err(_) => false,
        };
        if is_over && let Err(error) = fs::remove_dir_all(&path) {
            output::note(&format!("cannot remove `{}`: {error}", path.display()));
        }
    }
}

/// Whether nobody can be about to begin the run of this folder.
fn is_old(path: &Path) -> bool {
    const AN_HOUR: Duration = Duration::from_hours(1);
    let made = fs::metadata(path).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > AN_HOUR))
}

/// The folder of a run, as long as it has no adapter.
fn folder(context: &Context, id: &str) -> PathBuf {
    context.home.join("training").join(id)
}

fn summary(dataset: &Dataset) -> String {
    let (tokens, labelled) = dataset.n_tokens();
    format!(
        "{} records of {} families to train on ({tokens} tokens, {labelled} to be learned), {} of them the base's own \
         answers to general questions; {} of other families held out; left out: {} doubles, {} too long; {} secrets taken \
         out",
        dataset.examples.train.len(),
        dataset.train_families.len(),
        dataset.n_rehearsal,
        dataset.examples.validation.len(),
        dataset.n_duplicates,
        dataset.n_too_long,
        dataset.n_secrets,
    )
}

/// What would be trained, and what that takes.
fn dry(
    context: &Context,
    dataset: &Dataset,
    model: &Path,
    options: &TrainingOptions,
) -> anyhow::Result<String> {
    let (tokens, labelled) = dataset.n_tokens();
    let n_threads = prepare::engine_options(context).n_threads;
    let memory = training::memory(model, options, &dataset.examples)?;
    let epochs = options.epochs as usize;
    let seconds = training::seconds(model, options, (tokens * epochs, n_threads))?;
    if context.json {
        let line = json!({
            "type": "train.planned",
            "dataset_digest": dataset.digest,
            "train": dataset.examples.train.len(),
            "validation": dataset.examples.validation.len(),
            "families": dataset.n_families,
            "tokens": tokens,
            "labelled_tokens": labelled,
            "duplicates": dataset.n_duplicates,
            "too_long": dataset.n_too_long,
            "secrets": dataset.n_secrets,
            "rehearsal": dataset.n_rehearsal,
            "memory_bytes": memory,
            "seconds": seconds.round(),
            "options": options,
        });
        return Ok(format!("{line}\n"));
    }
    let mut text = summary(dataset) + "\n";
    let _infallible = write!(
        text,
        "memory: some {} MiB\ntime: some {:.0} minutes for {epochs} passes over the data on {n_threads} threads, by a rule of thumb\n",
        memory >> 20,
        (seconds / 60.0).max(1.0),
    );
    if let Some(record) = dataset.records.first() {
        text += "\nthe first record:\n";
        for message in &record.messages {
            let role = serde_json::to_value(message.role)?;
            let role = role.as_str().unwrap_or_default();
            let content = output::escape(message.content.trim_end());
            let _infallible = writeln!(text, "--- {role}\n{content}");
        }
    }
    Ok(text)
}

/// Has a worker do what is left of a run, and takes in what comes of it.
fn drive(
    context: &Context,
    registry: &Registry,
    run: &TrainingRun,
    config: &Config,
    (runtime, checkpoint_seconds): (&tokio::runtime::Runtime, u64),
) -> anyhow::Result<Result<AdapterId, ExitCode>> {
    let folder = folder(context, &run.id);
    let store = AdapterStore::open(registry, &context.home)?;
    let display = Display::new(context, &run.id);
    if !is_trained(&folder) {
        let job = Job {
            parent: std::process::id(),
            model: config.model.clone(),
            base_model: run.base_model.split('@').next().unwrap_or_default().to_owned(),
            folder: folder.clone(),
            from: config.from.as_ref().map(|id| store.path(id)),
            options: config.options.clone(),
            n_threads: prepare::engine_options(context).n_threads,
            checkpoint_seconds,
        };
        let ended = runtime.block_on(follow(registry, &run.id, &job, &display));
        let failed = match ended {
            Ok(None) => None,
            Ok(Some(failed)) => Some(failed),
            Err(error) => Some((FailureKind::Crash, format!("{error:#}"), exit::ENVIRONMENT)),
        };
        if let Some((kind, detail, code)) = failed {
            return fail(context, registry, &run.id, &display, (kind, &detail, code)).map(Err);
        }
    }
    failpoint::pass(Failpoint::TrainingTrained);
    let adapter = match publish(registry, &store, (run, config), &folder) {
        Ok(adapter) => adapter,
        Err(error) => {
            registry.fail_training(&run.id, RunStatus::Failed, &format!("{error:#}"))?;
            return Err(error);
        }
    };
    registry.complete_training(&run.id, &adapter)?;
    display.close();
    // What it was made of is in the registry; what is left of it here is of no use any more.
    sweep(context, registry);
    Ok(Ok(adapter))
}

/// Whether a worker has written the adapter: its weights come last.
fn is_trained(folder: &Path) -> bool {
    folder.join(Job::ADAPTER).join("adapter_model.safetensors").exists()
}

/// Runs a worker to its end. `None` when the adapter is there, else how it failed, and the exit code.
async fn follow(
    registry: &Registry,
    id: &str,
    job: &Job,
    display: &Display,
) -> anyhow::Result<Option<(FailureKind, String, u8)>> {
    let mut interrupts = Interrupts::new()?;
    let mut worker = Worker::start(&std::env::current_exe()?, &[WORKER.into()], job)?;
    let mut interrupted = None;
    loop {
        let report = tokio::select! {
            report = worker.next() => report?,
            interrupt = interrupts.next() => {
                worker.stop();
                interrupted = Some(interrupt.exit_code());
                continue;
            }
        };
        let Some(report) = report else { bail!("the worker ended twice") };
        display.show(&report);
        match &report {
            Report::Step { step, total, loss, lr, grad_norm, tokens_per_s, rss } => {
                #[expect(clippy::cast_precision_loss, reason = "a size for people")]
                let metrics = [
                    ("loss", *loss),
                    ("lr", f64::from(*lr)),
                    ("grad_norm", *grad_norm),
                    ("tokens_per_s", *tokens_per_s),
                    ("rss", *rss as f64),
                ];
                registry.record_metrics(id, (*step, *total), &metrics)?;
            }
            Report::Eval { step, loss } => {
                registry.record_metrics(id, (*step, 0), &[("val_loss", *loss)])?;
            }
            Report::Done { .. } => return Ok(None),
            Report::Failed { kind, detail } => {
                let code = match (kind, interrupted) {
                    (FailureKind::Interrupted, Some(code)) => code,
                    (FailureKind::Nan | FailureKind::NoGain, _) => exit::UNSOLVED,
                    (FailureKind::Data, _) => exit::USAGE,
                    _ => exit::ENVIRONMENT,
                };
                return Ok(Some((*kind, detail.clone(), code)));
            }
            Report::Started { .. } | Report::Checkpoint { .. } | Report::Heartbeat => {}
        }
    }
}

fn fail(
    context: &Context,
    registry: &Registry,
    id: &str,
    display: &Display,
    (kind, detail, code): (FailureKind, &str, u8),
) -> anyhow::Result<ExitCode> {
    let status = match kind {
        FailureKind::Interrupted => RunStatus::Interrupted,
        _ => RunStatus::Failed,
    };
    registry.fail_training(id, status, &format!("{}: {detail}", kind.as_str()))?;
    display.end(&json!({
        "type": "train.failed", "kind": kind, "error": detail, "exit_code": code,
    }));
    if !context.json {
        output::note(&format!("training failed ({}): {detail}", kind.as_str()));
        // The same data and options would come to the same again.
        let again = matches!(
            kind,
            FailureKind::Nan | FailureKind::NoGain | FailureKind::Data | FailureKind::Setup
        );
        if !again {
            output::note(&format!("`rune train --resume {id}` goes on from the last checkpoint"));
        }
    }
    Ok(ExitCode::from(code))
}

/// Takes the adapter of a run into the registry, unless it is there.
fn publish(
    registry: &Registry,
    store: &AdapterStore<'_>,
    (run, config): (&TrainingRun, &Config),
    folder: &Path,
) -> anyhow::Result<AdapterId> {
    let files = PeftFiles::read(&folder.join(Job::ADAPTER))?;
    let dataset =
        registry.dataset(&run.dataset_digest)?.context("the run's dataset is not there")?;
    let from = config.from.as_ref().map(|id| registry.adapter(id)).transpose()?;
    let mut train_families = dataset.families;
    train_families.extend(from.iter().flat_map(|from| from.train_families.iter().cloned()));
    train_families.sort();
    train_families.dedup();
    let recipe: Value = json!({
        "options": config.options,
        "run": run.id,
        "rune": env!("CARGO_PKG_VERSION"),
    });
    let id = AdapterId::parse(&run.id)?;
    let what = format!("qlora {} {} {}", run.base_digest, run.dataset_digest, run.config);
    let adapter = Adapter {
        id: id.clone(),
        name: config.name.clone(),
        project: run.project.clone(),
        task_type: config.task_type,
        scope: config.scope,
        base_model: run.base_model.clone(),
        base_digest: run.base_digest.clone(),
        recipe_digest: sha256(what.as_bytes()),
        rank: files.rank,
        alpha: files.alpha,
        target_modules: files.target_modules.clone(),
        sha256: files.sha256(),
        size_bytes: files.tensors.len() as u64,
        source: Source::Qlora,
        session_id: config.session_id.clone(),
        dataset_digest: Some(run.dataset_digest.clone()),
        train_families,
        generation: from.as_ref().map_or(0, |from| from.generation + 1),
        parents: from.into_iter().map(|from| Parent { id: from.id, weight: 1.0 }).collect(),
        recipe,
        created_at: timestamp(SystemTime::now()),
        archived_at: None,
        archive_reason: None,
    };
    match store.publish(&adapter, &files) {
        // Killed after it was stored and before the run was ended; or the same weights came of another run.
        Err(RegistryError::AdapterExists(there)) => Ok(there),
        stored => Ok(stored.map(|()| id)?),
    }
}
