//! The invented library itself.

use super::facts::LibraryFacts;
use super::facts::N_NAMES;
use super::names;
use super::operations::ListOperation;
use super::operations::OPERATIONS;
use super::random::SeededRng;

/// A Python library that exists nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticLibrary {
    seed: u64,
    name: String,
    functions: Vec<LibraryFunction>,
    facts: LibraryFacts,
}

/// An invented verb and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryFunction {
    /// The invented verb.
    pub name: String,
    /// What it does; no other function of its library does the same.
    pub operation: &'static ListOperation,
}

impl SyntheticLibrary {
    /// Invents a library; equal arguments give equal libraries. `n_functions` is brought into
    /// `6..=40`. Libraries whose seeds differ modulo 64 share no name.
    pub fn invent(seed: u64, n_functions: usize) -> Self {
        let n_functions = n_functions.clamp(6, 40);
        let (name, mut verbs) = names::invent(seed, n_functions + N_NAMES);
        let facts = LibraryFacts::new(seed, verbs.split_off(n_functions));
        let operations = SeededRng::new(seed, "operations").sample(OPERATIONS, verbs.len());
        let functions = verbs.into_iter().zip(operations);
        let functions =
            functions.map(|(name, operation)| LibraryFunction { name, operation }).collect();
        Self { seed, name, functions, facts }
    }

    /// The seed that gives this library again.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The name that Python imports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All functions, in the order of the module.
    pub fn functions(&self) -> &[LibraryFunction] {
        &self.functions
    }

    /// What it has beside them.
    pub(super) fn facts(&self) -> &LibraryFacts {
        &self.facts
    }
}
