//! What adapters were trained on, for choosing among many of them in milliseconds.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rusqlite::OptionalExtension;
use rusqlite::Transaction;

use crate::adapter::AdapterId;
use crate::registry::codec::from_json;
use crate::registry::codec::to_json;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::session::adapter_id;
use crate::similarity::ProfileCard;
use crate::similarity::TaskProfile;
use crate::similarity::rarest_terms;
use crate::task::TaskType;

/// Maximum terms of a task whose cards are counted, rarest in general first.
const MAX_COUNTED: usize = 64;
/// Maximum terms to search for, those of the fewest cards first: what most cards have tells
/// nothing, and has the longest lists.
const MAX_TERMS: usize = 16;
/// Number of cards up to which a term is not common, whatever their share.
const MIN_COMMON: u32 = 16;
/// Adapters without a card whose training tasks are known, parents before their children.
const WITHOUT_CARD: &str = "SELECT adapter.id, dataset.profile_json FROM adapter
     LEFT JOIN dataset ON dataset.digest = adapter.dataset_digest
     WHERE NOT EXISTS (SELECT 1 FROM adapter_card WHERE adapter_id = adapter.id)
       AND (dataset.profile_json IS NOT NULL
            OR EXISTS (SELECT 1 FROM adapter_parent WHERE child_id = adapter.id)
               AND NOT EXISTS (SELECT 1 FROM adapter_parent
                   LEFT JOIN adapter_card ON adapter_card.adapter_id = parent_id
                   WHERE child_id = adapter.id AND adapter_card.id IS NULL))
     ORDER BY adapter.rowid LIMIT 64";

/// The index comes first, and each adapter that it finds is looked up: SQLite does not reorder a
/// CROSS JOIN.
const NEAREST: &str = "SELECT adapter.id FROM adapter_card_index
     CROSS JOIN adapter_card ON adapter_card.id = adapter_card_index.rowid
     CROSS JOIN adapter ON adapter.id = adapter_card.adapter_id
     WHERE adapter_card_index MATCH ?1 AND adapter.archived_at IS NULL
         AND adapter.base_model = ?2 AND adapter.base_digest = ?3
         AND (?6 IS NOT NULL AND adapter.id IN (SELECT value FROM json_each(?6))
              OR ?6 IS NULL
                 AND (adapter.scope = 'global' OR adapter.project = ?4
                      AND (adapter.scope = 'project' OR adapter.task_type = ?5))
                 AND EXISTS (SELECT 1 FROM evaluation WHERE adapter_id = adapter.id
                     AND evaluation.base_digest = ?3 AND gain_low > 0))
     ORDER BY bm25(adapter_card_index) LIMIT ?7";

/// Search for the adapters that were trained on tasks like this one.
#[derive(Debug, Clone, Copy)]
pub struct AdapterQuery<'a> {
    /// Text of the task.
    pub text: &'a str,
    /// Canonical hub id and tokenizer digest that the adapter must fit.
    pub base_model: &'a str,
    /// sha256 of the weights that the adapter was trained on.
    pub base_digest: &'a str,
    /// Key of the project that must be in the scope of the adapter.
    pub project: &'a str,
    /// Task type that must be in its scope.
    pub task_type: TaskType,
    /// Only these, whatever their scope is; `None` for all that were measured to gain.
    pub promoted: Option<&'a [AdapterId]>,
    /// Maximum number of adapters.
    pub limit: u32,
}

/// Numbers of sessions that were solved and not solved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Number of solved sessions.
    pub solved: u32,
    /// Number of unsolved sessions.
    pub unsolved: u32,
}

