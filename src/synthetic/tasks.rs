//! Held-out tasks, and controls that need no library.

use std::ops::Range;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use super::facts::LibraryConstant;
use super::library::LibraryFunction;
use super::library::SyntheticLibrary;
use super::operations::ListOperation;
use super::operations::OPERATIONS;
use super::operations::ValueKind;
use super::random::SeededRng;
use super::records::question;
use super::templates;
use super::templates::CodeExample;
use super::templates::TEST;
use crate::trajectory::Message;

/// Template of a task. T1 to T5 test skill, T6 to T8 test recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum TaskTemplate {
    /// A comment asks for a value that a library function computes.
    T1,
    /// A docstring asks for a function's body that calls the library.
    T2,
    /// The same with a composition of two library functions, which no record has.
    T3,
    /// A comment asks for a capped value, which needs the library's keyword.
    T4,
    /// A comment asks for items that are read through the library's protocol.
    T5,
    /// The library's exception must be caught.
    T6,
    /// A comment asks for a constant of the library.
    T7,
    /// A question asks for the name of a function.
    T8,
    /// A control: a comment asks for a value that Python's builtins compute.
    N1,
    /// A control: a comment asks for a value that Python's standard library computes.
    N3,
}

impl TaskTemplate {
    /// Whether the task needs no library, so that a good adapter changes nothing.
    fn is_control(self) -> bool {
        matches!(self, Self::N1 | Self::N3)
    }
}

/// Task about a library, with its reference answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibraryTask {
    /// Unique id among the library's tasks.
    pub id: String,
    /// Template of the task, such as `T1`.
    pub group: String,
    /// Whether the task is a control, which needs no library.
    pub is_control: bool,
    /// Family, shared by tasks about the same fact.
    pub family: String,
    /// Chat that asks the question.
    pub messages: Vec<Message>,
    /// Check that judges an answer.
    pub check: LibraryCheck,
    /// Reference answer, which passes the check.
    pub answer: String,
}

/// Check of an answer, for a judge that runs Python. For each input, reference and answer are
/// evaluated on separate copies; the answer is right if all values are equal and have the same
/// type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryCheck {
    /// Place of the answer's value.
    pub form: AnswerForm,
    /// Name that the answer must use, as recorded in the module's list `_calls`; `None` if the
    /// question asks for no code or no library.
    pub required: Option<LibraryUses>,
    /// Input lists: none is empty, one has a single item, one is ascending.
    pub inputs: Vec<Vec<i64>>,
    /// Right value as a Python expression of `{v}`; see `ListOperation::reference`.
    pub reference: String,
}

/// Place of an answer's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AnswerForm {
    /// The code runs with the input as the global `variable` and assigns to `result`.
    Result {
        /// Name of the input variable.
        variable: String,
    },
    /// The code defines the function `name`, which is called on the input.
    Function {
        /// Name of the called function.
        name: String,
    },
    /// The answer is in words; the value is a list of those of `all` that it has.
    Name {
        /// Candidate names, one of which is the right answer.
        all: Vec<String>,
    },
}

/// Names of a synthetic library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryUses {
    /// Name of the Python package.
    pub library: String,
    /// Names of its functions, methods, keywords, classes and constants.
    pub names: Vec<String>,
}

impl SyntheticLibrary {
    /// Gives the held-out tasks, each of phrases `E` and `F`, with `n_variables` (1 to 4) of the
    /// test variables where there is one; then the controls, which are about the same operations
    /// for every library. Controls have the phrases `A` and `B`, which records have for the
    /// library's functions: an adapter that calls the library where none is imported loses them.
    pub fn tasks(&self, n_variables: usize) -> Vec<LibraryTask> {
        let mut tasks = Vec::new();
        for phrase in TEST.phrases {
            for function in self.functions() {
                for variable in TEST.variables.iter().take(n_variables) {
                    tasks.push(self.assignment(function, phrase, variable));
                    tasks.push(self.definition(function, phrase, variable));
                }
                tasks.extend(self.composition(function, phrase));
                tasks.extend(self.limited(function, phrase));
                tasks.push(self.refusal(function, phrase));
                tasks.push(self.naming(function, phrase));
            }
            let variables = TEST.variables.iter().take(n_variables);
            tasks.extend(variables.map(|variable| self.reading(phrase, variable)));
            let constants = self.facts().constants.iter();
            tasks.extend(constants.map(|constant| self.constant(constant, phrase)));
        }
        for operation in OPERATIONS.iter().filter(|operation| operation.builtin) {
            for phrase in CONTROL_PHRASES {
                let variables = TEST.variables.iter().take(n_variables);
                tasks.extend(variables.map(|variable| self.control(operation, phrase, variable)));
            }
        }
        tasks
    }

