//! Search for the records of solved sessions that are nearest to a task.
//!
//! FTS5 holds the list of records of each term. The score is not FTS5's BM25, which has no scale: a
//! threshold has to keep out a record that only happens to be the best of many unrelated ones. It
//! is the geometric mean of two shares: the share of the task's term weight that the record covers,
//! and that of the record's that the task covers. A term weighs more the fewer records have it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::HashMap;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;

use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::experience::ExperienceRecord;
use crate::registry::experience::from_row;
use crate::registry::experience::n_records;
use crate::terms::terms;

/// Maximum terms of a task to search for, rarest first. Common terms separate nothing and have the
/// longest lists.
const MAX_TERMS: usize = 16;
/// Maximum entries of all lists to read. It bounds the time of a search in a large registry.
const MAX_ENTRIES: u32 = 20_000;
/// Number of records that are scored exactly, on all terms; and as many of the task's own project.
const MAX_SCORED: usize = 128;
/// Number of records, best first, among which those of the task's own project are looked for.
const MAX_LOOKED_AT: usize = 1_000;
/// Imagined number of other records, none of which has any term of the task. Without them, the
/// terms of the only record would have almost no weight.
const SMOOTHING: f64 = 20.0;

/// Search for the records nearest to a task.
#[derive(Debug, Clone, Copy)]
pub struct ExperienceQuery<'a> {
    /// Text of the task.
    pub text: &'a str,
    /// Key of the project whose records come first.
    pub project: &'a str,
    /// Families whose records are never returned.
    pub excluded_families: &'a BTreeSet<String>,
    /// Minimum similarity, `0.0..=1.0`.
    pub min_similarity: f64,
    /// Maximum number of records.
    pub limit: usize,
}

/// Record with its similarity to the task of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct NearRecord {
    /// The record that is near.
    pub record: ExperienceRecord,
    /// Similarity to the task, `0.0..=1.0`: see the module.
    pub similarity: f64,
}

impl Registry {
    /// Returns the records nearest to a task: those of its project first, then all others, each by
    /// similarity. Reads at most 20,000 entries of the index, so the time is bounded: p99 is 15 ms
    /// among 100,000 records (`benches/retrieval.rs`).
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn nearest_records(
        &self,
        query: &ExperienceQuery<'_>,
    ) -> Result<Vec<NearRecord>, RegistryError> {
        self.read(|tx| {
            let mut weights = TermWeights::new(tx)?;
            let task = QueryTerms::new(query.text, &mut weights)?;
            let searched = task.searched(&mut weights)?;
            let (mut found, mut n_of_project, mut n_others) = (Vec::new(), 0, 0);
            for id in candidates(tx, &searched)?.into_iter().take(MAX_LOOKED_AT) {
                let is_of_project = is_of_project(tx, id, query.project)?;
                let n_scored = if is_of_project { &mut n_of_project } else { &mut n_others };
                if *n_scored == MAX_SCORED {
                    continue;
                }
                let candidate = StoredTerms::read(tx, id)?;
                if query.excluded_families.contains(&candidate.family) {
                    continue;
                }
                *n_scored += 1;
                let similarity = task.similarity(&candidate.terms, &mut weights)?;
                if similarity >= query.min_similarity {
                    found.push(ScoredCandidate { id, is_of_project, similarity });
                }
            }
            found.sort_by_key(|scored| Reverse(scored.rank()));
            found.truncate(query.limit);
            found.into_iter().map(|scored| scored.read(tx)).collect()
        })
    }
}

/// Weights of terms in this index, read when they are first needed.
struct TermWeights<'a> {
    tx: &'a Transaction<'a>,
    n_records: f64,
    known: HashMap<String, TermCount>,
}

/// Number of records with a term, and its weight.
#[derive(Debug, Clone, Copy)]
struct TermCount {
    n_records: u32,
    weight: f64,
}

impl<'a> TermWeights<'a> {
    fn new(tx: &'a Transaction<'a>) -> Result<Self, RegistryError> {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 records")]
        let n_records = n_records(tx)? as f64;
        Ok(Self { tx, n_records, known: HashMap::new() })
    }

