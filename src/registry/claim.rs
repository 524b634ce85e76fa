//! Claims: exclusive write access to a session or a training run.
//!
//! A table whose rows can be claimed has the columns `owner`, `epoch` and `expires_at`
//! ([`ClaimTable`]). A row is free when it has no owner, when the owning process is dead, or when
//! the lease of the owning worker has expired. Each claim increments the epoch, and each write is
//! checked against the epoch of the claim it is made under. A holder that was wrongly presumed dead
//! therefore cannot write any more (the epoch is a fencing token). A clock that jumps can cost a
//! worker its claim or delay a takeover, but it never lets two holders write.
//!
//! ```text
//!                     claim: epoch + 1
//!   +----------------+ --------------> +------------------------+
//!   | free           |                 | held by A, epoch n     | <--+ renew_claim
//!   | owner NULL     | <-------------- | expires_at: lease only | ---+ (worker heartbeat)
//!   +----------------+     release     +------------------------+
//!                                          |
//!                                          | A dies, or its lease expires;
//!                                          | B claims: epoch + 1
//!                                          v
//!                                      +------------------------+
//!                                      | held by B, epoch n + 1 |
//!                                      +------------------------+
//!
//!   A write by A under epoch n is now refused with `ClaimLost`.
//! ```

use std::time::Duration;
use std::time::SystemTime;

use rusqlite::OptionalExtension;
use rusqlite::ToSql;
use rusqlite::Transaction;

use crate::event::timestamp;
use crate::registry::database::Registry;
use crate::registry::error::RecordKind;
use crate::registry::error::RegistryError;
use crate::registry::owner;

/// Prefix of the column `owner` for a worker. It cannot clash with a process, whose `owner` starts
/// with the hexadecimal boot id.
const WORKER: &str = "worker:";

/// The party that claims a row: a local process or a named worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimHolder {
    /// The current process. The claim lasts as long as the process lives.
    ThisProcess,
    /// A worker whose process cannot be observed from here, such as one on another machine. The
    /// claim lasts for `lease`, and for another `lease` after each [`Registry::renew_claim`].
    Worker {
        /// Unique name of the worker.
        id: String,
        /// Time until the claim expires unless it is renewed.
        lease: Duration,
    },
}

impl ClaimHolder {
    /// Returns the value of the column `owner`.
    fn owner(&self) -> Result<String, RegistryError> {
        match self {
            Self::ThisProcess => Ok(owner::current()?),
            Self::Worker { id, .. } => Ok(format!("{WORKER}{id}")),
        }
    }

    /// Returns the value of the column `expires_at` for a claim that is granted or renewed now.
    fn expires_at(&self) -> Option<String> {
        match self {
            Self::ThisProcess => None,
            Self::Worker { lease, .. } => Some(timestamp(SystemTime::now() + *lease)),
        }
    }
}

/// A granted claim. Every write to the claimed row takes it as a parameter, and is refused once
/// another holder has claimed the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    table: &'static ClaimTable,
    id: String,
    holder: ClaimHolder,
    epoch: i64,
}

impl HeldClaim {
    /// Returns the id of the claimed session or training run.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// A table whose rows can be claimed: it has the columns `id`, `owner`, `epoch` and `expires_at`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClaimTable {
    /// SQL name of the table.
    pub(super) name: &'static str,
    /// Kind of its rows, for error messages.
    pub(super) kind: RecordKind,
    /// SQL assignments to other columns that are made together with a claim.
    pub(super) on_claim: &'static str,
}

impl Registry {
    /// Renews the lease of a worker, starting now: its heartbeat. The claim of a process does not
    /// need one.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] or [`RegistryError::Ended`] when the claim is no longer held.
    pub fn renew_claim(&self, claim: &HeldClaim) -> Result<(), RegistryError> {
        self.write(|tx| {
            // Only the epoch counts: an expired lease is renewed unless another holder was faster.
            require(tx, claim)?;
            let sql = format!("UPDATE {} SET expires_at = ?2 WHERE id = ?1", claim.table.name);
            tx.prepare_cached(&sql)?.execute((&claim.id, claim.holder.expires_at()))?;
            Ok(())
        })
    }
}

