//! Held-out tasks, and controls that need no library.

use std::ops::Range;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use super::chance::Chance;
use super::invented::Function;
use super::invented::Library;
use super::operations::OPERATIONS;
use super::operations::Operation;
use super::templates;
use super::templates::Code;
use super::templates::TEST;
use super::training::question;
use crate::evaluation::modules::Modules;
use crate::evaluation::task::Check;
use crate::evaluation::task::Task;
use crate::judge::FunctionTask;

/// What a task's code looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Template {
    /// A comment asks for a value that the library gives.
    T1,
    /// A docstring asks for a function's body that calls the library.
    T2,
    /// A control: a comment asks for a value that Python's builtins give.
    N1,
}

impl Template {
    /// Whether it needs no library: a good adapter leaves it as it is.
    fn is_control(self) -> bool {
        self == Self::N1
    }
}

/// What a judge that runs Python needs to judge an answer. For each input it evaluates the
/// reference and the answer, each on a copy of its own; the answer is right when all values are
/// equal and have the same type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryCheck {
    /// Where the answer's value is found.
    pub form: Form,
    /// What the answer must have called, by the module's list `_calls`; `None` for a control.
    pub required: Option<Call>,
    /// Lists to try; none is empty, one has a single item, one rises throughout.
    pub inputs: Vec<Vec<i64>>,
    /// The right value, as a Python expression of `{v}`; see [`Operation::reference`].
    pub reference: String,
}

/// The function that judged code becomes.
const ENTRY_POINT: &str = "rune_task";

impl LibraryCheck {
    /// What a judge asks of the function that [`Self::program`] makes: for every input the value of the reference,
    /// the name of its type, and whether the library was called.
    pub(in crate::evaluation) fn question(&self) -> FunctionTask {
        let reference = self.reference.replace("{v}", "v");
        let inputs = json!(self.inputs);
        let test = format!(
            "def check(candidate):\n    \
                 reference = lambda v: {reference}\n    \
                 for items in {inputs}:\n        \
                     wanted = reference(list(items))\n        \
                     assert candidate(list(items)) == [wanted, type(wanted).__name__, True]\n"
        );
        FunctionTask { entry_point: ENTRY_POINT.to_owned(), prelude: String::new(), test }
    }

    /// `code` as a function of one list that gives the value, the name of its type, and whether the
    /// function that the task is about was called.
    pub(in crate::evaluation) fn program(&self, code: &str, modules: &Modules) -> String {
        let code = json!(code);
        let value = match &self.form {
            Form::Result { .. } => "names[\"result\"]".to_owned(),
            Form::Function { name } => format!("names[{}](items)", json!(name)),
        };
        let given = match &self.form {
            Form::Result { variable } => format!("names[{}] = items", json!(variable)),
            Form::Function { .. } => "pass".to_owned(),
        };
        let (calls, was_called) = match &self.required {
            Some(call) => (
                format!(
                    "import {0} as library; calls = library._calls; calls.clear()",
                    call.library
                ),
                format!("{} in calls", json!(call.function)),
            ),
            None => ("pass".to_owned(), "True".to_owned()),
        };
        format!(
            "{}\n\ndef {ENTRY_POINT}(items):\n    \
                 {calls}\n    \
                 names = {{\"__name__\": \"solution\"}}\n    \
                 {given}\n    \
                 exec({code}, names)\n    \
                 value = {value}\n    \
                 return [value, type(value).__name__, {was_called}]\n",
            modules.bootstrap(),
        )
    }
}

/// Where the value of an answer is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Form {
    /// The code runs with the input as the global `variable` and assigns to `result`.
    Result {
        /// The name of the input.
        variable: String,
    },
    /// The code defines the function `name`, which is called with the input.
    Function {
        /// The name of the function.
        name: String,
    },
}

/// A function of an invented library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The library's name.
    pub library: String,
    /// The function's name.
    pub function: String,
}

impl Library {
    /// Gives the held-out tasks: T1 and T2 for each function, each of phrases `E` and `F` and each
    /// test variable, then the controls, which are about the same operations for every library. Controls have the
    /// phrases `A` and `B`, which records have for the library's functions: an adapter that calls the library where
    /// none is imported loses them.
    pub fn tasks(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for function in self.functions() {
            for (phrase, variable) in variants(TEST.phrases) {
                tasks.push(self.assignment(function, phrase, variable));
                tasks.push(self.definition(function, phrase, variable));
            }
        }
        for operation in OPERATIONS.iter().filter(|operation| operation.builtin) {
            let control = |(phrase, variable)| self.control(operation, phrase, variable);
            tasks.extend(variants(CONTROL_PHRASES).map(control));
        }
        tasks
    }

