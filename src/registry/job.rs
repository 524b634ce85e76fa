//! The queue of a swarm. Each job is done once, no matter how often it is tried.
//!
//! ```text
//!            claim: attempt + 1                 end
//!   queued ----------------------> leased ----------------> done, failed
//!     ^  |                          | | |
//!     |  | cancel                   | | | the last attempt failed
//!     |  +------> cancelled         | | +----------------> discarded
//!     |                             | |
//!     +-----------------------------+ +--> queued again, after a pause
//!         the work was stopped             an attempt failed
//! ```
//!
//! Jobs that follow from one job are queued in the transaction that ends it. Jobs that follow from
//! the state of the queue are derived again when the swarm is resumed. Keys are unique, so no work
//! is queued twice.

use std::time::Duration;
use std::time::SystemTime;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;
use serde::Serialize;
use serde_json::Value;

use crate::event::Event;
use crate::event::timestamp;
use crate::failpoint;
use crate::failpoint::Failpoint;
use crate::job::JobKind;
use crate::job::JobState;
use crate::registry::claim;
use crate::registry::claim::ClaimHolder;
use crate::registry::claim::ClaimTable;
use crate::registry::claim::HeldClaim;
use crate::registry::codec::from_json;
use crate::registry::codec::from_word;
use crate::registry::database::Registry;
use crate::registry::error::RecordKind;
use crate::registry::error::RegistryError;
use crate::registry::event;
use crate::registry::id::new_id;

static JOBS: ClaimTable = ClaimTable {
    name: "job",
    kind: RecordKind::Job,
    on_claim: "state = 'leased', attempt = attempt + 1",
};
/// Error of a job whose process has died.
const DIED: &str = "its process has died";
/// Number of deaths after which a job comes back at once.
const FREE_DEATHS: u32 = 2;
/// Exponent of the longest pause: 64 seconds.
const MAX_PAUSE: u32 = 6;

/// Jobs whose process has died: the claim that puts them back is no attempt.
static LOST_JOBS: ClaimTable = ClaimTable { on_claim: "state = 'leased'", ..JOBS };

/// A job that is not queued yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Kind of the work.
    pub kind: JobKind,
    /// Digest of the work: the same work has the same key.
    pub key: String,
    /// Generation that it belongs to, from 1.
    pub generation: u32,
    /// What is to be done, in a form of its kind.
    pub payload: Value,
}

/// A row of the queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Unique id of the job.
    pub id: String,
    /// Id of the swarm that it belongs to.
    pub swarm_id: String,
    /// Kind of the work.
    pub kind: JobKind,
    /// Digest of the work.
    pub key: String,
    /// Generation that it belongs to, from 1.
    pub generation: u32,
    /// What is to be done, in a form of its kind.
    pub payload: Value,
    /// Current state of the job.
    pub state: JobState,
    /// Number of attempts so far, the current one included.
    pub attempt: u32,
    /// Time from which it may be claimed, RFC 3339 UTC.
    pub run_at: String,
    /// Wall time of all attempts, in seconds.
    pub seconds: f64,
    /// What it has led to, once it is done.
    pub result: Option<Value>,
    /// Time when it was queued, RFC 3339 UTC.
    pub queued_at: String,
    /// RFC 3339 UTC; `None` while it is open.
    pub ended_at: Option<String>,
}

/// An error of an attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobError {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Error message with its causes.
    pub error: String,
    /// Time of the error, RFC 3339 UTC.
    pub at: String,
}

/// How an attempt of a job has ended.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// The work is done, with this result; the jobs that follow from it are queued.
    Done(Value, Vec<NewJob>),
    /// An error that another attempt would meet again.
    Failed(String),
    /// An error that another attempt may not meet. The job is queued again after a pause, or
    /// discarded after its last attempt.
    Retry(String),
    /// The work was stopped. The attempt does not count.
    Stopped,
    /// The process has died. The attempt does not count, because any other job may be the cause.
    /// A job that was at work at several deaths comes back after a pause.
    Died,
}

/// Filter for [`Registry::jobs`]; the default matches every job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Id of the swarm.
    pub swarm_id: Option<String>,
    /// Kind of the work.
    pub kind: Option<JobKind>,
    /// Current state of the job.
    pub state: Option<JobState>,
}

/// Number of jobs of a kind in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct JobCount {
    /// Kind of the work.
    pub kind: JobKind,
    /// Current state of the job.
    pub state: JobState,
    /// Number of such jobs.
    pub n: u64,
}

