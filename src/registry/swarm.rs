//! Runs of `rune swarm`: what was asked, how far it has come, and the time that it took.

use std::time::SystemTime;

use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

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
use crate::registry::id::new_id;
use crate::registry::job;
use crate::registry::job::NewJob;
use crate::registry::training::RunStatus;

static SWARMS: ClaimTable = ClaimTable {
    name: "swarm_run",
    kind: RecordKind::Swarm,
    on_claim: "status = 'running', ended_at = NULL, reason = NULL",
};

/// Wall time of a swarm by kind of work, in seconds. Work of different kinds at once counts as the
/// first of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SwarmSeconds {
    /// An adapter was trained.
    pub training: f64,
    /// Adapters were measured, for the report or to decide about them.
    pub evaluation: f64,
    /// Sessions were at work.
    pub solving: f64,
    /// None of these went on.
    pub idle: f64,
}

/// A run of `rune swarm`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SwarmRow {
    /// Unique id; ids sort by creation time.
    pub id: String,
    /// Key of the project it belongs to.
    pub project: String,
    /// Everything needed to resume it.
    pub config: Value,
    /// Current status of the swarm.
    pub status: RunStatus,
    /// Current generation, from 1.
    pub generation: u32,
    /// Where the time went.
    pub seconds: SwarmSeconds,
    /// Why it has ended.
    pub reason: Option<String>,
    /// Time of the start, RFC 3339 UTC.
    pub started_at: String,
    /// RFC 3339 UTC; `None` while running.
    pub ended_at: Option<String>,
}

impl SwarmRow {
    /// Creates the row of a new swarm.
    ///
    /// # Errors
    /// [`RegistryError::Kernel`] when the system gives no random numbers.
    pub fn new(project: &str, config: Value) -> Result<Self, RegistryError> {
        Ok(Self {
            id: new_id()?,
            project: project.to_owned(),
            config,
            status: RunStatus::Running,
            generation: 1,
            seconds: SwarmSeconds::default(),
            reason: None,
            started_at: timestamp(SystemTime::now()),
            ended_at: None,
        })
    }
}

impl Registry {
    /// Inserts a new swarm with its first jobs, claimed by this process.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn begin_swarm(
        &self,
        swarm: &SwarmRow,
        jobs: &[NewJob],
        event: &Event,
    ) -> Result<HeldClaim, RegistryError> {
        // One transaction: a swarm has all of its tasks, or there is none.
        self.write(|tx| {
            // `running` requires an owner, which only the claim sets.
            tx.execute(
                "INSERT INTO swarm_run (id, project, config_json, status, generation, seconds_json,
                     started_at, ended_at)
                 VALUES (?1, ?2, ?3, 'interrupted', ?4, ?5, ?6, ?6)",
                (
                    &swarm.id,
                    &swarm.project,
                    swarm.config.to_string(),
                    swarm.generation,
                    to_json(&swarm.seconds),
                    &swarm.started_at,
                ),
            )?;
            let claim = claim::claim(tx, &SWARMS, &swarm.id, &ClaimHolder::ThisProcess)?;
            job::queue(tx, &swarm.id, jobs)?;
            event::append(tx, &swarm.id, event)?;
            Ok(claim)
        })
    }

    /// Resumes a swarm in this process.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Busy`] when another process runs it;
    /// [`RegistryError::SwarmCompleted`].
    pub fn reopen_swarm(&self, id: &str) -> Result<(SwarmRow, HeldClaim), RegistryError> {
        self.write(|tx| {
            // An interrupted or failed swarm goes on; so does one whose process has died.
            if find(tx, id)?.status == RunStatus::Completed {
                return Err(RegistryError::SwarmCompleted(id.to_owned()));
            }
            let claim = claim::claim(tx, &SWARMS, id, &ClaimHolder::ThisProcess)?;
            // Read after the claim, which has changed the status.
            let swarm = find(tx, id)?;
            event::append(tx, id, &Event::SwarmResumed { generation: swarm.generation })?;
            Ok((swarm, claim))
        })
    }

    /// Stores where the time of the claimed swarm went.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn record_swarm_seconds(
        &self,
        claim: &HeldClaim,
        seconds: &SwarmSeconds,
    ) -> Result<(), RegistryError> {
        self.write(|tx| {
            claim::require(tx, claim)?;
            let sql = "UPDATE swarm_run SET seconds_json = ?2 WHERE id = ?1";
            tx.prepare_cached(sql)?.execute((claim.id(), to_json(seconds)))?;
            Ok(())
        })
    }

    /// Begins another generation of the claimed swarm with its first jobs. Returns the event.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn begin_generation(
        &self,
        claim: &HeldClaim,
        generation: u32,
        jobs: &[NewJob],
    ) -> Result<Event, RegistryError> {
        self.write(|tx| {
            claim::require(tx, claim)?;
            // The jobs come with the number, so a generation is never begun without them.
            let sql = "UPDATE swarm_run SET generation = ?2 WHERE id = ?1";
            tx.execute(sql, (claim.id(), generation))?;
            let n_tasks = job::queue(tx, claim.id(), jobs)?;
            let event = Event::SwarmGenerationStarted { generation, n_tasks };
            event::append(tx, claim.id(), &event)?;
            Ok(event)
        })
    }

    /// Ends the claimed swarm, and releases the claim.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn end_swarm(
        &self,
        claim: &HeldClaim,
        (status, reason): (RunStatus, &str),
    ) -> Result<(), RegistryError> {
        self.write(|tx| {
            // Jobs keep their own states; a resumed swarm finds them in the queue.
            let values = named_params! {
                ":status": status.as_str(),
                ":reason": reason,
                ":ended_at": timestamp(SystemTime::now()),
            };
            let on_release = "status = :status, reason = :reason, ended_at = :ended_at";
            claim::release(tx, claim, on_release, values)?;
            let event =
                Event::SwarmEnded { status: status.as_str().to_owned(), reason: reason.to_owned() };
            event::append(tx, claim.id(), &event).map(drop)
        })
    }

    /// Returns the swarm `id`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn swarm(&self, id: &str) -> Result<SwarmRow, RegistryError> {
        self.read(|tx| find(tx, id))
    }

    /// Returns the swarms, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn swarms(&self, limit: u32) -> Result<Vec<SwarmRow>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT * FROM swarm_run ORDER BY id DESC LIMIT ?1";
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query([limit])?;
            let mut swarms = Vec::new();
            while let Some(row) = rows.next()? {
                swarms.push(from_row(row)?);
            }
            Ok(swarms)
        })
    }
}

fn find(tx: &Transaction<'_>, id: &str) -> Result<SwarmRow, RegistryError> {
    let mut statement = tx.prepare_cached("SELECT * FROM swarm_run WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    match rows.next()? {
        Some(row) => from_row(row),
        None => Err(RegistryError::not_found(RecordKind::Swarm, id)),
    }
}

fn from_row(row: &Row<'_>) -> Result<SwarmRow, RegistryError> {
    Ok(SwarmRow {
        id: row.get("id")?,
        project: row.get("project")?,
        config: from_json("swarm_run.config_json", &row.get::<_, String>("config_json")?)?,
        status: from_word("swarm_run.status", row.get("status")?)?,
        generation: row.get("generation")?,
        seconds: from_json("swarm_run.seconds_json", &row.get::<_, String>("seconds_json")?)?,
        reason: row.get("reason")?,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
    })
}
