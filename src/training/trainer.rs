//! The loop: steps, validations, checkpoints.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::digest::sha256;
use crate::model::TrainBatch;

use super::TrainingError;
use super::adamw::AdamW;
use super::adamw::AdamWOptions;
use super::backend::TrainBackend;
use super::checkpoint;
use super::checkpoint::Checkpoint;
use super::checkpoint::CheckpointNumbers;
use super::checkpoint::CheckpointPosition;
use super::example::Example;
use super::example::ExampleSets;
use super::options::TrainingOptions;
use super::steps;
use super::steps::StepBatch;

/// What the loop tells as it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TrainerProgress {
    /// A step is done.
    Step { step: u32, total: u32, loss: f64, lr: f32, grad_norm: f64, tokens_per_s: f64 },
    /// A validation is done.
    Evaluation { step: u32, loss: f64 },
    /// A checkpoint is on disk.
    Checkpoint,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TrainedAdapter {
    /// The trainable numbers to keep: those of the least validation loss, or the last where nothing
    /// is held out.
    pub(super) values: Vec<f32>,
    /// Steps done.
    pub(super) steps: u32,
    /// The least validation loss and its step.
    pub(super) best: Option<(f64, u32)>,
}

/// A training run in progress.
pub(super) struct Trainer<'a> {
    pub(super) learner: &'a mut dyn TrainBackend,
    pub(super) options: &'a TrainingOptions,
    pub(super) examples: &'a ExampleSets,
    /// Where the checkpoint is written, and how much time passes between two.
    pub(super) checkpoint: (PathBuf, Duration),
}

/// Where a run stands.
struct TrainerState {
    optimizer: AdamW,
    position: CheckpointPosition,
    best: Option<Vec<f32>>,
}

