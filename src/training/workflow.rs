//! The training workflow: from a [`TrainingRequest`] to an adapter in the registry. A run can be
//! resumed no matter where it was killed.

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
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::RunStatus;
use crate::registry::TrainingRun;
use crate::registry::new_id;
use crate::services::Services;
use crate::similarity::TaskProfile;
use crate::task::TaskType;

use super::TrainingError;
use super::checkpoint::ValidationLosses;
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

/// A request to train an adapter.
#[derive(Debug, Clone)]
pub struct TrainingRequest {
    /// Records to train on, with their origin.
    pub data: CollectedRecords,
    /// Hyperparameters of the run.
    pub options: TrainingOptions,
    /// Display name of the adapter.
    pub name: Option<String>,
    /// Tasks for which the adapter may be selected.
    pub scope: Scope,
    /// The session, if all records are from a single one.
    pub session_id: Option<String>,
    /// Adapter from whose parameters training continues.
    pub from: Option<Adapter>,
    /// Minimum time between two checkpoints, in seconds.
    pub checkpoint_seconds: u64,
    /// Job of a swarm that the run belongs to.
    pub job_id: Option<String>,
}

/// The configuration of a run, stored in the column `training_run.config_json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRunConfig {
    /// Hyperparameters of the run.
    pub options: TrainingOptions,
    /// Canonical path of the model file.
    pub model: PathBuf,
    /// Display name of the adapter.
    pub name: Option<String>,
    /// Tasks for which the adapter may be selected.
    pub scope: Scope,
    /// The session, if all records are from a single one.
    pub session_id: Option<String>,
    /// Task type that the adapter is for.
    #[serde(default)]
    pub task_type: TaskType,
    /// Adapter from whose parameters training continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<AdapterId>,
}

/// A dry run: the dataset and the estimated cost of training on it.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    /// The dataset, as far as it exists.
    pub dataset: Dataset,
    /// Whether the rehearsal records have yet to be generated. They are not in `dataset` then.
    pub lacks_rehearsal: bool,
    /// Estimated peak memory, in bytes.
    pub memory_bytes: u64,
    /// Estimated wall time, in seconds.
    pub seconds: f64,
    /// Number of compute threads.
    pub n_threads: usize,
}

/// Trains an adapter and stores it in the registry.
///
/// # Errors
/// [`RegistryError::AdapterExists`] when an adapter was already trained this way.
/// [`TrainingError::Failed`] when the run started and failed: it is in the registry and can be
/// continued with [`resume`]. After any other error no run was created.
pub async fn train(
    services: &Services,
    request: &TrainingRequest,
) -> Result<AdapterId, TrainingError> {
    let ModelFile { path: model, hub_id } = model_of(services).await?;
    let identity = model::identify(&model)?;
    // Before the rehearsal, which may take minutes.
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
        // The run may be resumed from another working directory.
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
        job_id: request.job_id.clone(),
    };
    let claim = begin(services, request, &dataset, &run)?;
    let claimed = ClaimedRun { registry: &services.registry, run, claim, config };
    drive(services, &claimed, request.checkpoint_seconds).await
}

/// Resumes a run that was interrupted or has failed.
///
/// # Errors
/// [`TrainingError::OtherVersion`] when its configuration cannot be decoded;
/// [`TrainingError::ModelChanged`] when the model file was replaced; the errors of [`train`].
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
    let claimed = ClaimedRun { registry: &services.registry, run, claim, config };
    // Gradients with respect to other weights would fit neither the checkpoint nor the adapter's
    // `base_digest`.
    if identity.base_digest != claimed.run.base_digest {
        let why = "the model has changed";
        services.registry.fail_training(&claimed.claim, RunStatus::Interrupted, why)?;
        return Err(TrainingError::ModelChanged(claimed.config.model.clone()));
    }
    drive(services, &claimed, checkpoint_seconds).await
}

/// Plans a run without starting it. Generates no rehearsal and loads no model.
///
/// # Errors
/// The errors of [`Dataset::build`], and those of finding and reading the model's file.
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
    let tokens = dataset.steps.n_tokens;
    Ok(TrainingPlan {
        memory_bytes: estimate::memory(&model, options, &dataset.examples)?,
        seconds: estimate::seconds(&model, options, (tokens, n_threads))?,
        dataset,
        lacks_rehearsal,
        n_threads,
    })
}

