//! Session lifecycle: start, resume, end. At any time at most one holder has a claim on a session.

use std::time::SystemTime;

use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;

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
use crate::registry::experience;
use crate::task::SourceFile;
use crate::trajectory::Assurance;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

static SESSIONS: ClaimTable = ClaimTable {
    name: "session",
    kind: RecordKind::Session,
    on_claim: "status = 'running', ended_at = NULL, exit_code = NULL",
};

/// The final state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// Final status; not [`SessionStatus::Running`].
    pub status: SessionStatus,
    /// Evidence for `solved`; the schema rejects a solved session without any.
    pub verified_by: VerifiedBy,
    /// Assurance of a pass of the user's tests.
    pub assurance: Option<Assurance>,
    /// Exit code of `rune`.
    pub exit_code: i32,
}

impl SessionEnd {
    /// Creates the end of a session without any evidence of success.
    pub fn unverified(status: SessionStatus, exit_code: i32) -> Self {
        Self { status, verified_by: VerifiedBy::None, assurance: None, exit_code }
    }
}

/// Filter for [`Registry::sessions`]; the default matches every session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Status that the session must have.
    pub status: Option<SessionStatus>,
    /// Project key that the session must have.
    pub project: Option<String>,
}

impl Registry {
    /// Inserts a new running session, claimed by `holder`, with its first event, and a second one
    /// if it shows records of earlier sessions. The fields of `session` that describe its status
    /// and end are ignored.
    ///
    /// # Errors
    /// [`RegistryError::AlreadyExists`] when the id is taken.
    pub fn begin_session(
        &self,
        session: &Session,
        holder: &ClaimHolder,
        event: &Event,
    ) -> Result<HeldClaim, RegistryError> {
        self.write(|tx| {
            insert(tx, session)?;
            let claim = claim::claim(tx, &SESSIONS, &session.id, holder)?;
            event::append(tx, &session.id, event)?;
            if let Some(event) = Event::memory_of(session) {
                event::append(tx, &session.id, &event)?;
            }
            Ok(claim)
        })
    }

    /// Resumes a session under a claim of `holder`. `event` builds the event from the number of
    /// attempts that are already stored.
    ///
    /// # Errors
    /// [`RegistryError::WrongStatus`] when the session is solved; [`RegistryError::Busy`] when
    /// another holder runs it; [`RegistryError::NotFound`] when no session has this id.
    pub fn reopen_session(
        &self,
        id: &str,
        holder: &ClaimHolder,
        event: impl FnOnce(u32) -> Event,
    ) -> Result<HeldClaim, RegistryError> {
        self.write(|tx| {
            check_unsolved(tx, id)?;
            let claim = claim::claim(tx, &SESSIONS, id, holder)?;
            let n_attempts = super::attempt::n_attempts(tx, id)?;
            event::append(tx, id, &event(n_attempts))?;
            Ok(claim)
        })
    }

    /// Returns a session that [`Self::reopen_session`] could resume right now. Changes nothing.
    ///
    /// # Errors
    /// The errors of [`Self::reopen_session`].
    pub fn resumable(&self, id: &str) -> Result<Session, RegistryError> {
        self.read(|tx| {
            check_unsolved(tx, id)?;
            claim::check_free(tx, &SESSIONS, id)?;
            read(tx, id)
        })
    }

    /// Ends the claimed session with its last event, and releases the claim.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held;
    /// [`RegistryError::Database`] when `ending` contradicts itself, such as `solved` without any
    /// verification.
    pub fn end_session(
        &self,
        claim: &HeldClaim,
        ending: &SessionEnd,
        event: &Event,
    ) -> Result<(), RegistryError> {
        self.end_session_with(claim, ending, event, &[])
    }

    /// Ends a session like [`Self::end_session`]. If it is sound (see [`Session::is_sound`]), its
    /// task and the solution `files` become a record for later sessions.
    ///
    /// # Errors
    /// The errors of [`Self::end_session`].
    pub fn end_session_with(
        &self,
        claim: &HeldClaim,
        ending: &SessionEnd,
        event: &Event,
        files: &[SourceFile],
    ) -> Result<(), RegistryError> {
        let on_release = "status = :status, verified_by = :verified_by, assurance = :assurance,
             exit_code = :exit_code, ended_at = :ended_at";
        self.write(|tx| {
            let values = named_params! {
                ":status": ending.status.as_str(),
                ":verified_by": ending.verified_by.as_str(),
                ":assurance": ending.assurance.map(Assurance::as_str),
                ":exit_code": ending.exit_code,
                ":ended_at": timestamp(SystemTime::now()),
            };
            claim::release(tx, claim, on_release, values)?;
            event::append(tx, claim.id(), event)?;
            experience::index(tx, &read(tx, claim.id())?, files)
        })
    }

    /// Returns the session `id`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no session has this id.
    pub fn session(&self, id: &str) -> Result<Session, RegistryError> {
        self.read(|tx| read(tx, id))
    }

