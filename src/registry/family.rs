//! Families of sessions, by which their tasks are held back from training or not.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rusqlite::Transaction;
use serde_json::json;

use crate::digest::sha256;
use crate::families::FamilyIndex;
use crate::families::TaskTraits;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::session;
use crate::trajectory::Session;

/// Sessions with the user's tests that have no family yet, oldest first.
const WITHOUT_FAMILY: &str =
    "SELECT id FROM session WHERE json_array_length(task_json, '$.tests') > 0
     AND NOT EXISTS (SELECT 1 FROM session_family WHERE session_id = session.id) ORDER BY id";

impl Registry {
    /// Returns the family of the task of every session that has the user's tests, by session id;
    /// `None` for a task between families of different splits, which belongs to neither. A session
    /// gets its family once and for all, from the sessions that have theirs already.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn session_families(&self) -> Result<BTreeMap<String, Option<String>>, RegistryError> {
        if !self.read(|tx| ids(tx, WITHOUT_FAMILY))?.is_empty() {
            self.write(assign)?;
        }
        self.read(families)
    }

    /// Returns the paths of the files that the attempts of a session wrote code to.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn written_paths(&self, session_id: &str) -> Result<BTreeSet<String>, RegistryError> {
        let sql = "SELECT DISTINCT json_extract(file.value, '$.path')
             FROM attempt, json_each(attempt.files_json) AS file
             WHERE session_id = ?1 AND phase IN ('code', 'integrate', 'repair')";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let paths = statement.query_map([session_id], |row| row.get(0))?;
            Ok(paths.collect::<Result<_, _>>()?)
        })
    }
}

/// Gives families to the sessions that have none.
fn assign(tx: &Transaction<'_>) -> Result<(), RegistryError> {
    // Those that have their family first, whatever the clock said when they began: families that
    // are assigned never change.
    let mut index = FamilyIndex::default();
    for (id, family) in families(tx)? {
        if let Some(known) = readable(tx, &id)? {
            known.with_traits(|task| index.add(task, family));
        }
    }
    let mut insert =
        tx.prepare_cached("INSERT INTO session_family (session_id, family) VALUES (?1, ?2)")?;
    // Each new one is known to those after it.
    for id in ids(tx, WITHOUT_FAMILY)? {
        let family = readable(tx, &id)?.and_then(|new| {
            new.with_traits(|task| {
                let family = index.family_of(task);
                index.add(task, family.clone());
                family
            })
        });
        insert.execute((&id, &family))?;
    }
    Ok(())
}

/// Reads a session; `None` if it is damaged, which must not keep others from their families.
fn readable(tx: &Transaction<'_>, id: &str) -> Result<Option<Session>, RegistryError> {
    match session::read(tx, id) {
        Ok(session) => Ok(Some(session)),
        Err(RegistryError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Session {
    fn with_traits<T>(&self, work: impl FnOnce(TaskTraits<'_>) -> T) -> T {
        let tests = json!([self.task.tests, self.task.test_targets]).to_string();
        let (tests, family) = (sha256(tests.as_bytes()), self.family());
        work(TaskTraits { text: &self.task.text, tests: &tests, family: &family })
    }
}

fn families(tx: &Transaction<'_>) -> Result<BTreeMap<String, Option<String>>, RegistryError> {
    let mut statement = tx.prepare_cached("SELECT session_id, family FROM session_family")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn ids(tx: &Transaction<'_>, sql: &str) -> Result<Vec<String>, RegistryError> {
    let mut statement = tx.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::registry::ClaimHolder;
    use crate::registry::session_of;
    use crate::task::SourceFile;

    fn begin(registry: &Registry, id: &str, text: &str, tests: &[&str]) {
        let mut session = session_of(id, "p", text);
        session.task.tests =
            tests.iter().map(|tests| SourceFile::new("test_it.py", *tests)).collect();
        registry.begin_session(&session, &ClaimHolder::ThisProcess, &Event::notice("")).unwrap();
    }

    #[test]
    fn sessions_keep_the_family_that_they_got_first() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        begin(&registry, "b", "Sort a list", &["assert 1"]);
        begin(&registry, "c", "Sort the list", &["assert 1"]);
        begin(&registry, "d", "No tests of the user", &[]);
        let first = registry.session_families().unwrap();
        let family = crate::trajectory::family_of("Sort a list");
        let expected = ["b", "c"].map(|id| (id.to_owned(), Some(family.clone())));
        assert_eq!(first, BTreeMap::from(expected));
        // A session from a clock that is behind does not rename the family.
        begin(&registry, "a", "Sort any list", &["assert 1"]);
        let second = registry.session_families().unwrap();
        assert_eq!(second["a"], Some(family));
        assert_eq!(second.len(), 3);
        assert_eq!(registry.quick_check().unwrap(), [""; 0]);
    }
}