impl Registry {
    /// Queues jobs of a swarm. Those whose key is known are left out. Returns how many are new.
    ///
    /// # Errors
    /// [`RegistryError::Database`] when there is no such swarm.
    pub fn queue_jobs(&self, swarm_id: &str, jobs: &[NewJob]) -> Result<usize, RegistryError> {
        self.write(|tx| queue(tx, swarm_id, jobs))
    }

    /// Claims the oldest job of a kind that is due, for `holder`; `None` if there is none.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn claim_job(
        &self,
        swarm_id: &str,
        kind: JobKind,
        holder: &ClaimHolder,
    ) -> Result<Option<(Job, HeldClaim)>, RegistryError> {
        // The write transaction excludes every other claimer between the search and the claim.
        let claimed = self.write(|tx| {
            let Some(id) = next_due(tx, swarm_id, kind)? else { return Ok(None) };
            let claim = claim::claim(tx, &JOBS, &id, holder)?;
            Ok(Some((find(tx, &id)?, claim)))
        })?;
        failpoint::pass(Failpoint::JobClaimed);
        Ok(claimed)
    }

    /// Whether a job of a kind could be claimed now.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn is_job_due(&self, swarm_id: &str, kind: JobKind) -> Result<bool, RegistryError> {
        self.read(|tx| Ok(next_due(tx, swarm_id, kind)?.is_some()))
    }

    /// Ends an attempt that took `seconds`, and releases the claim. Returns the event.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn end_job(
        &self,
        claim: &HeldClaim,
        end: &JobEnd,
        seconds: f64,
    ) -> Result<Event, RegistryError> {
        // The effect of the work is in the registry by now, so a repetition would find it.
        failpoint::pass(Failpoint::JobWorked);
        let event = self.write(|tx| {
            claim::require(tx, claim)?;
            let job = find(tx, claim.id())?;
            let (state, result, error) = match end {
                JobEnd::Done(result, next) => {
                    queue(tx, &job.swarm_id, next)?;
                    (JobState::Done, Some(result), None)
                }
                JobEnd::Failed(error) => (JobState::Failed, None, Some(error.as_str())),
                JobEnd::Retry(error) => (after_error(&job), None, Some(error.as_str())),
                JobEnd::Stopped => (JobState::Queued, None, None),
                JobEnd::Died => (JobState::Queued, None, Some(DIED)),
            };
            if let Some(error) = error {
                append_error(tx, &job, error)?;
            }
            // Only attempts that ended by themselves count towards the last one.
            let attempt = job.attempt - u32::from(matches!(end, JobEnd::Stopped | JobEnd::Died));
            let pause = match end {
                JobEnd::Retry(_) => pause(&job, job.attempt),
                JobEnd::Died => pause(&job, n_deaths(tx, &job)?.saturating_sub(FREE_DEATHS)),
                JobEnd::Done(..) | JobEnd::Failed(_) | JobEnd::Stopped => Duration::ZERO,
            };
            let now = SystemTime::now();
            let on_release = "state = :state, attempt = :attempt, run_at = :run_at,
                 seconds = seconds + :seconds, result_json = :result, ended_at = :ended_at";
            let values = named_params! {
                ":state": state.as_str(),
                ":attempt": attempt,
                ":run_at": timestamp(now + pause),
                ":seconds": seconds,
                ":result": result.map(Value::to_string),
                ":ended_at": (!state.is_open()).then(|| timestamp(now)),
            };
            claim::release(tx, claim, on_release, values)?;
            let event = changed(&job, state, error);
            event::append(tx, claim.id(), &event)?;
            Ok(event)
        })?;
        failpoint::pass(Failpoint::JobEnded);
        Ok(event)
    }

    /// Puts the jobs of a swarm whose process has died back into the queue. Returns how many there
    /// were.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn recover_jobs(&self, swarm_id: &str) -> Result<usize, RegistryError> {
        let filter = JobFilter {
            swarm_id: Some(swarm_id.to_owned()),
            state: Some(JobState::Leased),
            ..JobFilter::default()
        };
        // Each in a transaction of its own, under a claim: the dead process may only seem dead.
        let mut n_recovered = 0;
        for job in self.jobs(&filter, u32::MAX)? {
            let claim = |tx: &Transaction<'_>| {
                claim::claim(tx, &LOST_JOBS, &job.id, &ClaimHolder::ThisProcess)
            };
            let claim = match self.write(claim) {
                Ok(claim) => claim,
                // Its process is alive.
                Err(RegistryError::Busy { .. }) => continue,
                Err(error) => return Err(error),
            };
            self.end_job(&claim, &JobEnd::Died, 0.0)?;
            n_recovered += 1;
        }
        Ok(n_recovered)
    }

    /// Cancels a queued job.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Busy`] when it is at work;
    /// [`RegistryError::WrongJobState`] when it has ended.
    pub fn cancel_job(&self, id: &str) -> Result<(), RegistryError> {
        self.move_job(id, JobState::is_open, JobState::Cancelled)
    }

    /// Queues a job again that was not done, with all of its attempts. A swarm that was completed
    /// can be resumed then.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::WrongJobState`] when it is open or done.
    pub fn retry_job(&self, id: &str) -> Result<(), RegistryError> {
        let is_over = |state: JobState| !state.is_open() && state != JobState::Done;
        self.move_job(id, is_over, JobState::Queued)
    }

    /// Moves a free job to another state if it is in one that `allows` it.
    fn move_job(
        &self,
        id: &str,
        allows: impl Fn(JobState) -> bool,
        to: JobState,
    ) -> Result<(), RegistryError> {
        self.write(|tx| {
            let job = find(tx, id)?;
            claim::check_free(tx, &JOBS, id)?;
            if !allows(job.state) {
                return Err(RegistryError::WrongJobState { id: id.to_owned(), state: job.state });
            }
            let now = timestamp(SystemTime::now());
            let ended_at = (!to.is_open()).then_some(&now);
            // A manual retry resets the attempt count.
            tx.execute(
                "UPDATE job SET state = ?2, attempt = 0, run_at = ?3, ended_at = ?4, owner = NULL
                 WHERE id = ?1",
                (id, to.as_str(), &now, ended_at),
            )?;
            if to.is_open() {
                let sql =
                    "UPDATE swarm_run SET status = 'interrupted', reason = 'a job was queued again'
                     WHERE id = ?1 AND status = 'completed'";
                tx.execute(sql, [&job.swarm_id])?;
            }
            event::append(tx, id, &changed(&job, to, None)).map(drop)
        })
    }

    /// Returns the job `id`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn job(&self, id: &str) -> Result<Job, RegistryError> {
        self.read(|tx| find(tx, id))
    }

    /// Returns the jobs that match `filter`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn jobs(&self, filter: &JobFilter, limit: u32) -> Result<Vec<Job>, RegistryError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached(
                "SELECT * FROM job WHERE (?1 IS NULL OR swarm_id = ?1)
                 AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR state = ?3)
                 ORDER BY rowid LIMIT ?4",
            )?;
            let (kind, state) =
                (filter.kind.map(JobKind::as_str), filter.state.map(JobState::as_str));
            let mut rows = statement.query((&filter.swarm_id, kind, state, limit))?;
            let mut jobs = Vec::new();
            while let Some(row) = rows.next()? {
                jobs.push(from_row(row)?);
            }
            Ok(jobs)
        })
    }

    /// Returns how many jobs of a swarm's generation there are of each kind and state.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn job_counts(
        &self,
        swarm_id: &str,
        generation: u32,
    ) -> Result<Vec<JobCount>, RegistryError> {
        // From the index alone, however long the payloads are.
        let sql = "SELECT kind, state, count(*) FROM job WHERE swarm_id = ?1 AND generation = ?2
             GROUP BY kind, state";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query((swarm_id, generation))?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                counts.push(JobCount {
                    kind: from_word("job.kind", row.get(0)?)?,
                    state: from_word("job.state", row.get(1)?)?,
                    n: row.get::<_, i64>(2)?.cast_unsigned(),
                });
            }
            Ok(counts)
        })
    }

    /// Returns the errors of a job, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn job_errors(&self, id: &str) -> Result<Vec<JobError>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT attempt, error, at FROM job_error WHERE job_id = ?1 ORDER BY rowid";
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map([id], |row| {
                Ok(JobError { attempt: row.get(0)?, error: row.get(1)?, at: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Returns the id of the oldest job of a kind that is due. A job that waits for longer than any
/// pause was queued before the clock was set back, and is due as well.
fn next_due(
    tx: &Transaction<'_>,
    swarm_id: &str,
    kind: JobKind,
) -> Result<Option<String>, RegistryError> {
    let mut statement = tx.prepare_cached(
        "SELECT id FROM job WHERE swarm_id = ?1 AND kind = ?2 AND state = 'queued'
         AND NOT (run_at > ?3 AND run_at <= ?4) ORDER BY run_at, rowid LIMIT 1",
    )?;
    let now = SystemTime::now();
    let longest = Duration::from_secs(2 << MAX_PAUSE);
    let (now, latest) = (timestamp(now), timestamp(now + longest));
    let found = statement.query_row((swarm_id, kind.as_str(), now, latest), |row| row.get(0));
    Ok(found.optional()?)
}

/// Returns the event of a job's new state.
fn changed(job: &Job, state: JobState, error: Option<&str>) -> Event {
    let (kind, generation) = (job.kind, job.generation);
    Event::JobChanged { kind, generation, state, error: error.map(str::to_owned) }
}

/// Returns how often a process has died that was at work at a job.
fn n_deaths(tx: &Transaction<'_>, job: &Job) -> Result<u32, RegistryError> {
    let sql = "SELECT count(*) FROM job_error WHERE job_id = ?1 AND error = ?2";
    Ok(tx.prepare_cached(sql)?.query_row((&job.id, DIED), |row| row.get(0))?)
}

/// Returns the state of a job after a failed attempt.
fn after_error(job: &Job) -> JobState {
    let is_last = job.attempt >= job.kind.max_attempts();
    if is_last { JobState::Discarded } else { JobState::Queued }
}

/// Returns the pause after `n` errors: 2 to the power of `n`, in seconds, and up to half of that
/// again, so that jobs which failed together do not come back together; none after no error.
fn pause(job: &Job, n: u32) -> Duration {
    if n == 0 {
        return Duration::ZERO;
    }
    // The id ends in random digits.
    let share = job.id.bytes().last().map_or(0.0, |byte| f64::from(byte % 16) / 32.0);
    Duration::from_secs_f64(f64::from(1_u32 << n.min(MAX_PAUSE)) * (1.0 + share))
}

/// Queues jobs within the caller's transaction, and returns how many are new.
pub(super) fn queue(
    tx: &Transaction<'_>,
    swarm_id: &str,
    jobs: &[NewJob],
) -> Result<usize, RegistryError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO job (id, swarm_id, kind, key, generation, payload_json, state, run_at, queued_at)
         VALUES (:id, :swarm_id, :kind, :key, :generation, :payload, 'queued', :now, :now)
         ON CONFLICT (key) DO NOTHING",
    )?;
    // Ids of one millisecond have no order, so the queue is read in the order of its rows.
    let now = timestamp(SystemTime::now());
    let mut n_new = 0;
    for job in jobs {
        n_new += statement.execute(named_params! {
            ":id": new_id()?,
            ":swarm_id": swarm_id,
            ":kind": job.kind.as_str(),
            ":key": job.key,
            ":generation": job.generation,
            ":payload": job.payload.to_string(),
            ":now": now,
        })?;
    }
    Ok(n_new)
}

fn append_error(tx: &Transaction<'_>, job: &Job, error: &str) -> Result<(), RegistryError> {
    // A table of its own: a job keeps the errors of all attempts.
    let sql = "INSERT INTO job_error (job_id, attempt, error, at) VALUES (?1, ?2, ?3, ?4)";
    let at = timestamp(SystemTime::now());
    tx.prepare_cached(sql)?.execute((&job.id, job.attempt, error, at))?;
    Ok(())
}

fn find(tx: &Transaction<'_>, id: &str) -> Result<Job, RegistryError> {
    let mut statement = tx.prepare_cached("SELECT * FROM job WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    match rows.next()? {
        Some(row) => from_row(row),
        None => Err(RegistryError::not_found(RecordKind::Job, id)),
    }
}

fn from_row(row: &Row<'_>) -> Result<Job, RegistryError> {
    let result: Option<String> = row.get("result_json")?;
    Ok(Job {
        id: row.get("id")?,
        swarm_id: row.get("swarm_id")?,
        kind: from_word("job.kind", row.get("kind")?)?,
        key: row.get("key")?,
        generation: row.get("generation")?,
        payload: from_json("job.payload_json", &row.get::<_, String>("payload_json")?)?,
        state: from_word("job.state", row.get("state")?)?,
        attempt: row.get("attempt")?,
        run_at: row.get("run_at")?,
        seconds: row.get("seconds")?,
        result: result.map(|text| from_json("job.result_json", &text)).transpose()?,
        queued_at: row.get("queued_at")?,
        ended_at: row.get("ended_at")?,
    })
}
