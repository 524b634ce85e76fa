//! The records that a command line asks for.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::Adapter;
use crate::cli::output;
use crate::registry::Registry;
use crate::registry::SessionFilter;
use crate::task::TaskType;
use crate::training;
use crate::training::Record;
use crate::training::TrainingError;
use crate::trajectory::Session;
use crate::trajectory::Status;
use crate::trajectory::VerifiedBy;

use super::DataArgs;

/// Records and where they come from.
pub(in crate::cli) struct Collected {
    pub(in crate::cli) records: Vec<Record>,
    /// `sessions` or `file`.
    pub(super) kind: &'static str,
    pub(super) source: Value,
    /// The kind of all tasks, where they are of one.
    pub(super) task_type: Option<TaskType>,
}

/// The records of what `args` name, and of what the adapter `replayed` was trained on.
pub(in crate::cli) fn collect(
    registry: &Registry,
    args: &DataArgs,
    replayed: Option<&Adapter>,
) -> anyhow::Result<Collected> {
    let before = match replayed {
        Some(adapter) => data_of(registry, adapter)?,
        None => Replayed::default(),
    };
    let mut sessions = Vec::new();
    for id in &before.sessions {
        sessions.push(registry.session(id)?);
    }
    for id in &args.session {
        sessions.push(registry.session(id)?);
    }
    if let Some(filter) = &args.sessions {
        let chosen = Filter::parse(filter)?.choose(registry)?;
        sessions.extend(chosen);
    }
    sessions.sort_by(|a, b| a.id.cmp(&b.id));
    sessions.dedup_by(|a, b| a.id == b.id);
    let (mut records, mut used) = (Vec::new(), Vec::new());
    for session in &sessions {
        if session.sandbox_tier == "none" && !args.include_unsandboxed {
            output::note(&format!(
                "session {} ran without a sandbox and is left out: --include-unsandboxed takes it",
                session.id
            ));
            continue;
        }
        let found = training::records(session, &registry.attempts(&session.id)?);
        if found.is_empty() {
            output::note(&format!("session {} {}", session.id, unusable(session)));
            continue;
        }
        used.push(session.id.clone());
        records.extend(found);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for path in args.dataset.iter().chain(&before.files) {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if !files.contains(&whole) {
            records.extend(Record::read_all(path)?);
            files.push(whole);
        }
    }
    let source = json!({ "sessions": used, "files": files });
    if args.session.is_empty() && args.sessions.is_none() && args.dataset.is_empty() {
        let wanted = "say what: --session ID, --sessions FILTER or --dataset FILE.jsonl";
        return Err(TrainingError::NoData(wanted.to_owned()).into());
    }
    let kind = if files.is_empty() { "sessions" } else { "file" };
    let mut types: Vec<TaskType> = sessions.iter().map(|session| session.task.task_type).collect();
    types.dedup();
    let task_type = match types.as_slice() {
        [only] if files.is_empty() => Some(*only),
        _ => None,
    };
    Ok(Collected { records, kind, source, task_type })
}

/// Why nothing is learned from a session.
fn unusable(session: &Session) -> &'static str {
    let is_solved = session.status == Status::Solved;
    if is_solved && session.verified_by == VerifiedBy::UserTests && session.assurance.is_none() {
        "was judged by an earlier version, which did not confirm results: nothing is learned from it"
    } else {
        "is not solved by the user's tests: nothing is learned from it"
    }
}

/// What an adapter was trained on.
#[derive(Debug, Default, Deserialize)]
struct Replayed {
    #[serde(default)]
    sessions: Vec<String>,
    #[serde(default)]
    files: Vec<PathBuf>,
}

/// What `from` was trained on, as far as it is here: without it most of that would be forgotten.
fn data_of(registry: &Registry, from: &Adapter) -> anyhow::Result<Replayed> {
    let dataset = match &from.dataset_digest {
        Some(digest) => registry.dataset(digest)?,
        None => None,
    };
    let found: Option<Replayed> = dataset.and_then(|row| serde_json::from_value(row.source).ok());
    let mut found = found.unwrap_or_default();
    let is_known = !(found.sessions.is_empty() && found.files.is_empty());
    found.files.retain(|path| {
        if !path.exists() {
            output::note(&format!("`{}` is not there any more", path.display()));
        }
        path.exists()
    });
    if !is_known || (found.sessions.is_empty() && found.files.is_empty()) {
        output::note(&format!(
            "what adapter {} was trained on is not here: it will forget most of it",
            from.id
        ));
    }
    Ok(found)
}

/// Which sessions are wanted.
#[derive(Debug, Default, PartialEq)]
struct Filter {
    project: Option<String>,
    task_type: Option<String>,
    since: Option<String>,
    limit: Option<u32>,
}

impl Filter {
    fn parse(text: &str) -> Result<Self, TrainingError> {
        let mut filter = Self::default();
        if text == "all" {
            return Ok(filter);
        }
        for part in text.split(',') {
            let bad = |reason: String| TrainingError::BadOption(reason);
            let no_condition = || bad(format!("`{part}` is no condition of the form KEY=VALUE"));
            let (key, value) = part.split_once('=').ok_or_else(no_condition)?;
            let value = value.to_owned();
            match key.trim() {
                "project" => filter.project = Some(value),
                "type" => filter.task_type = Some(value),
                "since" => filter.since = Some(value),
                "limit" => {
                    let limit = value.parse();
                    filter.limit = Some(limit.map_err(|_| bad(format!("`{value}` is no number")))?);
                }
                other => {
                    let known = "use project, type, since or limit";
                    return Err(bad(format!("there is no condition `{other}`: {known}")));
                }
            }
        }
        Ok(filter)
    }

    fn choose(&self, registry: &Registry) -> anyhow::Result<Vec<Session>> {
        let wanted = SessionFilter { status: Some(Status::Solved), project: self.project.clone() };
        let mut sessions = registry.sessions(&wanted, u32::MAX)?;
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
    use super::Filter;

    #[test]
    fn a_filter_is_conditions_separated_by_commas() {
        let filter = Filter::parse("project=shop,since=2026-11-01,limit=5").unwrap();
        assert_eq!((filter.project.as_deref(), filter.limit), (Some("shop"), Some(5)));
        assert_eq!(Filter::parse("all").unwrap(), Filter::default());
        for bad in ["", "shop", "colour=red", "limit=many"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