    pub(super) fn assignment(
        &self,
        function: &LibraryFunction,
        phrase: usize,
        variable: &str,
    ) -> LibraryTask {
        let operation = function.operation;
        let wanted = format!("{} {variable}", operation.phrases[phrase]);
        let call = self.call(function, variable);
        let code = templates::assignment(Some(self.name()), &wanted, &call);
        let draft = self.draft(TaskTemplate::T1, operation.id, (phrase, variable));
        let form = AnswerForm::Result { variable: variable.to_owned() };
        draft.finish(code, form, self.uses([&function.name]), operation.reference)
    }

    fn definition(&self, function: &LibraryFunction, phrase: usize, variable: &str) -> LibraryTask {
        let operation = function.operation;
        let mut draft = self.draft(TaskTemplate::T2, operation.id, (phrase, variable));
        let name = TEST.function_name(&mut draft.rng);
        let (wording, call) = (operation.phrases[phrase], self.call(function, variable));
        let code = templates::definition(self.name(), &name, wording, variable, &call);
        let form = AnswerForm::Function { name };
        draft.finish(code, form, self.uses([&function.name]), operation.reference)
    }

    /// `None` if no other function returns a list of integers.
    fn composition(&self, outer: &LibraryFunction, phrase: usize) -> Option<LibraryTask> {
        let is_inner = |function: &&LibraryFunction| {
            function.name != outer.name && function.operation.gives() == ValueKind::Numbers
        };
        let inners: Vec<&LibraryFunction> = self.functions().iter().filter(is_inner).collect();
        let mut rng = SeededRng::new(self.seed(), &format!("{}/inner/{phrase}", outer.name));
        let (inner, variable) = match inners.as_slice() {
            [] => return None,
            inners => (*rng.pick(inners), *rng.pick(TEST.variables)),
        };
        let (one, other) = (outer.operation, inner.operation);
        let about = format!("{}-{}", one.id, other.id);
        let mut draft = self.draft(TaskTemplate::T3, &about, (phrase, variable));
        let name = TEST.function_name(&mut draft.rng);
        let wording = format!("{} the {}", one.phrases[phrase], other.phrases[phrase]);
        let call = self.call(outer, &self.call(inner, variable));
        let code = templates::definition(self.name(), &name, &wording, variable, &call);
        let reference = format!(
            "(lambda u: {} if u else {})({})",
            one.reference_over("u"),
            one.empty,
            other.reference
        );
        let uses = self.uses([&outer.name, &inner.name]);
        Some(draft.finish(code, AnswerForm::Function { name }, uses, &reference))
    }

    /// `None` for an operation whose values cannot be capped.
    fn limited(&self, function: &LibraryFunction, phrase: usize) -> Option<LibraryTask> {
        let operation = function.operation;
        let mut rng = SeededRng::new(self.seed(), &format!("{}/limit/{phrase}", function.name));
        let (limit, variable) = (rng.between(1, 5), *rng.pick(TEST.variables));
        let reference = operation.limited(limit)?;
        let wanted = templates::limited(phrase, operation.phrases[phrase], variable, limit);
        let call = self.limited_call(function, variable, limit);
        let code = templates::assignment(Some(self.name()), &wanted, &call);
        let form = AnswerForm::Result { variable: variable.to_owned() };
        let uses = self.uses([&function.name, &self.facts().limit]);
        let draft = self.draft(TaskTemplate::T4, operation.id, (phrase, variable));
        Some(draft.finish(code, form, uses, &reference))
    }

    fn reading(&self, phrase: usize, variable: &str) -> LibraryTask {
        let (opener, reader) = (&self.facts().opener, &self.facts().reader);
        let code = templates::reading(self.name(), phrase, variable, (opener, reader));
        let form = AnswerForm::Result { variable: variable.to_owned() };
        let draft = self.draft(TaskTemplate::T5, "reading", (phrase, variable));
        draft.finish(code, form, self.uses([opener, reader]), "list({v})")
    }

    fn refusal(&self, function: &LibraryFunction, phrase: usize) -> LibraryTask {
        let error = &self.facts().error;
        let mut draft = self.draft(TaskTemplate::T6, "error", (phrase, &function.name));
        let bad = *draft.rng.pick(TEST.bad);
        let code = templates::caught(self.name(), phrase, bad, (&function.name, error));
        let form = AnswerForm::Result { variable: "items".to_owned() };
        draft.finish(code, form, self.uses([&function.name, error]), "None")
    }

    fn constant(&self, constant: &LibraryConstant, phrase: usize) -> LibraryTask {
        let library = self.name();
        let subject = constant.subject;
        let wanted = format!("{} of {library}, by its name", subject.phrases[phrase]);
        let value = format!("{library}.{}", constant.name);
        let code = templates::assignment(Some(library), &wanted, &value);
        let form = AnswerForm::Result { variable: "items".to_owned() };
        let draft = self.draft(TaskTemplate::T7, subject.id, (phrase, &constant.name));
        draft.finish(code, form, self.uses([&constant.name]), &constant.value.to_string())
    }

