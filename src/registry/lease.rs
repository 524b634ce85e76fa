//! Leases of model servers that sleep while an adapter is trained: one row a server.

use std::time::SystemTime;

use rusqlite::Row;
use rusqlite::Transaction;
use serde::Serialize;
use serde_json::Value;

use crate::event::Event;
use crate::event::timestamp;
use crate::lease::LeaseState;
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
use crate::registry::owner;

/// Claimed to let a server sleep.
static TO_SLEEP: ClaimTable =
    ClaimTable { name: "gpu_lease", kind: RecordKind::Lease, on_claim: "state = 'draining'" };
/// Claimed to wake it, by the next process if the first one has died.
static TO_WAKE: ClaimTable =
    ClaimTable { name: "gpu_lease", kind: RecordKind::Lease, on_claim: "state = 'waking'" };

/// The lease of a server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeaseRow {
    /// URL of the server.
    pub server: String,
    /// State that it has now.
    pub state: LeaseState,
    /// What the server had and answered before it slept.
    pub before: Value,
    /// Why it is in this state; empty if that is clear.
    pub detail: String,
    /// Since when, RFC 3339 UTC.
    pub since: String,
    /// Whether a living process holds it.
    pub is_held: bool,
}

impl Registry {
    /// Claims a server that is about to sleep: its state is `draining`. `before` is kept for the
    /// comparison after it has woken.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] when another process holds it; [`RegistryError::LeaseState`] when
    /// it does not serve.
    pub fn begin_lease(&self, server: &str, before: &Value) -> Result<HeldClaim, RegistryError> {
        self.write(|tx| {
            // The first time, there is no row yet. A server that never slept serves.
            tx.execute(
                "INSERT INTO gpu_lease (id, state, before_json, since)
                 VALUES (?1, 'serving', 'null', ?2) ON CONFLICT (id) DO NOTHING",
                (server, now()),
            )?;
            let found = known(tx, server)?.state;
            // First, so that a server that is held is called busy, whatever its state.
            claim::check_free(tx, &TO_SLEEP, server)?;
            check_step(server, found, LeaseState::Draining)?;
            let claim = claim::claim(tx, &TO_SLEEP, server, &ClaimHolder::ThisProcess)?;
            tx.execute(
                "UPDATE gpu_lease SET before_json = ?2 WHERE id = ?1",
                (server, before.to_string()),
            )?;
            tell(tx, server, LeaseState::Draining, "")?;
            Ok(claim)
        })
    }

    /// Claims a server that does not serve, to wake it: its state is `waking`. `None` if it serves,
    /// or never slept.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] when a living process holds it.
    pub fn reclaim_lease(
        &self,
        server: &str,
    ) -> Result<Option<(LeaseRow, HeldClaim)>, RegistryError> {
        self.write(|tx| {
            let found = find(tx, server)?;
            // Of two processes that find a dead holder, the second sees the claim of the first.
            let Some(row) = found.filter(|row| row.state != LeaseState::Serving) else {
                return Ok(None);
            };
            let claim = claim::claim(tx, &TO_WAKE, server, &ClaimHolder::ThisProcess)?;
            tell(tx, server, LeaseState::Waking, "")?;
            Ok(Some((row, claim)))
        })
    }

    /// Stores the next state of a claimed server. One that serves again, or is degraded, is no
    /// longer held.
    ///
    /// # Errors
    /// [`RegistryError::LeaseState`] for a step that no server makes;
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn move_lease(
        &self,
        claim: &HeldClaim,
        next: LeaseState,
        detail: &str,
    ) -> Result<(), RegistryError> {
        self.write(|tx| {
            claim::require(tx, claim)?;
            let server = claim.id();
            let found = known(tx, server)?;
            check_step(server, found.state, next)?;
            // The claim ends with the step: nobody is left who would have to wake the server.
            if matches!(next, LeaseState::Serving | LeaseState::Degraded) {
                claim::release(tx, claim, "state = :state", &[(":state", &next.as_str())])?;
            }
            tell(tx, server, next, detail)
        })
    }

    /// Returns the lease of a server, if it ever had one.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn lease(&self, server: &str) -> Result<Option<LeaseRow>, RegistryError> {
        self.read(|tx| find(tx, server))
    }

    /// Returns all leases, sorted by server.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn leases(&self) -> Result<Vec<LeaseRow>, RegistryError> {
        self.read(|tx| {
            let mut all = tx.prepare_cached("SELECT * FROM gpu_lease ORDER BY id")?;
            let mut rows = all.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(from_row(row)?);
            }
            Ok(found)
        })
    }
}

