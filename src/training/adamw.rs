//! The optimizer: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101),
//! in PyTorch's form.

use crate::model::ParameterPart;

use super::backend::TrainBackend;

/// Hyperparameters of [`AdamW`], named as in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay rates of the two moment estimates, each in `0.0..1.0`.
    pub betas: [f32; 2],
    /// Added to the root of the second moment, for numerical stability.
    pub eps: f32,
    /// Decoupled weight decay: the share of a parameter subtracted per step, times the learning
    /// rate.
    pub weight_decay: f32,
}

impl Default for AdamWOptions {
    /// Returns the defaults of `torch.optim.AdamW`.
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Optimizer state: two moments for every trainable parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// Number of steps taken.
    pub(super) n_steps: u32,
    /// First and second moment: running means of the gradients and of their squares.
    pub(super) means: [Vec<f32>; 2],
}

impl AdamW {
    /// Creates the state for `n` trainable parameters.
    pub fn new(n: usize) -> Self {
        Self { n_steps: 0, means: [vec![0.0; n], vec![0.0; n]] }
    }

    /// Runs one optimizer step at learning rate `lr`. Gradients are scaled by `clip` first and
    /// are zero afterwards.
    pub fn step(
        &mut self,
        backend: &mut dyn TrainBackend,
        options: &AdamWOptions,
        lr: f32,
        clip: f32,
    ) {
        // Bias correction (algorithm 2, lines 9 and 10), as PyTorch computes it: the powers in
        // f64, everything per parameter in f32.
        self.n_steps += 1;
        let AdamWOptions { betas: [beta_1, beta_2], eps, weight_decay } = *options;
        let power = |beta: f32| f64::from(beta).powf(f64::from(self.n_steps));
        #[expect(clippy::cast_possible_truncation, reason = "as PyTorch rounds them")]
        let [correction_1, root_2] =
            [1.0 - power(beta_1), (1.0 - power(beta_2)).sqrt()].map(|x| x as f32);
        let size = lr / correction_1;
        let [first, second] = &mut self.means;
        backend.in_parts([first, second], &|part| {
            let ParameterPart { values, gradients, state: [first, second] } = part;
            let state = first.iter_mut().zip(second);
            for ((value, gradient), (mean, square)) in values.iter_mut().zip(gradients).zip(state) {
                // One pass over memory does it all: clip, zero the gradient, decay, update.
                let g = std::mem::take(gradient) * clip;
                // Decoupled: the decay acts on the parameter and never enters the moments.
                *value -= *value * (lr * weight_decay);
                // Written as PyTorch's `lerp_`, to round the same way.
                *mean += (g - *mean) * (1.0 - beta_1);
                *square = *square * beta_2 + g * g * (1.0 - beta_2);
                *value -= size * *mean / (square.sqrt() / root_2 + eps);
            }
        });
    }
}
