//! `rune train`.

mod plot;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use crate::adapter::Scope;
use crate::cli::adapters::ScopeName;
use crate::cli::context::Context;
use crate::cli::output;
use crate::config::ProviderKind;
use crate::model::Precision;
use crate::registry::TrainingRun;
use crate::training::DataRequest;
use crate::training::Preset;
use crate::training::RateSchedule;
use crate::training::SessionsWanted;
use crate::training::TrainDevice;
use crate::training::TrainingError;
use crate::training::TrainingOptions;

/// Train a LoRA adapter on sessions or chat files
///
/// Secrets are removed from the records, and records are split by family into a training and a
/// validation set. Training runs in a separate process, on the same quantized weights as inference.
/// Ctrl-C writes a checkpoint, and `--resume` continues from it. The id of the new adapter goes to
/// stdout.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rune train --session 01k9x3 --session 01k9x7
  rune train --sessions project=shop,limit=50 --name shop
  rune train --dataset chats.jsonl --preset thorough --dry-run
  rune train --sessions project=shop --from 01k9y2
  rune train --resume 01k9zz
  rune train runs
  rune train show 01k9zz --svg loss.svg

Each line of a dataset is {\"messages\": [{\"role\": \"user\", \"content\": ...}, {\"role\": \"assistant\", \"content\": ...}]},
with a \"family\" if several lines belong to one task."
)]
pub(super) struct TrainArgs {
    #[command(subcommand)]
    command: Option<TrainCommand>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    options: OptionArgs,
    /// Print the dataset and the estimated memory and time without training
    #[arg(long)]
    dry_run: bool,
    /// Resume a run that was stopped
    #[arg(long, value_name = "RUN", conflicts_with_all = ["data", "OptionArgs", "dry_run", "name", "scope", "model", "project"])]
    resume: Option<String>,
    /// Continue training from this adapter with its rank, alpha and target modules, on the new
    /// records and those that it was trained on
    #[arg(long, value_name = "ADAPTER", conflicts_with_all = ["rank", "alpha", "rslora", "targets", "resume"])]
    from: Option<String>,
    /// With --from: train only on the new records, which forgets most of what was learned before
    #[arg(long)]
    no_replay: bool,
    /// Base model: a name from `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// Project that the adapter belongs to
    #[arg(long, value_name = "KEY")]
    project: Option<String>,
    /// Name of the adapter
    #[arg(long)]
    name: Option<String>,
    /// Tasks that the adapter may be selected for
    #[arg(long, default_value = "project")]
    scope: ScopeName,
    /// Number of compute threads [default: the setting engine.threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    threads: Option<i64>,
    /// Free the GPU of the server at `server.url` during training: vllm is put to sleep; llama-cpp
    /// is stopped and started with `park.stop_command` and `park.start_command`. Rune wakes it when
    /// training ends; if it does not wake up, run `rune wake`
    #[arg(long, value_name = "PROVIDER")]
    park: Option<ParkName>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_seconds: u64,
}

