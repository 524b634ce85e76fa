//! A task of a suite, and how its answers are judged.

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::digest::sha256;
use crate::judge::FunctionTask;
use crate::pipeline::code_blocks;
use crate::synthetic::LibraryCheck;
use crate::synthetic::LibraryTask;
use crate::trajectory::Message;

use super::library;
use super::modules::PackageModules;

/// What a model is asked, and how its answer is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalTask {
    /// Names it in its suite.
    pub id: String,
    /// The row of a table that it counts in: a template, or the suite's name.
    pub group: String,
    /// Whether it is a control: what a good adapter leaves as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_control: bool,
    /// Tasks of one family are about the same: they are trained on, or measured on, together.
    pub family: String,
    /// The conversation that asks.
    pub messages: Vec<Message>,
    /// What the pipeline is given in its place; `None` where it can't be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PipelineTask>,
    /// How an answer is judged.
    pub check: AnswerCheck,
    /// An answer that passes, or nothing where none is known; the model never sees it.
    pub answer: String,
}

/// A task as a user would give it. What comes of it is judged by the same check; the tests are only
/// what may be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineTask {
    /// What is to be written.
    pub text: String,
    /// A file of tests.
    pub tests: String,
}

/// How answers are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AnswerCheck {
    /// Code gives the right values, by way of a library.
    Library(LibraryCheck),
    /// A function passes asserts.
    Function(FunctionCheck),
    /// A program writes the right words for what it reads.
    Program(ProgramCheck),
    /// A module passes a file of tests, in the process of the tests.
    Suite(SuiteCheck),
}

/// Asserts about a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCheck {
    /// The function's name.
    pub entry_point: String,
    /// Code that an answer without it is put behind: imports, helpers and the function's head, or
    /// nothing.
    pub prompt: String,
    /// Code that the asserts need.
    pub prelude: String,
    /// Asserts that call the function by its name, or a function `check(candidate)` with such
    /// asserts.
    pub test: String,
    /// Code that goes behind an answer, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epilogue: String,
}

/// What a program reads and has to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCheck {
    /// Its standard input, and the output. Outputs are compared word by word, numbers by their
    /// value.
    pub cases: Vec<(String, String)>,
}

/// A file of tests that import `solution`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteCheck {
    /// The file's text.
    pub tests: String,
    /// Code that an answer without it is put behind: imports and the function's head, or nothing.
    pub prompt: String,
    /// The function's name.
    pub entry_point: String,
}

/// Runs a program as a function from its input to the words of its output.
const PROGRAM: &str = include_str!("program.py");
/// The name of that function.
const RUN_PROGRAM: &str = "rune_program";

impl EvalTask {
    /// sha256 of all that it is.
    pub fn digest(&self) -> String {
        sha256(json!(self).to_string().as_bytes())
    }

