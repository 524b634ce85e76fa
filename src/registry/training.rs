//! Datasets, training runs and their metrics.

use std::time::SystemTime;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::adapter::AdapterId;
use crate::event::Event;
use crate::event::timestamp;
use crate::registry::claim;
use crate::registry::claim::ClaimHolder;
use crate::registry::claim::ClaimTable;
use crate::registry::claim::HeldClaim;
use crate::registry::codec::from_json;
use crate::registry::codec::from_word;
use crate::registry::codec::to_json;
use crate::registry::database::Registry;
use crate::registry::error::RecordKind;
use crate::registry::error::RegistryError;
use crate::registry::event;
use crate::registry::session::adapter_id;
use crate::similarity::TaskProfile;

static TRAINING_RUNS: ClaimTable = ClaimTable {
    name: "training_run",
    kind: RecordKind::TrainingRun,
    on_claim: "status = 'running', ended_at = NULL, error = NULL",
};

/// A dataset. Its row is shared by all training runs on the same data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRow {
    /// sha256 of the complete contents.
    pub digest: String,
    /// Key of the project it belongs to.
    pub project: String,
    /// Kind of its source.
    pub kind: DatasetKind,
    /// Number of records, at least 1.
    pub n_records: u64,
    /// Digests of the families in the training split, sorted.
    pub families: Vec<String>,
    /// The sessions and files it was built from; enough to build it again.
    pub source: Value,
    /// The tasks it was made of; `None` when an earlier version made it.
    pub profile: Option<TaskProfile>,
}

/// The kind of source that a dataset was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// Only sessions of the registry.
    Sessions,
    /// Files, possibly in addition to sessions.
    File,
}

impl DatasetKind {
    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::File => "file",
        }
    }
}

/// Status of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Running. If its process is dead, the run can be resumed.
    Running,
    /// Stopped by a signal; can be resumed.
    Interrupted,
    /// Its adapter is in the registry.
    Completed,
    /// Ended by an error; can be resumed from its checkpoint.
    Failed,
}

impl RunStatus {
    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// A training run: its inputs, progress and result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// Unique id; ids sort by creation time.
    pub id: String,
    /// Key of the project it belongs to.
    pub project: String,
    /// The options, and everything else needed to resume the run.
    pub config: Value,
    /// Digest of the dataset.
    pub dataset_digest: String,
    /// Canonical hub id and tokenizer digest, `id@digest`.
    pub base_model: String,
    /// sha256 of the base model's weights.
    pub base_digest: String,
    /// Current status of the run.
    pub status: RunStatus,
    /// Number of optimizer steps done.
    pub step: u32,
    /// Total number of optimizer steps.
    pub total_steps: u32,
    /// Minimum validation loss so far, in nats per token.
    pub best_val_loss: Option<f64>,
    /// The resulting adapter, once completed.
    pub adapter_id: Option<AdapterId>,
    /// The error that ended the run: its kind, a colon, the detail.
    pub error: Option<String>,
    /// Job of a swarm that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Time of the start, RFC 3339 UTC.
    pub started_at: String,
    /// RFC 3339 UTC; `None` while running.
    pub ended_at: Option<String>,
}

/// A metric of a training run after a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// Step number, from 1; 0 for a validation before the first step.
    pub step: u32,
    /// `loss`, `val_loss`, `rehearsal_loss`, `lr`, `grad_norm`, `tokens_per_s` or `rss`.
    pub name: String,
    /// Value in the unit of the metric.
    pub value: f64,
}

impl Registry {
    /// Inserts a new run, claimed by `holder`, and its dataset if that is not stored yet.
    ///
    /// # Errors
    /// [`RegistryError::AlreadyExists`] when the run's id is taken.
    pub fn begin_training(
        &self,
        dataset: &DatasetRow,
        run: &TrainingRun,
        holder: &ClaimHolder,
    ) -> Result<HeldClaim, RegistryError> {
        self.write(|tx| {
            // The dataset comes first: the run refers to it by a foreign key.
            insert_dataset(tx, dataset, &run.started_at)?;
            insert(tx, run)?;
            let claim = claim::claim(tx, &TRAINING_RUNS, &run.id, holder)?;
            let (dataset_digest, base_model) = (run.dataset_digest.clone(), run.base_model.clone());
            event::append(tx, &run.id, &Event::TrainingStarted { dataset_digest, base_model })?;
            Ok(claim)
        })
    }

