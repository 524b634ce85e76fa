//! [`Registry`]: the open database file, with one connection that writes and a pool that reads.
#![expect(clippy::disallowed_types, reason = "SQL lives in registry/")]

use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;

use crate::registry::error::RegistryError;
use crate::registry::schema;

/// Maximum time to wait for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of read connections kept open between reads.
const MAX_IDLE_READERS: usize = 4;

/// The open registry. Several processes may have it open at once. All threads of a process share
/// one connection for writing. Each read uses its own connection, so that it never waits for a
/// write or another read.
#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Pool of read connections that are not in use.
    idle_readers: Mutex<Vec<Connection>>,
}

impl Registry {
    /// Opens the database at `path`, creates it if missing, and migrates it to the current schema.
    /// Its folder must exist and be on a local file system: WAL does not work over a network.
    ///
    /// # Errors
    /// [`RegistryError::Foreign`] and [`RegistryError::TooNew`], which leave the file untouched;
    /// [`RegistryError::Open`] when it cannot be read or is not a database.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let opened = Connection::open(path).and_then(|db| {
            db.busy_timeout(BUSY_TIMEOUT)?;
            // SQLite opens lazily. This reads the header, so that a file that is not a database
            // fails here and not in the migration.
            db.pragma_query(None, "application_id", |_| Ok(()))?;
            Ok(db)
        });
        let open_error = |source| RegistryError::Open { path: path.to_owned(), source };
        let mut db = opened.map_err(open_error)?;
        schema::migrate(&mut db, path).map_err(|error| match error {
            RegistryError::Database(source) => open_error(source),
            error => error,
        })?;
        set_up(&db).map_err(open_error)?;
        let (path, idle_readers) = (path.to_owned(), Mutex::default());
        Ok(Self { path, writer: Mutex::new(db), idle_readers })
    }

    /// Runs SQLite's `quick_check` and returns its findings; an empty list means that the file is
    /// intact.
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

    /// Runs `work` in a write transaction and commits it. An error rolls everything back.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        // A panic in `work` has dropped, and so rolled back, its transaction: the connection is
        // still usable.
        let mut db = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // IMMEDIATE takes the write lock up front. A deferred transaction that reads first and
        // then writes would fail with SQLITE_BUSY, without waiting, if another process wrote.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&tx)?;
        tx.commit()?;
        Ok(value)
    }

    /// Runs `work` in a read-only transaction. All its statements see one snapshot, with every
    /// write committed before it and none that is still open.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut db = match self.idle_readers().pop() {
            Some(idle) => idle,
            None => open_reader(&self.path)?,
        };
        let value = work(&db.transaction()?);
        // The transaction was dropped above, so a pooled connection pins no snapshot of the WAL.
        let mut idle = self.idle_readers();
        if idle.len() < MAX_IDLE_READERS {
            idle.push(db);
        }
        value
    }

    fn idle_readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection that cannot change anything.
fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    // Not `READ_ONLY`: readers of a WAL record their read mark in shared memory, which must be
    // writable. `query_only` below refuses writes to the database itself.
    let flags = OpenFlags::default().difference(OpenFlags::SQLITE_OPEN_CREATE);
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    set_up(&db)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn set_up(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode, NORMAL would not sync at commit: a power cut could undo committed transactions.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "trusted_schema", false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::registry::RecordKind;
    use crate::registry::event;

    fn open(folder: &Path) -> Registry {
        Registry::open(&folder.join("rune.db")).unwrap()
    }

    fn append(tx: &Transaction<'_>) -> Result<u64, RegistryError> {
        event::append(tx, "s", &Event::notice("n"))
    }

    fn n_events(registry: &Registry) -> u64 {
        let count = |tx: &Transaction<'_>| {
            Ok(tx.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0))?)
        };
        registry.read(count).unwrap().cast_unsigned()
    }

    // All of this happens on one thread: any wait would be a deadlock.
    #[test]
    fn reads_see_committed_data_while_a_write_is_open() {
        let home = tempfile::tempdir().unwrap();
        let registry = open(home.path());
        registry.write(append).unwrap();
        let written = registry.write(|tx| {
            let seq = append(tx)?;
            assert_eq!(n_events(&registry), 1, "the open write is not seen");
            Ok(seq)
        });
        assert_eq!((written.unwrap(), n_events(&registry)), (2, 2));
    }

    #[test]
    fn a_read_sees_one_snapshot_and_blocks_nothing() {
        let home = tempfile::tempdir().unwrap();
        let registry = open(home.path());
        let count = |tx: &Transaction<'_>| {
            tx.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, u32>(0))
        };
        let seen = registry.read(|tx| {
            let before = count(tx)?;
            registry.write(append)?;
            assert_eq!(n_events(&registry), 1);
            Ok((before, count(tx)?))
        });
        assert_eq!(seen.unwrap(), (0, 0));
        assert_eq!(n_events(&registry), 1);
    }

    #[test]
    fn failed_writes_roll_back_and_readers_cannot_write() {
        let home = tempfile::tempdir().unwrap();
        let registry = open(home.path());
        let failed = registry.write(|tx| {
            append(tx)?;
            Err::<(), _>(RegistryError::not_found(RecordKind::Session, "s"))
        });
        failed.unwrap_err();
        assert!(registry.read(append).is_err());
        assert_eq!(n_events(&registry), 0);
    }

    #[test]
    fn concurrent_reads_are_unlimited_but_few_connections_stay_open() {
        fn nested(registry: &Registry, depth: usize) -> u64 {
            match depth {
                0 => n_events(registry),
                _ => registry.read(|_| Ok(nested(registry, depth - 1))).unwrap(),
            }
        }
        let home = tempfile::tempdir().unwrap();
        let registry = open(home.path());
        assert_eq!(nested(&registry, 2 * MAX_IDLE_READERS), 0);
        assert_eq!(registry.idle_readers().len(), MAX_IDLE_READERS);
    }
}
