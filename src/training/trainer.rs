//! The training loop: optimizer steps, validations, checkpoints.
//!
//! ```text
//!   load checkpoint, if there is one
//!        |
//!        v
//!   +-> validation due? --> measure what is learned and what is lost; keep the best parameters
//!   |    |
//!   |    v
//!   |   all steps done, or no gain for `patience` validations? --> best parameters
//!   |    |
//!   |    v
//!   |   step: micro-batches -> gradients -> clip -> AdamW
//!   |    |
//!   |    v
//!   +-- interval elapsed? --> save checkpoint
//! ```
//!
//! After a resume the loop repeats exactly the steps after the checkpoint: examples, dropout and
//! learning rate depend only on the seed and the step number.

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
use super::checkpoint::ValidationLosses;
use super::example::ExampleSets;
use super::options::TrainingOptions;
use super::steps;
use super::steps::StepBatch;
use super::steps::StepPlan;

/// Progress reported by the loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TrainerProgress {
    /// A batch of a step or of a validation is about to be computed. If the loop is stopped here,
    /// it repeats the step or validation after a resume.
    Batch,
    /// An optimizer step is done.
    Step { step: u32, total: u32, loss: f64, lr: f32, grad_norm: f64, tokens_per_s: f64 },
    /// A validation is done.
    Evaluation { step: u32, losses: ValidationLosses },
    /// A checkpoint was written to disk.
    Checkpoint,
}

/// The result of a completed run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TrainedAdapter {
    /// The parameters of the best step, or the last ones if nothing is held out.
    pub(super) values: Vec<f32>,
    /// Number of steps done.
    pub(super) steps: u32,
    /// The best step and its losses.
    pub(super) best: Option<(ValidationLosses, u32)>,
    /// The losses before the first step.
    pub(super) untrained: Option<ValidationLosses>,
}

/// A training run in progress.
pub(super) struct Trainer<'a> {
    pub(super) backend: &'a mut dyn TrainBackend,
    pub(super) options: &'a TrainingOptions,
    pub(super) examples: &'a ExampleSets,
    /// Path of the checkpoint file.
    pub(super) checkpoint_path: PathBuf,
    /// Minimum time between two checkpoints.
    pub(super) checkpoint_interval: Duration,
}

/// The state that a checkpoint preserves, apart from the parameters.
struct TrainerState {
    optimizer: AdamW,
    position: CheckpointPosition,
    best: Option<Vec<f32>>,
}

