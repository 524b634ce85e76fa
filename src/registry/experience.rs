//! Records of solved sessions: what later sessions may show to the model.

use std::collections::BTreeSet;

use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;

use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::task::SourceFile;
use crate::terms::defined_names;
use crate::terms::terms;
use crate::trajectory::Session;

/// Record of a solved session: its task and the code that solved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperienceRecord {
    /// Id of the session.
    pub session_id: String,
    /// Key of the session's project.
    pub project: String,
    /// Family of the task: see [`Session::family`].
    pub family: String,
    /// Text of the task.
    pub question: String,
    /// The solution as fenced code blocks.
    pub answer: String,
}

impl Registry {
    /// Returns the record of a session; `None` if it has none.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn experience(&self, session_id: &str) -> Result<Option<ExperienceRecord>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT * FROM experience WHERE session_id = ?1";
            Ok(tx.prepare_cached(sql)?.query_row([session_id], from_row).optional()?)
        })
    }

    /// Returns the number of records.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn n_experiences(&self) -> Result<u64, RegistryError> {
        self.read(|tx| Ok(n_records(tx)?.cast_unsigned()))
    }
}

/// Adds the record of a session that has ended with the solution `files`, if its code is sound.
pub(super) fn index(
    tx: &Transaction<'_>,
    session: &Session,
    files: &[SourceFile],
) -> Result<(), RegistryError> {
    if !session.is_sound() || files.is_empty() {
        return Ok(());
    }
    let names = files.iter().map(|file| defined_names(&file.text)).collect::<Vec<_>>().join(" ");
    let terms = terms(&format!("{} {names}", session.task.text));
    let ended_at = session.ended_at.as_deref().unwrap_or(&session.started_at);
    let mut statement = tx.prepare_cached(
        "INSERT INTO experience (session_id, project, family, terms, at, question, answer)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (session_id) DO NOTHING RETURNING id",
    )?;
    let question = session.task.text.trim();
    let (id, project, family) = (&session.id, &session.project, session.family());
    let values = (id, project, family, joined(&terms), ended_at, question, rendered(files));
    // No id comes back when the session has its record already.
    let id: Option<i64> = statement.query_row(values, |row| row.get(0)).optional()?;
    match id {
        Some(id) => index_terms(tx, id, &terms),
        None => Ok(()),
    }
}

fn index_terms(
    tx: &Transaction<'_>,
    id: i64,
    terms: &BTreeSet<String>,
) -> Result<(), RegistryError> {
    tx.prepare_cached("INSERT INTO experience_index (rowid, terms) VALUES (?1, ?2)")?
        .execute((id, joined(terms)))?;
    let mut count = tx.prepare_cached(
        "INSERT INTO experience_term (term, n_records) VALUES (?1, 1)
         ON CONFLICT (term) DO UPDATE SET n_records = n_records + 1",
    )?;
    for term in terms {
        count.execute([term])?;
    }
    Ok(())
}