/// Claims the row `id` of `table` for `holder`.
///
/// # Errors
/// The errors of [`check_free`].
pub(super) fn claim(
    tx: &Transaction<'_>,
    table: &'static ClaimTable,
    id: &str,
    holder: &ClaimHolder,
) -> Result<HeldClaim, RegistryError> {
    // Check and update are atomic: the caller's transaction holds SQLite's write lock.
    check_free(tx, table, id)?;
    let ClaimTable { name, on_claim, .. } = table;
    let sql = format!(
        "UPDATE {name} SET owner = ?2, epoch = epoch + 1, expires_at = ?3, {on_claim}
         WHERE id = ?1 RETURNING epoch"
    );
    let values = (id, holder.owner()?, holder.expires_at());
    let epoch = tx.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
    Ok(HeldClaim { table, id: id.to_owned(), holder: holder.clone(), epoch })
}

/// Checks that the row `id` of `table` is free.
///
/// # Errors
/// [`RegistryError::NotFound`] when there is no such row; [`RegistryError::Busy`] when it is held,
/// also when this process holds it.
pub(super) fn check_free(
    tx: &Transaction<'_>,
    table: &ClaimTable,
    id: &str,
) -> Result<(), RegistryError> {
    match state(tx, table, id)? {
        ClaimState { owner: Some(owner), expires_at, .. }
            if is_held(&owner, expires_at.as_deref()) =>
        {
            let holder = describe(&owner);
            Err(RegistryError::Busy { kind: table.kind, id: id.to_owned(), holder })
        }
        _ => Ok(()),
    }
}

/// Checks that `claim` is still held. Every write to a claimed row does this first.
///
/// # Errors
/// [`RegistryError::ClaimLost`] when another holder has claimed the row since;
/// [`RegistryError::Ended`] when the claim was released.
pub(super) fn require(tx: &Transaction<'_>, claim: &HeldClaim) -> Result<(), RegistryError> {
    let (kind, id) = (claim.table.kind, claim.id.clone());
    match state(tx, claim.table, &claim.id)? {
        ClaimState { epoch, owner, .. } if epoch != claim.epoch => {
            // No owner: the other holder has released its claim by now.
            let holder = owner.as_deref().map_or("another holder".to_owned(), describe);
            Err(RegistryError::ClaimLost { kind, id, holder })
        }
        // Releasing does not change the epoch, so this is the caller's own release.
        ClaimState { owner: None, .. } => Err(RegistryError::Ended { kind, id }),
        // Expiry is not checked: see `renew_claim`.
        ClaimState { owner: Some(_), .. } => Ok(()),
    }
}

/// Releases `claim`, together with the SQL assignments `on_release` to other columns, whose named
/// parameters are `values`.
///
/// # Errors
/// The errors of [`require`].
pub(super) fn release(
    tx: &Transaction<'_>,
    claim: &HeldClaim,
    on_release: &str,
    values: &[(&str, &dyn ToSql)],
) -> Result<(), RegistryError> {
    require(tx, claim)?;
    let name = claim.table.name;
    let sql =
        format!("UPDATE {name} SET owner = NULL, expires_at = NULL, {on_release} WHERE id = :id");
    let id: (&str, &dyn ToSql) = (":id", &claim.id);
    tx.prepare_cached(&sql)?.execute(&[&[id], values].concat()[..])?;
    Ok(())
}

/// The claim columns of a row.
struct ClaimState {
    owner: Option<String>,
    epoch: i64,
    expires_at: Option<String>,
}

fn state(tx: &Transaction<'_>, table: &ClaimTable, id: &str) -> Result<ClaimState, RegistryError> {
    let sql = format!("SELECT owner, epoch, expires_at FROM {} WHERE id = ?1", table.name);
    let read = |row: &rusqlite::Row<'_>| {
        Ok(ClaimState { owner: row.get(0)?, epoch: row.get(1)?, expires_at: row.get(2)? })
    };
    let found = tx.prepare_cached(&sql)?.query_row([id], read).optional()?;
    found.ok_or_else(|| RegistryError::not_found(table.kind, id))
}

/// Whether a claim blocks others: a lease until it expires, the claim of a process until it dies.
fn is_held(owner: &str, expires_at: Option<&str>) -> bool {
    match expires_at {
        // All timestamps have one format and length, so comparing the text compares the times.
        Some(expires_at) => *timestamp(SystemTime::now()) < *expires_at,
        None => owner::is_alive(owner),
    }
}

/// Describes the holder for a message: `process 12`, or a worker's name.
fn describe(owner: &str) -> String {
    match (owner.strip_prefix(WORKER), owner::pid(owner)) {
        (Some(id), _) => format!("worker `{id}`"),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => owner.to_owned(),
    }
}
