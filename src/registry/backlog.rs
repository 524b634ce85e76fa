//! Sessions that were solved before the registry had records: they are indexed on first use.

use std::collections::BTreeSet;

use rusqlite::Transaction;

use crate::registry::attempt;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::experience;
use crate::registry::session;
use crate::task::SourceFile;
use crate::trajectory::Attempt;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;
use crate::trajectory::Session;

/// Number of sessions that one transaction indexes.
const BATCH: u32 = 32;

impl Registry {
    /// Adds the records of sessions that an earlier version of Rune solved. An interrupted call is
    /// resumed by the next one.
    ///
    /// # Errors
    /// [`RegistryError::Database`]. A session that cannot be decoded gets no record.
    pub fn index_backlog(&self) -> Result<(), RegistryError> {
        while !self.read(|tx| backlog(tx, 1))?.is_empty() {
            self.write(|tx| {
                for id in backlog(tx, BATCH)? {
                    match read(tx, &id) {
                        Ok((session, files)) => experience::index(tx, &session, &files)?,
                        // A damaged session has no record; it must not keep others from theirs.
                        Err(RegistryError::Unreadable { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    tx.execute("DELETE FROM experience_backlog WHERE session_id = ?1", [&id])?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn read(tx: &Transaction<'_>, id: &str) -> Result<(Session, Vec<SourceFile>), RegistryError> {
    Ok((session::read(tx, id)?, solution_of(&attempt::read_all(tx, id)?)))
}

fn backlog(tx: &Transaction<'_>, limit: u32) -> Result<Vec<String>, RegistryError> {
    let mut statement =
        tx.prepare_cached("SELECT session_id FROM experience_backlog ORDER BY 1 LIMIT ?1")?;
    let ids = statement.query_map([limit], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Returns the code of the last attempt that passed all tests with a whole solution.
fn solution_of(attempts: &[Attempt]) -> Vec<SourceFile> {
    let of_code = || attempts.iter().filter(|attempt| attempt.phase == Phase::Code);
    let parts: BTreeSet<_> = of_code().map(|attempt| &attempt.subtask).collect();
    // Code of one of several parts is not the whole solution.
    let is_whole = |attempt: &&Attempt| match attempt.phase {
        Phase::Code => parts.len() == 1,
        Phase::Integrate | Phase::Repair => true,
        _ => false,
    };
    let mut passed = attempts.iter().filter(|attempt| attempt.verdict == AttemptVerdict::Passed);
    passed.rfind(is_whole).map(|attempt| attempt.files.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::registry::ClaimHolder;
    use crate::registry::experience::tests::SOLVED;
    use crate::registry::experience::tests::passed;
    use crate::registry::experience::tests::session;

    #[test]
    fn sessions_solved_earlier_are_indexed_once_from_their_attempts() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let event = Event::notice("");
        for (id, parts) in [("one", ["whole", "whole"]), ("two", ["left", "right"])] {
            let session = session(id, "p", "Write add(a, b).");
            let claim =
                registry.begin_session(&session, &ClaimHolder::ThisProcess, &event).unwrap();
            for (seq, part) in (0_u32..).zip(parts) {
                let attempt = passed(seq, part, &format!("x = {seq}\n"));
                registry.append_attempt(&claim, &attempt, &event).unwrap();
            }
            registry.end_session(&claim, &SOLVED, &event).unwrap();
            let sql = "INSERT INTO experience_backlog VALUES (?1)";
            registry.write(|tx| Ok(tx.execute(sql, [id])?)).unwrap();
        }
        registry.index_backlog().unwrap();
        registry.index_backlog().unwrap();
        // Parts of a solution are not a solution.
        assert_eq!(registry.n_experiences().unwrap(), 1);
        let record = registry.experience("one").unwrap().unwrap();
        assert_eq!(record.answer, "```python\nx = 1\n```");
    }
}
