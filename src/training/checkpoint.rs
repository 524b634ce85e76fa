//! Where a run stands, in one file: trainable numbers, the optimizer's memory, and how far it is.

use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde::Serialize;

use crate::peft::NamedTensor;
use crate::peft::to_f32;
use crate::peft::write_tensors;

use super::TrainingError;

/// The note that holds [`CheckpointPosition`].
const POSITION: &str = "position";

/// How far a run is, beside its numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CheckpointPosition {
    /// Steps done.
    pub(super) step: u32,
    /// The least validation loss, and the step after which it was measured.
    pub(super) best: Option<(f64, u32)>,
    /// Validations since then.
    pub(super) n_worse: u32,
    /// The step after which was validated last.
    #[serde(default)]
    pub(super) evaluated_at: Option<u32>,
    /// Digest of options and data: a run goes on with its own alone.
    pub(super) fingerprint: String,
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) position: CheckpointPosition,
    pub(super) values: Vec<f32>,
    /// The optimizer's running means.
    pub(super) means: [Vec<f32>; 2],
    /// The trainable numbers of the least validation loss.
    pub(super) best: Option<Vec<f32>>,
}

/// The numbers of a run at work.
pub(super) struct CheckpointNumbers<'a> {
    pub(super) values: &'a [f32],
    pub(super) means: [&'a [f32]; 2],
    pub(super) best: Option<&'a [f32]>,
}

/// Writes a checkpoint in the place of the one before.
pub(super) fn save(
    path: &Path,
    position: &CheckpointPosition,
    numbers: &CheckpointNumbers<'_>,
) -> Result<(), TrainingError> {
    let [mean, square] = numbers.means;
    let mut all = vec![row("values", numbers.values), row("mean", mean), row("square", square)];
    all.extend(numbers.best.map(|best| row("best", best)));
    let position = serde_json::to_string(position).expect("plain words and numbers");
    write_tensors(path, &all, &[(POSITION, &position)]).map_err(TrainingError::files(path))
}

fn row<'a>(name: &'a str, values: &'a [f32]) -> NamedTensor<'a> {
    NamedTensor { name, shape: vec![values.len()], values: values.into() }
}

impl Checkpoint {
    /// Reads the one at `path`; `None` where there is none. It has to be of the run of
    /// `fingerprint`, with `n` trainable numbers.
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
        let found = found.ok_or_else(|| bad("it is damaged".to_owned()))?;
        if found.position.fingerprint != fingerprint {
            return Err(bad("it is of other options or other data".to_owned()));
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
        if position.best.is_some() && best.is_none() {
            return None;
        }
        let means = [whole("mean")?, whole("square")?];
        Some(Self { position, values: whole("values")?, means, best })
    }
}