impl Registry {
    /// Makes the cards of adapters that have none. A damaged profile gives an empty one.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn index_cards(&self) -> Result<(), RegistryError> {
        // A profile may be large, so none is read only to know that there is work.
        let exists = format!("SELECT EXISTS ({WITHOUT_CARD})");
        while self.read(|tx| Ok(tx.prepare_cached(&exists)?.query_row([], |row| row.get(0))?))? {
            self.write(|tx| {
                for (id, profile) in without_card(tx)? {
                    let card = match profile {
                        // It must not keep others from their cards.
                        Some(profile) => from_json("dataset.profile_json", &profile).map_or_else(
                            |_| ProfileCard::default(),
                            |known: TaskProfile| known.card(),
                        ),
                        // A merge is searched by the terms of its parents, and compared with
                        // theirs.
                        None => ProfileCard::decode(&terms_of_parents(tx, &id)?, &[]),
                    };
                    insert(tx, &id, &card)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Returns what an adapter was trained on; `None` if it is not known. Of a merge it has the
    /// terms alone.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn card(&self, id: &AdapterId) -> Result<Option<ProfileCard>, RegistryError> {
        let sql = "SELECT terms, tasks FROM adapter_card WHERE adapter_id = ?1";
        self.read(|tx| {
            let decode = |row: &rusqlite::Row<'_>| {
                let (terms, tasks) = (row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?);
                Ok(ProfileCard::decode(&terms, &tasks))
            };
            Ok(tx.prepare_cached(sql)?.query_row([id.as_str()], decode).optional()?)
        })
    }

    /// Returns the adapters whose terms match those of a task best (BM25), best first: active ones
    /// that fit the weights and have the task in their scope.
    ///
    /// # Errors
    /// [`RegistryError::Database`], [`RegistryError::Unreadable`].
    pub fn nearest_adapters(
        &self,
        query: &AdapterQuery<'_>,
    ) -> Result<Vec<AdapterId>, RegistryError> {
        let promoted = query.promoted.map(|ids| to_json(&ids));
        self.read(|tx| {
            let terms = telling_terms(tx, query.text)?;
            if terms.is_empty() {
                return Ok(Vec::new());
            }
            // Terms are letters alone, so quotes cannot occur in them.
            let quoted = terms.iter().map(|term| format!("\"{term}\""));
            let any = quoted.collect::<Vec<_>>().join(" OR ");
            let mut statement = tx.prepare_cached(NEAREST)?;
            let AdapterQuery { base_model, base_digest, project, task_type, limit, .. } = query;
            let task_type = task_type.as_str();
            let values = (any, base_model, base_digest, project, task_type, promoted, limit);
            let mut rows = statement.query(values)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.extend(adapter_id("adapter.id", row.get(0)?)?);
            }
            Ok(found)
        })
    }

    /// Counts how the sessions of a project with tasks of a type ended, by their adapter: those
    /// where the adapter, or none, was chosen among several, and the user's tests decided.
    ///
    /// # Errors
    /// [`RegistryError::Database`], [`RegistryError::Unreadable`].
    pub fn session_counts(
        &self,
        project: &str,
        task_type: TaskType,
        base_digest: &str,
    ) -> Result<BTreeMap<Option<AdapterId>, SessionCounts>, RegistryError> {
        let sql = "SELECT adapter_id, status = 'solved', count(*) FROM session
             WHERE project = ?1 AND task_type = ?2 AND base_digest = ?3
                 AND (status = 'solved' AND verified_by = 'user_tests' OR status = 'unsolved')
                 AND propensity IS NOT NULL GROUP BY 1, 2";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query((project, task_type.as_str(), base_digest))?;
            // At most two rows for each adapter: those that were solved, and the others.
            let mut counts: BTreeMap<Option<AdapterId>, SessionCounts> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let of_adapter =
                    counts.entry(adapter_id("session.adapter_id", row.get(0)?)?).or_default();
                let is_solved: bool = row.get(1)?;
                let count =
                    if is_solved { &mut of_adapter.solved } else { &mut of_adapter.unsolved };
                *count = row.get(2)?;
            }
            Ok(counts)
        })
    }
}