impl Trainer<'_> {
    /// Runs the loop from the checkpoint, if there is one, to the end. `on` is called with the
    /// progress and decides whether to continue.
    pub(super) fn run(
        mut self,
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<TrainedAdapter, TrainingError> {
        let StepPlan { steps: plan, per_epoch } = StepPlan::new(self.examples, self.options);
        let total = u32::try_from(plan.len()).unwrap_or(u32::MAX);
        // Of a run that ends within its first epoch, only the steps that it takes count.
        let every = u32::try_from(per_epoch.min(plan.len())).unwrap_or(u32::MAX);
        let every = every.div_ceil(self.options.evaluations_per_epoch).max(1);
        let mut state = self.begin()?;
        let mut saved = Instant::now();
        let held_out = [&self.examples.validation, &self.examples.rehearsal_validation];
        let held_out =
            held_out.map(|examples| steps::in_order(examples, self.options.micro_tokens));
        loop {
            // Validation comes before the step, so that step 0 measures the untrained adapter: the
            // loss that training has to beat.
            let done = state.position.step;
            let is_due = done.is_multiple_of(every) || done == total;
            // `evaluated_at` keeps a resumed run from counting the same validation twice, which
            // would use up its patience.
            if is_due
                && state.position.evaluated_at != Some(done)
                && self.evaluate(&held_out, &mut state, on)?.is_break()
            {
                return self.stop(&state, on);
            }
            let stops_early =
                self.options.patience > 0 && state.position.n_worse >= self.options.patience;
            if done >= total || stops_early {
                break;
            }
            let step = (&plan[done as usize], total);
            if self.step(step, &mut state, on)?.is_break() {
                return self.stop(&state, on);
            }
            if saved.elapsed() >= self.checkpoint_interval {
                self.save(&state)?;
                // Not `stop`: the checkpoint of this step was just written.
                if on(TrainerProgress::Checkpoint).is_break() {
                    return Err(TrainingError::Interrupted { step: state.position.step });
                }
                saved = Instant::now();
            }
        }
        let TrainerState { position, best: values, .. } = state;
        let values = values.unwrap_or_else(|| self.backend.parameters().to_vec());
        let losses = |loss| ValidationLosses { loss, rehearsal: position.best_rehearsal };
        Ok(TrainedAdapter {
            values,
            steps: position.step,
            best: position.best.map(|(loss, step)| (losses(loss), step)),
            untrained: position.untrained,
        })
    }

    /// Restores the state from the checkpoint, or creates a fresh one.
    fn begin(&mut self) -> Result<TrainerState, TrainingError> {
        let fingerprint = fingerprint(self.options, self.examples);
        let n = self.backend.parameters().len();
        let mut optimizer = AdamW::new(n);
        let Some(found) = Checkpoint::load(&self.checkpoint_path, &fingerprint, n)? else {
            let position = CheckpointPosition { fingerprint, ..CheckpointPosition::default() };
            return Ok(TrainerState { optimizer, position, best: None });
        };
        self.backend.parameters_mut().0.copy_from_slice(&found.values);
        optimizer.means = found.means;
        // The optimizer takes one step per training step, so its counter is not stored separately.
        optimizer.n_steps = found.position.step;
        Ok(TrainerState { optimizer, position: found.position, best: found.best })
    }

    /// Runs one optimizer step of `total`, with gradients accumulated over its micro-batches.
    fn step(
        &mut self,
        (step, total): (&StepBatch, u32),
        state: &mut TrainerState,
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainingError> {
        let started = Instant::now();
        let index = state.position.step;
        let batches: Vec<TrainBatch> =
            step.iter().map(|part| steps::batch(self.examples, part)).collect();
        // The loss is the mean over all tokens of the step, not the mean of the micro-batches'
        // means: the split into micro-batches must not change the gradients.
        let weight: f64 = batches.iter().map(TrainBatch::weight).sum();
        let n_tokens: usize = batches.iter().map(|batch| batch.tokens.len()).sum();
        let mut loss = 0.0;
        for (part, batch) in batches.iter().enumerate() {
            if on(TrainerProgress::Batch).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            // A distinct dropout seed for each step and micro-batch; `+ 1` because the bare seed
            // initializes the adapter.
            let seed = self.options.seed ^ (u64::from(index) << 20 | part as u64).wrapping_add(1);
            #[expect(clippy::cast_possible_truncation, reason = "a weight as the sums have it")]
            let scale = (1.0 / weight) as f32;
            loss += self.backend.accumulate(batch, scale, seed)? / weight;
        }
        // Checked before the optimizer runs: a NaN would ruin the parameters and both moments.
        let grad_norm = self.backend.gradient_norm();
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(TrainingError::NotFinite { step: index + 1 });
        }
        let lr = self.options.rate(index, total);
        // As `torch.nn.utils.clip_grad_norm_`, but the factor is applied inside the optimizer, to
        // save a pass over the gradients.
        #[expect(clippy::cast_possible_truncation, reason = "a factor of at most 1")]
        let clip = (f64::from(self.options.max_grad_norm) / grad_norm.max(1e-12)).min(1.0) as f32;
        let weight_decay = self.options.weight_decay;
        let adamw = AdamWOptions { weight_decay, ..AdamWOptions::default() };
        state.optimizer.step(self.backend, &adamw, lr, clip);
        state.position.step += 1;
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        let tokens_per_s = n_tokens as f64 / started.elapsed().as_secs_f64();
        let step = index + 1;
        Ok(on(TrainerProgress::Step { step, total, loss, lr, grad_norm, tokens_per_s }))
    }

    /// Measures the losses on held-out records and rehearsal, and keeps the parameters if they are
    /// the best.
    fn evaluate(
        &mut self,
        [records, rehearsal]: &[Vec<TrainBatch>; 2],
        state: &mut TrainerState,
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainingError> {
        if records.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut measured = [0.0; 2];
        for (batches, loss) in [records, rehearsal].into_iter().zip(&mut measured) {
            match self.mean_loss(batches, on)? {
                ControlFlow::Continue(mean) => *loss = mean,
                ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
            }
        }
        let [loss, rehearsal_loss] = measured;
        let rehearsal = (!rehearsal.is_empty()).then_some(rehearsal_loss);
        let losses = ValidationLosses { loss, rehearsal };
        let position = &mut state.position;
        position.evaluated_at = Some(position.step);
        if position.step == 0 {
            position.untrained = Some(losses);
        }
        if is_better(position, losses, self.options.rehearsal_margin) {
            position.best = Some((loss, position.step));
            position.best_rehearsal = losses.rehearsal;
            position.n_worse = 0;
            state.best = Some(self.backend.parameters().to_vec());
        } else {
            position.n_worse += 1;
        }
        Ok(on(TrainerProgress::Evaluation { step: position.step, losses }))
    }

    /// Returns the weighted mean loss of `batches`, 0 if there are none; `Break` if the loop is to
    /// stop.
    fn mean_loss(
        &mut self,
        batches: &[TrainBatch],
        on: &mut dyn FnMut(TrainerProgress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), f64>, TrainingError> {
        let weight: f64 = batches.iter().map(TrainBatch::weight).sum();
        let mut sum = 0.0;
        for batch in batches {
            if on(TrainerProgress::Batch).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            sum += self.backend.loss(batch)? / weight;
        }
        Ok(ControlFlow::Continue(sum))
    }

    /// Saves a checkpoint and returns [`TrainingError::Interrupted`].
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
            values: self.backend.parameters(),
            means: [mean, square],
            best: state.best.as_deref(),
        };
        checkpoint::save(&self.checkpoint_path, &state.position, &numbers)
    }
}