    fn get(&mut self, term: &str) -> Result<TermCount, RegistryError> {
        if let Some(count) = self.known.get(term) {
            return Ok(*count);
        }
        let sql = "SELECT n_records FROM experience_term WHERE term = ?1";
        let found = self.tx.prepare_cached(sql)?.query_row([term], |row| row.get(0)).optional()?;
        let n_records: u32 = found.unwrap_or(0);
        // A term that no record has weighs no more than one that a single record has.
        let others = f64::from(n_records.max(1)) + 1.0;
        let count = TermCount { n_records, weight: ((self.n_records + SMOOTHING) / others).ln() };
        self.known.insert(term.to_owned(), count);
        Ok(count)
    }

    fn sum<'t>(&mut self, terms: impl Iterator<Item = &'t str>) -> Result<f64, RegistryError> {
        let mut sum = 0.0;
        for term in terms {
            sum += self.get(term)?.weight;
        }
        Ok(sum)
    }
}

/// Terms of a task.
struct QueryTerms {
    terms: BTreeSet<String>,
    /// Sum of their weights.
    weight: f64,
}

impl QueryTerms {
    fn new(text: &str, weights: &mut TermWeights<'_>) -> Result<Self, RegistryError> {
        let terms = terms(text);
        let weight = weights.sum(terms.iter().map(String::as_str))?;
        Ok(Self { terms, weight })
    }

    /// Returns the terms to search for, with their weights: those that any record has, rarest
    /// first.
    fn searched(&self, weights: &mut TermWeights<'_>) -> Result<Vec<(&str, f64)>, RegistryError> {
        let mut known = Vec::new();
        for term in &self.terms {
            let count = weights.get(term)?;
            if count.n_records > 0 {
                known.push((count.n_records, term.as_str(), count.weight));
            }
        }
        known.sort_by_key(|(n_records, term, _)| (*n_records, *term));
        Ok(known.into_iter().take(MAX_TERMS).map(|(_, term, weight)| (term, weight)).collect())
    }

    /// Returns the similarity to a record with these terms, `0.0..=1.0`.
    fn similarity(
        &self,
        record: &str,
        weights: &mut TermWeights<'_>,
    ) -> Result<f64, RegistryError> {
        let record_weight = weights.sum(record.split(' '))?;
        let common = weights.sum(record.split(' ').filter(|term| self.terms.contains(*term)))?;
        let product = self.weight * record_weight;
        Ok(if product > 0.0 { (common / product.sqrt()).min(1.0) } else { 0.0 })
    }
}

/// Returns the ids of the records with any of the searched terms, those with most weight first.
fn candidates(tx: &Transaction<'_>, searched: &[(&str, f64)]) -> Result<Vec<i64>, RegistryError> {
    let mut sums: HashMap<i64, f64> = HashMap::new();
    let mut n_left = MAX_ENTRIES;
    // Newest first, for a term that has more records than may be read.
    let mut statement = tx.prepare_cached(
        "SELECT rowid FROM experience_index WHERE experience_index MATCH ?1
         ORDER BY rowid DESC LIMIT ?2",
    )?;
    for (term, weight) in searched {
        // Quoted, so that no term is read as an operator of FTS5.
        let mut rows = statement.query((format!("\"{term}\""), n_left))?;
        while let Some(row) = rows.next()? {
            *sums.entry(row.get(0)?).or_default() += weight;
            n_left -= 1;
        }
        if n_left == 0 {
            break;
        }
    }
    let mut best: Vec<(i64, f64)> = sums.into_iter().collect();
    best.sort_unstable_by(|(id, sum), (other_id, other)| {
        other.total_cmp(sum).then(other_id.cmp(id))
    });
    Ok(best.into_iter().map(|(id, _)| id).collect())
}

/// Candidate that may be returned.
struct ScoredCandidate {
    id: i64,
    is_of_project: bool,
    similarity: f64,
}

impl ScoredCandidate {
    /// Sort key: records of the project first, then the nearest, then the newest. Similarities are
    /// rounded, so that an answer that has a term more or less in common does not beat a newer one.
    fn rank(&self) -> (bool, i64, i64) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 1000")]
        let rounded = (self.similarity * 1000.0) as i64;
        (self.is_of_project, rounded, self.id)
    }

    fn read(self, tx: &Transaction<'_>) -> Result<NearRecord, RegistryError> {
        let sql = "SELECT * FROM experience WHERE id = ?1";
        let record = tx.prepare_cached(sql)?.query_row([self.id], from_row)?;
        Ok(NearRecord { record, similarity: self.similarity })
    }
}

