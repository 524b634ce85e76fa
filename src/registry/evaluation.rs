//! Evaluations: history, never overwritten; and which adapter they speak for.

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::named_params;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::adapter::AdapterId;
use crate::event::Event;
use crate::registry::codec::from_json;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::event;
use crate::registry::session::adapter_id;
use crate::registry::session::assurance;
use crate::task::TaskType;
use crate::trajectory::Assurance;

/// What an adapter, or the base alone, scored on a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Sortable by time of birth.
    pub id: String,
    /// The adapter; `None` for the base alone.
    pub adapter_id: Option<AdapterId>,
    /// sha256 of the exact weights.
    pub base_digest: String,
    /// The suite's name.
    pub suite: String,
    /// sha256 of its tasks.
    pub suite_digest: String,
    /// Which part of the suite.
    pub split: String,
    /// `completions`, `best_of_n` or `pipeline`.
    pub via: String,
    /// Tasks.
    pub n_tasks: u32,
    /// Answers to each.
    pub n_samples: u32,
    /// Answers that passed.
    pub passed: u32,
    /// Mean share of a task's answers that passed.
    pub pass_at_1: f64,
    /// 95 % interval of `pass_at_1`, from.
    pub ci_low: f64,
    /// 95 % interval of `pass_at_1`, to.
    pub ci_high: f64,
    /// The lower end of the 90 % interval; `None` for what was measured by an earlier version.
    pub fitness: Option<f64>,
    /// How answers were drawn.
    pub sampling: Value,
    /// Version of the judge.
    pub judge_version: String,
    /// Who generated.
    pub provider: String,
    /// RFC 3339 UTC.
    pub at: String,
}

/// What came of an answer to a task.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRow {
    /// sha256 of all that decided it.
    pub key: String,
    /// Who answered; `None` for the base alone.
    pub adapter_id: Option<AdapterId>,
    /// sha256 of the task.
    pub task_digest: String,
    /// Seed of the answer.
    pub seed: u64,
    /// Whether it passed.
    pub passed: bool,
    /// Where it was decided that it passed.
    pub assurance: Option<Assurance>,
    /// What the judge said, in one line.
    pub summary: String,
    /// The answer.
    pub answer: String,
    /// Processor time of judging it, in milliseconds.
    pub cpu_ms: u64,
    /// RFC 3339 UTC.
    pub at: String,
}

/// An adapter that was measured to be better than none on these weights.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredAdapter {
    /// It.
    pub adapter_id: AdapterId,
    /// What it scored, and what the base scored on the same suite.
    pub evaluation: Evaluation,
    /// The base's score there.
    pub base: Evaluation,
}