/// Joins terms as the index stores them.
fn joined(terms: &BTreeSet<String>) -> String {
    terms.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Renders files as fenced code blocks, with their paths if there are several.
fn rendered(files: &[SourceFile]) -> String {
    let block = |file: &SourceFile| format!("```python\n{}\n```", file.text.trim_end());
    match files {
        [file] => block(file),
        files => {
            let named = files.iter().map(|file| format!("`{}`:\n{}", file.path, block(file)));
            named.collect::<Vec<_>>().join("\n\n")
        }
    }
}

/// Returns the number of records: their ids have no gaps, because none is ever deleted.
pub(super) fn n_records(tx: &Transaction<'_>) -> Result<i64, RegistryError> {
    let sql = "SELECT coalesce(max(id), 0) FROM experience";
    Ok(tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Decodes a row of `experience`.
pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<ExperienceRecord> {
    Ok(ExperienceRecord {
        session_id: row.get("session_id")?,
        project: row.get("project")?,
        family: row.get("family")?,
        question: row.get("question")?,
        answer: row.get("answer")?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::event::Event;
    use crate::registry::ClaimHolder;
    use crate::registry::SessionEnd;
    use crate::task::Task;
    use crate::task::TaskId;
    use crate::task::TaskType;
    use crate::trajectory::Assurance;
    use crate::trajectory::Attempt;
    use crate::trajectory::AttemptVerdict;
    use crate::trajectory::Completion;
    use crate::trajectory::FinishReason;
    use crate::trajectory::Phase;
    use crate::trajectory::Sampling;
    use crate::trajectory::SessionStatus;
    use crate::trajectory::VerifiedBy;

    /// A session of `project` with the task `question`.
    pub(crate) fn session(id: &str, project: &str, question: &str) -> Session {
        Session {
            id: id.to_owned(),
            project: project.to_owned(),
            task: Task {
                id: TaskId("task".to_owned()),
                text: question.to_owned(),
                task_type: TaskType::Function,
                family: None,
                tests: Vec::new(),
                test_targets: Vec::new(),
            },
            workspace: None,
            provider: "scripted".to_owned(),
            base_model: "scripted".to_owned(),
            base_digest: "scripted".to_owned(),
            adapter_id: None,
            adapter_reason: String::new(),
            propensity: None,
            memory: Vec::new(),
            passages: Vec::new(),
            status: SessionStatus::Running,
            verified_by: VerifiedBy::None,
            assurance: None,
            sandbox_tier: "none".to_owned(),
            seed: 0,
            config_json: Value::Null,
            tokens_in: 0,
            tokens_out: 0,
            started_at: "2026-01-01T00:00:00.000Z".to_owned(),
            ended_at: None,
            exit_code: None,
            job_id: None,
        }
    }

    pub(crate) const SOLVED: SessionEnd = SessionEnd {
        status: SessionStatus::Solved,
        verified_by: VerifiedBy::UserTests,
        assurance: Some(Assurance::Separate),
        exit_code: 0,
    };

    /// Stores a session that ended as `ending` with `code`.
    pub(crate) fn end(registry: &Registry, session: &Session, ending: SessionEnd, code: &str) {
        let event = Event::notice("");
        let claim = registry.begin_session(session, &ClaimHolder::ThisProcess, &event).unwrap();
        let files = [SourceFile::new("solution.py", code)];
        registry.end_session_with(&claim, &ending, &event, &files).unwrap();
    }

    /// Stores a solved session.
    pub(crate) fn solve(registry: &Registry, id: &str, project: &str, question: &str, code: &str) {
        end(registry, &session(id, project, question), SOLVED, code);
    }

    /// An attempt at a part that passed with `code`.
    pub(crate) fn passed(seq: u32, subtask: &str, code: &str) -> Attempt {
        Attempt {
            seq,
            phase: Phase::Code,
            subtask: Some(subtask.to_owned()),
            candidate: 0,
            prompt: Vec::new(),
            completion: Completion {
                text: format!("```python\n{code}```"),
                finish_reason: FinishReason::Stop,
                tokens_in: 0,
                tokens_out: 0,
                prefill_ms: 0,
                decode_ms: 0,
                logprobs: None,
            },
            sampling: Sampling::default(),
            adapter_id: None,
            verdict: AttemptVerdict::Passed,
            verdict_json: serde_json::Value::Null,
            files: vec![SourceFile::new("solution.py", code)],
            at: "2026-01-01T00:00:00.000Z".to_owned(),
        }
    }

    #[test]
    fn only_sound_sessions_become_records() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let unsolved = SessionEnd::unverified(SessionStatus::Unsolved, 1);
        let generated = SessionEnd { verified_by: VerifiedBy::GeneratedTests, ..SOLVED };
        let unassured = SessionEnd { assurance: None, ..SOLVED };
        for (id, ending) in [("a", unsolved), ("b", generated), ("c", unassured), ("d", SOLVED)] {
            end(&registry, &session(id, "p", "Write add(a, b)."), ending, "def add(a, b): ...\n");
            assert_eq!(registry.experience(id).unwrap().is_some(), id == "d", "{id}");
        }
        assert_eq!(registry.n_experiences().unwrap(), 1);
        let record = registry.experience("d").unwrap().unwrap();
        assert_eq!(record.answer, "```python\ndef add(a, b): ...\n```");
        assert_eq!(registry.quick_check().unwrap(), [""; 0]);
    }
}
