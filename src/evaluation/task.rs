//! A task of a suite, and how its answers are judged.

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::judge::FunctionTask;
use crate::pipeline::code_blocks;
use crate::registry::sha256;
use crate::trajectory::Message;

use super::library::LibraryCheck;
use super::modules::Modules;

/// What a model is asked, and how its answer is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
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
    pub work: Option<Work>,
    /// How an answer is judged.
    pub check: Check,
    /// An answer that passes; the model never sees it.
    pub answer: String,
}

/// A task as a user would give it. What comes of it is judged by the same check; the tests are only what may be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is to be written.
    pub text: String,
    /// A file of tests.
    pub tests: String,
}

/// How answers are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Check {
    /// Code gives the right values, by way of a library.
    Library(LibraryCheck),
    /// A function passes asserts.
    Function(FunctionCheck),
}

/// Asserts about a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCheck {
    /// The function's name.
    pub entry_point: String,
    /// Code that an answer without it is put behind: imports, helpers and the function's head, or nothing.
    pub prompt: String,
    /// Code that the asserts need.
    pub prelude: String,
    /// Asserts that call the function by its name, or a function `check(candidate)` with such asserts.
    pub test: String,
}

impl Task {
    /// sha256 of all that it is.
    pub fn digest(&self) -> String {
        sha256(json!(self).to_string().as_bytes())
    }

    /// What a judge asks of the program that [`Self::program`] makes.
    pub fn question(&self) -> FunctionTask {
        match &self.check {
            Check::Library(check) => check.question(),
            Check::Function(check) => FunctionTask {
                entry_point: check.entry_point.clone(),
                prelude: check.prelude.clone(),
                test: check.test.clone(),
            },
        }
    }

    /// The code of an answer as a module for the judge.
    pub fn program(&self, answer: &str, modules: &Modules) -> String {
        let code = self.module(answer);
        match &self.check {
            Check::Library(check) => check.program(&code, modules),
            Check::Function(_) => format!("{}\n{code}", modules.bootstrap()),
        }
    }

    /// The code of an answer as a user would save it.
    pub(super) fn module(&self, answer: &str) -> String {
        let code = code_of(answer);
        match &self.check {
            Check::Library(_) => code,
            Check::Function(check) => check.program(&code, answer),
        }
    }

    /// A module that does nothing.
    pub fn stub(&self, modules: &Modules) -> String {
        match &self.check {
            Check::Library(check) => check.program("pass", modules),
            Check::Function(check) => format!("def {}(*_, **__):\n    pass\n", check.entry_point),
        }
    }
}

impl FunctionCheck {
    /// Code that has the function is a module, behind what the prompt imports; any other goes on where the prompt ends.
    fn program(&self, code: &str, answer: &str) -> String {
        let head = format!("def {}(", self.entry_point);
        if code.contains(&head) {
            return format!("{}{code}", self.before());
        }
        let is_continuation = !answer.contains("```");
        format!("{}{}", self.prompt, if is_continuation { answer } else { code })
    }

    /// What stands in the prompt before the function.
    fn before(&self) -> &str {
        let head = format!("def {}(", self.entry_point);
        self.prompt.find(&head).map_or("", |at| &self.prompt[..at])
    }
}

/// The longest block of code in an answer, or all of it where there is none.
fn code_of(answer: &str) -> String {
    let blocks = code_blocks(answer);
    let longest = blocks.into_iter().map(|block| block.code).max_by_key(String::len);
    longest.unwrap_or_else(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::FunctionCheck;

    #[test]
    fn an_answer_is_a_whole_function_or_goes_on_with_the_prompt() {
        let check = FunctionCheck {
            entry_point: "f".to_owned(),
            prompt: "import math\n\ndef f(x):\n    \"\"\"Doubles.\"\"\"\n".to_owned(),
            prelude: String::new(),
            test: String::new(),
        };
        let whole = check.program("def f(x):\n    return 2 * x\n", "");
        assert_eq!(whole, "import math\n\ndef f(x):\n    return 2 * x\n");
        let rest = check.program("    return 2 * x\n", "    return 2 * x\n");
        assert_eq!(rest, format!("{}    return 2 * x\n", check.prompt));
    }
}
