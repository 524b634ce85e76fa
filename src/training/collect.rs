//! Collects training records from sessions and files, and from the dataset of an adapter whose
//! training is continued.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::Adapter;
use crate::event::Event;
use crate::event::Reporter;
use crate::registry::DatasetKind;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::SessionFilter;
use crate::task::TaskType;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::TrainingError;
use super::record::TrainingRecord;
use super::sessions;

/// The sources to collect records from.
#[derive(Debug, Clone, Default)]
pub struct DataRequest {
    /// Ids of solved sessions.
    pub sessions: Vec<String>,
    /// Filter that selects further solved sessions.
    pub filter: Option<SessionsWanted>,
    /// Chat files in JSON Lines format, one [`TrainingRecord`] per line.
    pub files: Vec<PathBuf>,
    /// Whether sessions that ran without a sandbox are included.
    pub include_unsandboxed: bool,
}

/// Collected records and their origin.
#[derive(Debug, Clone)]
pub struct CollectedRecords {
    /// The records, before scrubbing and deduplication.
    pub records: Vec<TrainingRecord>,
    /// Kind of the source.
    pub kind: DatasetKind,
    /// The source in full, as stored in the column `dataset.source_json`: a [`DatasetSource`], or a
    /// benchmark's description of the library it has generated.
    pub source: Value,
    /// The task type, if all tasks have the same one.
    pub task_type: Option<TaskType>,
}

/// The sessions and files that a dataset was built from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSource {
    /// Ids of the sessions.
    #[serde(default)]
    pub sessions: Vec<String>,
    /// Absolute paths of the files.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// A filter for solved sessions; all conditions that are set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsWanted {
    project: Option<String>,
    task_type: Option<String>,
    since: Option<String>,
    limit: Option<u32>,
}

/// Collects the requested records, and those that the adapter `replayed` was trained on. Sessions
/// that yield no records are reported to `reporter`.
///
/// # Errors
/// [`TrainingError::NoSource`] when the request is empty; [`TrainingError::NoData`] when it yields
/// no records; [`TrainingError::BadRecord`] and [`TrainingError::Files`] for an unusable file;
/// [`RegistryError::NotFound`] for an unknown session.
pub fn collect(
    registry: &Registry,
    request: &DataRequest,
    replayed: Option<&Adapter>,
    reporter: &dyn Reporter,
) -> Result<CollectedRecords, TrainingError> {
    if request.sessions.is_empty() && request.filter.is_none() && request.files.is_empty() {
        return Err(TrainingError::NoSource);
    }
    let replayed = match replayed {
        Some(adapter) => source_of(registry, adapter, reporter)?,
        None => DatasetSource::default(),
    };
    let sessions = requested_sessions(registry, request, &replayed)?;
    let (mut records, used) = of_sessions(registry, request, &sessions, reporter)?;
    // Canonical paths, so that a file that was also trained on before is read once.
    let mut files: Vec<PathBuf> = Vec::new();
    for path in request.files.iter().chain(&replayed.files) {
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if !files.contains(&canonical) {
            records.extend(TrainingRecord::read_all(path)?);
            files.push(canonical);
        }
    }
    if records.is_empty() {
        return Err(TrainingError::NoData("the sources contain no records".to_owned()));
    }
    let mut types: Vec<TaskType> = sessions.iter().map(|session| session.task.task_type).collect();
    types.dedup();
    // Records of files have no task type.
    let task_type = match types.as_slice() {
        [task_type] if files.is_empty() => Some(*task_type),
        _ => None,
    };
    let kind = if files.is_empty() { DatasetKind::Sessions } else { DatasetKind::File };
    let source = json!(DatasetSource { sessions: used, files });
    Ok(CollectedRecords { records, kind, source, task_type })
}

/// Returns the requested sessions and those of `replayed`, each once, oldest first.
fn requested_sessions(
    registry: &Registry,
    request: &DataRequest,
    replayed: &DatasetSource,
) -> Result<Vec<Session>, RegistryError> {
    let ids = replayed.sessions.iter().chain(&request.sessions);
    let mut sessions = ids.map(|id| registry.session(id)).collect::<Result<Vec<_>, _>>()?;
    if let Some(filter) = &request.filter {
        sessions.extend(filter.choose(registry)?);
    }
    // By id, which is by age. The order decides which of two near-duplicate records is kept, so it
    // must not depend on the order of the arguments.
    sessions.sort_by(|a, b| a.id.cmp(&b.id));
    sessions.dedup_by(|a, b| a.id == b.id);
    Ok(sessions)
}

/// Returns the records of `sessions`, and the ids of the sessions that yielded any.
fn of_sessions(
    registry: &Registry,
    request: &DataRequest,
    sessions: &[Session],
    reporter: &dyn Reporter,
) -> Result<(Vec<TrainingRecord>, Vec<String>), RegistryError> {
    let (mut records, mut used) = (Vec::new(), Vec::new());
    for session in sessions {
        let id = &session.id;
        // Without a sandbox the solution could have tampered with its own tests.
        let reason = if session.sandbox_tier == "none" && !request.include_unsandboxed {
            "it ran without a sandbox (use --include-unsandboxed to include it)"
        } else {
            let shown_families = shown_families(registry, session)?;
            let found = sessions::records(session, &registry.attempts(id)?, &shown_families);
            if !found.is_empty() {
                used.push(id.clone());
                records.extend(found);
                continue;
            }
            unusable(session)
        };
        reporter.report("", &Event::notice(format!("skipping session {id}: {reason}")));
    }
    Ok((records, used))
}

