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

/// What a task is like. T1 to T5 are the track of skill, T6 to T8 that of recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum TaskTemplate {
    /// A comment asks for a value that the library gives.
    T1,
    /// A docstring asks for a function's body that calls the library.
    T2,
    /// The same of two functions of the library, one on what the other gives; no record has that.
    T3,
    /// A comment asks for a value that is at most so large, which is a keyword of the library.
    T4,
    /// A comment asks for what is read by a protocol of the library.
    T5,
    /// What the library raises is to be caught.
    T6,
    /// A comment asks for a constant of the library.
    T7,
    /// A function's name is asked for.
    T8,
    /// A control: a comment asks for a value that Python's builtins give.
    N1,
}

impl TaskTemplate {
    /// Whether it needs no library: a good adapter leaves it as it is.
    fn is_control(self) -> bool {
        self == Self::N1
    }
}

/// A task about a library, with an answer that passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibraryTask {
    /// Names it among the library's tasks.
    pub id: String,
    /// Its template, such as `T1`.
    pub group: String,
    /// Whether it is a control, which needs no library.
    pub is_control: bool,
    /// Tasks of one family are about the same.
    pub family: String,
    /// The conversation that asks.
    pub messages: Vec<Message>,
    /// How an answer is judged.
    pub check: LibraryCheck,
    /// An answer that passes.
    pub answer: String,
}

/// What a judge that runs Python needs to judge an answer. For each input it evaluates the
/// reference and the answer, each on a copy of its own; the answer is right when all values are
/// equal and have the same type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryCheck {
    /// Where the answer's value is found.
    pub form: AnswerForm,
    /// What the answer must have used, by the module's list `_calls`; `None` where no code is asked
    /// for, or no library.
    pub required: Option<LibraryUses>,
    /// Lists to try; none is empty, one has a single item, one rises throughout.
    pub inputs: Vec<Vec<i64>>,
    /// The right value, as a Python expression of `{v}`; see [`ListOperation::reference`].
    pub reference: String,
}

/// Where the value of an answer is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AnswerForm {
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
    /// The answer is in words; the value is a list of those of `all` that it has.
    Name {
        /// Names of which one is asked for.
        all: Vec<String>,
    },
}

/// Names of an invented library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryUses {
    /// The library's name.
    pub library: String,
    /// Functions, methods, keywords, classes and constants of it.
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

    fn assignment(&self, function: &LibraryFunction, phrase: usize, variable: &str) -> LibraryTask {
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

    /// `None` when no other function gives a list of numbers.
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

    /// `None` for an operation whose values have no size.
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
        let code = templates::refusal(self.name(), phrase, bad, (&function.name, error));
        let form = AnswerForm::Result { variable: "items".to_owned() };
        draft.finish(code, form, self.uses([&function.name, error]), "None")
    }

    fn constant(&self, constant: &LibraryConstant, phrase: usize) -> LibraryTask {
        let library = self.name();
        let subject = constant.subject;
        let wanted = format!("{} of {library}", subject.phrases[phrase]);
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

    /// Begins a task about the subject `about`, which `(phrase, detail)` tell from the others about
    /// it.
    fn draft(
        &self,
        template: TaskTemplate,
        about: &str,
        (phrase, detail): (usize, &str),
    ) -> TaskDraft {
        let (name, letter) = (self.name(), templates::letter(phrase));
        let id = format!("{name}/{template:?}/{about}/{letter}/{detail}");
        let rng = SeededRng::new(self.seed(), &id);
        TaskDraft { id, template, family: self.family_name(about, phrase), rng }
    }
}

/// The beginning of a task.
struct TaskDraft {
    id: String,
    template: TaskTemplate,
    family: String,
    /// The task's own stream.
    rng: SeededRng,
}

impl TaskDraft {
    /// The task to complete `code`.
    fn finish(
        mut self,
        code: CodeExample,
        form: AnswerForm,
        uses: impl Into<Option<LibraryUses>>,
        reference: &str,
    ) -> LibraryTask {
        let instruction = *self.rng.pick(TEST.instructions);
        let question = question(instruction, &code.stub);
        self.ask(question, code.completed, (form, uses.into(), reference))
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

/// The phrases of controls.
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
