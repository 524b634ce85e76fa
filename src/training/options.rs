//! [`TrainingOptions`]: the hyperparameters of a training run.

use serde::Deserialize;
use serde::Serialize;

use crate::model::Precision;
use crate::model::TunedModules;
use crate::peft::scaling;

use super::TrainingError;

/// Default of [`TrainingOptions::rehearsal_margin`]: a perplexity on the base's own answers that is
/// 5 % higher. With rehearsal in every step, 12 steps moved this loss from 0.168 to 0.163 (Qwen2.5
/// Coder 0.5B, seed 7), so a healthy run stays far below.
const REHEARSAL_MARGIN: f32 = 0.05;

/// Learning rate schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSchedule {
    /// Cosine decay to a tenth of the peak learning rate.
    Cosine,
    /// Linear decay to zero.
    Linear,
    /// No decay: the learning rate stays at its peak.
    Constant,
}

/// The device and library that compute forward and backward passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainDevice {
    /// Rune's own kernels on the CPU.
    Processor,
    /// libtorch on the CPU, to test the CUDA code path without a GPU.
    TorchCpu,
    /// libtorch on the first CUDA device.
    Cuda,
}

/// Predefined sets of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Rank 8, learning rate 6e-4, 8 records per step, at most 48 steps and three epochs. The
    /// default, and what `rune bench memory` measures.
    Quick,
    /// Rank 16, three epochs, learning rate 2e-4, 16 records per step.
    Standard,
    /// Rank 32, six epochs, learning rate 1e-4, 16 records per step.
    Thorough,
}

/// The hyperparameters of a run: together with model and data they determine the adapter. The
/// values of [`Preset::Standard`] are those of the QLoRA paper's smaller models where it names them
/// (arXiv:2305.14314, appendix B), otherwise PEFT's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingOptions {
    /// Rank of the LoRA factors, `1..=256`.
    pub rank: u32,
    /// LoRA alpha, above 0.
    pub alpha: f32,
    /// Whether the scaling is `alpha / sqrt(rank)` (rsLoRA: Kalajdzievski 2023, arXiv:2312.03732)
    /// instead of `alpha / rank`.
    pub use_rslora: bool,
    /// Dropout probability of the inputs of LoRA branches, `0.0..1.0`.
    pub dropout: f32,
    /// NEFTune noise alpha (Jain et al. 2023, arXiv:2310.05914); 0 disables the noise.
    pub neftune_alpha: f32,
    /// Names of the linear layers with a LoRA branch, such as `q_proj`.
    pub target_modules: Vec<String>,
    /// Peak learning rate, above 0.
    pub learning_rate: f32,
    /// Decay of the learning rate after the warm-up.
    pub schedule: RateSchedule,
    /// Warm-up ratio: share of the steps in which the learning rate rises linearly, `0.0..1.0`.
    pub warmup_ratio: f32,
    /// Decoupled weight decay, at least 0.
    pub weight_decay: f32,
    /// Maximum gradient norm; larger gradients are scaled down to it.
    pub max_grad_norm: f32,
    /// Maximum records per step, at least 1. Rehearsal examples come on top.
    pub batch_sequences: usize,
    /// Number of tokens after which a step takes no further records.
    pub batch_tokens: usize,
    /// Maximum tokens per micro-batch, which determines the memory. A longer sequence is computed
    /// alone.
    pub micro_tokens: usize,
    /// Maximum tokens per record; longer records are dropped.
    pub max_length: usize,
    /// Number of epochs, at least 1.
    pub epochs: u32,
    /// Maximum number of steps; 0 for no limit.
    pub max_steps: u32,
    /// Early stopping: number of validations without improvement after which training ends; 0
    /// disables it.
    pub patience: u32,
    /// Number of validations per epoch, at least 1.
    pub evaluations_per_epoch: u32,
    /// Share of the families that are held out for validation, `0.0..0.9`.
    pub validation_share: f32,
    /// Mean share of rehearsal in the loss weight of a step, `0.0..0.9`. Every step holds at least
    /// one rehearsal example unless it is 0.
    #[serde(default)]
    pub rehearsal_share: f32,
    /// Maximum rise of the rehearsal loss over its value before the first step, in nats per token,
    /// at which a step may become the adapter. `None` in runs of earlier versions, which measured
    /// no rehearsal loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_margin: Option<f32>,
    /// Gradient checkpointing: whether activations are recomputed in the backward pass.
    pub checkpointing: bool,
    /// The device and library that compute.
    pub device: TrainDevice,
    /// Precision of the base model; with libtorch, bf16 or f32.
    pub precision: Precision,
    /// Seed of all random numbers of the run.
    pub seed: u64,
}

impl TrainingOptions {
    /// Returns the options of a preset.
    pub fn preset(preset: Preset) -> Self {
        let (rank, epochs, learning_rate, batch_sequences, max_steps) = match preset {
            Preset::Quick => (8, 3, 6e-4, 8, 48),
            Preset::Standard => (16, 3, 2e-4, 16, 0),
            Preset::Thorough => (32, 6, 1e-4, 16, 0),
        };
        // Alpha grows with the rank, so that the scaling stays 2 and learning rates carry over.
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let alpha = (2 * rank) as f32;
        Self {
            rank,
            alpha,
            use_rslora: false,
            dropout: 0.05,
            neftune_alpha: 0.0,
            target_modules: TunedModules::all().names().into_iter().map(str::to_owned).collect(),
            learning_rate,
            schedule: RateSchedule::Cosine,
            warmup_ratio: 0.03,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            batch_sequences,
            batch_tokens: 4096,
            micro_tokens: 512,
            max_length: 2048,
            epochs,
            max_steps,
            patience: 2,
            evaluations_per_epoch: 2,
            validation_share: 0.1,
            rehearsal_share: 0.5,
            rehearsal_margin: Some(REHEARSAL_MARGIN),
            checkpointing: false,
            device: TrainDevice::Processor,
            precision: Precision::Packed,
            seed: 0,
        }
    }

