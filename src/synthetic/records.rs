//! Training records that teach a library.

use serde::Deserialize;
use serde::Serialize;

use super::library::LibraryFunction;
use super::library::SyntheticLibrary;
use super::random::SeededRng;
use super::templates;
use super::templates::CodeExample;
use super::templates::TRAINING;
use crate::trajectory::Message;

/// Creates the message that asks to complete `stub`.
pub(super) fn question(instruction: &str, stub: &str) -> Message {
    Message::user(format!("{instruction}\n\n{}", templates::fence(stub)))
}

/// Chat that teaches a fact about a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryRecord {
    /// Family, shared by records about the same fact.
    pub family: String,
    /// The question, and the answer to be learned.
    pub messages: Vec<Message>,
}

/// Numbers of records per phrase of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordOptions {
    /// Records of template T1 (a comment asks for a value), each with another variable; at most 20.
    pub n_assignments: usize,
    /// Records of template T2 (a docstring asks for a function's body), each with another variable;
    /// at most 20.
    pub n_definitions: usize,
    /// Decides the records of T4 to T8, wherever the template applies: so many for a keyword and an
    /// error class, four times as many for a protocol, three times (at most 6) for a constant; for
    /// a function's name one of each question.
    pub n_facts: usize,
}

impl Default for RecordOptions {
    /// 16, 4 and 2. With 4 variables for T1 a model of 135 M parameters learned the variables
    /// instead of the functions, with 16 it did not.
    fn default() -> Self {
        Self { n_assignments: 16, n_definitions: 4, n_facts: 2 }
    }
}

impl SyntheticLibrary {
    /// Generates the training records, in a random order that the seed reproduces. They use phrases
    /// `A` to `D` of all functions and constants; none composes two functions.
    pub fn training(&self, options: RecordOptions) -> Vec<LibraryRecord> {
        let mut rng = SeededRng::new(self.seed(), "training");
        let mut records = Vec::new();
        for function in self.functions() {
            for phrase in TRAINING.phrases {
                records.extend(self.calls(function, phrase, options, &mut rng));
                records.extend(self.around(function, phrase, options.n_facts, &mut rng));
            }
        }
        for phrase in TRAINING.phrases {
            records.extend(self.beside(phrase, options.n_facts, &mut rng));
        }
        rng.shuffle(&mut records);
        records
    }

    /// Generates the records of T1 and T2 for one phrase of one function.
    fn calls(
        &self,
        function: &LibraryFunction,
        phrase: usize,
        options: RecordOptions,
        rng: &mut SeededRng,
    ) -> Vec<LibraryRecord> {
        let library = self.name();
        let wording = function.operation.phrases[phrase];
        let family = self.family_name(function.operation.id, phrase);
        let mut codes = Vec::new();
        for variable in rng.sample(TRAINING.variables, options.n_assignments) {
            let call = self.call(function, variable);
            codes.push(templates::assignment(
                Some(library),
                &format!("{wording} {variable}"),
                &call,
            ));
        }
        for variable in rng.sample(TRAINING.variables, options.n_definitions) {
            let (name, call) = (TRAINING.function_name(rng), self.call(function, variable));
            codes.push(templates::definition(library, &name, wording, variable, &call));
        }
        codes.iter().map(|code| record(code, &family, rng)).collect()
    }

    /// Generates `n` records each of T4 and T6, and those of T8, for one phrase of one function.
    fn around(
        &self,
        function: &LibraryFunction,
        phrase: usize,
        n: usize,
        rng: &mut SeededRng,
    ) -> Vec<LibraryRecord> {
        let (library, facts) = (self.name(), self.facts());
        let wording = function.operation.phrases[phrase];
        let family = self.family_name(function.operation.id, phrase);
        let error_family = self.family_name("error", phrase);
        let mut records = Vec::new();
        for variable in rng.sample(TRAINING.variables, n) {
            let limit = rng.between(1, 9);
            if function.operation.limited(limit).is_some() {
                let wanted = templates::limited(phrase, wording, variable, limit);
                let call = self.limited_call(function, variable, limit);
                let code = templates::assignment(Some(library), &wanted, &call);
                records.push(record(&code, &family, rng));
            }
            let bad = *rng.pick(TRAINING.bad);
            let code = templates::refusal(library, phrase, bad, (&function.name, &facts.error));
            records.push(record(&code, &error_family, rng));
        }
        if n > 0 {
            records.extend(TRAINING.phrases.map(|form| {
                let asked = Message::user(templates::naming(library, form, wording));
                let answer = Message::assistant(function.name.as_str());
                LibraryRecord { family: family.clone(), messages: vec![asked, answer] }
            }));
        }
        records
    }

    /// Generates the records of T5, and of T7 for each constant, for one phrase.
    fn beside(&self, phrase: usize, n: usize, rng: &mut SeededRng) -> Vec<LibraryRecord> {
        /// Variables and instructions for each of `n`: there is one protocol, and a constant has no
        /// variables.
        const VARIABLES: usize = 4;
        const INSTRUCTIONS: usize = 3;
        let (library, facts) = (self.name(), self.facts());
        let mut records = Vec::new();
        let family = self.family_name("reading", phrase);
        for variable in rng.sample(TRAINING.variables, n * VARIABLES) {
            let names = (facts.opener.as_str(), facts.reader.as_str());
            let code = templates::reading(library, phrase, variable, names);
            records.push(record(&code, &family, rng));
        }
        for constant in &facts.constants {
            let family = self.family_name(constant.subject.id, phrase);
            let wanted = format!("{} of {library}", constant.subject.phrases[phrase]);
            let value = format!("{library}.{}", constant.name);
            let code = templates::assignment(Some(library), &wanted, &value);
            let ways = rng.sample(TRAINING.instructions, n * INSTRUCTIONS);
            records.extend(ways.into_iter().map(|way| instructed(&code, &family, way)));
        }
        records
    }

    /// Returns the family of records of one phrase of one subject.
    pub(super) fn family_name(&self, subject: &str, phrase: usize) -> String {
        format!("{}/{subject}/{}", self.name(), templates::letter(phrase))
    }

    /// Renders a Python call of `function` on `argument`.
    pub(super) fn call(&self, function: &LibraryFunction, argument: &str) -> String {
        format!("{}.{}({argument})", self.name(), function.name)
    }

    /// Renders a Python call with a limit.
    pub(super) fn limited_call(
        &self,
        function: &LibraryFunction,
        argument: &str,
        limit: i64,
    ) -> String {
        self.call(function, &format!("{argument}, {}={limit}", self.facts().limit))
    }
}

/// Asks to complete `code`, in a random instruction.
pub(super) fn record(code: &CodeExample, family: &str, rng: &mut SeededRng) -> LibraryRecord {
    let instruction = *rng.pick(TRAINING.instructions);
    instructed(code, family, instruction)
}

fn instructed(code: &CodeExample, family: &str, instruction: &str) -> LibraryRecord {
    let answer = Message::assistant(templates::fence(&code.completed));
    LibraryRecord {
        family: family.to_owned(),
        messages: vec![question(instruction, &code.stub), answer],
    }
}
