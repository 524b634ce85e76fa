//! The optimizer: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101),
//! in PyTorch's form.

use crate::model::ParameterPart;

use super::backend::TrainBackend;

/// Settings of [`AdamW`], by PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the two running means.
    pub betas: [f32; 2],
    /// Added to the root of the second one.
    pub eps: f32,
    /// What a step takes from a number, times the learning rate.
    pub weight_decay: f32,
}

impl Default for AdamWOptions {
    /// PyTorch's.
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

/// The optimizer's memory of every trainable number.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// Steps taken.
    pub(super) n_steps: u32,
    /// Running means of the gradients, and of their squares.
    pub(super) means: [Vec<f32>; 2],
}

impl AdamW {
    /// One for `n` trainable numbers.
    pub fn new(n: usize) -> Self {
        Self { n_steps: 0, means: [vec![0.0; n], vec![0.0; n]] }
    }

    /// Moves the trainable numbers against their gradients, each multiplied by `clip` first, and
    /// sets those to zero.
    pub fn step(
        &mut self,
        learner: &mut dyn TrainBackend,
        options: &AdamWOptions,
        lr: f32,
        clip: f32,
    ) {
        self.n_steps += 1;
        let AdamWOptions { betas: [beta_1, beta_2], eps, weight_decay } = *options;
        let power = |beta: f32| f64::from(beta).powf(f64::from(self.n_steps));
        #[expect(clippy::cast_possible_truncation, reason = "as PyTorch rounds them")]
        let [correction_1, root_2] =
            [1.0 - power(beta_1), (1.0 - power(beta_2)).sqrt()].map(|x| x as f32);
        let size = lr / correction_1;
        let [first, second] = &mut self.means;
        learner.in_parts([first, second], &|part| {
            let ParameterPart { values, gradients, state: [first, second] } = part;
            let state = first.iter_mut().zip(second);
            for ((value, gradient), (mean, square)) in values.iter_mut().zip(gradients).zip(state) {
                let g = std::mem::take(gradient) * clip;
                *value -= *value * (lr * weight_decay);
                *mean += (g - *mean) * (1.0 - beta_1);
                *square = *square * beta_2 + g * g * (1.0 - beta_2);
                *value -= size * *mean / (square.sqrt() / root_2 + eps);
            }
        });
    }
}