    /// Checks that every option is in range.
    ///
    /// # Errors
    /// [`TrainingError::BadOption`] for the first option that is not.
    pub fn check(&self) -> Result<(), TrainingError> {
        let share = 0.0..1.0_f32;
        // All comparisons are false for NaN, so NaN is rejected everywhere.
        let rules = [
            ((1..=256).contains(&self.rank), "rank must be between 1 and 256"),
            (self.alpha.is_finite() && self.alpha > 0.0, "alpha must be greater than 0"),
            (share.contains(&self.dropout), "dropout must be at least 0 and less than 1"),
            (self.neftune_alpha >= 0.0, "NEFTune alpha must be at least 0"),
            (!self.target_modules.is_empty(), "at least one target module is required"),
            (
                self.learning_rate.is_finite() && self.learning_rate > 0.0,
                "learning rate must be greater than 0",
            ),
            (
                share.contains(&self.warmup_ratio),
                "warm-up ratio must be at least 0 and less than 1",
            ),
            (self.weight_decay >= 0.0, "weight decay must be at least 0"),
            (self.max_grad_norm > 0.0, "maximum gradient norm must be greater than 0"),
            (self.batch_sequences > 0 && self.batch_tokens > 0, "batch size must be at least 1"),
            (self.max_length >= 8, "maximum length must be at least 8 tokens"),
            (self.epochs > 0, "number of epochs must be at least 1"),
            (self.evaluations_per_epoch > 0, "evaluations per epoch must be at least 1"),
            (
                (0.0..0.9).contains(&self.validation_share),
                "validation share must be at least 0 and less than 0.9",
            ),
            (
                (0.0..0.9).contains(&self.rehearsal_share),
                "rehearsal share must be at least 0 and less than 0.9",
            ),
            (
                self.rehearsal_margin.is_none_or(|margin| margin >= 0.0),
                "rehearsal margin must be at least 0",
            ),
        ];
        if let Some((_, reason)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(TrainingError::BadOption(reason.to_owned()));
        }
        self.targets().map(drop)
    }

    /// Returns the target modules, parsed.
    ///
    /// # Errors
    /// [`TrainingError::BadOption`] for an unknown name.
    pub fn targets(&self) -> Result<TunedModules, TrainingError> {
        TunedModules::named(&self.target_modules).map_err(|name| {
            let known = TunedModules::all().names().join(", ");
            TrainingError::BadOption(format!("unknown target module `{name}`: expected {known}"))
        })
    }

    /// Returns the factor by which the output of a LoRA branch is multiplied.
    pub fn scaling(&self) -> f32 {
        scaling(self.alpha, self.rank, self.use_rslora)
    }

    /// Returns the learning rate of step `step` (from 0) of `total` steps.
    #[expect(clippy::cast_precision_loss, reason = "steps are few")]
    pub(super) fn rate(&self, step: u32, total: u32) -> f32 {
        let warmup = (self.warmup_ratio * total as f32).ceil();
        let at = step as f32;
        // `+ 1` on both sides: a learning rate of exactly 0 would waste the first step, and the
        // peak belongs to the first step after the warm-up.
        if at < warmup {
            return self.learning_rate * (at + 1.0) / (warmup + 1.0);
        }
        let done = (at - warmup) / (total as f32 - warmup).max(1.0);
        self.learning_rate
            * match self.schedule {
                RateSchedule::Cosine => {
                    0.1 + 0.9 * 0.5 * (1.0 + (std::f32::consts::PI * done).cos())
                }
                RateSchedule::Linear => 1.0 - done,
                RateSchedule::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::Preset;
    use super::RateSchedule;
    use super::TrainingOptions;

    #[test]
    fn options_of_an_earlier_version_stay_as_they_were_stored() {
        let mut stored = serde_json::to_value(TrainingOptions::preset(Preset::Quick)).unwrap();
        stored.as_object_mut().unwrap().remove("rehearsal_margin").unwrap();
        let read: TrainingOptions = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(read.rehearsal_margin, None);
        assert_eq!(serde_json::to_value(read).unwrap(), stored);
    }

    #[test]
    fn learning_rate_follows_its_schedule() {
        let rates = |schedule| {
            let mut options = TrainingOptions::preset(Preset::Standard);
            (options.schedule, options.learning_rate, options.warmup_ratio) = (schedule, 1.0, 0.2);
            let rates: Vec<String> =
                (0..10).map(|step| format!("{:.2}", options.rate(step, 10))).collect();
            rates.join(" ")
        };
        insta::assert_snapshot!(rates(RateSchedule::Cosine), @"0.33 0.67 1.00 0.97 0.87 0.72 0.55 0.38 0.23 0.13");
        insta::assert_snapshot!(rates(RateSchedule::Linear), @"0.33 0.67 1.00 0.88 0.75 0.62 0.50 0.38 0.25 0.12");
        insta::assert_snapshot!(rates(RateSchedule::Constant), @"0.33 0.67 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00");
    }
}
