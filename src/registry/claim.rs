//! Claims: whoever works on a session or a training run holds one, and nobody else writes to it
//! meanwhile.
//!
//! A table whose rows can be claimed has the columns `owner`, `epoch` and `expires_at`
//! ([`ClaimTable`]). A row can be claimed when nobody holds it, when the process that holds it is
//! dead, or when the lease of its worker has expired. Each claim raises the epoch, and each write
//! is checked against the epoch of the claim it is made under: a holder that was taken for dead
//! cannot write any more, whatever it believes (fencing). The epoch alone decides about writes. A
//! clock that jumps can cost a worker its claim or delay a takeover, but it never lets two holders
//! write.

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

/// How the column `owner` begins for a worker; for a process it begins with the boot id, which is
/// hexadecimal.
const WORKER: &str = "worker:";

/// Who claims a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimHolder {
    /// This process. The claim lasts as long as the process lives.
    ThisProcess,
    /// A worker whose life cannot be watched from here, such as one on another machine. The claim
    /// lasts for `lease`, and for another `lease` from each [`Registry::renew_claim`].
    Worker {
        /// Name of the worker.
        id: String,
        /// Duration of the lease.
        lease: Duration,
    },
}

impl ClaimHolder {
    /// The value of the column `owner`.
    fn owner(&self) -> Result<String, RegistryError> {
        match self {
            Self::ThisProcess => Ok(owner::current()?),
            Self::Worker { id, .. } => Ok(format!("{WORKER}{id}")),
        }
    }

    /// The value of the column `expires_at` for a claim that is made or renewed now.
    fn expires_at(&self) -> Option<String> {
        match self {
            Self::ThisProcess => None,
            Self::Worker { lease, .. } => Some(timestamp(SystemTime::now() + *lease)),
        }
    }
}

/// A claim that was granted. Every write to the claimed row names it, and is refused once somebody
/// else has claimed the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    table: &'static ClaimTable,
    id: String,
    holder: ClaimHolder,
    epoch: i64,
}

impl HeldClaim {
    /// Id of the claimed session or training run.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// A table whose rows can be claimed: it has the columns `id`, `owner`, `epoch` and `expires_at`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClaimTable {
    /// Name of the table.
    pub(super) name: &'static str,
    /// The kind of its rows, for messages.
    pub(super) kind: RecordKind,
    /// Assignments to other columns that go with a claim.
    pub(super) on_claim: &'static str,
}

impl Registry {
    /// Renews the lease of a worker from now on: its heartbeat. The claim of a process needs none.
    /// A lease that has expired is renewed as long as nobody else has claimed the row.
    ///
    /// # Errors
    /// [`RegistryError::ClaimLost`] and [`RegistryError::Ended`] when the claim is not held any
    /// more.
    pub fn renew_claim(&self, claim: &HeldClaim) -> Result<(), RegistryError> {
        self.write(|tx| {
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
/// Those of [`check_free`].
pub(super) fn claim(
    tx: &Transaction<'_>,
    table: &'static ClaimTable,
    id: &str,
    holder: &ClaimHolder,
) -> Result<HeldClaim, RegistryError> {
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

/// Makes sure that nobody holds the row `id` of `table`.
///
/// # Errors
/// [`RegistryError::NotFound`]; [`RegistryError::Busy`] when it is held, also by this very process.
pub(super) fn check_free(
    tx: &Transaction<'_>,
    table: &ClaimTable,
    id: &str,
) -> Result<(), RegistryError> {
    match standing(tx, table, id)? {
        ClaimStanding { owner: Some(owner), expires_at, .. }
            if is_held(&owner, expires_at.as_deref()) =>
        {
            let holder = describe(&owner);
            Err(RegistryError::Busy { kind: table.kind, id: id.to_owned(), holder })
        }
        _ => Ok(()),
    }
}

/// Makes sure that `claim` is still held.
///
/// # Errors
/// [`RegistryError::ClaimLost`] when somebody else has claimed the row since;
/// [`RegistryError::Ended`] when the claim was released.
pub(super) fn require(tx: &Transaction<'_>, claim: &HeldClaim) -> Result<(), RegistryError> {
    let (kind, id) = (claim.table.kind, claim.id.clone());
    match standing(tx, claim.table, &claim.id)? {
        ClaimStanding { epoch, owner, .. } if epoch != claim.epoch => {
            let holder = owner.as_deref().map_or("another holder".to_owned(), describe);
            Err(RegistryError::ClaimLost { kind, id, holder })
        }
        ClaimStanding { owner: None, .. } => Err(RegistryError::Ended { kind, id }),
        ClaimStanding { owner: Some(_), .. } => Ok(()),
    }
}

/// Gives `claim` back, together with the assignments `on_release` to other columns, which use the
/// named `values`.
///
/// # Errors
/// Those of [`require`].
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

/// What a row says of its claim.
struct ClaimStanding {
    owner: Option<String>,
    epoch: i64,
    expires_at: Option<String>,
}

fn standing(
    tx: &Transaction<'_>,
    table: &ClaimTable,
    id: &str,
) -> Result<ClaimStanding, RegistryError> {
    let sql = format!("SELECT owner, epoch, expires_at FROM {} WHERE id = ?1", table.name);
    let read = |row: &rusqlite::Row<'_>| {
        Ok(ClaimStanding { owner: row.get(0)?, epoch: row.get(1)?, expires_at: row.get(2)? })
    };
    let found = tx.prepare_cached(&sql)?.query_row([id], read).optional()?;
    found.ok_or_else(|| RegistryError::not_found(table.kind, id))
}

/// Whether a claim still counts: a lease until it expires, the claim of a process until it dies.
fn is_held(owner: &str, expires_at: Option<&str>) -> bool {
    match expires_at {
        // Times are of one form and one length, so that text sorts as they do.
        Some(expires_at) => *timestamp(SystemTime::now()) < *expires_at,
        None => owner::is_alive(owner),
    }
}

/// The holder in words: `process 12`, or a worker's name.
fn describe(owner: &str) -> String {
    match (owner.strip_prefix(WORKER), owner::pid(owner)) {
        (Some(id), _) => format!("worker `{id}`"),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => owner.to_owned(),
    }
}
