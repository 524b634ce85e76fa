//! Attempts: appended as soon as they end, never changed.

use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;

use crate::adapter::AdapterId;
use crate::digest::sha256;
use crate::event::Event;
use crate::registry::claim;
use crate::registry::claim::HeldClaim;
use crate::registry::codec::from_json;
use crate::registry::codec::from_word;
use crate::registry::codec::to_json;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::event;
use crate::registry::session;
use crate::trajectory::Attempt;
use crate::trajectory::Completion;

impl Registry {
    /// Appends the next attempt of the claimed session, adds its tokens to the session's totals and
    /// stores `event`, which reports the attempt.
    ///
    /// # Errors
    /// [`RegistryError::OutOfOrder`] when `attempt.seq` is not the next number;
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn append_attempt(
        &self,
        claim: &HeldClaim,
        attempt: &Attempt,
        event: &Event,
    ) -> Result<(), RegistryError> {
        let session_id = claim.id();
        self.write(|tx| {
            claim::require(tx, claim)?;
            let next = n_attempts(tx, session_id)?;
            // The trigger `attempt_is_next` rejects gaps too; this check gives a typed error.
            if attempt.seq != next {
                let id = session_id.to_owned();
                return Err(RegistryError::OutOfOrder { id, found: attempt.seq, next });
            }
            insert(tx, session_id, attempt)?;
            tx.execute(
                "UPDATE session SET tokens_in = tokens_in + ?2, tokens_out = tokens_out + ?3
                 WHERE id = ?1",
                (session_id, attempt.completion.tokens_in, attempt.completion.tokens_out),
            )?;
            event::append(tx, session_id, event)?;
            Ok(())
        })
    }

    /// Returns all attempts of a session, in order.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no session has this id.
    pub fn attempts(&self, session_id: &str) -> Result<Vec<Attempt>, RegistryError> {
        self.read(|tx| {
            // An unknown session is an error; a session without attempts is an empty list.
            session::read(tx, session_id)?;
            read_all(tx, session_id)
        })
    }
}

/// Reads the attempts of a session within the caller's transaction, in order.
pub(super) fn read_all(
    tx: &Transaction<'_>,
    session_id: &str,
) -> Result<Vec<Attempt>, RegistryError> {
    let mut statement =
        tx.prepare_cached("SELECT * FROM attempt WHERE session_id = ?1 ORDER BY seq")?;
    let mut rows = statement.query([session_id])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(from_row(row)?);
    }
    Ok(attempts)
}

/// Returns the number of attempts of a session, which is also the number of the next attempt.
pub(super) fn n_attempts(tx: &Transaction<'_>, session_id: &str) -> Result<u32, RegistryError> {
    let mut statement =
        tx.prepare_cached("SELECT coalesce(max(seq) + 1, 0) FROM attempt WHERE session_id = ?1")?;
    Ok(statement.query_row([session_id], |row| row.get(0))?)
}

fn insert(tx: &Transaction<'_>, session_id: &str, attempt: &Attempt) -> Result<(), RegistryError> {
    // The digest is taken from the stored bytes, so that it can be recomputed from the row.
    let prompt = to_json(&attempt.prompt);
    let completion = &attempt.completion;
    let mut statement = tx.prepare_cached(
        "INSERT INTO attempt (session_id, seq, phase, subtask, candidate, prompt, prompt_digest,
             completion, finish_reason, logprobs_json, sampling_json, seed, adapter_id, tokens_in,
             tokens_out, prefill_ms, decode_ms, verdict, verdict_json, files_json, at)
         VALUES (:session_id, :seq, :phase, :subtask, :candidate, :prompt, :prompt_digest,
             :completion, :finish_reason, :logprobs_json, :sampling_json, :seed, :adapter_id,
             :tokens_in, :tokens_out, :prefill_ms, :decode_ms, :verdict, :verdict_json,
             :files_json, :at)",
    )?;
    statement.execute(named_params! {
        ":session_id": session_id,
        ":seq": attempt.seq,
        ":phase": attempt.phase.as_str(),
        ":subtask": attempt.subtask,
        ":candidate": attempt.candidate,
        ":prompt_digest": sha256(prompt.as_bytes()),
        ":prompt": prompt,
        ":completion": completion.text,
        ":finish_reason": completion.finish_reason.as_str(),
        ":logprobs_json": completion.logprobs.as_ref().map(to_json),
        ":sampling_json": to_json(&attempt.sampling),
        ":seed": attempt.sampling.seed.cast_signed(),
        ":adapter_id": attempt.adapter_id.as_ref().map(AdapterId::as_str),
        ":tokens_in": completion.tokens_in,
        ":tokens_out": completion.tokens_out,
        ":prefill_ms": completion.prefill_ms.cast_signed(),
        ":decode_ms": completion.decode_ms.cast_signed(),
        ":verdict": attempt.verdict.as_str(),
        ":verdict_json": to_json(&attempt.verdict_json),
        ":files_json": to_json(&attempt.files),
        ":at": attempt.at,
    })?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<Attempt, RegistryError> {
    let json = |column: &str| row.get::<_, String>(column);
    let logprobs: Option<String> = row.get("logprobs_json")?;
    let completion = Completion {
        text: row.get("completion")?,
        finish_reason: from_word("attempt.finish_reason", row.get("finish_reason")?)?,
        tokens_in: row.get("tokens_in")?,
        tokens_out: row.get("tokens_out")?,
        prefill_ms: row.get::<_, i64>("prefill_ms")?.cast_unsigned(),
        decode_ms: row.get::<_, i64>("decode_ms")?.cast_unsigned(),
        logprobs: logprobs.map(|text| from_json("attempt.logprobs_json", &text)).transpose()?,
    };
    Ok(Attempt {
        seq: row.get("seq")?,
        phase: from_word("attempt.phase", row.get("phase")?)?,
        subtask: row.get("subtask")?,
        candidate: row.get("candidate")?,
        prompt: from_json("attempt.prompt", &json("prompt")?)?,
        completion,
        sampling: from_json("attempt.sampling_json", &json("sampling_json")?)?,
        adapter_id: session::adapter_id("attempt.adapter_id", row.get("adapter_id")?)?,
        verdict: from_word("attempt.verdict", row.get("verdict")?)?,
        verdict_json: from_json("attempt.verdict_json", &json("verdict_json")?)?,
        files: from_json("attempt.files_json", &json("files_json")?)?,
        at: row.get("at")?,
    })
}