impl Registry {
    /// Stores an evaluation.
    ///
    /// # Errors
    /// [`RegistryError::Database`], also for an adapter that is not there.
    pub fn insert_evaluation(&self, evaluation: &Evaluation) -> Result<(), RegistryError> {
        self.write(|tx| {
            let mut statement = tx.prepare_cached(
                "INSERT INTO evaluation (id, adapter_id, base_digest, suite, suite_digest, split, via, n_tasks, n_samples,
                     passed, pass_at_1, ci_low, ci_high, fitness, sampling_json, judge_version, provider, at)
                 VALUES (:id, :adapter_id, :base_digest, :suite, :suite_digest, :split, :via, :n_tasks, :n_samples,
                     :passed, :pass_at_1, :ci_low, :ci_high, :fitness, :sampling, :judge_version, :provider, :at)",
            )?;
            statement.execute(named_params! {
                ":id": evaluation.id,
                ":adapter_id": evaluation.adapter_id.as_ref().map(AdapterId::as_str),
                ":base_digest": evaluation.base_digest,
                ":suite": evaluation.suite,
                ":suite_digest": evaluation.suite_digest,
                ":split": evaluation.split,
                ":via": evaluation.via,
                ":n_tasks": evaluation.n_tasks,
                ":n_samples": evaluation.n_samples,
                ":passed": evaluation.passed,
                ":pass_at_1": evaluation.pass_at_1,
                ":ci_low": evaluation.ci_low,
                ":ci_high": evaluation.ci_high,
                ":fitness": evaluation.fitness,
                ":sampling": evaluation.sampling.to_string(),
                ":judge_version": evaluation.judge_version,
                ":provider": evaluation.provider,
                ":at": evaluation.at,
            })?;
            let subject = evaluation.adapter_id.as_ref().map_or("base", AdapterId::as_str);
            let created = Event::EvaluationCreated {
                suite: evaluation.suite.clone(),
                pass_at_1: evaluation.pass_at_1,
            };
            event::append(tx, subject, &created).map(drop)
        })
    }

    /// The outcome of this key.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn outcome(&self, key: &str) -> Result<Option<OutcomeRow>, RegistryError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT * FROM outcome WHERE key = ?1")?;
            let mut rows = statement.query([key])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            Ok(Some(OutcomeRow {
                key: row.get("key")?,
                adapter_id: adapter_id("outcome.adapter_id", row.get("adapter_id")?)?,
                task_digest: row.get("task_digest")?,
                seed: row.get::<_, i64>("seed")?.cast_unsigned(),
                passed: row.get::<_, String>("verdict")? == "passed",
                assurance: assurance("outcome.assurance", row.get("assurance")?)?,
                summary: row.get("summary")?,
                answer: row.get("answer")?,
                cpu_ms: row.get::<_, i64>("cpu_ms")?.cast_unsigned(),
                at: row.get("at")?,
            }))
        })
    }

    /// Stores an outcome, unless there is one of its key.
    ///
    /// # Errors
    /// [`RegistryError::Database`], also for an adapter that is not there.
    pub fn insert_outcome(&self, outcome: &OutcomeRow) -> Result<(), RegistryError> {
        self.write(|tx| {
            let mut statement = tx.prepare_cached(
                "INSERT INTO outcome (key, adapter_id, task_digest, seed, verdict, assurance, summary, answer, cpu_ms, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (key) DO NOTHING",
            )?;
            statement.execute((
                &outcome.key,
                outcome.adapter_id.as_ref().map(AdapterId::as_str),
                &outcome.task_digest,
                outcome.seed.cast_signed(),
                if outcome.passed { "passed" } else { "failed" },
                outcome.assurance.map(Assurance::as_str),
                &outcome.summary,
                &outcome.answer,
                outcome.cpu_ms.cast_signed(),
                &outcome.at,
            ))?;
            Ok(())
        })
    }

    /// The digest under which a suite of this name was measured last; `None` where it never was.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn measured_suite(&self, name: &str) -> Result<Option<String>, RegistryError> {
        self.read(|tx| {
            let sql =
                "SELECT suite_digest FROM evaluation WHERE suite = ?1 ORDER BY id DESC LIMIT 1";
            Ok(tx.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    /// The newest evaluations of an adapter, or of the base alone on these weights, one for each
    /// suite, split and way.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn fitness(
        &self,
        adapter: Option<&AdapterId>,
        base_digest: &str,
    ) -> Result<Vec<Evaluation>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT * FROM fitness WHERE adapter_id IS ?1 AND base_digest = ?2 ORDER BY id DESC";
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query((adapter.map(AdapterId::as_str), base_digest))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(from_row(row)?);
            }
            Ok(found)
        })
    }

    /// Adapters that fit `base_model`, are not archived, belong to `project` (or to all, when it is
    /// `None`) and to tasks of `task_type`, and whose newest evaluation on the weights of
    /// `base_digest` lies above what the base scores on the same suite, split and way, the whole of
    /// its interval: the fittest first. Controls say nothing here.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn candidates(
        &self,
        (base_model, base_digest): (&str, &str),
        project: Option<&str>,
        task_type: TaskType,
    ) -> Result<Vec<MeasuredAdapter>, RegistryError> {
        let sql = candidates_sql(project.is_some());
        self.read(|tx| {
            let mut statement = tx.prepare_cached(&sql)?;
            let mut rows =
                statement.query((base_model, base_digest, project, task_type.as_str()))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let one = |id: String| {
                    let sql = "SELECT * FROM evaluation WHERE id = ?1";
                    tx.query_row(sql, [id], |row| Ok(from_row(row)))?
                };
                let evaluation = one(row.get("mine_id")?)?;
                let base = one(row.get("base_id")?)?;
                let Some(adapter_id) = evaluation.adapter_id.clone() else { continue };
                found.push(MeasuredAdapter { adapter_id, evaluation, base });
            }
            Ok(found)
        })
    }
}

