//! Checkpoints: parameters, optimizer state and progress of a run in one safetensors file.

use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde::Serialize;

use crate::peft::NamedTensor;
use crate::peft::to_f32;
use crate::peft::write_tensors;

use super::TrainingError;

/// The losses of a validation, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValidationLosses {
    /// Loss on held-out records: what is learned.
    pub loss: f64,
    /// Loss on held-out rehearsal: what is lost. `None` if there is none.
    pub rehearsal: Option<f64>,
}

/// Metadata key under which [`CheckpointPosition`] is stored as JSON.
const POSITION: &str = "position";

/// The progress of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CheckpointPosition {
    /// Number of steps done.
    pub(super) step: u32,
    /// Validation loss of the best step so far, and that step.
    pub(super) best: Option<(f64, u32)>,
    /// Rehearsal loss of the best step so far; `None` without held-out rehearsal.
    #[serde(default)]
    pub(super) best_rehearsal: Option<f64>,
    /// Losses before the first step; `None` until they are measured.
    #[serde(default)]
    pub(super) untrained: Option<ValidationLosses>,
    /// Number of validations since the best one.
    pub(super) n_worse: u32,
    /// Step after which the last validation ran.
    #[serde(default)]
    pub(super) evaluated_at: Option<u32>,
    /// Digest of options and data. A run can only be resumed from a checkpoint with the same one.
    pub(super) fingerprint: String,
}

/// A checkpoint read from disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) position: CheckpointPosition,
    pub(super) values: Vec<f32>,
    /// First and second moments of the optimizer.
    pub(super) means: [Vec<f32>; 2],
    /// Parameters after the best step so far.
    pub(super) best: Option<Vec<f32>>,
}

/// Borrowed tensors of a running training, to be written as a [`Checkpoint`].
pub(super) struct CheckpointNumbers<'a> {
    pub(super) values: &'a [f32],
    pub(super) means: [&'a [f32]; 2],
    pub(super) best: Option<&'a [f32]>,
}

/// Writes a checkpoint, replacing the previous one atomically.
pub(super) fn save(
    path: &Path,
    position: &CheckpointPosition,
    numbers: &CheckpointNumbers<'_>,
) -> Result<(), TrainingError> {
    let [mean, square] = numbers.means;
    let mut tensors = vec![row("values", numbers.values), row("mean", mean), row("square", square)];
    tensors.extend(numbers.best.map(|best| row("best", best)));
    let position = serde_json::to_string(position).expect("plain words and numbers");
    // One file, so that tensors and progress can never be of different steps.
    write_tensors(path, &tensors, &[(POSITION, &position)]).map_err(TrainingError::files(path))
}

fn row<'a>(name: &'a str, values: &'a [f32]) -> NamedTensor<'a> {
    NamedTensor { name, shape: vec![values.len()], values: values.into() }
}

impl Checkpoint {
    /// Reads the checkpoint at `path`; `None` if there is none. It must have this `fingerprint` and
    /// `n` trainable parameters.
    pub(super) fn load(
        path: &Path,
        fingerprint: &str,
        n: usize,
    ) -> Result<Option<Self>, TrainingError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TrainingError::Files { path: path.to_owned(), source }),
        };
        let found = Self::parse(&bytes, n);
        let bad = |reason| TrainingError::BadCheckpoint { path: path.to_owned(), reason };
        let found = found.ok_or_else(|| bad("the file is damaged".to_owned()))?;
        // The position counts steps of a plan that options and data determine: with others, the
        // same number would mean other examples.
        if found.position.fingerprint != fingerprint {
            let reason = "it was written with other options or data, or by another version of rune";
            return Err(bad(reason.to_owned()));
        }
        Ok(Some(found))
    }

    fn parse(bytes: &[u8], n: usize) -> Option<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
        let position = metadata.metadata().as_ref()?.get(POSITION)?;
        let position: CheckpointPosition = serde_json::from_str(position).ok()?;
        let file = SafeTensors::deserialize(bytes).ok()?;
        let whole = |name| to_f32(&file.tensor(name).ok()?).filter(|values| values.len() == n);
        let best = whole("best");
        // A best loss without its parameters would let the run end with the wrong adapter.
        if position.best.is_some() && best.is_none() {
            return None;
        }
        let means = [whole("mean")?, whole("square")?];
        Some(Self { position, values: whole("values")?, means, best })
    }
}
