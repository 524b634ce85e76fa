//! Requirements: the files, and the names in them, that a task and its tests need.
//!
//! Paths come from here and never from the model. Imports of tests that are not files to write: the
//! standard library, installed packages, the user's libraries, and the tests' own modules.

use serde::Serialize;

use super::PipelineError;
use super::mention;
use super::mention::Mention;
use super::mention::names_in;
use super::mention::paths_in;
use crate::judge::FileInspection;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::judge::TestSuite;
use crate::judge::needed_modules;
use crate::task::SourceFile;
use crate::task::Task;

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TargetFile {
    /// Path relative to the output folder.
    pub(super) path: String,
    /// Names that the file must define, in the order in which they were found.
    pub(super) names: Vec<String>,
}

/// Module that tests import.
#[derive(Debug, Clone)]
struct WantedModule {
    /// Dotted name of the module.
    module: String,
    /// Names imported from it.
    names: Vec<String>,
    /// Whether the tests fail without it.
    is_needed: bool,
}

impl WantedModule {
    /// Returns the first part of the name, which is the package.
    fn top(&self) -> &str {
        self.module.split('.').next().unwrap_or(&self.module)
    }

    fn mention(&self, text: &str) -> Mention {
        mention::of_module(text, &self.module, &self.names)
    }
}

/// Default path if neither task nor tests name a file.
const DEFAULT_PATH: &str = "solution.py";
/// Modules that belong to test frameworks.
const FRAMEWORKS: &[&str] = &["pytest", "_pytest", "conftest"];

/// Task with its suite and requirements. Reading the tests needs a process, so this is done once.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The task as the user gave it.
    pub(super) task: Task,
    /// The user's tests.
    pub(super) suite: Option<TestSuite>,
    /// Files to write, at least one.
    pub(super) targets: Vec<TargetFile>,
}

impl Assignment {
    /// Reads the requirements of `task`.
    ///
    /// # Errors
    /// [`PipelineError::MissingPackages`]; [`PipelineError::Judge`] if the tests cannot be read.
    pub async fn read(judge: &Judge, task: Task) -> Result<Self, PipelineError> {
        let suite = TestSuite::of_task(&task);
        let imported = match &suite {
            Some(suite) => Some((suite, imported(judge, suite).await?)),
            None => None,
        };
        let targets = targets(judge, &task, imported)?;
        Ok(Self { task, suite, targets })
    }

    /// Reads the requirements of a new task. A solution that already lies beside the tests is
    /// removed from the suite, because it is not a helper; but only if the tests import nothing
    /// else that could be required.
    ///
    /// # Errors
    /// The same as for [`Self::read`].
    pub async fn of_new_task(judge: &Judge, mut task: Task) -> Result<Self, PipelineError> {
        let Some(suite) = TestSuite::of_task(&task) else { return Self::read(judge, task).await };
        let imported = imported(judge, &suite).await?;
        let released = released(judge, &suite, &imported, &task.text);
        if released.is_empty() {
            let targets = targets(judge, &task, Some((&suite, imported)))?;
            return Ok(Self { task, suite: Some(suite), targets });
        }
        task.tests.retain(|file| !released.contains(&file.path));
        Self::read(judge, task).await
    }

    /// Returns the paths of the files to write.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|target| target.path.as_str())
    }
}

/// Returns files among the tests that the task requires.
fn released(
    judge: &Judge,
    suite: &TestSuite,
    imported: &[WantedModule],
    text: &str,
) -> Vec<String> {
    let (own, others): (Vec<_>, Vec<_>) =
        imported.iter().cloned().partition(|wanted| suite.has_module(&wanted.module));
    if !foreign(judge, others, text).is_empty() {
        return Vec::new();
    }
    let tests = suite.test_paths();
    own.iter()
        .filter(|wanted| wanted.mention(text) == Mention::Code)
        .flat_map(|wanted| suite.files_of_module(&wanted.module))
        .filter(|file| !tests.contains(&file.path.as_str()))
        .map(|file| file.path.clone())
        .collect()
}

/// Determines the files to write and the names in them from a suite and its imports. Returns at
/// least one file.
fn targets(
    judge: &Judge,
    task: &Task,
    imported: Option<(&TestSuite, Vec<WantedModule>)>,
) -> Result<Vec<TargetFile>, PipelineError> {
    let mut targets: Vec<TargetFile> = Vec::new();
    if let Some((suite, mut wanted)) = imported {
        wanted.retain(|wanted| !suite.has_module(&wanted.module));
        for wanted in asked(foreign(judge, wanted, &task.text), &task.text)? {
            let path = match mention::path_of(&task.text, &wanted.module) {
                Some(path) => path,
                None => format!("{}.py", wanted.module.replace('.', "/")),
            };
            add(&mut targets, path, &wanted.names);
        }
    }
    let from_tests = !targets.is_empty();
    for target in &mut targets {
        // A task usually introduces names in the order in which they depend on each other.
        target.names.sort_by_key(|name| task.text.find(name.as_str()).unwrap_or(usize::MAX));
    }
    for path in paths_in(&task.text) {
        // Files that the tests do not import count only if the task clearly asks for them.
        if !task.tests.iter().any(|test| test.path == path) {
            add(&mut targets, path, &[]);
        }
    }
    if targets.is_empty() {
        add(&mut targets, DEFAULT_PATH.to_owned(), &[]);
    }
    // With several files it is unknown which one a name of the task's text belongs to.
    if let [target] = targets.as_mut_slice()
        && !from_tests
    {
        target.names = names_in(&task.text);
    }
    Ok(targets)
}

