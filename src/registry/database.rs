//! [`Registry`]: the open file.
#![expect(clippy::disallowed_types, reason = "SQL lives in registry/")]

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;

use crate::registry::error::RegistryError;
use crate::registry::schema;

/// How long a writer waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The open registry. Several processes may have it open at once; threads share one connection.
#[derive(Debug)]
pub struct Registry {
    db: Mutex<Connection>,
}

impl Registry {
    /// Opens the file at `path`, makes it when it is not there, and brings it to this version.
    /// The folder has to exist, on a local file system (WAL does not work over a network).
    ///
    /// # Errors
    /// [`RegistryError::Foreign`] and [`RegistryError::TooNew`] leave the file untouched;
    /// [`RegistryError::Open`] when it can't be read, or is no database.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let opened = Connection::open(path).and_then(|db| {
            db.busy_timeout(BUSY_TIMEOUT)?;
            // Reads the header: a file that is no database fails here.
            db.pragma_query(None, "application_id", |_| Ok(()))?;
            Ok(db)
        });
        let open_error = |source| RegistryError::Open { path: path.to_owned(), source };
        let mut db = opened.map_err(open_error)?;
        schema::migrate(&mut db, path).map_err(|error| match error {
            RegistryError::Database(source) => open_error(source),
            other => other,
        })?;
        set_up(&db).map_err(open_error)?;
        Ok(Self { db: Mutex::new(db) })
    }

    /// Runs SQLite's `quick_check`; an empty list means that all is well.
    ///
    /// # Errors
    /// [`RegistryError::Database`] when the check itself fails.
    pub fn quick_check(&self) -> Result<Vec<String>, RegistryError> {
        self.read(|db| {
            let mut statement = db.prepare("PRAGMA quick_check")?;
            let found =
                statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(found.into_iter().filter(|line: &String| line != "ok").collect())
        })
    }

    /// Runs `work` in a transaction that takes the write lock at once, and commits it.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&tx)?;
        tx.commit()?;
        Ok(value)
    }

    /// Runs `work` in a transaction that only reads, so that several statements see one state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        work(&db.transaction()?)
    }
}

fn set_up(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "trusted_schema", false)
}
