//! The suite `sessions`: the tasks of a project's own sessions, with the user's tests.

use std::collections::BTreeMap;

use serde_json::json;

use crate::digest::sha256;
use crate::judge::TestSuite;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::SessionFilter;
use crate::task::SourceFile;
use crate::task::Task;
use crate::trajectory::Message;
use crate::trajectory::Session;
use crate::trajectory::family_of;

use super::suite::TaskSuite;
use super::task::AnswerCheck;
use super::task::EvalTask;
use super::task::SESSIONS_SUITE;
use super::task::SessionCheck;

/// Maximum size of the tests that a question shows, in bytes.
const MAX_SHOWN: usize = 8_000;

/// Builds the suite `sessions` of a project: one task for each text with its tests, in the order of
/// the sessions. A solved session gives the reference answer. Tasks that need several files, or of
/// which no session has written any, are left out, because one answer cannot be judged.
///
/// The digest names the project, because the suite grows with every session.
///
/// # Errors
/// [`RegistryError::Database`], [`RegistryError::Unreadable`].
pub fn session_suite(registry: &Registry, project: &str) -> Result<TaskSuite, RegistryError> {
    let families = registry.session_families()?;
    let filter = SessionFilter { project: Some(project.to_owned()), ..SessionFilter::default() };
    let mut sessions = registry.sessions(&filter, u32::MAX)?;
    sessions.reverse();
    let mut own: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for session in &sessions {
        if let Some(Some(family)) = families.get(&session.id) {
            own.entry(family).or_default().push(session.family());
        }
    }
    let mut tasks: BTreeMap<String, EvalTask> = BTreeMap::new();
    let mut order = Vec::new();
    for session in sessions {
        let Some(Some(family)) = families.get(&session.id) else { continue };
        let Some(path) = only_path(registry, &session.id)? else { continue };
        let key = json!([session.task.text, session.task.tests, path]).to_string();
        let answer = registry.experience(&session.id)?.map(|record| record.answer);
        let task = tasks.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            eval_task(&session, (family, &own[family.as_str()]), &path)
        });
        if task.answer.is_empty() {
            task.answer = answer.unwrap_or_default();
        }
    }
    let tasks = order.iter().filter_map(|key| tasks.remove(key)).collect();
    let suite = TaskSuite::new(SESSIONS_SUITE, tasks).with_origin("your own", project);
    Ok(TaskSuite { digest: sha256(format!("sessions of {project}").as_bytes()), ..suite })
}

/// Returns the path of the Python file that a session wrote, if it wrote no other.
fn only_path(registry: &Registry, session_id: &str) -> Result<Option<String>, RegistryError> {
    let mut paths = registry.written_paths(session_id)?.into_iter();
    let only = paths.next().filter(|_| paths.next().is_none());
    let is_python = |path: &String| SourceFile::new(path, "").module().is_some();
    Ok(only.filter(is_python))
}

fn eval_task(session: &Session, (family, own): (&str, &[String]), path: &str) -> EvalTask {
    let task = task_of_user(&session.task, path);
    let own_families = own.to_vec();
    let check = SessionCheck { task: session.task.clone(), path: path.to_owned(), own_families };
    EvalTask {
        id: session.id.clone(),
        group: SESSIONS_SUITE.to_owned(),
        family: family.to_owned(),
        check: AnswerCheck::Session(check),
        ..task
    }
}

/// Creates the evaluation task of a user's task with tests, whose solution is the file `path`.
pub fn task_of_user(task: &Task, path: &str) -> EvalTask {
    let check =
        SessionCheck { task: task.clone(), path: path.to_owned(), own_families: Vec::new() };
    EvalTask {
        id: task.id.0.clone(),
        group: task.task_type.as_str().to_owned(),
        is_control: false,
        family: task.family.clone().unwrap_or_else(|| family_of(&task.text)),
        messages: vec![Message::user(question(task, path))],
        work: None,
        check: AnswerCheck::Session(check),
        answer: String::new(),
    }
}

/// Renders the task for a model that answers with one file.
fn question(task: &Task, path: &str) -> String {
    let mut text = format!("{}\n\nWrite the file `{path}`.", task.text.trim_end());
    let suite = TestSuite::of_task(task).unwrap_or_default();
    let paths = suite.test_paths();
    let is_shown = |file: &&SourceFile| file.is_text() && paths.contains(&file.path.as_str());
    let mut n_left = MAX_SHOWN;
    for file in task.tests.iter().filter(is_shown) {
        let Some(left) = n_left.checked_sub(file.text.len()) else { continue };
        n_left = left;
        let shown = [" It must pass `", &file.path, "`:\n\n```python\n", file.text.trim_end()];
        text.extend(shown.into_iter().chain(["\n```\n"]));
    }
    text + "\nAnswer with one block of code that holds the whole file.\n"
}
