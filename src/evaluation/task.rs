//! [`EvalTask`]: a task of a suite and the check that judges its answers.

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::digest::sha256;
use crate::judge;
use crate::judge::FunctionTask;
use crate::pipeline::code_blocks;
use crate::synthetic::LibraryCheck;
use crate::synthetic::LibraryTask;
use crate::task;
use crate::task::SourceFile;
use crate::task::TaskId;
use crate::task::TaskType;
use crate::trajectory::Message;
use crate::trajectory::Role;

use super::library;
use super::modules::PackageModules;

/// Question for a model, with the check of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalTask {
    /// Unique id within the suite.
    pub id: String,
    /// Group, a row in the score table: a template, or the suite's name.
    pub group: String,
    /// Whether the task is a control, on which a good adapter changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_control: bool,
    /// Family. Near-duplicate tasks share a family, and a family is never split between training
    /// and evaluation.
    pub family: String,
    /// Chat that asks the question.
    pub messages: Vec<Message>,
    /// The task in the form for the pipeline; `None` if the pipeline cannot answer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PipelineTask>,
    /// Check that judges an answer.
    pub check: AnswerCheck,
    /// Reference answer, empty if unknown; the model never sees it.
    pub answer: String,
}

/// Task in the form that a user would give, with visible tests. The solution is judged by the same
/// hidden check as a completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineTask {
    /// The task as a user would describe it.
    pub text: String,
    /// Source of the visible test file.
    pub tests: String,
}

/// Check that judges answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AnswerCheck {
    /// Code must compute the right values, and call the library to do so.
    Library(LibraryCheck),
    /// A function must pass asserts.
    Function(FunctionCheck),
    /// A program must write the right output for each input.
    Program(ProgramCheck),
    /// A module must pass a test file.
    Suite(SuiteCheck),
    /// A file must pass the tests of a session.
    Session(SessionCheck),
}

/// Asserts about a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCheck {
    /// Name of the function.
    pub entry_point: String,
    /// Imports, helpers and the function's head, which are put before an answer that lacks them;
    /// may be empty.
    pub prompt: String,
    /// Code that the asserts need.
    pub prelude: String,
    /// Asserts that call the function by its name, or a function `check(candidate)` with such
    /// asserts.
    pub test: String,
    /// Code appended to an answer; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epilogue: String,
}

/// Inputs and expected outputs of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCheck {
    /// Pairs of standard input and expected output. Outputs are compared word by word, and numbers
    /// by value.
    pub cases: Vec<(String, String)>,
}

/// Test file that imports the module `solution`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteCheck {
    /// Source of the test file.
    pub tests: String,
    /// Imports and the function's head, which are put before an answer that lacks them; may be
    /// empty.
    pub prompt: String,
    /// Name of the function.
    pub entry_point: String,
}

/// The task of a session, which its own tests judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCheck {
    /// The task as the user gave it.
    pub task: task::Task,
    /// Path of the file to write.
    pub path: String,
    /// Families of all sessions of this task's family, by their own texts: what adapters that an
    /// earlier version trained on them have in their lists. No part of the task.
    #[serde(skip)]
    pub own_families: Vec<String>,
}

/// Name of the suite of the tasks of a project's own sessions.
pub const SESSIONS_SUITE: &str = "sessions";
/// Path of a solution, unless a task names another.
const SOLUTION: &str = "solution.py";
/// Path of a task's tests.
const TEST_FILE: &str = "test_solution.py";
/// Python code that runs a program as a function from its input to the words of its output.
const PROGRAM: &str = include_str!("program.py");
/// Name of that function.
const RUN_PROGRAM: &str = "rune_program";

impl EvalTask {
    /// Returns the sha256 of the task, which is part of the cache key of its outcomes.
    pub fn digest(&self) -> String {
        sha256(json!(self).to_string().as_bytes())
    }

