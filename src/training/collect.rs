//! Collects training records from sessions and files, and from the dataset of an adapter whose
//! training is continued. Sessions whose tasks measure adapters are held back.

use std::collections::BTreeMap;
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
use crate::families::FamilySplit;
use crate::registry::DatasetKind;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::SessionFilter;
use crate::task::TaskType;
use crate::terms::shares_run;
use crate::terms::tokens;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::TrainingError;
use super::record::TrainingRecord;
use super::sessions;

/// Number of tokens in a row from which an answer is a copy of another, or all of a shorter one:
/// see [`crate::terms::shares_run`].
const COPY: usize = 50;

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
    let FoundRecords { mut records, used, n_held_back } =
        of_sessions(registry, request, &sessions, reporter)?;
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
        return Err(TrainingError::NoData(match n_held_back {
            0 => "the sources contain no records".to_owned(),
            n => format!(
                "all {n} usable sessions are held back, because their tasks measure adapters"
            ),
        }));
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

/// Records of sessions, and how many of these have none to give.
#[derive(Debug, Default)]
struct FoundRecords {
    records: Vec<TrainingRecord>,
    /// Ids of the sessions that yielded any.
    used: Vec<String>,
    /// Number of sessions that would have, but are held back.
    n_held_back: usize,
}

fn of_sessions(
    registry: &Registry,
    request: &DataRequest,
    sessions: &[Session],
    reporter: &dyn Reporter,
) -> Result<FoundRecords, RegistryError> {
    let families = SessionFamilies(registry.session_families()?);
    let mut found = FoundRecords::default();
    for session in sessions {
        let id = &session.id;
        // Without a sandbox the solution could have tampered with its own tests.
        let reason = if session.sandbox_tier == "none" && !request.include_unsandboxed {
            "it ran without a sandbox (use --include-unsandboxed to include it)"
        } else if !session.is_sound() {
            unusable(session)
        } else if let Some(family) = families.to_train(id) {
            let records = records_of(registry, &families, (session, family))?;
            if !records.is_empty() {
                found.used.push(id.clone());
                found.records.extend(records);
                continue;
            }
            "its answers repeat those of sessions that are held back"
        } else {
            found.n_held_back += 1;
            continue;
        };
        reporter.report("", &Event::notice(format!("skipping session {id}: {reason}")));
    }
    if found.n_held_back > 0 {
        let message = format!(
            "{} of {} sessions are held back: their tasks measure adapters (`rune eval --suite \
             sessions`)",
            found.n_held_back,
            sessions.len(),
        );
        reporter.report("", &Event::notice(message));
    }
    Ok(found)
}

/// The family of each session with the user's tests: see [`Registry::session_families`].
struct SessionFamilies(BTreeMap<String, Option<String>>);

impl SessionFamilies {
    /// Returns the family of a session if its split is that of training.
    fn to_train(&self, session_id: &str) -> Option<&str> {
        let family = self.0.get(session_id)?.as_deref()?;
        (FamilySplit::of(family) == FamilySplit::Train).then_some(family)
    }
}

/// Returns the records of a session, without those that repeat the answer of a session that is held
/// back and was shown to this one.
fn records_of(
    registry: &Registry,
    families: &SessionFamilies,
    (session, family): (&Session, &str),
) -> Result<Vec<TrainingRecord>, RegistryError> {
    let (mut shown_families, mut held_back) = (BTreeSet::new(), Vec::new());
    for id in shown_sessions(registry, session)? {
        match families.to_train(&id) {
            Some(family) => {
                shown_families.insert(family.to_owned());
            }
            None => held_back.extend(registry.experience(&id)?.map(|record| record.answer)),
        }
    }
    let shown_families: Vec<String> = shown_families.into_iter().collect();
    let attempts = registry.attempts(&session.id)?;
    let mut records = sessions::records(session, &attempts, (family, &shown_families));
    records.retain(|record| {
        let repeats = |answer: &String| {
            let n = COPY.min(tokens(answer).len());
            record.answers().any(|own| shares_run(own, answer, n))
        };
        !held_back.iter().any(repeats)
    });
    Ok(records)
}

