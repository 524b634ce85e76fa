//! Estimates of the memory and time that a run needs, made before it starts.

use std::fs;
use std::path::Path;

use crate::hardware::Machine;
use crate::model::Precision;
use crate::model::TunerSizes;

use super::TrainingError;
use super::example::ExampleSets;
use super::options::TrainingOptions;

/// Number of logit rows that are materialized at a time.
const LOGIT_ROWS: u64 = 64;
/// Approximate multiply-adds per second and core while training, measured on a CPU with AVX-512.
const PRODUCTS_PER_SECOND: f64 = 7e10;

/// Estimates the peak memory of a run, in bytes.
///
/// # Errors
/// [`TrainingError::Model`] when the model's file cannot be read.
pub fn memory(
    model: &Path,
    options: &TrainingOptions,
    examples: &ExampleSets,
) -> Result<u64, TrainingError> {
    let sizes = TunerSizes::read(model, &options.targets()?, options.rank as usize)?;
    // A sequence longer than a micro-batch is computed alone, so the longest one counts.
    let longest = examples.all().map(|example| example.input_ids.len()).max();
    let tokens = longest.unwrap_or(0).max(options.micro_tokens) as u64;
    // Packed: weights for the forward pass (about 5 bits) and transposed for the backward pass
    // (8.5 bits). Exact: 32 bits, used for both.
    let base = match options.precision {
        Precision::Packed => sizes.n_weights * 14 / 8,
        Precision::Exact => sizes.n_weights * 4,
    };
    // Seven f32 copies: parameters, gradients, transposed parameters, two moments, the best
    // parameters so far, and the bytes of a checkpoint that is being written.
    let trainable = sizes.n_trainable * 4 * 7;
    // With checkpointing, activations of one layer at a time, plus the input of every layer. Two
    // more layers' worth for the scratch buffers of the backward pass.
    let layers = if options.checkpointing { 1 } else { sizes.n_layers };
    let inputs = sizes.n_layers * sizes.hidden * 4 * u64::from(options.checkpointing);
    let activations =
        tokens * (layers * sizes.saved_per_token + 2 * sizes.saved_per_token + inputs);
    let logits = LOGIT_ROWS * sizes.vocabulary * 10;
    // 64 MiB for everything else: the binary, the tokenizer, thread stacks.
    Ok(base + trainable + activations + logits + (64 << 20))
}

/// Checks that `needed` bytes of memory are available.
///
/// # Errors
/// [`TrainingError::Memory`] when they are not.
pub(super) fn check_memory(needed: u64) -> Result<(), TrainingError> {
    // An unreadable /proc is no reason to refuse: the estimate is a courtesy, not a limit.
    let Ok(available) = Machine::read().map(|machine| machine.available_bytes) else {
        return Ok(());
    };
    if needed <= available {
        return Ok(());
    }
    Err(TrainingError::Memory { needed_mib: needed >> 20, available_mib: available >> 20 })
}

/// Estimates the seconds that training on `tokens` takes on `n_threads` cores. Only the order of
/// magnitude is reliable.
///
/// # Errors
/// [`TrainingError::Model`] when the model's file cannot be read.
pub(super) fn seconds(
    model: &Path,
    options: &TrainingOptions,
    (tokens, n_threads): (usize, usize),
) -> Result<f64, TrainingError> {
    let sizes = TunerSizes::read(model, &options.targets()?, options.rank as usize)?;
    // Frozen weights take part in the forward pass and in the gradient of the activations;
    // trainable ones also in their own gradient.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let products = (2 * sizes.n_weights + 3 * sizes.n_trainable) as f64;
    // Checkpointing repeats the forward pass.
    let again = if options.checkpointing { 1.35 } else { 1.0 };
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let (tokens, threads) = (tokens as f64, n_threads as f64);
    Ok(tokens * products * again / (PRODUCTS_PER_SECOND * threads))
}

/// Returns the resident memory of this process in bytes; 0 if it cannot be read.
pub(super) fn resident_bytes() -> u64 {
    // proc_pid_statm(5): the second field is the resident set in pages.
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