/// The condition on the scope is written out for either case, so that an index finds the few
/// adapters that count, and `CROSS JOIN` keeps SQLite from beginning with all evaluations.
fn candidates_sql(of_project: bool) -> String {
    let scope = if of_project {
        "adapter.project = ?3
             AND (adapter.scope = 'project' OR (adapter.scope = 'task' AND adapter.task_type = ?4))"
    } else {
        "?3 IS NULL AND ?4 IS NOT NULL AND adapter.scope = 'global'"
    };
    format!(
        "SELECT mine.id AS mine_id, base.id AS base_id FROM adapter
         CROSS JOIN fitness AS mine ON mine.adapter_id = adapter.id AND mine.base_digest = ?2
         CROSS JOIN fitness AS base ON base.adapter_id IS NULL AND base.base_digest = ?2
             AND base.suite_digest = mine.suite_digest AND base.split = mine.split AND base.via = mine.via
         WHERE adapter.base_model = ?1 AND {scope} AND adapter.archived_at IS NULL
             AND mine.ci_low > base.pass_at_1 AND mine.split NOT LIKE '%-control'
         ORDER BY coalesce(mine.fitness, mine.ci_low) DESC, adapter.id DESC LIMIT 16"
    )
}

fn from_row(row: &Row<'_>) -> Result<Evaluation, RegistryError> {
    Ok(Evaluation {
        id: row.get("id")?,
        adapter_id: adapter_id("evaluation.adapter_id", row.get("adapter_id")?)?,
        base_digest: row.get("base_digest")?,
        suite: row.get("suite")?,
        suite_digest: row.get("suite_digest")?,
        split: row.get("split")?,
        via: row.get("via")?,
        n_tasks: row.get("n_tasks")?,
        n_samples: row.get("n_samples")?,
        passed: row.get("passed")?,
        pass_at_1: row.get("pass_at_1")?,
        ci_low: row.get("ci_low")?,
        ci_high: row.get("ci_high")?,
        fitness: row.get("fitness")?,
        sampling: from_json("evaluation.sampling_json", &row.get::<_, String>("sampling_json")?)?,
        judge_version: row.get("judge_version")?,
        provider: row.get("provider")?,
        at: row.get("at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::candidates_sql;
    use crate::registry::Registry;

    #[test]
    fn an_adapter_is_looked_for_by_indexes_alone() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        for (of_project, index) in [
            (true, "adapter USING INDEX adapter_by_base (base_model=? AND project=?)"),
            (false, "adapter USING INDEX adapter_for_all (base_model=?)"),
        ] {
            let sql = format!("EXPLAIN QUERY PLAN {}", candidates_sql(of_project));
            let steps = registry.read(|tx| {
                let mut statement = tx.prepare(&sql)?;
                let steps = statement.query_map(["m", "d", "p", "t"], |row| row.get(3))?;
                Ok(steps.collect::<Result<Vec<String>, _>>()?)
            });
            let steps = steps.unwrap();
            assert!(steps.iter().any(|step| step.ends_with(index)), "{steps:#?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{steps:#?}");
        }
    }
}