    /// Returns the task in words: as a user would give it, and as the model is asked.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let given = match &self.check {
            AnswerCheck::Session(check) => Some(check.task.text.as_str()),
            _ => self.work.as_ref().map(|work| work.text.as_str()),
        };
        let question = self.messages.iter().rfind(|message| message.role == Role::User);
        given.into_iter().chain(question.map(|message| message.content.as_str()))
    }

    /// Returns the names of the task's family.
    pub(super) fn families(&self) -> impl Iterator<Item = &str> {
        let own = match &self.check {
            AnswerCheck::Session(check) => check.own_families.as_slice(),
            _ => &[],
        };
        own.iter().chain([&self.family]).map(String::as_str)
    }

    /// Whether the task has visible tests, which some strategies need.
    pub fn has_visible_tests(&self) -> bool {
        self.work.is_some() || matches!(self.check, AnswerCheck::Session(_))
    }

    /// Returns the task as a user would give it, with its visible tests; `None` if it asks for
    /// nothing.
    pub fn as_user_task(&self) -> Option<task::Task> {
        if let AnswerCheck::Session(check) = &self.check {
            let family = Some(self.family.clone());
            return Some(task::Task { id: TaskId(self.id.clone()), family, ..check.task.clone() });
        }
        let tests = self.work.iter().map(|work| SourceFile::new(TEST_FILE, &work.tests));
        Some(task::Task {
            id: TaskId(self.id.clone()),
            text: self.texts().next()?.to_owned(),
            task_type: TaskType::Function,
            family: Some(self.family.clone()),
            tests: tests.collect(),
            test_targets: Vec::new(),
        })
    }

    /// Returns the test file or files that judge the module of [`Self::program`], and the path that
    /// they expect it at; `None` if a function task judges it.
    pub(super) fn test_suite(&self) -> Option<(judge::TestSuite, &str)> {
        match &self.check {
            AnswerCheck::Suite(check) => {
                let tests = vec![SourceFile::new(TEST_FILE, &check.tests)];
                Some((judge::TestSuite::new(tests), SOLUTION))
            }
            AnswerCheck::Session(check) => {
                Some((judge::TestSuite::of_task(&check.task)?, &check.path))
            }
            _ => None,
        }
    }

    /// Returns an answer as the file that the visible tests expect.
    pub(super) fn file(&self, answer: &str) -> SourceFile {
        let path = match &self.check {
            AnswerCheck::Session(check) => check.path.as_str(),
            _ => SOLUTION,
        };
        SourceFile::new(path, self.module(answer))
    }

    /// Returns the function task that judges the module of [`Self::program`]; `None` if a test file
    /// judges it.
    pub fn question(&self) -> Option<FunctionTask> {
        match &self.check {
            AnswerCheck::Library(check) => Some(library::question(check)),
            AnswerCheck::Function(check) => Some(FunctionTask {
                entry_point: check.entry_point.clone(),
                prelude: check.prelude.clone(),
                test: check.test.clone(),
            }),
            AnswerCheck::Program(check) => Some(FunctionTask {
                entry_point: RUN_PROGRAM.to_owned(),
                prelude: PROGRAM.to_owned(),
                test: check.asserts(),
            }),
            AnswerCheck::Suite(_) | AnswerCheck::Session(_) => None,
        }
    }

    /// Turns an answer into a module for the judge.
    pub fn program(&self, answer: &str, modules: &PackageModules) -> String {
        let code = self.module(answer);
        match &self.check {
            AnswerCheck::Library(check) => library::program(check, &code, modules),
            AnswerCheck::Program(_) => {
                format!("{}\n{PROGRAM}\nSOURCE = {}\n", modules.bootstrap(), json!(code))
            }
            AnswerCheck::Function(_) => format!("{}\n{code}", modules.bootstrap()),
            AnswerCheck::Suite(_) | AnswerCheck::Session(_) => code,
        }
    }

    /// Turns an answer into a module as a user would save it.
    pub(super) fn module(&self, answer: &str) -> String {
        let code = code_of(answer);
        match &self.check {
            AnswerCheck::Library(_) | AnswerCheck::Program(_) | AnswerCheck::Session(_) => code,
            AnswerCheck::Function(check) => {
                let whole = completed(&check.prompt, &check.entry_point, &code, answer);
                format!("{whole}{}", check.epilogue)
            }
            AnswerCheck::Suite(check) => {
                completed(&check.prompt, &check.entry_point, &code, answer)
            }
        }
    }

    /// Returns a module that does nothing, which must not pass the check.
    pub fn stub(&self, modules: &PackageModules) -> String {
        let stub = |name: &str| format!("def {name}(*_, **__):\n    pass\n");
        match &self.check {
            AnswerCheck::Library(check) => library::program(check, "pass", modules),
            AnswerCheck::Function(check) => stub(&check.entry_point),
            AnswerCheck::Program(_) => stub(RUN_PROGRAM),
            AnswerCheck::Suite(check) => stub(&check.entry_point),
            AnswerCheck::Session(_) => String::new(),
        }
    }
}

