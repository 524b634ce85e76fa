//! The ledger: what `rune evolve` has decided, with the evidence. Every decision is made once.

use std::collections::BTreeSet;
use std::time::SystemTime;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::event::DecisionKind;
use crate::event::Event;
use crate::event::timestamp;
use crate::registry::adapter;
use crate::registry::codec::from_json;
use crate::registry::codec::from_word;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::event;
use crate::registry::id::new_id;
use crate::registry::session::adapter_id;

/// Word of a decision by which a gate or a merge is accepted.
pub const ACCEPT: &str = "accept";

/// Decision of `rune evolve`, a row of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Unique id; ids sort by creation time.
    pub id: String,
    /// Kind of the decision: what it is about.
    pub kind: DecisionKind,
    /// Digest of what the decision is about: adapters, tasks and conditions.
    pub key: String,
    /// Key of the project.
    pub project: String,
    /// sha256 of the base model's weights.
    pub base_digest: String,
    /// Id of the adapter, or digest of the recipe of a merge.
    pub subject: String,
    /// Adapter that the subject was compared with, or that a rollback returns to; `None` for the
    /// base model.
    pub other: Option<AdapterId>,
    /// Name of the suite that gave the evidence.
    pub suite: Option<String>,
    /// The decision in one word, such as [`ACCEPT`].
    pub decision: String,
    /// Figures that the decision rests on.
    pub evidence: Value,
    /// Time of the decision, RFC 3339 UTC.
    pub at: String,
}

/// Change that a decision brings with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionEffect<'a> {
    /// None: the decision is only recorded.
    Nothing,
    /// The adapter gets a wider scope, unless it has it already.
    Widen(&'a AdapterId, Scope),
    /// The adapter is archived for this reason, unless it is archived already.
    Archive(&'a AdapterId, &'a str),
}

/// Filter for [`Registry::ledger`]; the default matches every row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// Key of the project.
    pub project: Option<String>,
    /// Id of the adapter.
    pub subject: Option<String>,
}

impl LedgerRow {
    /// Creates the row of a new decision.
    ///
    /// # Errors
    /// [`RegistryError::Kernel`] when the system gives no random numbers.
    pub fn new(
        kind: DecisionKind,
        key: String,
        (project, base_digest): (&str, &str),
        (subject, other): (&str, Option<&AdapterId>),
        (decision, evidence): (&str, Value),
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            id: new_id()?,
            kind,
            key,
            project: project.to_owned(),
            base_digest: base_digest.to_owned(),
            subject: subject.to_owned(),
            other: other.cloned(),
            suite: None,
            decision: decision.to_owned(),
            evidence,
            at: timestamp(SystemTime::now()),
        })
    }

    /// Whether the subject of a gate or a merge was accepted.
    pub fn is_accepted(&self) -> bool {
        self.decision == ACCEPT
    }

    /// Returns the event that reports the decision.
    pub fn event(&self) -> Event {
        Event::EvolutionDecided {
            kind: self.kind,
            decision: self.decision.clone(),
            project: self.project.clone(),
            other: self.other.clone(),
            suite: self.suite.clone(),
        }
    }
}

impl Registry {
    /// Records a decision with its effect and its event. Returns whether it is new: a decision with
    /// the same key changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the effect is on an unknown adapter.
    pub fn decide(
        &self,
        row: &LedgerRow,
        effect: DecisionEffect<'_>,
    ) -> Result<bool, RegistryError> {
        // Effect and event are in the transaction of the row: a decision is made whole or not.
        self.write(|tx| {
            if !insert(tx, row)? {
                return Ok(false);
            }
            match effect {
                DecisionEffect::Nothing => {}
                DecisionEffect::Widen(id, scope) => adapter::widen(tx, id, scope)?,
                DecisionEffect::Archive(id, reason) => {
                    adapter::archive(tx, id, reason)?;
                }
            }
            event::append(tx, &row.subject, &row.event())?;
            Ok(true)
        })
    }

