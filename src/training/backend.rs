//! [`TrainBackend`]: a frozen base model with a trainable LoRA adapter, independent of the device.

use crate::model::LoraModel;
use crate::model::ParameterPart;
use crate::model::TensorPlace;
use crate::model::TrainBatch;

use super::TrainingError;

/// Computes forward and backward passes. The trainable parameters and their gradients are in main
/// memory, wherever the passes are computed, so that optimizer and checkpoints are the same for
/// every device.
pub trait TrainBackend {
    /// Returns the trainable parameters, the tensors one after another.
    fn parameters(&self) -> &[f32];

    /// Returns the trainable parameters and their gradients, which have the same layout.
    fn parameters_mut(&mut self) -> (&mut [f32], &mut [f32]);

    /// Returns where in the parameters each tensor of the adapter is.
    fn tensors(&self) -> Vec<TensorPlace>;

    /// Returns the vocabulary size: the number of tokens that have an embedding.
    fn vocabulary(&self) -> usize;

    /// Returns the L2 norm of all gradients.
    fn gradient_norm(&mut self) -> f64;

    /// Calls `work`, possibly in parallel, with disjoint parts of the parameters, their gradients
    /// and the optimizer's `state`.
    fn in_parts(&mut self, state: [&mut [f32]; 2], work: &(dyn Fn(ParameterPart<'_>) + Sync));

    /// Runs a forward pass and returns the weighted sum of the token losses, in nats.
    ///
    /// # Errors
    /// [`TrainingError::Device`]; never on the CPU.
    fn loss(&mut self, batch: &TrainBatch) -> Result<f64, TrainingError>;

    /// Runs a forward and a backward pass, with dropout and NEFTune noise seeded by `seed`. Adds
    /// `scale` times the gradients to those already accumulated, and returns the unscaled loss.
    ///
    /// # Errors
    /// [`TrainingError::Device`]; never on the CPU.
    fn accumulate(
        &mut self,
        batch: &TrainBatch,
        scale: f32,
        seed: u64,
    ) -> Result<f64, TrainingError>;
}

impl TrainBackend for LoraModel {
    fn parameters(&self) -> &[f32] {
        self.parameters()
    }

    fn parameters_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        self.parameters_mut()
    }

    fn tensors(&self) -> Vec<TensorPlace> {
        self.tensors()
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary()
    }

    fn gradient_norm(&mut self) -> f64 {
        self.gradient_norm()
    }

    fn in_parts(&mut self, state: [&mut [f32]; 2], work: &(dyn Fn(ParameterPart<'_>) + Sync)) {
        self.in_parts(state, work);
    }

    fn loss(&mut self, batch: &TrainBatch) -> Result<f64, TrainingError> {
        Ok(self.loss(batch))
    }

    fn accumulate(
        &mut self,
        batch: &TrainBatch,
        scale: f32,
        seed: u64,
    ) -> Result<f64, TrainingError> {
        Ok(self.accumulate(batch, scale, seed))
    }
}
