//! A training run, from its data to the adapter in the registry. Killed at any point, it can be
//! gone on with.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::adapter::ParentAdapter;
use crate::adapter::Scope;
use crate::digest::sha256;
use crate::durable;
use crate::error_class::with_causes;
use crate::event::Event;
use crate::event::timestamp;
use crate::failpoint;
use crate::failpoint::Failpoint;
use crate::model;
use crate::peft::PeftFiles;
use crate::peft::WEIGHTS_FILE;
use crate::provider::ModelFile;
use crate::provider::Provider;
use crate::provider::engine_options;
use crate::registry::AdapterStore;
use crate::registry::ClaimHolder;
use crate::registry::DatasetRow;
use crate::registry::HeldClaim;
use crate::registry::RegistryError;
use crate::registry::RunStatus;
use crate::registry::TrainingRun;
use crate::registry::new_id;
use crate::services::Services;
use crate::task::TaskType;

use super::TrainingError;
use super::collect::CollectedRecords;
use super::dataset::Dataset;
use super::error::FailureKind;
use super::estimate;
use super::launch::TrainingWorker;
use super::options::TrainingOptions;
use super::record::TrainingRecord;
use super::rehearsal;
use super::rehearsal::RehearsalFile;
use super::worker::TrainJob;
use super::worker::WorkerReport;

/// What an adapter is to be made of, and how.
#[derive(Debug, Clone)]
pub struct TrainingRequest {
    /// What it learns, and where that is from.
    pub data: CollectedRecords,
    /// How.
    pub options: TrainingOptions,
    /// What to call it.
    pub name: Option<String>,
    /// For which tasks it may be chosen.
    pub scope: Scope,
    /// The session that all records are of, if it is one.
    pub session_id: Option<String>,
    /// The adapter that is gone on from.
    pub from: Option<Adapter>,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
}

/// What a run was asked, as the column `training_run.config_json` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRunConfig {
    /// How it is trained.
    pub options: TrainingOptions,
    /// The model's file.
    pub model: PathBuf,
    /// What to call the adapter.
    pub name: Option<String>,
    /// For which tasks it may be chosen.
    pub scope: Scope,
    /// The session that all records are of, if it is one.
    pub session_id: Option<String>,
    /// The kind of the tasks.
    #[serde(default)]
    pub task_type: TaskType,
    /// The adapter that is gone on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<AdapterId>,
}

/// What a run would do.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    /// What it would learn.
    pub dataset: Dataset,
    /// Whether the base's own answers to general questions are still to be made; they come beside.
    pub lacks_rehearsal: bool,
    /// Estimate of the memory.
    pub memory_bytes: u64,
    /// Estimate of the time.
    pub seconds: f64,
    /// Threads that would compute.
    pub n_threads: usize,
}

