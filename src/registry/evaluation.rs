//! Evaluations, which are never overwritten, and outcomes of single answers.

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
use crate::trajectory::Assurance;

/// How the names of the splits begin whose scores `rune evolve` has measured in a race. They are of
/// the tasks that it chooses by, so they qualify no adapter.
pub const RACE: &str = "race";

/// The score of an adapter, or of the base model alone, on a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Unique id; ids sort by creation time.
    pub id: String,
    /// The measured adapter; `None` for the base model alone.
    pub adapter_id: Option<AdapterId>,
    /// sha256 of the base model's weights.
    pub base_digest: String,
    /// Name of the suite.
    pub suite: String,
    /// sha256 of the suite's tasks.
    pub suite_digest: String,
    /// Name of the split of the suite; those of controls end in `-control`.
    pub split: String,
    /// Answering strategy: `completions`, `best_of_n` or `pipeline`.
    pub via: String,
    /// Number of tasks that were judged.
    pub n_tasks: u32,
    /// Number of answers per task.
    pub n_samples: u32,
    /// Number of answers that passed, over all tasks.
    pub passed: u32,
    /// Mean over tasks of the share of answers that passed, `0.0..=1.0`.
    pub pass_at_1: f64,
    /// Lower end of the 95 % interval of `pass_at_1`.
    pub ci_low: f64,
    /// Upper end of the 95 % interval of `pass_at_1`.
    pub ci_high: f64,
    /// Lower end of the 90 % interval; `None` when an earlier version measured.
    pub fitness: Option<f64>,
    /// Digest of everything that decides the score but who answers: tasks, strategy, sampling,
    /// seeds, modules, judge and backend. Only evaluations with the same conditions are compared.
    /// `None` when an earlier version measured.
    pub conditions: Option<String>,
    /// Comparison of an adapter with the base, which was measured with it.
    pub gain: Option<MeasuredGain>,
    /// Sampling settings of the answers, as JSON.
    pub sampling: Value,
    /// Version of the judge.
    pub judge_version: String,
    /// Name of the inference backend.
    pub provider: String,
    /// Time of the evaluation, RFC 3339 UTC.
    pub at: String,
}

/// The difference between an adapter and the base on the same tasks with the same seeds, paired by
/// answer and clustered by family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredGain {
    /// Id of the evaluation of the base.
    pub base_id: String,
    /// Number of families of the tasks.
    pub n_families: u32,
    /// Share of answers that pass, minus that of the base, `-1.0..=1.0`.
    pub difference: f64,
    /// 90 % interval of the difference.
    pub interval: (f64, f64),
}

/// What the model spent on an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerCost {
    /// Tokens of all prompts.
    pub tokens_in: u64,
    /// Tokens that the model generated.
    pub tokens_out: u64,
    /// Time of prefill and decoding, beside the other sequences of a batch, in milliseconds.
    pub ms: u64,
}

/// The outcome of one answer to a task.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRow {
    /// sha256 of every input that determines the outcome: the cache key.
    pub key: String,
    /// The adapter that answered; `None` for the base model alone.
    pub adapter_id: Option<AdapterId>,
    /// sha256 of the task.
    pub task_digest: String,
    /// Sampling seed of the answer.
    pub seed: u64,
    /// Whether the answer passed.
    pub passed: bool,
    /// Assurance of a pass; `None` for a failure.
    pub assurance: Option<Assurance>,
    /// The judge's verdict in one line.
    pub summary: String,
    /// Text of the answer.
    pub answer: String,
    /// What the model spent on it; `None` when an earlier version asked.
    pub cost: Option<AnswerCost>,
    /// Processor time of judging, in milliseconds.
    pub cpu_ms: u64,
    /// Time of the verdict, RFC 3339 UTC.
    pub at: String,
}

