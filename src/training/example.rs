//! What a worker learns from.

use serde::Deserialize;
use serde::Serialize;

/// A sequence of tokens and what each counts as something to be foretold; 0 outside answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The tokens.
    pub input_ids: Vec<u32>,
    /// A weight for each.
    pub weights: Vec<f32>,
}

/// The examples of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleSets {
    /// What is trained on.
    pub train: Vec<Example>,
    /// Families that are not trained on: what a validation measures.
    pub validation: Vec<Example>,
}
