//! How an adapter is trained.

use serde::Deserialize;
use serde::Serialize;

use crate::model::Precision;
use crate::model::TunedModules;
use crate::peft::scaling;

use super::TrainingError;

/// How the learning rate goes after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSchedule {
    /// Down to a tenth along half a cosine.
    Cosine,
    /// Down to zero in a line.
    Linear,
    /// As it is.
    Constant,
}

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainDevice {
    /// Rune's own kernels on the processor.
    Processor,
    /// libtorch on the processor: to try the next one without a GPU.
    TorchCpu,
    /// libtorch on the first CUDA device.
    Cuda,
}

/// Ready-made sets of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Rank 8, one pass over the data.
    Quick,
    /// Rank 16, three passes.
    Standard,
    /// Rank 32, six passes at a lower rate.
    Thorough,
}

/// All that decides what comes out, beside model and data. The values of [`Preset::Standard`] are
/// those of the QLoRA paper's smaller models where it names them (arXiv:2305.14314, appendix B),
/// else PEFT's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingOptions {
    /// Rank of the matrices, `1..=256`.
    pub rank: u32,
    /// LoRA's alpha, above 0.
    pub alpha: f32,
    /// Whether alpha is divided by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
    pub use_rslora: bool,
    /// Share of a side path's inputs left out, `0.0..1.0`.
    pub dropout: f32,
    /// Noise on embeddings; 0 for none.
    pub neftune_alpha: f32,
    /// Linear layers with a side path, by their names.
    pub target_modules: Vec<String>,
    /// The highest learning rate.
    pub learning_rate: f32,
    /// How it goes.
    pub schedule: RateSchedule,
    /// Share of the steps in which it rises from 0, `0.0..1.0`.
    pub warmup_ratio: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Gradients longer than this are shortened to it.
    pub max_grad_norm: f32,
    /// Sequences of a step, at least 1.
    pub batch_sequences: usize,
    /// A step ends also when it has this many tokens.
    pub batch_tokens: usize,
    /// Tokens computed at a time, which decides the memory; longer sequences go alone.
    pub micro_tokens: usize,
    /// Records with more tokens are left out.
    pub max_length: usize,
    /// Passes over the data, at least 1.
    pub epochs: u32,
    /// Steps at most; 0 for no limit.
    pub max_steps: u32,
    /// Validations without a gain after which training ends; 0 for never.
    pub patience: u32,
    /// Validations a pass over the data, at least 1.
    pub evaluations_per_epoch: u32,
    /// Share of the families that is held out, `0.0..0.9`.
    pub validation_share: f32,
    /// Share of what is learned that is the base's own answers to general questions, by weight,
    /// `0.0..0.9`; less where there are not as many.
    #[serde(default)]
    pub rehearsal_share: f32,
    /// Whether activations are computed again for the gradients.
    pub checkpointing: bool,
    /// Who computes.
    pub device: TrainDevice,
    /// How the base is held: for libtorch bf16 or f32.
    pub precision: Precision,
    /// Seed of all that is drawn.
    pub seed: u64,
}

impl TrainingOptions {
    /// The options of a preset.
    pub fn preset(preset: Preset) -> Self {
        let (rank, epochs, learning_rate) = match preset {
            Preset::Quick => (8, 1, 4e-4),
            Preset::Standard => (16, 3, 2e-4),
            Preset::Thorough => (32, 6, 1e-4),
        };
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
            batch_sequences: 16,
            batch_tokens: 4096,
            micro_tokens: 512,
            max_length: 2048,
            epochs,
            max_steps: 0,
            patience: 2,
            evaluations_per_epoch: 2,
            validation_share: 0.1,
            rehearsal_share: 0.5,
            checkpointing: false,
            device: TrainDevice::Processor,
            precision: Precision::Packed,
            seed: 0,
        }
    }

    /// Makes sure that every option is in its range.
    ///
    /// # Errors
    /// [`TrainingError::BadOption`] for the first that is not.
    pub fn check(&self) -> Result<(), TrainingError> {
        let share = 0.0..1.0_f32;
        let rules = [
            ((1..=256).contains(&self.rank), "the rank has to be 1 to 256"),
            (self.alpha.is_finite() && self.alpha > 0.0, "alpha has to be above 0"),
            (share.contains(&self.dropout), "the dropout has to be at least 0 and below 1"),
            (self.neftune_alpha >= 0.0, "NEFTune's alpha has to be at least 0"),
            (!self.target_modules.is_empty(), "at least one linear layer has to be named"),
            (
                self.learning_rate.is_finite() && self.learning_rate > 0.0,
                "the learning rate has to be above 0",
            ),
            (share.contains(&self.warmup_ratio), "the warm-up has to be at least 0 and below 1"),
            (self.weight_decay >= 0.0, "the weight decay has to be at least 0"),
            (self.max_grad_norm > 0.0, "the largest norm has to be above 0"),
            (self.batch_sequences > 0 && self.batch_tokens > 0, "a step has at least a sequence"),
            (self.max_length >= 8, "records may be cut off at 8 tokens or more"),
            (self.epochs > 0, "there is at least one pass over the data"),
            (self.evaluations_per_epoch > 0, "there is at least one validation a pass"),
            (
                (0.0..0.9).contains(&self.validation_share),
                "at least a tenth has to be left to train on",
            ),
            (
                (0.0..0.9).contains(&self.rehearsal_share),
                "at least a tenth of what is learned has to be new",
            ),
        ];
        if let Some((_, reason)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(TrainingError::BadOption(reason.to_owned()));
        }
        self.targets().map(drop)
    }

    /// The linear layers.
    ///
    /// # Errors
    /// [`TrainingError::BadOption`] for a name that is none.
    pub fn targets(&self) -> Result<TunedModules, TrainingError> {
        TunedModules::named(&self.target_modules).map_err(|name| {
            let known = TunedModules::all().names().join(", ");
            TrainingError::BadOption(format!(
                "there is no linear layer `{name}`; there are {known}"
            ))
        })
    }

    /// What a side path is multiplied by.
    pub fn scaling(&self) -> f32 {
        scaling(self.alpha, self.rank, self.use_rslora)
    }

    /// The learning rate of step `step` of `total`, from 0.
    #[expect(clippy::cast_precision_loss, reason = "steps are few")]
    pub(super) fn rate(&self, step: u32, total: u32) -> f32 {
        let warmup = (self.warmup_ratio * total as f32).ceil();
        let at = step as f32;
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
    fn the_rate_rises_and_falls_as_its_schedule_says() {
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