    /// Returns the decision with this key; `None` if it was not made yet.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn decision(&self, key: &str) -> Result<Option<LedgerRow>, RegistryError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT * FROM ledger WHERE key = ?1")?;
            statement.query([key])?.next()?.map(from_row).transpose()
        })
    }

    /// Returns the decisions that match `filter`, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn ledger(
        &self,
        filter: &LedgerFilter,
        limit: u32,
    ) -> Result<Vec<LedgerRow>, RegistryError> {
        let sql = "SELECT * FROM ledger WHERE (?1 IS NULL OR project = ?1)
             AND (?2 IS NULL OR subject = ?2) ORDER BY rowid DESC LIMIT ?3";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query((&filter.project, &filter.subject, limit))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(from_row(row)?);
            }
            Ok(found)
        })
    }

    /// Returns what a project uses by its newest promotion or rollback, where `None` is the base
    /// model alone; the outer `None` means that nothing was promoted yet.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn in_use(
        &self,
        project: &str,
        base_digest: &str,
    ) -> Result<Option<Option<AdapterId>>, RegistryError> {
        // By `rowid`, the order of insertion: ids of one millisecond have none.
        let sql = "SELECT CASE kind WHEN 'promote' THEN subject ELSE other END FROM ledger
             WHERE project = ?1 AND base_digest = ?2 AND kind IN ('promote', 'rollback')
             ORDER BY rowid DESC LIMIT 1";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let id = statement.query_row((project, base_digest), |row| row.get(0)).optional()?;
            id.map(|id| adapter_id("ledger.subject", id)).transpose()
        })
    }

    /// Returns the adapter that a project uses by its newest promotion or rollback; `None` for the
    /// base model alone.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn incumbent(
        &self,
        project: &str,
        base_digest: &str,
    ) -> Result<Option<AdapterId>, RegistryError> {
        Ok(self.in_use(project, base_digest)?.flatten())
    }

    /// Returns the adapters whose promotions by a project were not rolled back, the one in use
    /// last.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn promoted(
        &self,
        project: &str,
        base_digest: &str,
    ) -> Result<Vec<AdapterId>, RegistryError> {
        let sql = "SELECT kind = 'promote', subject, other FROM ledger
             WHERE project = ?1 AND base_digest = ?2 AND kind IN ('promote', 'rollback')
             ORDER BY rowid";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query((project, base_digest))?;
            let mut used: Vec<AdapterId> = Vec::new();
            while let Some(row) = rows.next()? {
                let other = adapter_id("ledger.other", row.get(2)?)?;
                if row.get(0)? {
                    used.extend(adapter_id("ledger.subject", row.get(1)?)?);
                } else {
                    // A rollback returns to the adapter that it names, past those archived since.
                    let kept = other.and_then(|id| used.iter().rposition(|one| *one == id));
                    used.truncate(kept.map_or(0, |place| place + 1));
                }
            }
            Ok(used)
        })
    }

    /// Returns the adapters that any project may use: see [`Self::promoted`].
    ///
    /// # Errors
    /// [`RegistryError::Database`], [`RegistryError::Unreadable`].
    pub fn promoted_anywhere(&self) -> Result<BTreeSet<AdapterId>, RegistryError> {
        // A rollback needs a promotion before it, so these are all places with an adapter in use.
        let sql = "SELECT DISTINCT project, base_digest FROM ledger WHERE kind = 'promote'";
        let places: Vec<(String, String)> = self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        // Each read is a transaction of its own: what changes in between may or may not be seen.
        let promoted = places.iter().map(|(project, base)| self.promoted(project, base));
        Ok(promoted.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Whether the newest decision of a project to use an adapter, or not to, was a rollback.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn is_rolled_back(
        &self,
        (project, base_digest): (&str, &str),
        id: &AdapterId,
    ) -> Result<bool, RegistryError> {
        let sql = "SELECT kind = 'rollback' FROM ledger WHERE project = ?1 AND base_digest = ?2
             AND subject = ?3 AND kind IN ('promote', 'rollback') ORDER BY rowid DESC LIMIT 1";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let values = (project, base_digest, id.as_str());
            Ok(statement.query_row(values, |row| row.get(0)).optional()?.unwrap_or(false))
        })
    }

    /// Returns the number of tests at the gate of a project.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn n_gate_tests(&self, project: &str, base_digest: &str) -> Result<u32, RegistryError> {
        let sql = "SELECT count(*) FROM ledger
             WHERE project = ?1 AND base_digest = ?2 AND kind = 'gate'";
        self.read(|tx| {
            Ok(tx.prepare_cached(sql)?.query_row((project, base_digest), |row| row.get(0))?)
        })
    }
}