    /// What a judge asks of the program that [`Self::program`] makes; `None` where a suite judges.
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
            AnswerCheck::Suite(_) => None,
        }
    }

    /// The code of an answer as a module for the judge.
    pub fn program(&self, answer: &str, modules: &PackageModules) -> String {
        let code = self.module(answer);
        match &self.check {
            AnswerCheck::Library(check) => library::program(check, &code, modules),
            AnswerCheck::Program(_) => {
                format!("{}\n{PROGRAM}\nSOURCE = {}\n", modules.bootstrap(), json!(code))
            }
            AnswerCheck::Function(_) => format!("{}\n{code}", modules.bootstrap()),
            AnswerCheck::Suite(_) => code,
        }
    }

    /// The code of an answer as a user would save it.
    pub(super) fn module(&self, answer: &str) -> String {
        let code = code_of(answer);
        match &self.check {
            AnswerCheck::Library(_) | AnswerCheck::Program(_) => code,
            AnswerCheck::Function(check) => {
                let whole = completed(&check.prompt, &check.entry_point, &code, answer);
                format!("{whole}{}", check.epilogue)
            }
            AnswerCheck::Suite(check) => {
                completed(&check.prompt, &check.entry_point, &code, answer)
            }
        }
    }

    /// A module that does nothing.
    pub fn stub(&self, modules: &PackageModules) -> String {
        let stub = |name: &str| format!("def {name}(*_, **__):\n    pass\n");
        match &self.check {
            AnswerCheck::Library(check) => library::program(check, "pass", modules),
            AnswerCheck::Function(check) => stub(&check.entry_point),
            AnswerCheck::Program(_) => stub(RUN_PROGRAM),
            AnswerCheck::Suite(check) => stub(&check.entry_point),
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

/// Code that has the function is a module, behind the part of the prompt before the function; any
/// other goes on where the prompt ends.
fn completed(prompt: &str, entry_point: &str, code: &str, answer: &str) -> String {
    if beginning(code, entry_point).is_some() {
        // A prompt without the function is imports and helpers.
        let before = beginning(prompt, entry_point).map_or(prompt, |start| &prompt[..start]);
        return format!("{before}{code}");
    }
    let is_continuation = !answer.contains("```");
    format!("{prompt}{}", if is_continuation { answer } else { code })
}

/// Where the function or class `name` of a module begins, its decorators included; those within
/// another do not count.
fn beginning(code: &str, name: &str) -> Option<usize> {
    let (mut start, mut decorated) = (0, None);
    for line in code.split_inclusive('\n') {
        if line.starts_with('@') {
            decorated.get_or_insert(start);
        } else if defines(line, name) {
            return Some(decorated.unwrap_or(start));
        } else if line.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            decorated = None; // it was another's
        }
        start += line.len();
    }
    None
}

/// Whether a line at the top of a module begins the function or class `name`.
fn defines(line: &str, name: &str) -> bool {
    let heads = ["def ", "async def ", "class "];
    let rest =
        heads.iter().find_map(|head| line.strip_prefix(head)?.trim_start().strip_prefix(name));
    rest.is_some_and(|rest| rest.trim_start().starts_with(['(', ':', '[']))
}

/// The longest block of code in an answer, or all of it where there is none.
fn code_of(answer: &str) -> String {
    let blocks = code_blocks(answer);
    let longest = blocks.into_iter().map(|block| block.code).max_by_key(String::len);
    longest.unwrap_or_else(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::completed;

    #[test]
    fn an_answer_is_a_whole_function_or_goes_on_with_the_prompt() {
        let prompt = "import math\n\ndef f(x):\n    \"\"\"Doubles.\"\"\"\n";
        let whole = completed(prompt, "f", "def f(x):\n    return 2 * x\n", "");
        assert_eq!(whole, "import math\n\ndef f(x):\n    return 2 * x\n");
        let rest = completed(prompt, "f", "    return 2 * x\n", "    return 2 * x\n");
        assert_eq!(rest, format!("{prompt}    return 2 * x\n"));
        let rest = completed(prompt, "f", "    def f(y):\n        pass\n", "    def f(y): ...");
        assert_eq!(rest, format!("{prompt}    def f(y): ..."));
    }

    #[test]
    fn function_begins_at_its_decorators_and_at_the_top() {
        let before = |prompt: &str| {
            super::beginning(prompt, "f").map_or("none", |start| &prompt[..start]).to_owned()
        };
        assert_eq!(before("import a\n@b\n@c(\n    1,\n)\ndef f(x):\n"), "import a\n");
        assert_eq!(before("@b\ndef g():\n    pass\n\ndef f(x):\n"), "@b\ndef g():\n    pass\n\n");
        let outer = "def g():\n    def f(y):\n        return y\n";
        assert_eq!(before(&format!("{outer}async def f(x):\n")), outer);
        assert_eq!(before("x = 1\nclass f:\n"), "x = 1\n");
        assert_eq!(before("def fine(x):\n    f(x)\n"), "none");
    }
}