/// Returns the families of the sessions whose records a session has shown, and of those that these
/// have shown.
fn shown_families(registry: &Registry, session: &Session) -> Result<Vec<String>, RegistryError> {
    let shown = |session: &Session| -> Vec<String> {
        session.memory.iter().map(|recalled| recalled.session_id.clone()).collect()
    };
    let (mut families, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), shown(session));
    while let Some(id) = left.pop() {
        if seen.insert(id.clone()) {
            let session = registry.session(&id)?;
            families.insert(session.family());
            left.extend(shown(&session));
        }
    }
    Ok(families.into_iter().collect())
}

/// Explains why a session yields no records.
fn unusable(session: &Session) -> &'static str {
    let is_solved = session.status == SessionStatus::Solved;
    if is_solved && session.verified_by == VerifiedBy::UserTests && session.assurance.is_none() {
        "it was judged by an earlier version, which did not confirm results"
    } else {
        "it was not verified by the user's tests"
    }
}

/// Returns the parts of the dataset of `from` that still exist. Training on new data alone would
/// make the adapter forget most of the old data.
fn source_of(
    registry: &Registry,
    from: &Adapter,
    reporter: &dyn Reporter,
) -> Result<DatasetSource, RegistryError> {
    let dataset = match &from.dataset_digest {
        Some(digest) => registry.dataset(digest)?,
        None => None,
    };
    // A benchmark's dataset has a source of another form, which cannot be replayed.
    let found = dataset.and_then(|row| serde_json::from_value::<DatasetSource>(row.source).ok());
    let mut found = found.unwrap_or_default();
    found.files.retain(|path| {
        if !path.exists() {
            let message = format!("`{}` no longer exists and is not replayed", path.display());
            reporter.report("", &Event::notice(message));
        }
        path.exists()
    });
    if found == DatasetSource::default() {
        let id = &from.id;
        let message = format!(
            "the training data of adapter {id} is not available: most of it will be forgotten"
        );
        reporter.report("", &Event::notice(message));
    }
    Ok(found)
}

impl SessionsWanted {
    /// Parses conditions such as `project=shop,type=function,since=2026-11-01,limit=5`, or `all`.
    ///
    /// # Errors
    /// [`TrainingError::BadOption`] for a condition of another form.
    pub fn parse(text: &str) -> Result<Self, TrainingError> {
        let mut filter = Self::default();
        if text == "all" {
            return Ok(filter);
        }
        for part in text.split(',') {
            let bad = |reason: String| TrainingError::BadOption(reason);
            let malformed = || bad(format!("invalid filter `{part}`: expected KEY=VALUE"));
            let (key, value) = part.split_once('=').ok_or_else(malformed)?;
            let value = value.to_owned();
            match key.trim() {
                "project" => filter.project = Some(value),
                "type" => filter.task_type = Some(value),
                "since" => filter.since = Some(value),
                "limit" => {
                    let invalid = |_| bad(format!("invalid limit `{value}`: expected a number"));
                    filter.limit = Some(value.parse().map_err(invalid)?);
                }
                key => {
                    let known = "expected project, type, since or limit";
                    return Err(bad(format!("unknown filter key `{key}`: {known}")));
                }
            }
        }
        Ok(filter)
    }

    fn choose(&self, registry: &Registry) -> Result<Vec<Session>, RegistryError> {
        let solved =
            SessionFilter { status: Some(SessionStatus::Solved), project: self.project.clone() };
        let mut sessions = registry.sessions(&solved, u32::MAX)?;
        sessions.retain(|session| {
            let has_type =
                self.task_type.as_ref().is_none_or(|word| session.task.task_type.as_str() == word);
            // RFC 3339 in UTC sorts as text, and a date alone sorts before every time of its day.
            has_type && self.since.as_ref().is_none_or(|since| session.started_at >= *since)
        });
        sessions.truncate(self.limit.map_or(usize::MAX, |limit| limit as usize));
        Ok(sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::SOLVED;
    use crate::registry::end;
    use crate::registry::session_of;
    use crate::trajectory::RecalledRecord;
    use crate::trajectory::family_of;

    #[test]
    fn families_of_shown_sessions_are_followed() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let showing = |id: &str, shown: &[&str]| {
            let recalled =
                |id: &&str| RecalledRecord { session_id: (*id).to_owned(), similarity: 0.5 };
            Session { memory: shown.iter().map(recalled).collect(), ..session_of(id, "p", id) }
        };
        end(&registry, &showing("a", &[]), SOLVED, "def f(): ...\n");
        end(&registry, &showing("b", &["a"]), SOLVED, "def g(): ...\n");
        let families = shown_families(&registry, &showing("c", &["b"])).unwrap();
        let mut expected = ["a", "b"].map(family_of);
        expected.sort();
        assert_eq!(families, expected);
        assert_eq!(shown_families(&registry, &showing("d", &[])).unwrap(), [""; 0]);
    }

    #[test]
    fn session_filters_are_comma_separated_conditions() {
        let filter = SessionsWanted::parse("project=shop,since=2026-11-01,limit=5").unwrap();
        assert_eq!((filter.project.as_deref(), filter.limit), (Some("shop"), Some(5)));
        assert_eq!(SessionsWanted::parse("all").unwrap(), SessionsWanted::default());
        for bad in ["", "shop", "color=red", "limit=many"] {
            assert!(SessionsWanted::parse(bad).is_err(), "{bad}");
        }
    }
}
