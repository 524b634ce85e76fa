//! [`Example`]: the tokenized form of a record, which the worker trains on.

use serde::Deserialize;
use serde::Serialize;

/// A token sequence with a loss weight per token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Token ids of the whole chat.
    pub input_ids: Vec<u32>,
    /// Weight of each token as a prediction target, `0.0..=1.0`; 0 outside answers.
    pub weights: Vec<f32>,
}

/// The examples of a run, split by family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleSets {
    /// Examples to train on.
    pub train: Vec<Example>,
    /// Examples of held-out families, for validation.
    pub validation: Vec<Example>,
}
