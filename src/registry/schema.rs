//! The schema: an append-only list of migrations, and the identity of the file.
#![expect(clippy::disallowed_types, reason = "SQL lives in registry/")]

use std::path::Path;

use rusqlite::Connection;
use rusqlite::TransactionBehavior;

use crate::registry::error::RegistryError;

/// SQLite application id of Rune's databases: "RUNE" in ASCII.
const APPLICATION_ID: u32 = 0x5255_4E45;

/// Step `n` (from 0) migrates a database from version `n` to `n + 1`. A released step is never
/// edited.
const STEPS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
    include_str!("schema_13.sql"),
    include_str!("schema_14.sql"),
    include_str!("schema_15.sql"),
];

/// Migrates the database at `path` to the newest version, in one transaction.
pub(super) fn migrate(db: &mut Connection, path: &Path) -> Result<(), RegistryError> {
    // The write lock is taken before anything is read, so that of two processes that open a new
    // file at once, the second sees the finished schema of the first.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let application_id: u32 = tx.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let n_tables: u32 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_fresh = application_id == 0 && n_tables == 0;
    // A returned error drops the transaction, which leaves the file unchanged.
    if application_id != APPLICATION_ID && !is_fresh {
        return Err(RegistryError::Foreign { path: path.to_owned(), application_id });
    }
    // `user_version` is part of the database header and commits with the transaction.
    let done: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(STEPS.len()).expect("the steps are few");
    if done > known {
        return Err(RegistryError::TooNew { path: path.to_owned(), found: done, known });
    }
    if is_fresh {
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    for (version, step) in (1_u32..).zip(STEPS) {
        if done < version {
            tx.execute_batch(step)?;
            tx.pragma_update(None, "user_version", version)?;
        }
    }
    Ok(tx.commit()?)
}
