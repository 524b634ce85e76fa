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

/// The examples of a run. Records and rehearsal are kept apart, and each is split by family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleSets {
    /// Records to train on.
    pub train: Vec<Example>,
    /// Records of held-out families, for validation.
    pub validation: Vec<Example>,
    /// Rehearsal to train on. Empty in runs of earlier versions, which mixed it into `train`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rehearsal: Vec<Example>,
    /// Rehearsal of held-out families, for validation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rehearsal_validation: Vec<Example>,
}

impl ExampleSets {
    /// Returns an example to train on. Indices count the records first, then rehearsal.
    ///
    /// # Panics
    /// When `index` is not less than the number of both.
    pub fn trained(&self, index: usize) -> &Example {
        self.train.get(index).unwrap_or_else(|| &self.rehearsal[index - self.train.len()])
    }

    /// Returns all examples of the four sets.
    pub fn all(&self) -> impl Iterator<Item = &Example> + Clone {
        let sets = [&self.train, &self.validation, &self.rehearsal, &self.rehearsal_validation];
        sets.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::ExampleSets;

    #[test]
    fn examples_of_an_earlier_version_stay_as_they_were_stored() {
        let stored = r#"{"train":[{"input_ids":[1,2],"weights":[0.0,1.0]}],"validation":[]}"#;
        let read: ExampleSets = serde_json::from_str(stored).unwrap();
        assert!(read.rehearsal.is_empty());
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
    }
}