/// Returns the file of the configured model, downloaded if necessary.
async fn model_of(services: &Services) -> Result<ModelFile, TrainingError> {
    let found = services.models.find(&services.config.run.model, &*services.reporter);
    Ok(services.shutdown.or_stop(found).await??)
}

/// Builds the dataset of `request`.
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

/// Returns the rehearsal records of the base model, and generates them if they are not cached.
async fn rehearsal_of(
    services: &Services,
    request: &TrainingRequest,
    (model, base_digest): (&Path, &str),
) -> Result<Vec<TrainingRecord>, TrainingError> {
    let rehearsal = RehearsalFile::of(&services.home, base_digest);
    if let Some(records) = rehearsal.read()? {
        return Ok(records);
    }
    // Generation takes minutes: errors in the data should surface before it.
    build(request, &[], model)?;
    services.notice("generating the base model's rehearsal answers (once per model)");
    let asked = async {
        let engine = services.models.engine(&services.config, &*services.reporter).await?;
        rehearsal::ask(&Provider::InProcess(engine), &*services.reporter).await
    };
    let records = services.shutdown.or_stop(asked).await??;
    rehearsal.write(&records)?;
    Ok(records)
}

/// A run that this process has claimed.
struct ClaimedRun<'a> {
    registry: &'a Registry,
    run: TrainingRun,
    claim: HeldClaim,
    config: TrainingRunConfig,
}

impl Drop for ClaimedRun<'_> {
    /// Gives the run back if an error or a panic has ended its work, or the future was dropped.
    fn drop(&mut self) {
        // Whatever else has ended the run has released the claim, and this is refused.
        let why = "stopped before its end";
        let _already_over = self.registry.fail_training(&self.claim, RunStatus::Interrupted, why);
    }
}

/// Creates the run: writes its examples to disk, then inserts and claims its row.
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
    // The examples come before the row: a run that exists can always be resumed. A folder without
    // a row is removed by `sweep`.
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
        profile: Some(TaskProfile::new(dataset.records.iter().map(TrainingRecord::task))),
    };
    let claim = services.registry.begin_training(&row, run, &ClaimHolder::ThisProcess)?;
    services.report(&run.id, &Event::notice(dataset.summary()));
    Ok(claim)
}

/// Checks that `from` was trained on exactly the weights of `identity`.
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

/// Runs a worker for the remaining steps of a run, and publishes the resulting adapter.
async fn drive(
    services: &Services,
    claimed: &ClaimedRun<'_>,
    checkpoint_seconds: u64,
) -> Result<AdapterId, TrainingError> {
    let ClaimedRun { run, claim, config, .. } = claimed;
    let folder = services.home.training().join(&run.id);
    let store = AdapterStore::open(&services.registry, &services.home)?;
    // Each stage is skipped if it was completed before a crash: training if the adapter is on disk,
    // publishing (inside `publish`) if the store has it.
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
    // The adapter and its provenance are in the registry; the run's folder is no longer needed.
    sweep(services);
    Ok(adapter)
}

/// Whether the worker has written the complete adapter: its weights are written last.
fn is_trained(folder: &Path) -> bool {
    folder.join(TrainJob::ADAPTER).join(WEIGHTS_FILE).exists()
}

/// Runs a worker until its final report. On shutdown it is asked to stop, and still waited for:
/// only its final report says whether a checkpoint was written.
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
                // The loop goes on until the worker has written its checkpoint.
                worker.stop();
                stopped = Some(reason);
                continue;
            }
        };
        match report {
            None => return Ok(()),
            Some(WorkerReport::Done { best_step, best, untrained, .. }) => {
                let margin = job.options.rehearsal_margin;
                if let Some(warning) = losing(best_step, best.zip(untrained), margin) {
                    services.report(claim.id(), &Event::notice(warning));
                }
                return Ok(());
            }
            Some(WorkerReport::Failed { kind, detail }) => {
                // A failure that merely coincides with a shutdown is reported as a failure.
                let stopped = stopped.filter(|_| kind == FailureKind::Interrupted);
                let id = claim.id().to_owned();
                return Err(TrainingError::Failed { id, kind, detail, stopped });
            }
            Some(WorkerReport::Event(event)) => note(services, claim, &event)?,
            Some(WorkerReport::Heartbeat) => {}
        }
    }
}

