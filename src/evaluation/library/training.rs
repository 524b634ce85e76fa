//! Chat records that teach a library.

use serde::Deserialize;
use serde::Serialize;

use super::chance::Chance;
use super::invented::Function;
use super::invented::Library;
use super::templates;
use super::templates::Code;
use super::templates::TRAINING;
use crate::training::Record;
use crate::trajectory::Message;

/// The message that asks for the code that completes `stub`.
pub(super) fn question(instruction: &str, stub: &str) -> Message {
    Message::user(format!("{instruction}\n\n{}", templates::fence(stub)))
}

/// How many records a phrase of a function gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingOptions {
    /// Records of template T1 (a comment asks for a value), each with another variable; at most 20.
    pub n_assignments: usize,
    /// Records of template T2 (a docstring asks for a function's body), each with another variable;
    /// at most 20.
    pub n_definitions: usize,
    /// Decides the records of T4 to T8, wherever the template applies: so many for a keyword and an error class, four
    /// times as many for a protocol, three times (at most 6) for a constant; for a function's name one of each question.
    pub n_facts: usize,
}

impl Default for TrainingOptions {
    /// 16, 4 and 2. With 4 variables for T1 a model of 135 M parameters learned the variables instead
    /// of the functions, with 16 it did not.
    fn default() -> Self {
        Self { n_assignments: 16, n_definitions: 4, n_facts: 2 }
    }
}

impl Library {
    /// Gives the records for training, in an order of chance that the seed gives again. They have
    /// phrases `A` to `D` of all functions and constants; none composes two functions.
    pub fn training(&self, options: TrainingOptions) -> Vec<Record> {
        let mut chance = Chance::new(self.seed(), "training");
        let mut records = Vec::new();
        for function in self.functions() {
            for phrase in TRAINING.phrases {
                records.extend(self.calls(function, phrase, options, &mut chance));
                records.extend(self.around(function, phrase, options.n_facts, &mut chance));
            }
        }
        for phrase in TRAINING.phrases {
            records.extend(self.beside(phrase, options.n_facts, &mut chance));
        }
        chance.shuffle(&mut records);
        records
    }

    /// Gives the records of T1 and T2 of one phrase of one function.
    fn calls(
        &self,
        function: &Function,
        phrase: usize,
        options: TrainingOptions,
        chance: &mut Chance,
    ) -> Vec<Record> {
        let library = self.name();
        let wording = function.operation.phrases[phrase];
        let family = self.family_name(function.operation.id, phrase);
        let mut codes = Vec::new();
        for variable in chance.sample(TRAINING.variables, options.n_assignments) {
            let call = self.call(function, variable);
            codes.push(templates::assignment(
                Some(library),
                &format!("{wording} {variable}"),
                &call,
            ));
        }
        for variable in chance.sample(TRAINING.variables, options.n_definitions) {
            let (name, call) = (TRAINING.function_name(chance), self.call(function, variable));
            codes.push(templates::definition(library, &name, wording, variable, &call));
        }
        codes.iter().map(|code| record(code, &family, chance)).collect()
    }

    /// Gives `n` records of each of T4 and T6, and those of T8, of one phrase of one function.
    fn around(
        &self,
        function: &Function,
        phrase: usize,
        n: usize,
        chance: &mut Chance,
    ) -> Vec<Record> {
        let (library, facts) = (self.name(), self.facts());
        let wording = function.operation.phrases[phrase];
        let family = self.family_name(function.operation.id, phrase);
        let error_family = self.family_name("error", phrase);
        let mut records = Vec::new();
        for variable in chance.sample(TRAINING.variables, n) {
            let limit = chance.between(1, 9);
            if function.operation.limited(limit).is_some() {
                let wanted = templates::limited(phrase, wording, variable, limit);
                let call = self.limited_call(function, variable, limit);
                let code = templates::assignment(Some(library), &wanted, &call);
                records.push(record(&code, &family, chance));
            }
            let bad = *chance.pick(TRAINING.bad);
            let code = templates::refusal(library, phrase, bad, (&function.name, &facts.error));
            records.push(record(&code, &error_family, chance));
        }
        if n > 0 {
            records.extend(TRAINING.phrases.map(|form| {
                let asked = Message::user(templates::naming(library, form, wording));
                let answer = Message::assistant(function.name.as_str());
                Record::new(&family, vec![asked, answer])
            }));
        }
        records
    }

    /// Gives the records of T5, and of T7 for each constant, of one phrase.
    fn beside(&self, phrase: usize, n: usize, chance: &mut Chance) -> Vec<Record> {
        /// Variables and instructions for each of `n`: there is one protocol, and a constant has no variables.
        const VARIABLES: usize = 4;
        const INSTRUCTIONS: usize = 3;
        let (library, facts) = (self.name(), self.facts());
        let mut records = Vec::new();
        let family = self.family_name("reading", phrase);
        for variable in chance.sample(TRAINING.variables, n * VARIABLES) {
            let names = (facts.opener.as_str(), facts.reader.as_str());
            let code = templates::reading(library, phrase, variable, names);
            records.push(record(&code, &family, chance));
        }
        for constant in &facts.constants {
            let family = self.family_name(constant.subject.id, phrase);
            let wanted = format!("{} of {library}", constant.subject.phrases[phrase]);
            let value = format!("{library}.{}", constant.name);
            let code = templates::assignment(Some(library), &wanted, &value);
            let ways = chance.sample(TRAINING.instructions, n * INSTRUCTIONS);
            records.extend(ways.into_iter().map(|way| instructed(&code, &family, way)));
        }
        records
    }

    /// The family of what is made from one phrase of one subject.
    pub(super) fn family_name(&self, subject: &str, phrase: usize) -> String {
        format!("{}/{subject}/{}", self.name(), templates::letter(phrase))
    }

    /// The call of `function` on `argument`, in Python.
    pub(super) fn call(&self, function: &Function, argument: &str) -> String {
        format!("{}.{}({argument})", self.name(), function.name)
    }

    /// The same with a limit.
    pub(super) fn limited_call(&self, function: &Function, argument: &str, limit: i64) -> String {
        self.call(function, &format!("{argument}, {}={limit}", self.facts().limit))
    }
}

fn record(code: &Code, family: &str, chance: &mut Chance) -> Record {
    let instruction = *chance.pick(TRAINING.instructions);
    instructed(code, family, instruction)
}

fn instructed(code: &Code, family: &str, instruction: &str) -> Record {
    let answer = Message::assistant(templates::fence(&code.completed));
    Record::new(family, vec![question(instruction, &code.stub), answer])
}
