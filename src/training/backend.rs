//! A base with a trainable adapter, whoever computes.

use crate::model::LoraModel;
use crate::model::ParameterPart;
use crate::model::TensorPlace;
use crate::model::TrainBatch;

use super::TrainingError;

/// What the loop needs of it. The trainable numbers and their gradients are in memory, wherever the
/// passes are computed.
pub trait TrainBackend {
    /// The trainable numbers.
    fn parameters(&self) -> &[f32];

    /// The trainable numbers and their gradients.
    fn parameters_mut(&mut self) -> (&mut [f32], &mut [f32]);

    /// Where the adapter's tensors stand among them.
    fn tensors(&self) -> Vec<TensorPlace>;

    /// Tokens that have an embedding.
    fn vocabulary(&self) -> usize;

    /// The length of the gradient.
    fn gradient_norm(&mut self) -> f64;

    /// Calls `work` with parts of the trainable numbers, their gradients, and an optimizer's
    /// `state`.
    fn in_parts(&mut self, state: [&mut [f32]; 2], work: &(dyn Fn(ParameterPart<'_>) + Sync));

    /// The weighted sum of the losses of a batch in nats.
    ///
    /// # Errors
    /// [`TrainingError::Device`]: never on the processor.
    fn loss(&mut self, batch: &TrainBatch) -> Result<f64, TrainingError>;

    /// The same, with dropout and noise drawn by `seed`; adds `scale` times the gradients.
    ///
    /// # Errors
    /// [`TrainingError::Device`]: never on the processor.
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