    /// Resumes a run under a claim of `holder`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no run has this id; [`RegistryError::Busy`] when another
    /// holder drives it; [`RegistryError::TrainingCompleted`] when there is nothing to resume.
    pub fn reopen_training(
        &self,
        id: &str,
        holder: &ClaimHolder,
    ) -> Result<(TrainingRun, HeldClaim), RegistryError> {
        self.write(|tx| {
            if find(tx, id)?.status == RunStatus::Completed {
                return Err(RegistryError::TrainingCompleted(id.to_owned()));
            }
            let claim = claim::claim(tx, &TRAINING_RUNS, id, holder)?;
            // Read after the claim, which has changed the status.
            let run = find(tx, id)?;
            event::append(tx, id, &Event::TrainingResumed { step: run.step })?;
            Ok((run, claim))
        })
    }

    /// Stores `metrics` of a step of the claimed run, and its progress: `step` of `total` steps.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn record_metrics(
        &self,
        claim: &HeldClaim,
        (step, total): (u32, u32),
        metrics: &[(&str, f64)],
    ) -> Result<(), RegistryError> {
        let (id, at) = (claim.id(), timestamp(SystemTime::now()));
        self.write(|tx| {
            claim::require(tx, claim)?;
            // A resumed run repeats the steps after its last checkpoint: the new values replace
            // those of the interrupted run.
            let mut statement = tx.prepare_cached(
                "INSERT INTO metric (run_id, step, name, value, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (run_id, name, step) DO UPDATE SET value = excluded.value, at = excluded.at",
            )?;
            for (name, value) in metrics {
                statement.execute((id, step, name, value, &at))?;
            }
            // `max`: repeated steps do not move the progress backwards. SQLite's two-argument
            // `min` is NULL if either is, hence the crosswise `coalesce`.
            let best = metrics.iter().find(|(name, _)| *name == "val_loss").map(|(_, loss)| loss);
            let sql = "UPDATE training_run SET step = max(?2, step), total_steps = max(?3, total_steps),
                     best_val_loss = min(coalesce(best_val_loss, ?4), coalesce(?4, best_val_loss)) WHERE id = ?1";
            tx.execute(sql, (id, step, total, best))?;
            Ok(())
        })
    }

    /// Completes the claimed run with an adapter that is already in the registry, and releases the
    /// claim.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn complete_training(
        &self,
        claim: &HeldClaim,
        adapter: &AdapterId,
    ) -> Result<(), RegistryError> {
        self.write(|tx| {
            end(tx, claim, RunStatus::Completed, Some(adapter.as_str()), None)?;
            let adapter_id = adapter.clone();
            event::append(tx, claim.id(), &Event::TrainingCompleted { adapter_id }).map(drop)
        })
    }

    /// Ends the claimed run without an adapter, and releases the claim. The run can be resumed.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn fail_training(
        &self,
        claim: &HeldClaim,
        status: RunStatus,
        error: &str,
    ) -> Result<(), RegistryError> {
        self.write(|tx| {
            end(tx, claim, status, None, Some(error))?;
            let failed = Event::TrainingFailed { error: error.to_owned() };
            event::append(tx, claim.id(), &failed).map(drop)
        })
    }

    /// Returns the training run `id`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no run has this id.
    pub fn training_run(&self, id: &str) -> Result<TrainingRun, RegistryError> {
        self.read(|tx| find(tx, id))
    }

    /// Returns the training run of a job; `None` if its work has not begun.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn training_run_of_job(&self, job_id: &str) -> Result<Option<TrainingRun>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT * FROM training_run WHERE job_id = ?1";
            let mut statement = tx.prepare_cached(sql)?;
            statement.query([job_id])?.next()?.map(from_row).transpose()
        })
    }

    /// Returns the training runs, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn training_runs(&self, limit: u32) -> Result<Vec<TrainingRun>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT * FROM training_run ORDER BY id DESC LIMIT ?1";
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query([limit])?;
            let mut runs = Vec::new();
            while let Some(row) = rows.next()? {
                runs.push(from_row(row)?);
            }
            Ok(runs)
        })
    }

    /// Returns all metrics of a run, sorted by name and step.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn metrics(&self, id: &str) -> Result<Vec<MetricRow>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT step, name, value FROM metric WHERE run_id = ?1 ORDER BY name, step";
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map([id], |row| {
                Ok(MetricRow { step: row.get(0)?, name: row.get(1)?, value: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Returns the dataset with this digest.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn dataset(&self, digest: &str) -> Result<Option<DatasetRow>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT * FROM dataset WHERE digest = ?1";
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query([digest])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let json = |column: &str| row.get::<_, String>(column);
            Ok(Some(DatasetRow {
                digest: row.get("digest")?,
                project: row.get("project")?,
                kind: from_word("dataset.kind", row.get("kind")?)?,
                n_records: row.get::<_, i64>("n_records")?.cast_unsigned(),
                families: from_json("dataset.families", &json("families")?)?,
                source: from_json("dataset.source_json", &json("source_json")?)?,
                profile: row
                    .get::<_, Option<String>>("profile_json")?
                    .map(|profile| from_json("dataset.profile_json", &profile))
                    .transpose()?,
            }))
        })
    }

    /// Returns the adapter of the newest completed run with the same data, weights, options and
    /// initial adapter.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn trained_before(
        &self,
        dataset_digest: &str,
        base_digest: &str,
        config: &Value,
    ) -> Result<Option<AdapterId>, RegistryError> {
        self.read(|tx| {
            // `IS` and not `=`: the initial adapter `from` is usually absent, that is NULL.
            let sql =
                "SELECT adapter_id FROM training_run WHERE dataset_digest = ?1 AND base_digest = ?2
                 AND config_json -> '$.options' = ?3 -> '$.options' AND config_json -> '$.from' IS ?3 -> '$.from'
                 AND status = 'completed' ORDER BY id DESC LIMIT 1";
            let mut statement = tx.prepare_cached(sql)?;
            let values = (dataset_digest, base_digest, config.to_string());
            let found = statement.query_row(values, |row| row.get(0)).optional()?;
            adapter_id("training_run.adapter_id", found.flatten())
        })
    }
}