/// Returns the terms of a text that the fewest cards have, of those that any card has.
fn telling_terms(tx: &Transaction<'_>, text: &str) -> Result<Vec<String>, RegistryError> {
    let sql = "SELECT doc FROM adapter_card_term WHERE term = ?1";
    let mut statement = tx.prepare_cached(sql)?;
    let mut counted = Vec::new();
    for term in rarest_terms(text, MAX_COUNTED) {
        let n_cards: Option<u32> = statement.query_row([&term], |row| row.get(0)).optional()?;
        counted.extend(n_cards.map(|n_cards| (n_cards, term)));
    }
    // A term that no card has finds nothing, and is not among them.
    counted.sort();
    counted.truncate(MAX_TERMS);
    // The lists of common terms are long, and needed only where no other term is.
    let n_cards: u32 = tx
        .prepare_cached("SELECT coalesce(max(id), 0) FROM adapter_card")?
        .query_row([], |row| row.get(0))?;
    let is_rare = |n_with: u32| n_with <= (n_cards / 4).max(MIN_COMMON);
    let n_rare = counted.iter().filter(|(n_with, _)| is_rare(*n_with)).count();
    if n_rare > 0 {
        counted.truncate(n_rare);
    }
    Ok(counted.into_iter().map(|(_, term)| term).collect())
}

fn without_card(tx: &Transaction<'_>) -> Result<Vec<(AdapterId, Option<String>)>, RegistryError> {
    let mut statement = tx.prepare_cached(WITHOUT_CARD)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(adapter_id("adapter.id", row.get(0)?)?.map(|id| (id, row.get(1))));
    }
    found.into_iter().map(|(id, profile)| Ok((id, profile?))).collect()
}

fn terms_of_parents(tx: &Transaction<'_>, id: &AdapterId) -> Result<String, RegistryError> {
    let sql = "SELECT terms FROM adapter_card JOIN adapter_parent ON adapter_id = parent_id
         WHERE child_id = ?1";
    let mut statement = tx.prepare_cached(sql)?;
    let cards = statement.query_map([id.as_str()], |row| row.get::<_, String>(0))?;
    let cards = cards.collect::<Result<Vec<_>, _>>()?;
    let terms: BTreeSet<&str> = cards.iter().flat_map(|terms| terms.split_whitespace()).collect();
    Ok(terms.into_iter().collect::<Vec<_>>().join(" "))
}

fn insert(tx: &Transaction<'_>, id: &AdapterId, card: &ProfileCard) -> Result<(), RegistryError> {
    let terms = card.terms().join(" ");
    let mut statement = tx.prepare_cached(
        "INSERT INTO adapter_card (adapter_id, terms, tasks) VALUES (?1, ?2, ?3) RETURNING id",
    )?;
    let values = (id.as_str(), &terms, card.task_bytes());
    let row: i64 = statement.query_row(values, |row| row.get(0))?;
    // The index has no copy of the terms: both are written here, and never changed.
    tx.prepare_cached("INSERT INTO adapter_card_index (rowid, terms) VALUES (?1, ?2)")?
        .execute((row, &terms))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_looked_up_for_what_the_index_finds() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let plan = registry.read(|tx| {
            let mut statement = tx.prepare(&format!("EXPLAIN QUERY PLAN {NEAREST}"))?;
            let values = ("\"ledger\"", "m", "d", "p", "t", None::<String>, 32);
            let steps = statement.query_map(values, |row| row.get::<_, String>(3))?;
            Ok(steps.collect::<Result<Vec<_>, _>>()?)
        });
        let plan = plan.unwrap();
        assert!(plan[0].starts_with("SCAN adapter_card_index VIRTUAL TABLE"), "{plan:?}");
        assert!(plan[1].starts_with("SEARCH adapter_card USING INTEGER PRIMARY KEY"), "{plan:?}");
        assert!(plan[2].starts_with("SEARCH adapter USING INDEX"), "{plan:?}");
        assert!(plan.iter().any(|step| step.contains("SEARCH evaluation USING INDEX")), "{plan:?}");
    }
}