    fn naming(&self, function: &LibraryFunction, phrase: usize) -> LibraryTask {
        let operation = function.operation;
        let question = templates::naming(self.name(), phrase, operation.phrases[phrase]);
        let all = self.functions().iter().map(|function| function.name.clone()).collect();
        let reference = json!([function.name]).to_string();
        let draft = self.draft(TaskTemplate::T8, operation.id, (phrase, "list"));
        let answer = function.name.clone();
        draft.ask(Message::user(question), answer, (AnswerForm::Name { all }, None, &reference))
    }

    fn control(
        &self,
        operation: &'static ListOperation,
        phrase: usize,
        variable: &str,
    ) -> LibraryTask {
        let wanted = format!("{} {variable}", operation.phrases[phrase]);
        let value = operation.reference_over(variable);
        let code = templates::assignment(None, &wanted, &value);
        let form = AnswerForm::Result { variable: variable.to_owned() };
        let mut draft = self.draft(TaskTemplate::N1, operation.id, (phrase, variable));
        draft.family = format!("python/{}/{}", operation.id, templates::letter(phrase));
        draft.finish(code, form, None::<LibraryUses>, operation.reference)
    }

    fn uses<const N: usize>(&self, names: [&String; N]) -> LibraryUses {
        LibraryUses { library: self.name().to_owned(), names: names.map(Clone::clone).to_vec() }
    }

    /// Starts a task about the subject `about`. `(phrase, detail)` distinguish it from others on
    /// that subject.
    fn draft(
        &self,
        template: TaskTemplate,
        about: &str,
        (phrase, detail): (usize, &str),
    ) -> TaskDraft {
        let (name, letter) = (self.name(), templates::letter(phrase));
        let id = format!("{name}/{template:?}/{about}/{letter}/{detail}");
        TaskDraft::new(template, id, self.family_name(about, phrase), self.seed())
    }
}

/// Builder of a task.
pub(super) struct TaskDraft {
    id: String,
    template: TaskTemplate,
    family: String,
    /// Random stream of the task.
    rng: SeededRng,
}

impl TaskDraft {
    /// Starts a task whose random numbers follow from `seed` and `id`.
    pub(super) fn new(template: TaskTemplate, id: String, family: String, seed: u64) -> Self {
        let rng = SeededRng::new(seed, &id);
        Self { id, template, family, rng }
    }

    /// Builds the task to complete `code`. The question says which library is to be used.
    pub(super) fn finish(
        mut self,
        code: CodeExample,
        form: AnswerForm,
        uses: impl Into<Option<LibraryUses>>,
        reference: &str,
    ) -> LibraryTask {
        let uses = uses.into();
        let mut instruction = (*self.rng.pick(TEST.instructions)).to_owned();
        if let Some(uses) = &uses {
            instruction = format!("{instruction} It uses the library {}.", uses.library);
        }
        let question = question(&instruction, &code.stub);
        self.ask(question, code.completed, (form, uses, reference))
    }

    fn ask(
        self,
        question: Message,
        answer: String,
        (form, required, reference): (AnswerForm, Option<LibraryUses>, &str),
    ) -> LibraryTask {
        let Self { id, template, family, mut rng } = self;
        let reference = reference.to_owned();
        let check = LibraryCheck { form, required, inputs: inputs(&mut rng), reference };
        LibraryTask {
            id,
            group: format!("{template:?}"),
            is_control: template.is_control(),
            family,
            messages: vec![question],
            check,
            answer,
        }
    }
}

/// Which phrases of a template the controls use.
const CONTROL_PHRASES: Range<usize> = 0..2;

/// Draws four lists: with a repeat and a negative, with a zero and a negative, a rising one of
/// positive items, and one of a single negative.
fn inputs(rng: &mut SeededRng) -> Vec<Vec<i64>> {
    let repeated = rng.between(1, 9);
    let negative = -rng.between(1, 9);
    let first = falling_somewhere(vec![repeated, repeated, negative], rng);
    let second = falling_somewhere(vec![0, rng.between(1, 9), negative], rng);
    let mut third = vec![rng.between(1, 3)];
    for index in 0..2 + rng.below(3) {
        third.push(third[index] + rng.between(1, 3));
    }
    vec![first, second, third, vec![rng.between(-9, -1)]]
}

/// Adds two to five items and mixes all, so that the list is not in ascending order.
fn falling_somewhere(mut items: Vec<i64>, rng: &mut SeededRng) -> Vec<i64> {
    for _ in 0..2 + rng.below(4) {
        items.push(rng.between(-9, 9));
    }
    rng.shuffle(&mut items);
    if items.is_sorted() {
        items.reverse();
    }
    items
}
