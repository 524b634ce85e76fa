//! Held-out tasks, and controls that need no library.

use std::ops::Range;

use serde::Deserialize;
use serde::Serialize;

use super::chance::Chance;
use super::invented::Function;
use super::invented::Library;
use super::operations::OPERATIONS;
use super::operations::Operation;
use super::templates;
use super::templates::Code;
use super::templates::TEST;
use super::training::question;
use crate::trajectory::Message;

/// What a task's code looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Template {
    /// A comment asks for a value that the library gives.
    T1,
    /// A docstring asks for a function's body that calls the library.
    T2,
    /// A control: a comment asks for a value that Python's builtins give.
    N1,
}

impl Template {
    /// Whether it needs no library: a good adapter leaves it as it is.
    pub fn is_control(self) -> bool {
        self == Self::N1
    }
}

/// A task that no training record has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `library/template/operation/phrase/variable`.
    pub id: String,
    /// What the code looks like.
    pub template: Template,
    /// `library/operation/phrase`, and for a control `python/operation/phrase`.
    pub family: String,
    /// The user's message, alone.
    pub messages: Vec<Message>,
    /// How an answer is judged.
    pub check: Check,
    /// The completed code, which passes `check`. The model must not see it.
    pub answer: String,
}

/// What a judge that runs Python needs to judge an answer. For each input it evaluates the
/// reference and the answer, each on a copy of its own; the answer is right when all values are
/// equal and have the same type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Where the answer's value is found.
    pub form: Form,
    /// What the answer must have called, by the module's list `_calls`; `None` for a control.
    pub required: Option<Call>,
    /// Lists to try; none is empty, one has a single item, one rises throughout.
    pub inputs: Vec<Vec<i64>>,
    /// The right value, as a Python expression of `{v}`; see [`Operation::reference`].
    pub reference: String,
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
        let check = Check { form, required, inputs: inputs(&mut chance), reference };
        Task { id, template, family, messages: vec![question], check, answer: code.completed }
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