    /// Returns the session of a job; `None` if its work has not begun.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn session_of_job(&self, job_id: &str) -> Result<Option<Session>, RegistryError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT * FROM session WHERE job_id = ?1")?;
            statement.query([job_id])?.next()?.map(from_row).transpose()
        })
    }

    /// Returns the keys of all projects that have sessions, sorted.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn projects(&self) -> Result<Vec<String>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT DISTINCT project FROM session ORDER BY project";
            let mut statement = tx.prepare_cached(sql)?;
            let projects = statement.query_map([], |row| row.get(0))?;
            Ok(projects.collect::<Result<_, _>>()?)
        })
    }

    /// Returns the sessions that match `filter`, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn sessions(
        &self,
        filter: &SessionFilter,
        limit: u32,
    ) -> Result<Vec<Session>, RegistryError> {
        self.read(|tx| {
            // Ids start with the creation time, so this order is by age.
            let mut statement = tx.prepare_cached(
                "SELECT * FROM session WHERE (?1 IS NULL OR status = ?1)
                 AND (?2 IS NULL OR project = ?2) ORDER BY id DESC LIMIT ?3",
            )?;
            let status = filter.status.map(SessionStatus::as_str);
            let mut rows = statement.query((status, &filter.project, limit))?;
            let mut sessions = Vec::new();
            while let Some(row) = rows.next()? {
                sessions.push(from_row(row)?);
            }
            Ok(sessions)
        })
    }
}

/// Reads a session within the caller's transaction.
pub(super) fn read(tx: &Transaction<'_>, id: &str) -> Result<Session, RegistryError> {
    let mut statement = tx.prepare_cached("SELECT * FROM session WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    match rows.next()? {
        Some(row) => from_row(row),
        None => Err(RegistryError::not_found(RecordKind::Session, id)),
    }
}

/// Checks that the session is not solved: only then is there something to resume.
fn check_unsolved(tx: &Transaction<'_>, id: &str) -> Result<(), RegistryError> {
    match read(tx, id)?.status {
        status @ SessionStatus::Solved => {
            Err(RegistryError::WrongStatus { id: id.to_owned(), status })
        }
        _ => Ok(()),
    }
}

/// Decodes an adapter id of `column`.
pub(super) fn adapter_id(
    column: &'static str,
    text: Option<String>,
) -> Result<Option<AdapterId>, RegistryError> {
    text.map(|text| AdapterId::parse(&text))
        .transpose()
        .map_err(|error| RegistryError::Unreadable { column, text: error.to_string() })
}

/// Decodes an assurance of `column`.
pub(super) fn assurance(
    column: &'static str,
    word: Option<String>,
) -> Result<Option<Assurance>, RegistryError> {
    word.map(|word| from_word(column, word)).transpose()
}

/// Inserts a new session without an owner; the caller claims it in the same transaction.
fn insert(tx: &Transaction<'_>, session: &Session) -> Result<(), RegistryError> {
    // `running` requires an owner (a CHECK of the schema), which only the claim sets. Until then
    // the row is `interrupted`; no reader sees this state, because it is never committed.
    let mut statement = tx.prepare_cached(
        "INSERT INTO session (id, project, task_json, task_type, workspace, provider, base_model,
             base_digest, adapter_id, adapter_reason, propensity, status, verified_by, sandbox_tier, seed,
             config_json, memory_json, passages_json, tokens_in, tokens_out, started_at, ended_at, job_id)
         VALUES (:id, :project, :task_json, :task_type, :workspace, :provider, :base_model,
             :base_digest, :adapter_id, :adapter_reason, :propensity, 'interrupted', 'none', :sandbox_tier, :seed,
             :config_json, :memory_json, :passages_json, 0, 0, :started_at, :started_at, :job_id)
         ON CONFLICT (id) DO NOTHING",
    )?;
    let added = statement.execute(named_params! {
        ":id": session.id,
        ":project": session.project,
        ":task_json": to_json(&session.task),
        ":task_type": session.task.task_type.as_str(),
        ":workspace": session.workspace,
        ":provider": session.provider,
        ":base_model": session.base_model,
        ":base_digest": session.base_digest,
        ":adapter_id": session.adapter_id.as_ref().map(AdapterId::as_str),
        ":adapter_reason": session.adapter_reason,
        ":propensity": session.propensity,
        ":sandbox_tier": session.sandbox_tier,
        ":seed": session.seed.cast_signed(),
        ":config_json": to_json(&session.config_json),
        ":memory_json": to_json(&session.memory),
        ":passages_json": to_json(&session.passages),
        ":started_at": session.started_at,
        ":job_id": session.job_id,
    })?;
    match added {
        0 => {
            let id = session.id.clone();
            Err(RegistryError::AlreadyExists { kind: RecordKind::Session, id })
        }
        _ => Ok(()),
    }
}

fn from_row(row: &Row<'_>) -> Result<Session, RegistryError> {
    Ok(Session {
        id: row.get("id")?,
        project: row.get("project")?,
        task: from_json("session.task_json", &row.get::<_, String>("task_json")?)?,
        workspace: row.get("workspace")?,
        provider: row.get("provider")?,
        base_model: row.get("base_model")?,
        base_digest: row.get("base_digest")?,
        adapter_id: adapter_id("session.adapter_id", row.get("adapter_id")?)?,
        adapter_reason: row.get("adapter_reason")?,
        propensity: row.get("propensity")?,
        memory: from_json("session.memory_json", &row.get::<_, String>("memory_json")?)?,
        passages: from_json("session.passages_json", &row.get::<_, String>("passages_json")?)?,
        status: from_word("session.status", row.get("status")?)?,
        verified_by: from_word("session.verified_by", row.get("verified_by")?)?,
        assurance: assurance("session.assurance", row.get("assurance")?)?,
        sandbox_tier: row.get("sandbox_tier")?,
        seed: row.get::<_, i64>("seed")?.cast_unsigned(),
        config_json: from_json("session.config_json", &row.get::<_, String>("config_json")?)?,
        tokens_in: row.get::<_, i64>("tokens_in")?.cast_unsigned(),
        tokens_out: row.get::<_, i64>("tokens_out")?.cast_unsigned(),
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
        exit_code: row.get("exit_code")?,
        job_id: row.get("job_id")?,
    })
}
