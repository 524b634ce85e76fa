//! Which records are trained on: of sessions, of files, and of what an adapter was trained on
//! before.

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

/// Where records are to come from.
#[derive(Debug, Clone, Default)]
pub struct DataRequest {
    /// Solved sessions, by id.
    pub sessions: Vec<String>,
    /// Solved sessions, by what they have in common.
    pub filter: Option<SessionsWanted>,
    /// Files of chats, one JSON object a line.
    pub files: Vec<PathBuf>,
    /// Whether sessions that ran without a sandbox count.
    pub include_unsandboxed: bool,
}

/// Records, and where they come from.
#[derive(Debug, Clone)]
pub struct CollectedRecords {
    /// What is learned.
    pub records: Vec<TrainingRecord>,
    /// What it was taken from.
    pub kind: DatasetKind,
    /// The same in full, as the column `dataset.source_json` keeps it: a [`DatasetSource`], or what
    /// a benchmark says of the library that it has invented.
    pub source: Value,
    /// The kind of all tasks, where they are of one.
    pub task_type: Option<TaskType>,
}

/// The sessions and files that a dataset was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSource {
    /// Ids of sessions.
    #[serde(default)]
    pub sessions: Vec<String>,
    /// Absolute paths.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// Solved sessions that have all of this in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsWanted {
    project: Option<String>,
    task_type: Option<String>,
    since: Option<String>,
    limit: Option<u32>,
}

/// The records that are asked for, and those that the adapter `replayed` was trained on. What is
/// left out is reported.
///
/// # Errors
/// [`TrainingError::NoData`] when nothing is asked for or nothing comes of it;
/// [`TrainingError::BadRecord`] and [`TrainingError::Files`] for a file that can't be used;
/// [`RegistryError::NotFound`] for a session that isn't there.
pub fn collect(
    registry: &Registry,
    request: &DataRequest,
    replayed: Option<&Adapter>,
    reporter: &dyn Reporter,
) -> Result<CollectedRecords, TrainingError> {
    if request.sessions.is_empty() && request.filter.is_none() && request.files.is_empty() {
        let wanted = "say what: --session ID, --sessions FILTER or --dataset FILE.jsonl";
        return Err(TrainingError::NoData(wanted.to_owned()));
    }
    let before = match replayed {
        Some(adapter) => source_of(registry, adapter, reporter)?,
        None => DatasetSource::default(),
    };
    let wanted = wanted(registry, request, &before)?;
    let (mut records, used) = of_sessions(registry, request, &wanted, reporter)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for path in request.files.iter().chain(&before.files) {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if !files.contains(&whole) {
            records.extend(TrainingRecord::read_all(path)?);
            files.push(whole);
        }
    }
    if records.is_empty() {
        return Err(TrainingError::NoData("there are no records".to_owned()));
    }
    let mut types: Vec<TaskType> = wanted.iter().map(|session| session.task.task_type).collect();
    types.dedup();
    let task_type = match types.as_slice() {
        [only] if files.is_empty() => Some(*only),
        _ => None,
    };
    let kind = if files.is_empty() { DatasetKind::Sessions } else { DatasetKind::File };
    let source = json!(DatasetSource { sessions: used, files });
    Ok(CollectedRecords { records, kind, source, task_type })
}

/// The sessions that are asked for, each once, the oldest first.
fn wanted(
    registry: &Registry,
    request: &DataRequest,
    before: &DatasetSource,
) -> Result<Vec<Session>, RegistryError> {
    let ids = before.sessions.iter().chain(&request.sessions);
    let mut sessions = ids.map(|id| registry.session(id)).collect::<Result<Vec<_>, _>>()?;
    if let Some(filter) = &request.filter {
        sessions.extend(filter.choose(registry)?);
    }
    sessions.sort_by(|a, b| a.id.cmp(&b.id));
    sessions.dedup_by(|a, b| a.id == b.id);
    Ok(sessions)
}