/// Warns if even the best step has lost more than `margin`.
fn losing(
    step: u32,
    losses: Option<(ValidationLosses, ValidationLosses)>,
    margin: Option<f32>,
) -> Option<String> {
    let (best, untrained) = losses?;
    let (after, before) = (best.rehearsal?, untrained.rehearsal?);
    (after > before + f64::from(margin?)).then(|| {
        format!(
            "every step that learned something made the model forget: the adapter is that of step {step}, with a \
             rehearsal loss of {after:.4} instead of {before:.4}; use a lower learning rate or a higher --rehearsal"
        )
    })
}

/// Stores the metrics of a worker's event and reports the event.
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
        Event::TrainingValidated { step, loss, rehearsal_loss } => {
            let mut metrics = vec![("val_loss", *loss)];
            metrics.extend(rehearsal_loss.map(|loss| ("rehearsal_loss", loss)));
            // A total of 0 leaves the stored one unchanged: the registry keeps the maximum.
            services.registry.record_metrics(claim, (*step, 0), &metrics)?;
        }
        _ => {}
    }
    services.report(claim.id(), event);
    Ok(())
}

/// Stores the failure of a run. Returns `error` as [`TrainingError::Failed`], or the error of the
/// registry if it cannot be stored.
fn fail(services: &Services, claim: &HeldClaim, error: TrainingError) -> TrainingError {
    let error = match error {
        failed @ TrainingError::Failed { .. } => failed,
        // The parent's own side failed, for example to read the worker's reports.
        error => TrainingError::Failed {
            id: claim.id().to_owned(),
            kind: FailureKind::Crash,
            detail: with_causes(&error),
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

/// Stores the adapter of a run in the registry, unless it is already there.
fn publish(
    services: &Services,
    store: &AdapterStore,
    run: &TrainingRun,
    config: &TrainingRunConfig,
) -> Result<AdapterId, TrainingError> {
    let files = PeftFiles::read(&services.home.training().join(&run.id).join(TrainJob::ADAPTER))?;
    let from = config.from.as_ref().map(|id| services.registry.adapter(id)).transpose()?;
    // The families of all ancestors: an adapter must not be evaluated on anything it descends from.
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
    // The recipe covers every input, so that the registry recognizes a repeated training.
    let recipe_text = format!("qlora {} {} {}", run.base_digest, run.dataset_digest, run.config);
    let adapter = Adapter {
        id: id.clone(),
        name: config.name.clone(),
        project: run.project.clone(),
        task_type: config.task_type,
        scope: config.scope,
        base_model: run.base_model.clone(),
        base_digest: run.base_digest.clone(),
        recipe_digest: sha256(recipe_text.as_bytes()),
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
        // This process was killed between publishing and completing the run, or another run
        // produced the same weights.
        Err(RegistryError::AdapterExists(existing)) => Ok(existing),
        stored => Ok(stored.map(|()| id)?),
    }
}

/// Removes the folders of completed runs, and old folders without a run. A folder that cannot be
/// removed is tried again after the next run.
fn sweep(services: &Services) {
    let Ok(entries) = fs::read_dir(services.home.training()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_over = match services.registry.training_run(&id) {
            // Failed and interrupted runs keep their checkpoint: they can be resumed.
            Ok(run) => run.status == RunStatus::Completed,
            // Another process may be between writing the examples and inserting the row.
            Err(RegistryError::NotFound { .. }) => is_old(&path),
            Err(_) => false,
        };
        if is_over && let Err(error) = fs::remove_dir_all(&path) {
            let message = format!("cannot remove `{}`: {error}", path.display());
            services.notice(message);
        }
    }
}

/// Whether a folder is too old for its run to be just starting.
fn is_old(path: &Path) -> bool {
    const AN_HOUR: Duration = Duration::from_hours(1);
    let made = fs::metadata(path).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > AN_HOUR))
}