impl Registry {
    /// Inserts an evaluation, with its event.
    ///
    /// # Errors
    /// [`RegistryError::Database`], also for an unknown adapter.
    pub fn insert_evaluation(&self, evaluation: &Evaluation) -> Result<(), RegistryError> {
        self.write(|tx| {
            let mut statement = tx.prepare_cached(
                "INSERT INTO evaluation (id, adapter_id, base_digest, suite, suite_digest, split, via, n_tasks, n_samples,
                     passed, pass_at_1, ci_low, ci_high, fitness, conditions, base_id, n_families, gain, gain_low,
                     gain_high, sampling_json, judge_version, provider, at)
                 VALUES (:id, :adapter_id, :base_digest, :suite, :suite_digest, :split, :via, :n_tasks, :n_samples,
                     :passed, :pass_at_1, :ci_low, :ci_high, :fitness, :conditions, :base_id, :n_families, :gain,
                     :gain_low, :gain_high, :sampling, :judge_version, :provider, :at)",
            )?;
            let gain = evaluation.gain.as_ref();
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
                ":conditions": evaluation.conditions,
                ":base_id": gain.map(|gain| &gain.base_id),
                ":n_families": gain.map(|gain| gain.n_families),
                ":gain": gain.map(|gain| gain.difference),
                ":gain_low": gain.map(|gain| gain.interval.0),
                ":gain_high": gain.map(|gain| gain.interval.1),
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

    /// Returns the cached outcome with this key.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn outcome(&self, key: &str) -> Result<Option<OutcomeRow>, RegistryError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT * FROM outcome WHERE key = ?1")?;
            let mut rows = statement.query([key])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            Ok(Some(OutcomeRow {
                cost: cost_of(row)?,
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

    /// Inserts an outcome. An existing outcome with the same key is kept.
    ///
    /// # Errors
    /// [`RegistryError::Database`], also for an unknown adapter.
    pub fn insert_outcome(&self, outcome: &OutcomeRow) -> Result<(), RegistryError> {
        let cost = outcome.cost;
        self.write(|tx| {
            let mut statement = tx.prepare_cached(
                "INSERT INTO outcome (key, adapter_id, task_digest, seed, verdict, assurance, summary, answer, cpu_ms, at,
                     tokens_in, tokens_out, answer_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (key) DO NOTHING",
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
                cost.map(|cost| cost.tokens_in.cast_signed()),
                cost.map(|cost| cost.tokens_out.cast_signed()),
                cost.map(|cost| cost.ms.cast_signed()),
            ))?;
            Ok(())
        })
    }

    /// Returns the digest under which a suite of this name was last measured; `None` if it never
    /// was.
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

    /// Returns the evaluation with this id; `None` if there is none.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn evaluation(&self, id: &str) -> Result<Option<Evaluation>, RegistryError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT * FROM evaluation WHERE id = ?1")?;
            statement.query([id])?.next()?.map(from_row).transpose()
        })
    }

    /// Returns the newest evaluation of an adapter, or of the base model alone, on these weights:
    /// one for each suite, split, strategy and conditions.
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
}

/// Reads what an answer cost; `None` when an earlier version asked.
fn cost_of(row: &Row<'_>) -> rusqlite::Result<Option<AnswerCost>> {
    let number = |column: &str| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
    };
    let [tokens_in, tokens_out, ms] =
        [number("tokens_in")?, number("tokens_out")?, number("answer_ms")?];
    let all = tokens_in.zip(tokens_out).zip(ms);
    Ok(all.map(|((tokens_in, tokens_out), ms)| AnswerCost { tokens_in, tokens_out, ms }))
}

/// Reads the gain of an evaluation; `None` for the base and when an earlier version measured.
fn gain_of(row: &Row<'_>) -> Result<Option<MeasuredGain>, RegistryError> {
    let Some(base_id) = row.get::<_, Option<String>>("base_id")? else { return Ok(None) };
    Ok(Some(MeasuredGain {
        base_id,
        n_families: row.get("n_families")?,
        difference: row.get("gain")?,
        interval: (row.get("gain_low")?, row.get("gain_high")?),
    }))
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
        conditions: row.get("conditions")?,
        gain: gain_of(row)?,
        sampling: from_json("evaluation.sampling_json", &row.get::<_, String>("sampling_json")?)?,
        judge_version: row.get("judge_version")?,
        provider: row.get("provider")?,
        at: row.get("at")?,
    })
}
