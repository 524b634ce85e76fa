//! How much memory and time a run takes, before it is begun.

use std::fs;
use std::path::Path;

use crate::hardware::Machine;
use crate::model::Precision;
use crate::model::TunerSizes;

use super::TrainingError;
use super::example::ExampleSets;
use super::options::TrainingOptions;

/// Rows of logits that are held at a time.
const LOGIT_ROWS: u64 = 64;
/// Products of two numbers that a core does in a second while training, about, on a processor with
/// AVX-512.
const PRODUCTS_PER_SECOND: f64 = 7e10;

/// Bytes that a run takes at most.
///
/// # Errors
/// [`TrainingError::Model`] when the model's file can't be read.
pub fn memory(
    model: &Path,
    options: &TrainingOptions,
    examples: &ExampleSets,
) -> Result<u64, TrainingError> {
    let sizes = TunerSizes::read(model, &options.targets()?, options.rank as usize)?;
    let longest = examples.train.iter().map(|example| example.input_ids.len()).max();
    let tokens = longest.unwrap_or(0).max(options.micro_tokens) as u64;
    // Forward and transposed weights: some 5 and 8.5 bits each, or 32 once.
    let base = match options.precision {
        Precision::Packed => sizes.n_weights * 14 / 8,
        Precision::Exact => sizes.n_weights * 4,
    };
    // Numbers, gradients, exchanged copies, two means, the best so far, and one of them as bytes
    // for the checkpoint.
    let trainable = sizes.n_trainable * 4 * 7;
    let layers = if options.checkpointing { 1 } else { sizes.n_layers };
    let inputs = sizes.n_layers * sizes.hidden * 4 * u64::from(options.checkpointing);
    let activations =
        tokens * (layers * sizes.saved_per_token + 2 * sizes.saved_per_token + inputs);
    let logits = LOGIT_ROWS * sizes.vocabulary * 10;
    Ok(base + trainable + activations + logits + (64 << 20))
}

/// Makes sure that `needed` bytes are free.
///
/// # Errors
/// [`TrainingError::Memory`].
pub(super) fn check_memory(needed: u64) -> Result<(), TrainingError> {
    let Ok(available) = Machine::read().map(|machine| machine.available_bytes) else {
        return Ok(());
    };
    if needed <= available {
        return Ok(());
    }
    Err(TrainingError::Memory { needed_mib: needed >> 20, available_mib: available >> 20 })
}

/// Seconds that `tokens` take on `n_threads` cores, roughly: the order of magnitude is what it is
/// good for.
///
/// # Errors
/// [`TrainingError::Model`] when the model's file can't be read.
pub(super) fn seconds(
    model: &Path,
    options: &TrainingOptions,
    (tokens, n_threads): (usize, usize),
) -> Result<f64, TrainingError> {
    let sizes = TunerSizes::read(model, &options.targets()?, options.rank as usize)?;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let products = (2 * sizes.n_weights + 3 * sizes.n_trainable) as f64;
    let again = if options.checkpointing { 1.35 } else { 1.0 };
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let (tokens, threads) = (tokens as f64, n_threads as f64);
    Ok(tokens * products * again / (PRODUCTS_PER_SECOND * threads))
}

/// This process's resident memory.
pub(super) fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