/// Whether a validation is better than the best one so far.
///
/// A step has to lower the validation loss below that of step 0, which is the best until then. Of
/// such steps, those whose rehearsal loss has risen by at most `margin` come first, by validation
/// loss; the others follow, by rehearsal loss. So there is an adapter whenever something was
/// learned, and it is the one that has lost least if all of them have lost too much.
fn is_better(position: &CheckpointPosition, new: ValidationLosses, margin: Option<f32>) -> bool {
    let Some((best, best_step)) = position.best else { return true };
    let untrained = position.untrained;
    let has_learned = untrained.is_none_or(|untrained| new.loss < untrained.loss);
    if best_step == 0 || !has_learned {
        return has_learned && new.loss < best;
    }
    let excess = |rehearsal: Option<f64>| {
        let limit = untrained?.rehearsal? + f64::from(margin?);
        Some(rehearsal? - limit).filter(|excess| *excess > 0.0)
    };
    match (excess(new.rehearsal), excess(position.best_rehearsal)) {
        (None, None) => new.loss < best,
        (new, best) => new.unwrap_or(0.0) < best.unwrap_or(0.0),
    }
}

/// Digest of everything that determines the steps of a run.
fn fingerprint(options: &TrainingOptions, examples: &ExampleSets) -> String {
    let both = serde_json::to_vec(&(options, examples)).unwrap_or_default();
    sha256(&both)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the step that is chosen after validations `(loss, rehearsal loss)` of steps 0, 1,
    /// ...
    fn chosen(validations: &[(f64, f64)], margin: Option<f32>) -> u32 {
        let mut position = CheckpointPosition::default();
        for (step, (loss, rehearsal)) in (0..).zip(validations) {
            let losses = ValidationLosses { loss: *loss, rehearsal: Some(*rehearsal) };
            position.untrained = position.untrained.or(Some(losses));
            if is_better(&position, losses, margin) {
                (position.best, position.best_rehearsal) = (Some((*loss, step)), losses.rehearsal);
            }
        }
        position.best.unwrap().1
    }

    #[test]
    fn best_step_weighs_what_is_learned_and_what_is_lost() {
        let margin = Some(0.1);
        let table = [
            // The lowest validation loss within the margin.
            (vec![(3.0, 0.2), (1.0, 0.25), (0.5, 0.28), (0.4, 0.5)], margin, 2),
            (vec![(3.0, 0.2), (1.0, 0.25), (0.5, 0.28), (0.4, 0.5)], None, 3),
            // A step within the margin replaces one above it, also with a higher loss.
            (vec![(3.0, 0.2), (0.4, 0.5), (0.6, 0.25)], margin, 2),
            // All are above it: the one that has lost least.
            (vec![(3.0, 0.2), (0.4, 0.6), (0.6, 0.5), (0.3, 0.7)], margin, 2),
            // Nothing was learned: the untrained step.
            (vec![(3.0, 0.2), (3.1, 0.1), (3.0, 0.1)], margin, 0),
            // What is lost least does not count where nothing was learned.
            (vec![(3.0, 0.2), (1.0, 0.6), (3.5, 0.2)], margin, 1),
        ];
        for (validations, margin, step) in table {
            assert_eq!(chosen(&validations, margin), step, "{validations:?}");
        }
    }
}