/// Writes the state, and the event that reports it.
fn tell(
    tx: &Transaction<'_>,
    server: &str,
    state: LeaseState,
    detail: &str,
) -> Result<(), RegistryError> {
    tx.execute(
        "UPDATE gpu_lease SET state = ?2, detail = ?3, since = ?4 WHERE id = ?1",
        (server, state.as_str(), detail, now()),
    )?;
    event::append(tx, server, &Event::LeaseChanged { state, detail: detail.to_owned() })?;
    Ok(())
}

fn check_step(server: &str, from: LeaseState, to: LeaseState) -> Result<(), RegistryError> {
    let server = server.to_owned();
    if from.may_become(to) { Ok(()) } else { Err(RegistryError::LeaseState { server, from, to }) }
}

fn known(tx: &Transaction<'_>, server: &str) -> Result<LeaseRow, RegistryError> {
    find(tx, server)?.ok_or_else(|| RegistryError::not_found(RecordKind::Lease, server))
}

fn find(tx: &Transaction<'_>, server: &str) -> Result<Option<LeaseRow>, RegistryError> {
    let mut one = tx.prepare_cached("SELECT * FROM gpu_lease WHERE id = ?1")?;
    let mut rows = one.query([server])?;
    rows.next()?.map(from_row).transpose()
}

fn from_row(row: &Row<'_>) -> Result<LeaseRow, RegistryError> {
    // The owner of a killed process stays in the row: it tells who left the server asleep.
    let owner: Option<String> = row.get("owner")?;
    Ok(LeaseRow {
        server: row.get("id")?,
        state: from_word("gpu_lease.state", row.get("state")?)?,
        before: from_json("gpu_lease.before_json", &row.get::<_, String>("before_json")?)?,
        detail: row.get("detail")?,
        since: row.get("since")?,
        is_held: owner.is_some_and(|owner| owner::is_alive(&owner)),
    })
}

fn now() -> String {
    timestamp(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "http://127.0.0.1:8000";

    #[test]
    fn a_server_goes_through_its_states_in_order_and_is_held_meanwhile() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        assert_eq!(registry.lease(URL).unwrap(), None);
        assert!(registry.reclaim_lease(URL).unwrap().is_none());
        let claim = registry.begin_lease(URL, &json!({ "answer": "2" })).unwrap();
        let busy = registry.begin_lease(URL, &json!(null)).unwrap_err();
        assert!(matches!(busy, RegistryError::Busy { .. }), "{busy}");
        let early = registry.move_lease(&claim, LeaseState::Training, "").unwrap_err();
        assert_eq!(early.to_string(), format!("{URL} is draining and cannot become training"));
        let states =
            [LeaseState::Sleeping, LeaseState::Training, LeaseState::Waking, LeaseState::Verifying];
        for state in states {
            registry.move_lease(&claim, state, "").unwrap();
            let row = registry.lease(URL).unwrap().unwrap();
            assert_eq!((row.state, row.is_held), (state, true));
        }
        registry.move_lease(&claim, LeaseState::Degraded, "other answers").unwrap();
        let row = registry.lease(URL).unwrap().unwrap();
        assert_eq!((row.is_held, row.detail.as_str()), (false, "other answers"));
        // It must not sleep again before it serves.
        let refused = registry.begin_lease(URL, &json!(null)).unwrap_err();
        assert!(matches!(refused, RegistryError::LeaseState { .. }), "{refused}");
        let (row, second) = registry.reclaim_lease(URL).unwrap().unwrap();
        assert_eq!(row.before, json!({ "answer": "2" }));
        let lost = registry.move_lease(&claim, LeaseState::Verifying, "").unwrap_err();
        assert!(matches!(lost, RegistryError::ClaimLost { .. }), "{lost}");
        registry.move_lease(&second, LeaseState::Verifying, "").unwrap();
        registry.move_lease(&second, LeaseState::Serving, "").unwrap();
        assert_eq!(registry.leases().unwrap().len(), 1);
        assert!(registry.reclaim_lease(URL).unwrap().is_none());
    }
}