/// Inserts a new run without an owner; the caller claims it in the same transaction.
fn insert(tx: &Transaction<'_>, run: &TrainingRun) -> Result<(), RegistryError> {
    // The status `running` requires an owner, so the row starts as `interrupted`.
    let added = tx.execute(
        "INSERT INTO training_run (id, kind, project, config_json, dataset_digest, base_model, base_digest,
             status, started_at, ended_at, job_id)
         VALUES (?1, 'qlora', ?2, ?3, ?4, ?5, ?6, 'interrupted', ?7, ?7, ?8) ON CONFLICT (id) DO NOTHING",
        (
            &run.id,
            &run.project,
            run.config.to_string(),
            &run.dataset_digest,
            &run.base_model,
            &run.base_digest,
            &run.started_at,
            &run.job_id,
        ),
    )?;
    match added {
        0 => {
            let id = run.id.clone();
            Err(RegistryError::AlreadyExists { kind: RecordKind::TrainingRun, id })
        }
        _ => Ok(()),
    }
}

/// Inserts a dataset unless it is stored: equal digests mean equal contents.
fn insert_dataset(
    tx: &Transaction<'_>,
    dataset: &DatasetRow,
    at: &str,
) -> Result<(), RegistryError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO dataset (digest, project, kind, n_records, families, source_json, profile_json, at)
         VALUES (:digest, :project, :kind, :n_records, :families, :source, :profile, :at)
         ON CONFLICT (digest) DO UPDATE SET profile_json = excluded.profile_json WHERE profile_json IS NULL",
    )?;
    statement.execute(named_params! {
        ":digest": dataset.digest,
        ":project": dataset.project,
        ":kind": dataset.kind.as_str(),
        ":n_records": dataset.n_records.cast_signed(),
        ":families": to_json(&dataset.families),
        ":source": dataset.source.to_string(),
        ":profile": dataset.profile.as_ref().map(to_json),
        ":at": at,
    })?;
    Ok(())
}

fn end(
    tx: &Transaction<'_>,
    claim: &HeldClaim,
    status: RunStatus,
    adapter_id: Option<&str>,
    error: Option<&str>,
) -> Result<(), RegistryError> {
    let on_release =
        "status = :status, adapter_id = :adapter_id, error = :error, ended_at = :ended_at";
    let values = named_params! {
        ":status": status.as_str(),
        ":adapter_id": adapter_id,
        ":error": error,
        ":ended_at": timestamp(SystemTime::now()),
    };
    claim::release(tx, claim, on_release, values)
}

fn find(tx: &Transaction<'_>, id: &str) -> Result<TrainingRun, RegistryError> {
    let mut statement = tx.prepare_cached("SELECT * FROM training_run WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    match rows.next()? {
        Some(row) => from_row(row),
        None => Err(RegistryError::not_found(RecordKind::TrainingRun, id)),
    }
}

fn from_row(row: &Row<'_>) -> Result<TrainingRun, RegistryError> {
    Ok(TrainingRun {
        id: row.get("id")?,
        project: row.get("project")?,
        config: from_json("training_run.config_json", &row.get::<_, String>("config_json")?)?,
        dataset_digest: row.get("dataset_digest")?,
        base_model: row.get("base_model")?,
        base_digest: row.get("base_digest")?,
        status: from_word("training_run.status", row.get("status")?)?,
        step: row.get("step")?,
        total_steps: row.get("total_steps")?,
        best_val_loss: row.get("best_val_loss")?,
        adapter_id: adapter_id("training_run.adapter_id", row.get("adapter_id")?)?,
        error: row.get("error")?,
        job_id: row.get("job_id")?,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
    })
}
