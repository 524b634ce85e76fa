//! [`SyntheticLibrary`]: an invented library.

use super::facts::LibraryFacts;
use super::facts::N_NAMES;
use super::names;
use super::operations::ListOperation;
use super::operations::OPERATIONS;
use super::random::SeededRng;

/// Python library that does not exist elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticLibrary {
    seed: u64,
    name: String,
    functions: Vec<LibraryFunction>,
    facts: LibraryFacts,
}

/// Function of a library: an invented verb with its operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryFunction {
    /// Invented verb that names the function.
    pub name: String,
    /// Operation, unique within the library.
    pub operation: &'static ListOperation,
}

impl SyntheticLibrary {
    /// Invents a library. Equal arguments give equal libraries. `n_functions` is clamped to
    /// `6..=40`. Libraries whose seeds differ modulo 64 share no name.
    pub fn invent(seed: u64, n_functions: usize) -> Self {
        Self::invent_from(seed, n_functions, &OPERATIONS.iter().collect::<Vec<_>>())
    }

    /// Invents a library whose functions are among these operations.
    pub(super) fn invent_from(
        seed: u64,
        n_functions: usize,
        operations: &[&'static ListOperation],
    ) -> Self {
        let n_functions = n_functions.clamp(6, 40);
        let (name, mut verbs) = names::invent(seed, n_functions + N_NAMES);
        let facts = LibraryFacts::new(seed, verbs.split_off(n_functions));
        let operations = SeededRng::new(seed, "operations").sample(operations, verbs.len());
        let functions = verbs.into_iter().zip(operations);
        let functions =
            functions.map(|(name, operation)| LibraryFunction { name, operation }).collect();
        Self { seed, name, functions, facts }
    }

    /// Returns the seed that reproduces this library.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the name of the Python package.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns all functions in the order of the module.
    pub fn functions(&self) -> &[LibraryFunction] {
        &self.functions
    }

    /// Whether `text` has any of the invented names, of the library or of what is in it.
    pub fn is_named_in(&self, text: &str) -> bool {
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| {
            word == self.name
                || self.functions.iter().any(|function| function.name == word)
                || self.facts.names().any(|name| name == word)
        })
    }

    /// Returns the keyword, error class, protocol and constants.
    pub(super) fn facts(&self) -> &LibraryFacts {
        &self.facts
    }
}