/// Returns the sessions whose records a session has shown, and those that these have shown.
fn shown_sessions(
    registry: &Registry,
    session: &Session,
) -> Result<BTreeSet<String>, RegistryError> {
    let shown = |session: &Session| -> Vec<String> {
        session.memory.iter().map(|recalled| recalled.session_id.clone()).collect()
    };
    let (mut seen, mut left) = (BTreeSet::new(), shown(session));
    while let Some(id) = left.pop() {
        if seen.insert(id.clone()) {
            left.extend(shown(&registry.session(&id)?));
        }
    }
    Ok(seen)
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
    use std::sync::Mutex;

    use super::*;
    use crate::families::tests::of_split;
    use crate::registry::ClaimHolder;
    use crate::registry::SOLVED;
    use crate::registry::end;
    use crate::registry::passed;
    use crate::registry::session_of;
    use crate::task::SourceFile;
    use crate::trajectory::RecalledRecord;

    /// Stores a solved session of a family, with a test of its own, that has shown others.
    fn solve(registry: &Registry, id: &str, (family, shown): (&str, &[&str]), code: &str) {
        let mut session = showing(id, shown);
        session.task.family = Some(family.to_owned());
        session.task.tests = vec![SourceFile::new("test_it.py", format!("assert '{id}'"))];
        let event = Event::notice("");
        let claim = registry.begin_session(&session, &ClaimHolder::ThisProcess, &event).unwrap();
        registry.append_attempt(&claim, &passed(0, "whole", code), &event).unwrap();
        let files = [SourceFile::new("solution.py", code)];
        registry.end_session_with(&claim, &SOLVED, &event, &files).unwrap();
    }

    fn showing(id: &str, shown: &[&str]) -> Session {
        let recalled = |id: &&str| RecalledRecord { session_id: (*id).to_owned(), similarity: 0.5 };
        Session { memory: shown.iter().map(recalled).collect(), ..session_of(id, "p", id) }
    }

    #[test]
    fn tasks_that_measure_are_never_trained_on() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let [train, other] = [0, 1].map(|index| of_split(FamilySplit::Train, index));
        let gate = of_split(FamilySplit::Gate, 0);
        let long = |name: &str| format!("def {name}(xs):\n    return {}0\n", "xs[0] + ".repeat(20));
        solve(&registry, "a", (&gate, &[]), &long("gate"));
        solve(&registry, "b", (&train, &["a"]), "def own(xs): ...\n");
        solve(&registry, "c", (&other, &["a"]), &long("copy"));
        let request = DataRequest {
            filter: Some(SessionsWanted::default()),
            include_unsandboxed: true,
            ..DataRequest::default()
        };
        let notices = Mutex::new(String::new());
        let reporter = |_: &str, event: &Event| {
            *notices.lock().unwrap() += &serde_json::to_string(event).unwrap();
        };
        let collected = collect(&registry, &request, None, &reporter).unwrap();
        let families: Vec<&str> = collected.records.iter().map(|one| one.family.as_str()).collect();
        assert_eq!(families, [train.as_str()]);
        assert_eq!(collected.records[0].shown_families().count(), 0);
        let notices = notices.lock().unwrap().clone();
        assert!(notices.contains("skipping session c: its answers repeat"), "{notices}");
        assert!(notices.contains("1 of 3 sessions are held back"), "{notices}");
        let only = DataRequest { sessions: vec!["a".to_owned()], filter: None, ..request };
        let error = collect(&registry, &only, None, &reporter).unwrap_err().to_string();
        assert!(error.contains("all 1 usable sessions are held back"), "{error}");
    }

    #[test]
    fn families_of_shown_sessions_are_followed() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        end(&registry, &showing("a", &[]), SOLVED, "def f(): ...\n");
        end(&registry, &showing("b", &["a"]), SOLVED, "def g(): ...\n");
        let shown = |shown: &[&str]| shown_sessions(&registry, &showing("c", shown)).unwrap();
        assert_eq!(shown(&["b"]), BTreeSet::from(["a", "b"].map(str::to_owned)));
        assert_eq!(shown(&[]), BTreeSet::new());
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