/// Trains an adapter and takes it into the registry.
///
/// # Errors
/// [`RegistryError::AdapterExists`] when this was done before. [`TrainingError::Failed`] when the
/// run began and broke off; the registry has it then, and [`resume`] can go on with it. Others:
/// nothing was begun.
pub async fn train(
    services: &Services,
    request: &TrainingRequest,
) -> Result<AdapterId, TrainingError> {
    let ModelFile { path: model, hub_id } = model_of(services).await?;
    let identity = model::identify(&model)?;
    if let Some(from) = &request.from {
        check_fits(from, &identity, &hub_id)?;
    }
    let rehearsal = if request.options.rehearsal_share > 0.0 {
        rehearsal_of(services, request, (&model, &identity.base_digest)).await?
    } else {
        Vec::new()
    };
    let dataset = build(request, &rehearsal, &model)?;
    let config = TrainingRunConfig {
        options: request.options.clone(),
        model: fs::canonicalize(&model).map_err(TrainingError::files(&model))?,
        name: request.name.clone(),
        scope: request.scope,
        session_id: request.session_id.clone(),
        task_type: request.data.task_type.unwrap_or_default(),
        from: request.from.as_ref().map(|from| from.id.clone()),
    };
    let run = TrainingRun {
        id: new_id().map_err(RegistryError::from)?,
        project: services.project.clone(),
        config: json!(config),
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
    let claim = begin(services, request, &dataset, &run)?;
    let claimed = ClaimedRun { run, claim, config };
    drive(services, &claimed, request.checkpoint_seconds).await
}

/// Goes on with a run that broke off.
///
/// # Errors
/// [`TrainingError::OtherVersion`], [`TrainingError::ModelChanged`]; those of [`train`].
pub async fn resume(
    services: &Services,
    id: &str,
    checkpoint_seconds: u64,
) -> Result<AdapterId, TrainingError> {
    let config = services.registry.training_run(id)?.config;
    let config: TrainingRunConfig =
        serde_json::from_value(config).map_err(TrainingError::OtherVersion)?;
    let identity = model::identify(&config.model)?;
    let (run, claim) = services.registry.reopen_training(id, &ClaimHolder::ThisProcess)?;
    if identity.base_digest != run.base_digest {
        services.registry.fail_training(&claim, RunStatus::Interrupted, "the model has changed")?;
        return Err(TrainingError::ModelChanged(config.model));
    }
    drive(services, &ClaimedRun { run, claim, config }, checkpoint_seconds).await
}

/// What [`train`] would do, and what that takes. Asks no model.
///
/// # Errors
/// Those of the data and of the model's file.
pub async fn plan(
    services: &Services,
    request: &TrainingRequest,
) -> Result<TrainingPlan, TrainingError> {
    let model = model_of(services).await?.path;
    let base_digest = model::identify(&model)?.base_digest;
    let rehearsal = RehearsalFile::of(&services.home, &base_digest).read()?;
    let options = &request.options;
    let lacks_rehearsal = rehearsal.is_none() && options.rehearsal_share > 0.0;
    let dataset = build(request, &rehearsal.unwrap_or_default(), &model)?;
    let n_threads = engine_options(&services.config).n_threads;
    let tokens = dataset.n_tokens().0 * options.epochs as usize;
    Ok(TrainingPlan {
        memory_bytes: estimate::memory(&model, options, &dataset.examples)?,
        seconds: estimate::seconds(&model, options, (tokens, n_threads))?,
        dataset,
        lacks_rehearsal,
        n_threads,
    })
}

/// The file of the model of the settings, fetched when it is not here.
async fn model_of(services: &Services) -> Result<ModelFile, TrainingError> {
    let found = services.models.find(&services.config.run.model, &*services.reporter);
    Ok(services.shutdown.or_stop(found).await??)
}

fn build(
    request: &TrainingRequest,
    rehearsal: &[TrainingRecord],
    model: &Path,
) -> Result<Dataset, TrainingError> {
    let home = std::env::home_dir().unwrap_or_default().display().to_string();
    let known = request.from.as_ref().map_or(&[][..], |from| &from.train_families);
    let records = request.data.records.clone();
    Dataset::build((records, rehearsal), model, &home, known, &request.options)
}

/// The base's own answers, asked for when they are not here. Before that takes minutes, what is to
/// be learned is looked at.
async fn rehearsal_of(
    services: &Services,
    request: &TrainingRequest,
    (model, base_digest): (&Path, &str),
) -> Result<Vec<TrainingRecord>, TrainingError> {
    let rehearsal = RehearsalFile::of(&services.home, base_digest);
    if let Some(records) = rehearsal.read()? {
        return Ok(records);
    }
    build(request, &[], model)?;
    let message = "asking the base what it answers to general questions, once for all trainings";
    services.notice(message);
    let asked = async {
        let engine = services.models.engine(&services.config, &*services.reporter).await?;
        rehearsal::ask(&Provider::InProcess(engine), &*services.reporter).await
    };
    let records = services.shutdown.or_stop(asked).await??;
    rehearsal.write(&records)?;
    Ok(records)
}

/// A run that this process drives.
struct ClaimedRun {
    run: TrainingRun,
    claim: HeldClaim,
    config: TrainingRunConfig,
}

/// Writes down what is to be done, and what with.
fn begin(
    services: &Services,
    request: &TrainingRequest,
    dataset: &Dataset,
    run: &TrainingRun,
) -> Result<HeldClaim, TrainingError> {
    let before =
        services.registry.trained_before(&run.dataset_digest, &run.base_digest, &run.config)?;
    if let Some(adapter) = before {
        return Err(RegistryError::AdapterExists(adapter).into());
    }
    let path = services.home.training().join(&run.id).join(TrainJob::EXAMPLES);
    durable::write(&path, json!(dataset.examples).to_string().as_bytes())
        .map_err(TrainingError::files(&path))?;
    let row = DatasetRow {
        digest: dataset.digest.clone(),
        project: run.project.clone(),
        kind: request.data.kind,
        n_records: dataset.records.len() as u64,
        families: dataset.train_families.clone(),
        source: request.data.source.clone(),
    };
    let claim = services.registry.begin_training(&row, run, &ClaimHolder::ThisProcess)?;
    services.report(&run.id, &Event::notice(dataset.summary()));
    Ok(claim)
}

/// Going on from an adapter wants the very weights that it was trained on.
fn check_fits(
    from: &Adapter,
    identity: &model::ModelIdentity,
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

/// Has a worker do what is left of a run, and takes in what comes of it.
async fn drive(
    services: &Services,
    claimed: &ClaimedRun,
    checkpoint_seconds: u64,
) -> Result<AdapterId, TrainingError> {
    let ClaimedRun { run, claim, config } = claimed;
    let folder = services.home.training().join(&run.id);
    let store = AdapterStore::open(&services.registry, &services.home)?;
    if !is_trained(&folder) {
        let job = TrainJob {
            parent: std::process::id(),
            model: config.model.clone(),
            base_model: run.base_model.split('@').next().unwrap_or_default().to_owned(),
            folder: folder.clone(),
            from: config.from.as_ref().map(|id| store.path(id)),
            options: config.options.clone(),
            n_threads: engine_options(&services.config).n_threads,
            checkpoint_seconds,
        };
        if let Err(error) = follow(services, claim, &job).await {
            return Err(fail(services, claim, error));
        }
    }
    failpoint::pass(Failpoint::TrainingTrained);
    let adapter = match publish(services, &store, run, config) {
        Ok(adapter) => adapter,
        Err(error) => {
            let shown = with_causes(&error);
            services.registry.fail_training(claim, RunStatus::Failed, &shown)?;
            return Err(error);
        }
    };
    services.registry.complete_training(claim, &adapter)?;
    services.report(&run.id, &Event::TrainingCompleted { adapter_id: adapter.clone() });
    // What it was made of is in the registry; what is left of it here is of no use any more.
    sweep(services);
    Ok(adapter)
}

/// Whether a worker has written the adapter: its weights come last.
fn is_trained(folder: &Path) -> bool {
    folder.join(TrainJob::ADAPTER).join(WEIGHTS_FILE).exists()
}

/// Runs a worker to its end.
async fn follow(
    services: &Services,
    claim: &HeldClaim,
    job: &TrainJob,
) -> Result<(), TrainingError> {
    let mut worker = TrainingWorker::start(&services.executable, job)?;
    let mut stopped = None;
    loop {
        let report = tokio::select! {
            report = worker.next() => report.map_err(TrainingError::files(&services.executable))?,
            reason = services.shutdown.triggered(), if stopped.is_none() => {
                worker.stop();
                stopped = Some(reason);
                continue;
            }
        };
        match report {
            // It ends once, with one of these two.
            None | Some(WorkerReport::Done { .. }) => return Ok(()),
            Some(WorkerReport::Failed { kind, detail }) => {
                let stopped = stopped.filter(|_| kind == FailureKind::Interrupted);
                let id = claim.id().to_owned();
                return Err(TrainingError::Failed { id, kind, detail, stopped });
            }
            Some(WorkerReport::Event(event)) => note(services, claim, &event)?,
            Some(WorkerReport::Heartbeat) => {}
        }
    }
}

/// Records the figures of an event of a worker and hands it on.
fn note(services: &Services, claim: &HeldClaim, event: &Event) -> Result<(), TrainingError> {
    match event {
        Event::TrainingStep { step, total, loss, lr, grad_norm, tokens_per_s, rss } => {
            #[expect(clippy::cast_precision_loss, reason = "a size for people")]
            let metrics = [
                ("loss", *loss),
                ("lr", f64::from(*lr)),
                ("grad_norm", *grad_norm),
                ("tokens_per_s", *tokens_per_s),
                ("rss", *rss as f64),
            ];
            services.registry.record_metrics(claim, (*step, *total), &metrics)?;
        }
        Event::TrainingValidated { step, loss } => {
            services.registry.record_metrics(claim, (*step, 0), &[("val_loss", *loss)])?;
        }
        _ => {}
    }
    services.report(claim.id(), event);
    Ok(())
}

/// Records that a run broke off. The error to tell: the first, or that it can't be recorded.
fn fail(services: &Services, claim: &HeldClaim, error: TrainingError) -> TrainingError {
    let error = match error {
        failed @ TrainingError::Failed { .. } => failed,
        other => TrainingError::Failed {
            id: claim.id().to_owned(),
            kind: FailureKind::Crash,
            detail: with_causes(&other),
            stopped: None,
        },
    };
    let TrainingError::Failed { kind, detail, .. } = &error else { return error };
    let status = match kind {
        FailureKind::Interrupted => RunStatus::Interrupted,
        _ => RunStatus::Failed,
    };
    let words = format!("{}: {detail}", kind.as_str());
    if let Err(registry) = services.registry.fail_training(claim, status, &words) {
        return registry.into();
    }
    services.report(claim.id(), &Event::TrainingFailed { error: words });
    error
}

/// Takes the adapter of a run into the registry, unless it is there.
fn publish(
    services: &Services,
    store: &AdapterStore,
    run: &TrainingRun,
    config: &TrainingRunConfig,
) -> Result<AdapterId, TrainingError> {
    let files = PeftFiles::read(&services.home.training().join(&run.id).join(TrainJob::ADAPTER))?;
    let from = config.from.as_ref().map(|id| services.registry.adapter(id)).transpose()?;
    let dataset = services.registry.dataset(&run.dataset_digest)?;
    let mut train_families = dataset.map(|dataset| dataset.families).unwrap_or_default();
    train_families.extend(from.iter().flat_map(|from| from.train_families.iter().cloned()));
    train_families.sort();
    train_families.dedup();
    let recipe: Value = json!({
        "options": config.options,
        "run": run.id,
        "rune": env!("CARGO_PKG_VERSION"),
    });
    let id =
        AdapterId::parse(&run.id).map_err(|error| TrainingError::BadOption(error.to_string()))?;
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
        rank: files.rank(),
        alpha: files.alpha(),
        target_modules: files.target_modules.clone(),
        sha256: files.sha256(),
        size_bytes: files.tensors.len() as u64,
        source: AdapterSource::Qlora,
        session_id: config.session_id.clone(),
        dataset_digest: Some(run.dataset_digest.clone()),
        train_families,
        generation: from.as_ref().map_or(0, |from| from.generation + 1),
        parents: from.into_iter().map(|from| ParentAdapter { id: from.id, weight: 1.0 }).collect(),
        recipe,
        created_at: timestamp(SystemTime::now()),
        archived_at: None,
        archive_reason: None,
    };
    match store.publish(&adapter, &files) {
        // Killed after it was stored and before the run was ended; or the same weights came of
        // another run.
        Err(RegistryError::AdapterExists(there)) => Ok(there),
        stored => Ok(stored.map(|()| id)?),
    }
}

/// Removes the folders of runs that are over, and those that no run came of; what can't be removed
/// now is tried again next time.
fn sweep(services: &Services) {
    let Ok(entries) = fs::read_dir(services.home.training()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_over = match services.registry.training_run(&id) {
            Ok(run) => run.status == RunStatus::Completed,
            Err(RegistryError::NotFound { .. }) => is_old(&path),
            Err(_) => false,
        };
        if is_over && let Err(error) = fs::remove_dir_all(&path) {
            let message = format!("cannot remove `{}`: {error}", path.display());
            services.notice(message);
        }
    }
}

/// Whether nobody can be about to begin the run of this folder.
fn is_old(path: &Path) -> bool {
    const AN_HOUR: Duration = Duration::from_hours(1);
    let made = fs::metadata(path).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > AN_HOUR))
}