fn add(targets: &mut Vec<TargetFile>, path: String, names: &[String]) {
    let known = targets.iter().position(|target| target.path == path).unwrap_or_else(|| {
        targets.push(TargetFile { path, names: Vec::new() });
        targets.len() - 1
    });
    for name in names {
        if !targets[known].names.contains(name) {
            targets[known].names.push(name.clone());
        }
    }
}

/// Returns the modules outside the standard library that the tests, their helpers and their
/// `conftest.py` import, in order.
async fn imported(judge: &Judge, suite: &TestSuite) -> Result<Vec<WantedModule>, JudgeError> {
    let files: Vec<SourceFile> = suite.imported_files().into_iter().cloned().collect();
    let needed: Vec<String> = files
        .iter()
        .flat_map(|file| needed_modules(&String::from_utf8_lossy(file.bytes())))
        .collect();
    let inspections = judge.inspect(&files).await?;
    inspections.iter().try_for_each(|inspection| check_syntax(suite, inspection))?;
    let mut found: Vec<WantedModule> = Vec::new();
    for need in inspections.into_iter().flat_map(|inspection| inspection.needs) {
        match found.iter_mut().find(|wanted| wanted.module == need.module) {
            Some(wanted) => wanted.names.extend(need.names),
            None => found.push(WantedModule {
                is_needed: needed.iter().any(|top| need.module.split('.').next() == Some(top)),
                module: need.module,
                names: need.names,
            }),
        }
    }
    found.retain(|wanted| !FRAMEWORKS.contains(&wanted.top()));
    Ok(found)
}

/// Rejects a test file with a syntax error. Other files of a test folder may be broken on purpose.
fn check_syntax(suite: &TestSuite, inspection: &FileInspection) -> Result<(), JudgeError> {
    let error = inspection.error.as_ref().filter(|error| error.line > 0);
    match error.filter(|_| suite.targets().contains(&inspection.path)) {
        Some(error) => Err(JudgeError::BrokenTest {
            path: inspection.path.clone(),
            line: error.line,
            message: error.message.clone(),
        }),
        None => Ok(()),
    }
}

/// Returns those of `wanted` that neither the interpreter nor a library provides. A module that the
/// task names by its path is always to be written.
fn foreign(judge: &Judge, mut wanted: Vec<WantedModule>, text: &str) -> Vec<WantedModule> {
    wanted.retain(|wanted| {
        let is_installed = judge.interpreter.has_module(wanted.top());
        let is_asked = mention::path_of(text, &wanted.module).is_some();
        !judge.provides(&wanted.module) && (!is_installed || is_asked)
    });
    wanted
}

/// Returns those of `wanted` that the task requires. If its text mentions some of them, the others
/// are missing packages; if it mentions none, all are required.
fn asked(wanted: Vec<WantedModule>, text: &str) -> Result<Vec<WantedModule>, PipelineError> {
    let mentioned = |least: Mention| -> Vec<String> {
        let found = wanted.iter().filter(|wanted| wanted.mention(text) >= least);
        found.map(|wanted| wanted.top().to_owned()).collect()
    };
    // A mention as code is stronger evidence than a word, which may be ordinary English.
    let mut tops = mentioned(Mention::Code);
    if tops.is_empty() {
        tops = mentioned(Mention::Word);
    }
    if tops.is_empty() {
        let any_needed = wanted.iter().any(|wanted| wanted.is_needed);
        return Ok(wanted.into_iter().filter(|wanted| wanted.is_needed || !any_needed).collect());
    }
    let (asked, others): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|wanted| tops.iter().any(|top| top == wanted.top()));
    let mut missing: Vec<String> = Vec::new();
    for wanted in others.iter().filter(|wanted| wanted.is_needed) {
        if !missing.iter().any(|name| name == wanted.top()) {
            missing.push(wanted.top().to_owned());
        }
    }
    if missing.is_empty() { Ok(asked) } else { Err(PipelineError::MissingPackages(missing)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the modules that `text` requires. Each module has one imported name, and a `?` if
    /// the tests also run without it.
    fn check(text: &str, modules: &[(&str, &str)]) -> String {
        let wanted = modules.iter().map(|(module, name)| WantedModule {
            module: module.trim_end_matches('?').to_owned(),
            names: vec![(*name).to_owned()],
            is_needed: !module.ends_with('?'),
        });
        match asked(wanted.collect(), text) {
            Ok(asked) => {
                asked.into_iter().map(|wanted| wanted.module).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn unmentioned_module_is_a_missing_package() {
        let adder = ("adder", "add");
        let missing = ("parameterized", "parameterized");
        let text = "Write adder.py with add(a, b), given two numbers.";
        insta::assert_snapshot!(check(text, &[missing, adder]), @"the tests import `parameterized`, which this Python does not have");
        insta::assert_snapshot!(check(text, &[("hypothesis", "given"), ("yaml", "load"), adder]), @"the tests import `hypothesis`, `yaml`, which this Python does not have");
        assert_eq!(check(text, &[("numpy?", "array"), adder]), "adder");
        assert_eq!(
            check("Call it add.", &[missing, adder]),
            "the tests import `parameterized`, which this Python does not have"
        );
        assert_eq!(check("Make the tests pass.", &[missing, adder]), "parameterized adder");
        assert_eq!(check("Make the tests pass.", &[("numpy?", "array"), adder]), "adder");
        assert_eq!(check("Make the tests pass.", &[("adder?", "add")]), "adder");
        assert_eq!(
            check("A shop with a cart", &[("shop.cart", "Cart"), ("shop.money", "Money")]),
            "shop.cart shop.money"
        );
    }
}