fn is_of_project(tx: &Transaction<'_>, id: i64, project: &str) -> Result<bool, RegistryError> {
    let sql = "SELECT 1 FROM experience WHERE project = ?1 AND id = ?2";
    Ok(tx.prepare_cached(sql)?.exists((project, id))?)
}

/// Columns of a record that decide whether it is returned.
struct StoredTerms {
    family: String,
    terms: String,
}

impl StoredTerms {
    fn read(tx: &Transaction<'_>, id: i64) -> Result<Self, RegistryError> {
        let sql = "SELECT family, terms FROM experience WHERE id = ?1";
        let read = |row: &Row<'_>| Ok(Self { family: row.get(0)?, terms: row.get(1)? });
        Ok(tx.prepare_cached(sql)?.query_row([id], read)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::experience::tests::solve;

    const PRIMES: &str = "Write primes.py with is_prime(n) and primes_below(n)";
    const SIEVE: &str = "Write sieve.py with is_prime(n) and primes_between(low, high)";
    const HEADERS: &str = "Write headers.py with parse_headers(text), which returns a dictionary";

    fn open() -> (tempfile::TempDir, Registry) {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        (home, registry)
    }

    fn nearest(registry: &Registry, text: &str, excluded: &[String]) -> Vec<String> {
        let excluded_families = &excluded.iter().cloned().collect();
        let query = ExperienceQuery {
            text,
            project: "own",
            excluded_families,
            min_similarity: 0.3,
            limit: 9,
        };
        let found = registry.nearest_records(&query).unwrap();
        found.into_iter().map(|near| near.record.session_id).collect()
    }

    #[test]
    fn first_record_is_found_by_a_related_task_only() {
        let (_home, registry) = open();
        assert_eq!(nearest(&registry, SIEVE, &[]), [""; 0]);
        solve(&registry, "a", "own", PRIMES, "def is_prime(n): ...\ndef primes_below(n): ...\n");
        assert_eq!(nearest(&registry, SIEVE, &[]), ["a"]);
        assert_eq!(nearest(&registry, HEADERS, &[]), [""; 0]);
        for text in ["", "(a OR \"b)", "NEAR * ^ -"] {
            assert_eq!(nearest(&registry, text, &[]), [""; 0]);
        }
    }

    #[test]
    fn records_of_the_project_come_first_and_excluded_families_never() {
        let (_home, registry) = open();
        solve(&registry, "a", "own", SIEVE, "def is_prime(n): ...\n");
        solve(&registry, "b", "other", PRIMES, "def is_prime(n): ...\ndef primes_below(n): ...\n");
        solve(&registry, "c", "own", HEADERS, "def parse_headers(text): ...\n");
        assert_eq!(nearest(&registry, PRIMES, &[]), ["a", "b"]);
        let families = [registry.experience("a").unwrap().unwrap().family];
        assert_eq!(nearest(&registry, PRIMES, &families), ["b"]);
    }

    #[test]
    fn record_of_the_project_is_found_behind_many_nearer_ones() {
        let (_home, registry) = open();
        solve(&registry, "own", "own", SIEVE, "def is_prime(n): ...\n");
        let answer = "def is_prime(n): ...\ndef primes_below(n): ...\n";
        for n in 0..=MAX_SCORED {
            solve(&registry, &format!("other-{n}"), "other", PRIMES, answer);
        }
        let none = BTreeSet::new();
        let query = ExperienceQuery {
            text: PRIMES,
            project: "own",
            excluded_families: &none,
            min_similarity: 0.0,
            limit: 2,
        };
        let found = registry.nearest_records(&query).unwrap();
        assert_eq!(found[0].record.session_id, "own");
        assert!(found[0].similarity < found[1].similarity);
    }

    #[test]
    fn newest_of_equal_records_comes_first() {
        let (_home, registry) = open();
        for id in ["a", "b", "c"] {
            solve(&registry, id, "own", PRIMES, "def is_prime(n): ...\n");
        }
        assert_eq!(nearest(&registry, PRIMES, &[]), ["c", "b", "a"]);
    }
}
