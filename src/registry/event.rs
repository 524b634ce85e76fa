//! Events: `CloudEvents` 1.0 rows, numbered without gaps, written in the transaction of the change.

use std::time::SystemTime;

use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;
use serde::Serialize;

use crate::event::Event;
use crate::event::timestamp;
use crate::registry::claim;
use crate::registry::claim::HeldClaim;
use crate::registry::codec::to_json;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::id::new_id;

/// An event with its `CloudEvents` 1.0 envelope.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredEvent {
    /// Place among all events of the registry, from 1, without gaps.
    pub seq: u64,
    /// Unique id of the event.
    pub id: String,
    /// Origin: `/rune/sessions`, `/rune/adapters` or `/rune/training`.
    pub source: String,
    /// Event type: `rune.` and [`Event::kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the session, adapter or training run.
    pub subject: String,
    /// Time of storage, RFC 3339 UTC.
    pub time: String,
    /// The event, with its fields.
    pub data: Event,
}

impl Registry {
    /// Appends an event about the claimed row and returns its `seq`. Other methods append the
    /// events of the changes they make; this is for events without a change.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn append_event(&self, claim: &HeldClaim, event: &Event) -> Result<u64, RegistryError> {
        self.write(|tx| {
            claim::require(tx, claim)?;
            append(tx, claim.id(), event)
        })
    }

    /// Returns the events after `after_seq` (0: from the start), oldest first, at most `limit`;
    /// only those of one session if `session_id` is given.
    ///
    /// # Errors
    /// [`RegistryError::Unreadable`] when this version does not know an event's type. The error
    /// contains the event's `seq`, so that the caller can read on after it.
    pub fn events(
        &self,
        after_seq: u64,
        session_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, RegistryError> {
        // Two statements, because a single one with `?1 IS NULL OR` could not use the index
        // `event_by_subject`.
        let sql = match session_id {
            Some(_) => "SELECT * FROM event WHERE subject = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            None => "SELECT * FROM event WHERE ?1 IS NULL AND seq > ?2 ORDER BY seq LIMIT ?3",
        };
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query((session_id, after_seq.cast_signed(), limit))?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                events.push(stored(row)?);
            }
            Ok(events)
        })
    }
}

/// Appends an event within the caller's transaction and returns its `seq`.
pub(super) fn append(
    tx: &Transaction<'_>,
    subject: &str,
    event: &Event,
) -> Result<u64, RegistryError> {
    // The number is computed under the write lock, in the statement that uses it: gap-free, which
    // readers rely on. The trigger `event_is_next` enforces it.
    let mut statement = tx.prepare_cached(
        "INSERT INTO event (seq, id, source, type, subject, time, data_json)
         SELECT coalesce(max(seq), 0) + 1, :id, :source, :type, :subject, :time, :data
         FROM event RETURNING seq",
    )?;
    let values = named_params! {
        ":id": new_id()?,
        ":source": event.source(),
        ":type": format!("rune.{}", event.kind()),
        ":subject": subject,
        ":time": timestamp(SystemTime::now()),
        ":data": to_json(event),
    };
    Ok(statement.query_row(values, |row| row.get::<_, i64>(0))?.cast_unsigned())
}

fn stored(row: &Row<'_>) -> Result<StoredEvent, RegistryError> {
    let seq = row.get::<_, i64>("seq")?.cast_unsigned();
    let kind: String = row.get("type")?;
    let data = serde_json::from_str(&row.get::<_, String>("data_json")?);
    let unreadable = |error| RegistryError::Unreadable {
        column: "event.data_json",
        text: format!("event {seq}, `{kind}`: {error}"),
    };
    Ok(StoredEvent {
        seq,
        id: row.get("id")?,
        source: row.get("source")?,
        data: data.map_err(unreadable)?,
        kind,
        subject: row.get("subject")?,
        time: row.get("time")?,
    })
}
