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
}

impl Default for TrainingOptions {
    /// 16 and 4. With 4 variables for T1 a model of 135 M parameters learned the variables instead
    /// of the functions, with 16 it did not.
    fn default() -> Self {
        Self { n_assignments: 16, n_definitions: 4 }
    }
}

impl Library {
    /// Gives the records for training, in an order of chance that the seed gives again. They have
    /// phrases `A` to `D` of all functions.
    pub fn training(&self, options: TrainingOptions) -> Vec<Record> {
        let mut chance = Chance::new(self.seed(), "training");
        let mut records = Vec::new();
        for function in self.functions() {
            for phrase in TRAINING.phrases {
                records.extend(self.family(function, phrase, options, &mut chance));
            }
        }
        chance.shuffle(&mut records);
        records
    }

    /// Gives the records of one phrase of one function.
    fn family(
        &self,
        function: &Function,
        phrase: usize,
        options: TrainingOptions,
        chance: &mut Chance,
    ) -> Vec<Record> {
        let library = self.name();
        let wording = function.operation.phrases[phrase];
        let family = self.family_name(function, phrase);
        let mut codes = Vec::new();
        for variable in chance.sample(TRAINING.variables, options.n_assignments) {
            let call = self.call(function, variable);
            codes.push(templates::assignment(Some(library), wording, variable, &call));
        }
        for variable in chance.sample(TRAINING.variables, options.n_definitions) {
            let (name, call) = (TRAINING.function_name(chance), self.call(function, variable));
            codes.push(templates::definition(library, &name, wording, variable, &call));
        }
        codes.iter().map(|code| record(code, &family, chance)).collect()
    }

    /// The family of what is made from one phrase of one function.
    pub(super) fn family_name(&self, function: &Function, phrase: usize) -> String {
        let letter = templates::letter(phrase);
        format!("{}/{}/{letter}", self.name(), function.operation.id)
    }

    /// The call of `function` on `variable`, in Python.
    pub(super) fn call(&self, function: &Function, variable: &str) -> String {
        format!("{}.{}({variable})", self.name(), function.name)
    }
}

fn record(code: &Code, family: &str, chance: &mut Chance) -> Record {
    let instruction = *chance.pick(TRAINING.instructions);
    let answer = Message::assistant(templates::fence(&code.completed));
    Record::new(family, vec![question(instruction, &code.stub), answer])
}