/// What is learned from `sessions`, and the ids of those from which anything is.
fn of_sessions(
    registry: &Registry,
    request: &DataRequest,
    sessions: &[Session],
    reporter: &dyn Reporter,
) -> Result<(Vec<TrainingRecord>, Vec<String>), RegistryError> {
    let (mut records, mut used) = (Vec::new(), Vec::new());
    for session in sessions {
        let id = &session.id;
        let left_out = if session.sandbox_tier == "none" && !request.include_unsandboxed {
            "ran without a sandbox and is left out: --include-unsandboxed takes it"
        } else {
            let found = sessions::records(session, &registry.attempts(id)?);
            if !found.is_empty() {
                used.push(id.clone());
                records.extend(found);
                continue;
            }
            unusable(session)
        };
        reporter.report("", &Event::notice(format!("session {id} {left_out}")));
    }
    Ok((records, used))
}

/// Why nothing is learned from a session.
fn unusable(session: &Session) -> &'static str {
    let is_solved = session.status == SessionStatus::Solved;
    if is_solved && session.verified_by == VerifiedBy::UserTests && session.assurance.is_none() {
        "was judged by an earlier version, which did not confirm results: nothing is learned from it"
    } else {
        "is not solved by the user's tests: nothing is learned from it"
    }
}

/// What `from` was trained on, as far as it is here: without it most of that would be forgotten.
fn source_of(
    registry: &Registry,
    from: &Adapter,
    reporter: &dyn Reporter,
) -> Result<DatasetSource, RegistryError> {
    let dataset = match &from.dataset_digest {
        Some(digest) => registry.dataset(digest)?,
        None => None,
    };
    let found = dataset.and_then(|row| serde_json::from_value::<DatasetSource>(row.source).ok());
    let mut found = found.unwrap_or_default();
    found.files.retain(|path| {
        if !path.exists() {
            let message = format!("`{}` is not there any more", path.display());
            reporter.report("", &Event::notice(message));
        }
        path.exists()
    });
    if found == DatasetSource::default() {
        let id = &from.id;
        let message =
            format!("what adapter {id} was trained on is not here: it will forget most of it");
        reporter.report("", &Event::notice(message));
    }
    Ok(found)
}

impl SessionsWanted {
    /// Reads conditions such as `project=shop,type=function,since=2026-11-01,limit=5`, or `all`.
    ///
    /// # Errors
    /// [`TrainingError::BadOption`].
    pub fn parse(text: &str) -> Result<Self, TrainingError> {
        let mut wanted = Self::default();
        if text == "all" {
            return Ok(wanted);
        }
        for part in text.split(',') {
            let bad = |reason: String| TrainingError::BadOption(reason);
            let no_condition = || bad(format!("`{part}` is no condition of the form KEY=VALUE"));
            let (key, value) = part.split_once('=').ok_or_else(no_condition)?;
            let value = value.to_owned();
            match key.trim() {
                "project" => wanted.project = Some(value),
                "type" => wanted.task_type = Some(value),
                "since" => wanted.since = Some(value),
                "limit" => {
                    let limit = value.parse();
                    wanted.limit = Some(limit.map_err(|_| bad(format!("`{value}` is no number")))?);
                }
                other => {
                    let known = "use project, type, since or limit";
                    return Err(bad(format!("there is no condition `{other}`: {known}")));
                }
            }
        }
        Ok(wanted)
    }

    fn choose(&self, registry: &Registry) -> Result<Vec<Session>, RegistryError> {
        let solved =
            SessionFilter { status: Some(SessionStatus::Solved), project: self.project.clone() };
        let mut sessions = registry.sessions(&solved, u32::MAX)?;
        sessions.retain(|session| {
            let has_type =
                self.task_type.as_ref().is_none_or(|word| session.task.task_type.as_str() == word);
            has_type && self.since.as_ref().is_none_or(|since| session.started_at >= *since)
        });
        sessions.truncate(self.limit.map_or(usize::MAX, |limit| limit as usize));
        Ok(sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::SessionsWanted;

    #[test]
    fn wanted_sessions_are_conditions_separated_by_commas() {
        let wanted = SessionsWanted::parse("project=shop,since=2026-11-01,limit=5").unwrap();
        assert_eq!((wanted.project.as_deref(), wanted.limit), (Some("shop"), Some(5)));
        assert_eq!(SessionsWanted::parse("all").unwrap(), SessionsWanted::default());
        for bad in ["", "shop", "colour=red", "limit=many"] {
            assert!(SessionsWanted::parse(bad).is_err(), "{bad}");
        }
    }
}