impl Trainer<'_> {
    /// Trains from the checkpoint on, where there is one, to the end. `on` is told of every step
    /// and says whether to go on.
    pub(super) fn run(
        mut self,
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<TrainedAdapter, TrainingError> {
        let examples = self.examples;
        let epochs: Vec<Vec<StepBatch>> = (0..self.options.epochs)
            .map(|epoch| steps::of_epoch(&examples.train, self.options, epoch))
            .collect();
        let a_pass = u32::try_from(epochs[0].len()).unwrap_or(u32::MAX);
        let every = a_pass.div_ceil(self.options.evaluations_per_epoch).max(1);
        let plan: Vec<&StepBatch> = epochs.iter().flatten().collect();
        let mut total = u32::try_from(plan.len()).unwrap_or(u32::MAX);
        if self.options.max_steps > 0 {
            total = total.min(self.options.max_steps);
        }
        let mut state = self.begin()?;
        let mut saved = Instant::now();
        let validation = steps::in_order(&examples.validation, self.options.micro_tokens);
        loop {
            let done = state.position.step;
            let is_due = done.is_multiple_of(every) || done == total;
            if is_due && state.position.evaluated_at != Some(done) {
                let go = self.evaluate(&validation, &mut state, on)?;
                if go.is_break() {
                    return self.stop(&state, on);
                }
            }
            let has_enough =
                self.options.patience > 0 && state.position.n_worse >= self.options.patience;
            if done >= total || has_enough {
                break;
            }
            let progress = self.step(plan[done as usize], &mut state, total)?;
            if on(progress).is_break() {
                return self.stop(&state, on);
            }
            if saved.elapsed() >= self.checkpoint.1 {
                self.save(&state)?;
                if on(TrainerProgress::Checkpoint).is_break() {
                    return Err(TrainingError::Interrupted { step: state.position.step });
                }
                saved = Instant::now();
            }
        }
        let TrainerState { position: CheckpointPosition { step, best, .. }, best: values, .. } =
            state;
        let values = values.unwrap_or_else(|| self.learner.parameters().to_vec());
        Ok(TrainedAdapter { values, steps: step, best })
    }

    /// The state of the checkpoint, or a fresh one.
    fn begin(&mut self) -> Result<TrainerState, TrainingError> {
        let fingerprint = fingerprint(self.options, self.examples);
        let n = self.learner.parameters().len();
        let mut optimizer = AdamW::new(n);
        let Some(found) = Checkpoint::load(&self.checkpoint.0, &fingerprint, n)? else {
            let position = CheckpointPosition { fingerprint, ..CheckpointPosition::default() };
            return Ok(TrainerState { optimizer, position, best: None });
        };
        self.learner.parameters_mut().0.copy_from_slice(&found.values);
        optimizer.means = found.means;
        optimizer.n_steps = found.position.step;
        Ok(TrainerState { optimizer, position: found.position, best: found.best })
    }

    fn step(
        &mut self,
        step: &StepBatch,
        state: &mut TrainerState,
        total: u32,
    ) -> Result<TrainerProgress, TrainingError> {
        let started = Instant::now();
        let index = state.position.step;
        let train: &[Example] = &self.examples.train;
        let batches: Vec<TrainBatch> = step.iter().map(|part| steps::batch(train, part)).collect();
        let weight: f64 = batches.iter().map(TrainBatch::weight).sum();
        let n_tokens: usize = batches.iter().map(|batch| batch.tokens.len()).sum();
        let mut loss = 0.0;
        for (part, batch) in batches.iter().enumerate() {
            let seed = self.options.seed ^ (u64::from(index) << 20 | part as u64).wrapping_add(1);
            #[expect(clippy::cast_possible_truncation, reason = "a weight as the sums have it")]
            let scale = (1.0 / weight) as f32;
            loss += self.learner.accumulate(batch, scale, seed)? / weight;
        }
        let grad_norm = self.learner.gradient_norm();
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(TrainingError::NotFinite { step: index + 1 });
        }
        let lr = self.options.rate(index, total);
        #[expect(clippy::cast_possible_truncation, reason = "a factor of at most 1")]
        let clip = (f64::from(self.options.max_grad_norm) / grad_norm.max(1e-12)).min(1.0) as f32;
        let weight_decay = self.options.weight_decay;
        let adamw = AdamWOptions { weight_decay, ..AdamWOptions::default() };
        state.optimizer.step(self.learner, &adamw, lr, clip);
        state.position.step += 1;
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        let tokens_per_s = n_tokens as f64 / started.elapsed().as_secs_f64();
        Ok(TrainerProgress::Step { step: index + 1, total, loss, lr, grad_norm, tokens_per_s })
    }

    /// Measures the loss on what is held out, and remembers the best.
    fn evaluate(
        &mut self,
        validation: &[TrainBatch],
        state: &mut TrainerState,
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainingError> {
        if validation.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let weight: f64 = validation.iter().map(TrainBatch::weight).sum();
        let mut loss = 0.0;
        for batch in validation {
            loss += self.learner.loss(batch)? / weight;
        }
        let position = &mut state.position;
        position.evaluated_at = Some(position.step);
        if position.best.is_none_or(|(best, _)| loss < best) {
            position.best = Some((loss, position.step));
            position.n_worse = 0;
            state.best = Some(self.learner.parameters().to_vec());
        } else {
            position.n_worse += 1;
        }
        Ok(on(TrainerProgress::Evaluation { step: position.step, loss }))
    }

    fn stop(
        &mut self,
        state: &TrainerState,
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<TrainedAdapter, TrainingError> {
        self.save(state)?;
        let _stopping_already = on(TrainerProgress::Checkpoint);
        Err(TrainingError::Interrupted { step: state.position.step })
    }

    fn save(&mut self, state: &TrainerState) -> Result<(), TrainingError> {
        let [mean, square] = &state.optimizer.means;
        let numbers = CheckpointNumbers {
            values: self.learner.parameters(),
            means: [mean, square],
            best: state.best.as_deref(),
        };
        checkpoint::save(&self.checkpoint.0, &state.position, &numbers)
    }
}

/// What a checkpoint belongs to.
fn fingerprint(options: &TrainingOptions, examples: &ExampleSets) -> String {
    let both = serde_json::to_vec(&(options, examples)).unwrap_or_default();
    sha256(&both)
}