/// Inserts a row; `false` if its key is known.
fn insert(tx: &Transaction<'_>, row: &LedgerRow) -> Result<bool, RegistryError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO ledger (id, kind, key, project, base_digest, subject, other, suite, decision,
             evidence_json, at)
         VALUES (:id, :kind, :key, :project, :base_digest, :subject, :other, :suite, :decision,
             :evidence_json, :at)
         ON CONFLICT (key) DO NOTHING",
    )?;
    // No row is added when the key is known.
    let n_added = statement.execute(named_params! {
        ":id": row.id,
        ":kind": row.kind.as_str(),
        ":key": row.key,
        ":project": row.project,
        ":base_digest": row.base_digest,
        ":subject": row.subject,
        ":other": row.other.as_ref().map(AdapterId::as_str),
        ":suite": row.suite,
        ":decision": row.decision,
        ":evidence_json": row.evidence.to_string(),
        ":at": row.at,
    })?;
    Ok(n_added == 1)
}

fn from_row(row: &Row<'_>) -> Result<LedgerRow, RegistryError> {
    Ok(LedgerRow {
        id: row.get("id")?,
        kind: from_word("ledger.kind", row.get("kind")?)?,
        key: row.get("key")?,
        project: row.get("project")?,
        base_digest: row.get("base_digest")?,
        subject: row.get("subject")?,
        other: adapter_id("ledger.other", row.get("other")?)?,
        suite: row.get("suite")?,
        decision: row.get("decision")?,
        evidence: from_json("ledger.evidence_json", &row.get::<_, String>("evidence_json")?)?,
        at: row.get("at")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(kind: DecisionKind, key: &str, subject: &str, other: Option<&str>) -> LedgerRow {
        let other = other.map(|id| AdapterId::parse(id).unwrap());
        let pair = (subject, other.as_ref());
        LedgerRow::new(kind, key.to_owned(), ("p", "base"), pair, ("done", json!({}))).unwrap()
    }

    #[test]
    fn the_newest_promotion_or_rollback_names_the_incumbent() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let incumbent =
            || registry.incumbent("p", "base").unwrap().map(|id| id.as_str().to_owned());
        let decide = |row: &LedgerRow| registry.decide(row, DecisionEffect::Nothing).unwrap();
        assert_eq!(incumbent(), None);
        assert!(decide(&row(DecisionKind::Promote, "1", "a", None)));
        assert!(decide(&row(DecisionKind::Promote, "2", "b", Some("a"))));
        assert_eq!(incumbent().as_deref(), Some("b"));
        assert!(!decide(&row(DecisionKind::Promote, "1", "a", None)), "a key is decided once");
        assert_eq!(incumbent().as_deref(), Some("b"));
        assert!(decide(&row(DecisionKind::Rollback, "3", "b", Some("a"))));
        assert_eq!(incumbent().as_deref(), Some("a"));
        assert!(decide(&row(DecisionKind::Rollback, "4", "a", None)));
        assert_eq!(incumbent(), None);
        assert_eq!(registry.incumbent("other", "base").unwrap(), None);
        assert_eq!(registry.ledger(&LedgerFilter::default(), 9).unwrap().len(), 4);
        let of_b = LedgerFilter { subject: Some("b".to_owned()), ..LedgerFilter::default() };
        assert_eq!(registry.ledger(&of_b, 9).unwrap().len(), 2);
        assert_eq!(registry.quick_check().unwrap(), [""; 0]);
    }

    #[test]
    fn gate_tests_and_adapters_in_use_are_counted_by_project() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let id = |id: &str| AdapterId::parse(id).unwrap();
        let rows = [
            row(DecisionKind::Gate, "1", "a", None),
            row(DecisionKind::Gate, "2", "a", None),
            row(DecisionKind::Promote, "3", "a", None),
            LedgerRow { project: "q".to_owned(), ..row(DecisionKind::Promote, "4", "b", None) },
        ];
        for row in &rows {
            assert!(registry.decide(row, DecisionEffect::Nothing).unwrap());
        }
        assert_eq!(registry.n_gate_tests("p", "base").unwrap(), 2);
        assert_eq!(registry.n_gate_tests("q", "base").unwrap(), 0);
        assert_eq!(registry.promoted_anywhere().unwrap(), BTreeSet::from(["a", "b"].map(id)));
        assert!(!registry.is_rolled_back(("p", "base"), &id("a")).unwrap());
        let rollback = row(DecisionKind::Rollback, "5", "a", None);
        assert!(registry.decide(&rollback, DecisionEffect::Nothing).unwrap());
        assert!(registry.is_rolled_back(("p", "base"), &id("a")).unwrap());
        assert_eq!(registry.in_use("p", "base").unwrap(), Some(None));
        assert_eq!(registry.in_use("r", "base").unwrap(), None);
    }
}