    fn assignment(&self, function: &Function, phrase: usize, variable: &str) -> Task {
        let wording = function.operation.phrases[phrase];
        let call = self.call(function, variable);
        let code = templates::assignment(Some(self.name()), wording, variable, &call);
        let form = Form::Result { variable: variable.to_owned() };
        let draft = self.draft(Template::T1, function.operation, phrase, variable);
        let family = self.family_name(function, phrase);
        draft.finish(family, code, form, Some(self.required(function)))
    }

    fn definition(&self, function: &Function, phrase: usize, variable: &str) -> Task {
        let wording = function.operation.phrases[phrase];
        let mut draft = self.draft(Template::T2, function.operation, phrase, variable);
        let name = TEST.function_name(&mut draft.chance);
        let call = self.call(function, variable);
        let code = templates::definition(self.name(), &name, wording, variable, &call);
        let family = self.family_name(function, phrase);
        draft.finish(family, code, Form::Function { name }, Some(self.required(function)))
    }

    fn control(&self, operation: &'static Operation, phrase: usize, variable: &str) -> Task {
        let wording = operation.phrases[phrase];
        let value = operation.reference_over(variable);
        let code = templates::assignment(None, wording, variable, &value);
        let form = Form::Result { variable: variable.to_owned() };
        let draft = self.draft(Template::N1, operation, phrase, variable);
        let family = format!("python/{}/{}", operation.id, templates::letter(phrase));
        draft.finish(family, code, form, None)
    }

    fn required(&self, function: &Function) -> Call {
        Call { library: self.name().to_owned(), function: function.name.clone() }
    }

    fn draft(
        &self,
        template: Template,
        operation: &'static Operation,
        phrase: usize,
        variable: &str,
    ) -> Draft {
        let (name, letter) = (self.name(), templates::letter(phrase));
        let id = format!("{name}/{template:?}/{}/{letter}/{variable}", operation.id);
        let chance = Chance::new(self.seed(), &id);
        Draft { id, template, operation, chance }
    }
}

/// The beginning of a task.
struct Draft {
    id: String,
    template: Template,
    operation: &'static Operation,
    /// The task's own stream.
    chance: Chance,
}

impl Draft {
    fn finish(self, family: String, code: Code, form: Form, required: Option<Call>) -> Task {
        let Self { id, template, operation, mut chance } = self;
        let instruction = *chance.pick(TEST.instructions);
        let question = question(instruction, &code.stub);
        let reference = operation.reference.to_owned();
        let check = LibraryCheck { form, required, inputs: inputs(&mut chance), reference };
        Task {
            id,
            group: format!("{template:?}"),
            is_control: template.is_control(),
            family,
            messages: vec![question],
            work: None,
            check: Check::Library(check),
            answer: code.completed,
        }
    }
}

/// The phrases of controls.
const CONTROL_PHRASES: Range<usize> = 0..2;

/// All of these phrases with all test variables.
fn variants(phrases: Range<usize>) -> impl Iterator<Item = (usize, &'static str)> {
    phrases.flat_map(|phrase| TEST.variables.iter().map(move |variable| (phrase, *variable)))
}

/// Draws four lists: with a repeat and a negative, with a zero and a negative, a rising one of
/// positive items, and one of a single negative.
fn inputs(chance: &mut Chance) -> Vec<Vec<i64>> {
    let repeated = chance.between(1, 9);
    let negative = -chance.between(1, 9);
    let first = falling_somewhere(vec![repeated, repeated, negative], chance);
    let second = falling_somewhere(vec![0, chance.between(1, 9), negative], chance);
    let mut third = vec![chance.between(1, 3)];
    for index in 0..2 + chance.below(3) {
        third.push(third[index] + chance.between(1, 3));
    }
    vec![first, second, third, vec![chance.between(-9, -1)]]
}

/// Adds two to five items and mixes all, so that the list is not in ascending order.
fn falling_somewhere(mut items: Vec<i64>, chance: &mut Chance) -> Vec<i64> {
    for _ in 0..2 + chance.below(4) {
        items.push(chance.between(-9, 9));
    }
    chance.shuffle(&mut items);
    if items.is_sorted() {
        items.reverse();
    }
    items
}