#[derive(Debug, clap::Subcommand)]
enum TrainCommand {
    /// List training runs, newest first
    Runs {
        /// Maximum number of runs
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Print a training run and plot its loss
    Show {
        /// Run id
        id: String,
        /// Also write the plot to this file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

/// Arguments that choose training data.
#[derive(Debug, clap::Args)]
#[group(id = "data")]
pub(super) struct DataArgs {
    /// Solved session to train on; repeatable
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// Solved sessions that match all of: project=KEY, type=WORD, since=YYYY-MM-DD, limit=N; or
    /// `all`
    #[arg(long, value_name = "FILTER")]
    sessions: Option<String>,
    /// JSON Lines file of chats; repeatable
    #[arg(long, value_name = "FILE.jsonl")]
    dataset: Vec<PathBuf>,
    /// Include sessions that ran without a sandbox
    #[arg(long)]
    include_unsandboxed: bool,
}

impl DataArgs {
    pub(super) fn request(&self) -> Result<DataRequest, TrainingError> {
        let filter = self.sessions.as_deref().map(SessionsWanted::parse).transpose()?;
        Ok(DataRequest {
            sessions: self.session.clone(),
            filter,
            files: self.dataset.clone(),
            include_unsandboxed: self.include_unsandboxed,
        })
    }
}

/// Training options; the preset supplies those that are not given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub(super) struct OptionArgs {
    /// Preset for all training options
    #[arg(long, default_value = "quick")]
    preset: PresetName,
    /// LoRA rank
    #[arg(long)]
    rank: Option<u32>,
    /// LoRA alpha [default: twice the rank]
    #[arg(long)]
    alpha: Option<f32>,
    /// Use rank-stabilized scaling, alpha divided by the square root of the rank
    #[arg(long)]
    rslora: bool,
    /// LoRA dropout probability
    #[arg(long, value_name = "P")]
    dropout: Option<f32>,
    /// NEFTune noise alpha
    #[arg(long, value_name = "ALPHA")]
    neftune: Option<f32>,
    /// Target modules, separated by commas [default: all seven linear layers]
    #[arg(long, alias = "target-modules", value_delimiter = ',', value_name = "NAMES")]
    targets: Option<Vec<String>>,
    /// Peak learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
    /// Learning rate schedule after the warm-up
    #[arg(long)]
    schedule: Option<ScheduleName>,
    /// Warm-up ratio: the fraction of steps in which the learning rate rises
    #[arg(long, alias = "warmup-ratio", value_name = "RATIO")]
    warmup: Option<f32>,
    /// Batch size in records; rehearsal comes on top
    #[arg(long, alias = "batch-size", value_name = "N")]
    batch: Option<usize>,
    /// Number of tokens that ends a batch early
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// Maximum tokens per micro-batch
    #[arg(long, value_name = "N")]
    micro_tokens: Option<usize>,
    /// Maximum tokens per record; longer ones are dropped
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Number of epochs; without --max-steps it also lifts the preset's maximum number of steps
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Maximum number of optimizer steps; 0 for no limit
    #[arg(long, value_name = "N")]
    max_steps: Option<u32>,
    /// Early stopping: validations without improvement before training stops; 0 disables it
    #[arg(long, value_name = "N")]
    patience: Option<u32>,
    /// Fraction of families held out for validation
    #[arg(long, value_name = "FRACTION")]
    validation: Option<f32>,
    /// Fraction of each step's loss weight given to rehearsal, which counters forgetting: the
    /// base's own answers, documents to read, Python's standard library; 0 disables it
    #[arg(long, value_name = "FRACTION")]
    rehearsal: Option<f32>,
    /// Maximum rise of the loss on held-out rehearsal, in nats per token, at which a step may
    /// become the adapter
    #[arg(long, value_name = "NATS")]
    rehearsal_margin: Option<f32>,
    /// Use gradient checkpointing: about a quarter slower, in a third of the memory
    #[arg(long, alias = "gradient-checkpointing")]
    checkpointing: bool,
    /// Precision of the frozen base weights: packed (quantized, as for inference) or f32
    #[arg(long)]
    precision: Option<PrecisionName>,
    /// Compute device: Rune's CPU kernels, or libtorch on CPU or CUDA (needs the `torch` feature)
    #[arg(long)]
    device: Option<DeviceName>,
    /// Random seed
    #[arg(long)]
    seed: Option<u64>,
}

/// A server that can be parked, as spelled on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ParkName {
    Vllm,
    LlamaCpp,
}

impl From<ParkName> for ProviderKind {
    fn from(name: ParkName) -> Self {
        match name {
            ParkName::Vllm => Self::Vllm,
            ParkName::LlamaCpp => Self::LlamaCpp,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PresetName {
    /// Rank 8, learning rate 6e-4, 8 records a step, at most 48 steps and 3 epochs
    Quick,
    /// Rank 16, learning rate 2e-4, 16 records a step, 3 epochs
    Standard,
    /// Rank 32, learning rate 1e-4, 16 records a step, 6 epochs
    Thorough,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScheduleName {
    Cosine,
    Linear,
    Constant,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrecisionName {
    Packed,
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeviceName {
    Processor,
    TorchCpu,
    Cuda,
}

impl From<DeviceName> for TrainDevice {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Processor => Self::Processor,
            DeviceName::TorchCpu => Self::TorchCpu,
            DeviceName::Cuda => Self::Cuda,
        }
    }
}

impl OptionArgs {
    pub(super) fn options(&self) -> TrainingOptions {
        let mut options = TrainingOptions::preset(match self.preset {
            PresetName::Quick => Preset::Quick,
            PresetName::Standard => Preset::Standard,
            PresetName::Thorough => Preset::Thorough,
        });
        set(&mut options.rank, self.rank);
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let alpha = 2.0 * options.rank as f32;
        options.alpha = self.alpha.unwrap_or(alpha);
        options.use_rslora = self.rslora;
        set(&mut options.dropout, self.dropout);
        set(&mut options.neftune_alpha, self.neftune);
        set(&mut options.target_modules, self.targets.clone());
        set(&mut options.learning_rate, self.learning_rate);
        set(&mut options.schedule, self.schedule.map(RateSchedule::from));
        set(&mut options.warmup_ratio, self.warmup);
        set(&mut options.batch_sequences, self.batch);
        set(&mut options.batch_tokens, self.batch_tokens);
        set(&mut options.micro_tokens, self.micro_tokens);
        set(&mut options.max_length, self.max_length);
        set(&mut options.epochs, self.epochs);
        set(&mut options.max_steps, self.max_steps.or(self.epochs.map(|_| 0)));
        set(&mut options.patience, self.patience);
        set(&mut options.validation_share, self.validation);
        set(&mut options.rehearsal_share, self.rehearsal);
        options.rehearsal_margin = self.rehearsal_margin.or(options.rehearsal_margin);
        options.checkpointing = self.checkpointing;
        set(&mut options.precision, self.precision.map(Precision::from));
        set(&mut options.device, self.device.map(TrainDevice::from));
        set(&mut options.seed, self.seed);
        options
    }
}

fn set<T>(option: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *option = given;
    }
}

impl From<ScheduleName> for RateSchedule {
    fn from(name: ScheduleName) -> Self {
        match name {
            ScheduleName::Cosine => Self::Cosine,
            ScheduleName::Linear => Self::Linear,
            ScheduleName::Constant => Self::Constant,
        }
    }
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::Packed => Self::Packed,
            PrecisionName::F32 => Self::Exact,
        }
    }
}

impl TrainArgs {
    /// Returns the settings given by flags, as pairs of key and value.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let text = |value: &Option<String>| value.clone().map(toml::Value::String);
        let all = [
            ("run.model", text(&self.model)),
            ("run.project", text(&self.project)),
            ("engine.threads", self.threads.map(toml::Value::Integer)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn scope(&self) -> Scope {
        Scope::from(self.scope)
    }
}

pub(super) fn run(context: &Context, args: &TrainArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(TrainCommand::Runs { limit }) => {
            let runs = context.registry()?.training_runs(*limit)?;
            output::print(&list(context, &runs))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(TrainCommand::Show { id, svg }) => {
            let registry = context.registry()?;
            let (run, metrics) = (registry.training_run(id)?, registry.metrics(id)?);
            if let Some(path) = svg {
                std::fs::write(path, plot::svg(&run, &metrics))?;
            }
            let text = if context.json {
                json!({ "run": run, "metrics": metrics }).to_string() + "\n"
            } else {
                plot::show(&run, &metrics)
            };
            output::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        None => training::run(context, args),
    }
}

fn list(context: &Context, runs: &[TrainingRun]) -> String {
    if context.json {
        return runs.iter().map(|run| json!(run).to_string() + "\n").collect();
    }
    if runs.is_empty() {
        return "no training runs yet: `rune train` starts one\n".to_owned();
    }
    let head = ["ID", "STATUS", "STEPS", "VAL LOSS", "STARTED", "MODEL", "ADAPTER"];
    let head = head.map(str::to_owned).to_vec();
    let rows = runs.iter().map(|run| {
        vec![
            run.id.clone(),
            run.status.as_str().to_owned(),
            format!("{}/{}", run.step, run.total_steps),
            run.best_val_loss.map_or("-".to_owned(), |loss| format!("{loss:.4}")),
            run.started_at.chars().take(19).collect(),
            run.base_model.split('@').next().unwrap_or_default().to_owned(),
            run.adapter_id.as_ref().map_or("-".to_owned(), ToString::to_string),
        ]
    });
    output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