impl From<LibraryTask> for EvalTask {
    fn from(task: LibraryTask) -> Self {
        Self {
            id: task.id,
            group: task.group,
            is_control: task.is_control,
            family: task.family,
            messages: task.messages,
            work: None,
            check: AnswerCheck::Library(task.check),
            answer: task.answer,
        }
    }
}

impl ProgramCheck {
    fn asserts(&self) -> String {
        let assert = |(input, output): &(String, String)| {
            format!("assert {RUN_PROGRAM}({}) == words({})\n", json!(input), json!(output))
        };
        self.cases.iter().map(assert).collect()
    }
}

/// Completes the code of an answer to a module. Code that defines the function follows the part of
/// the prompt before the function; any other code continues the prompt.
fn completed(prompt: &str, entry_point: &str, code: &str, answer: &str) -> String {
    if definition_start(code, entry_point).is_some() {
        // A prompt without the function consists of imports and helpers.
        let before = definition_start(prompt, entry_point).map_or(prompt, |start| &prompt[..start]);
        return format!("{before}{code}");
    }
    let is_continuation = !answer.contains("```");
    format!("{prompt}{}", if is_continuation { answer } else { code })
}

/// Returns the byte offset of the top-level function or class `name`, including its decorators.
fn definition_start(code: &str, name: &str) -> Option<usize> {
    let (mut start, mut decorated) = (0, None);
    for line in code.split_inclusive('\n') {
        if line.starts_with('@') {
            decorated.get_or_insert(start);
        } else if defines(line, name) {
            return Some(decorated.unwrap_or(start));
        } else if line.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            // The decorators belonged to another definition.
            decorated = None;
        }
        start += line.len();
    }
    None
}

/// Whether a line starts the top-level function or class `name`.
fn defines(line: &str, name: &str) -> bool {
    let heads = ["def ", "async def ", "class "];
    let rest =
        heads.iter().find_map(|head| line.strip_prefix(head)?.trim_start().strip_prefix(name));
    rest.is_some_and(|rest| rest.trim_start().starts_with(['(', ':', '[']))
}

/// Returns the longest code block of an answer, or the whole answer if it has none.
fn code_of(answer: &str) -> String {
    let blocks = code_blocks(answer);
    let longest = blocks.into_iter().map(|block| block.code).max_by_key(String::len);
    longest.unwrap_or_else(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::completed;

    #[test]
    fn answer_is_a_whole_function_or_continues_the_prompt() {
        let prompt = "import math\n\ndef f(x):\n    \"\"\"Doubles.\"\"\"\n";
        let whole = completed(prompt, "f", "def f(x):\n    return 2 * x\n", "");
        assert_eq!(whole, "import math\n\ndef f(x):\n    return 2 * x\n");
        let rest = completed(prompt, "f", "    return 2 * x\n", "    return 2 * x\n");
        assert_eq!(rest, format!("{prompt}    return 2 * x\n"));
        let rest = completed(prompt, "f", "    def f(y):\n        pass\n", "    def f(y): ...");
        assert_eq!(rest, format!("{prompt}    def f(y): ..."));
    }

    #[test]
    fn definition_starts_at_its_decorators_and_at_top_level() {
        let before = |prompt: &str| {
            super::definition_start(prompt, "f").map_or("none", |start| &prompt[..start]).to_owned()
        };
        assert_eq!(before("import a\n@b\n@c(\n    1,\n)\ndef f(x):\n"), "import a\n");
        assert_eq!(before("@b\ndef g():\n    pass\n\ndef f(x):\n"), "@b\ndef g():\n    pass\n\n");
        let outer = "def g():\n    def f(y):\n        return y\n";
        assert_eq!(before(&format!("{outer}async def f(x):\n")), outer);
        assert_eq!(before("x = 1\nclass f:\n"), "x = 1\n");
        assert_eq!(before("def fine(x):\n    f(x)\n"), "none");
    }
}
