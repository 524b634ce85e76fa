//! The process that trains: a job on its standard input, messages on its standard output, one JSON
//! object a line.

use std::io;
use std::io::BufRead;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::Serialize;

use crate::child;
use crate::error_class::with_causes;
use crate::event::Event;
use crate::model::Isa;
use crate::model::LoraModel;
use crate::model::TunerOptions;

use super::FailureKind;
use super::TrainingError;
use super::adapter;
use super::backend::TrainBackend;
use super::estimate;
use super::example::ExampleSets;
use super::options::TrainDevice;
use super::options::TrainingOptions;
use super::trainer::Trainer;
use super::trainer::TrainerProgress;

/// Time between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Exit code of a worker that was told to stop: 128 + SIGTERM.
const STOPPED: u8 = 143;
/// Exit code of any other failure.
const FAILED: u8 = 1;

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainJob {
    /// The process that waits for it.
    pub parent: u32,
    /// The model's file.
    pub model: PathBuf,
    /// Its name, for PEFT.
    pub base_model: String,
    /// The run's folder: [`TrainJob::EXAMPLES`] is there; checkpoint and adapter are written there.
    pub folder: PathBuf,
    /// The PEFT folder whose numbers the adapter begins with; fresh ones where there is none.
    pub from: Option<PathBuf>,
    /// How to train.
    pub options: TrainingOptions,
    /// Threads that compute.
    pub n_threads: usize,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
}

impl TrainJob {
    /// The examples, in the run's folder.
    pub const EXAMPLES: &str = "examples.json";
    /// The checkpoint, in the run's folder.
    pub const CHECKPOINT: &str = "checkpoint.safetensors";
    /// The adapter, in the run's folder.
    pub const ADAPTER: &str = "adapter";
}

/// A message of a worker: a line on its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerReport {
    /// News of the run, which its parent hands on.
    Event(Event),
    /// A sign of life.
    Heartbeat,
    /// The adapter is on disk.
    Done {
        /// Its folder.
        adapter_dir: PathBuf,
        /// The step that it is of.
        best_step: u32,
        /// The least validation loss.
        best_loss: Option<f64>,
        /// Steps done.
        steps: u32,
    },
    /// There is no adapter.
    Failed {
        /// In a word.
        kind: FailureKind,
        /// In words.
        detail: String,
    },
}

static STOP: AtomicBool = AtomicBool::new(false);

/// What is told, and when something was told last.
struct ReportWriter(Mutex<Instant>);

impl ReportWriter {
    /// Writes a message. When nobody listens any more the worker stops.
    fn say(&self, report: &WorkerReport) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = serde_json::to_string(report).expect("plain words and numbers");
        let mut out = io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            STOP.store(true, Relaxed);
        }
        *last = Instant::now();
    }

    fn is_silent(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= HEARTBEAT
    }
}

/// The whole life of a worker; returns its exit code. No other thread may be there yet.
pub fn worker_main() -> u8 {
    heed_signals();
    let voice = ReportWriter(Mutex::new(Instant::now()));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                if voice.is_silent() {
                    voice.say(&WorkerReport::Heartbeat);
                }
            }
        });
        let result = read_job().and_then(|job| work(&job, &voice));
        is_over.store(true, Relaxed);
        match result {
            Ok(done) => {
                voice.say(&done);
                0
            }
            Err(error) => {
                let detail = with_causes(&error);
                voice.say(&WorkerReport::Failed { kind: error.kind(), detail });
                if error.kind() == FailureKind::Interrupted { STOPPED } else { FAILED }
            }
        }
    })
}

/// Leaves the signals that ask to stop to a thread that waits for them.
fn heed_signals() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    if signals.thread_block().is_ok() {
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                STOP.store(true, Relaxed);
            }
        });
    }
}

fn read_job() -> Result<TrainJob, TrainingError> {
    let mut line = String::new();
    let stdin = PathBuf::from("standard input");
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|source| TrainingError::Files { path: stdin, source })?;
    let job: TrainJob = serde_json::from_str(&line)
        .map_err(|error| TrainingError::BadOption(format!("this is no job: {error}")))?;
    bind_to(job.parent)?;
    Ok(job)
}

/// From now on this process is told to stop when its parent ends.
fn bind_to(parent: u32) -> Result<(), TrainingError> {
    match child::bind_to(parent, Signal::SIGTERM) {
        Err(Errno::ESRCH) => STOP.store(true, Relaxed),
        bound => bound.map_err(|errno| TrainingError::BadOption(format!("prctl: {errno}")))?,
    }
    Ok(())
}

fn work(job: &TrainJob, voice: &ReportWriter) -> Result<WorkerReport, TrainingError> {
    job.options.check()?;
    let examples = read_examples(&job.folder.join(TrainJob::EXAMPLES))?;
    let tokens: usize = examples.train.iter().map(|example| example.input_ids.len()).sum();
    let memory_bytes = estimate::memory(&job.model, &job.options, &examples)?;
    if job.options.device == TrainDevice::Processor {
        estimate::check_memory(memory_bytes)?;
    }
    let options = &job.options;
    let mut learner = learner(
        job,
        TunerOptions {
            n_threads: job.n_threads,
            precision: options.precision,
            isa: Isa::detect(),
            rank: options.rank as usize,
            scaling: options.scaling(),
            dropout: options.dropout,
            neftune_alpha: options.neftune_alpha,
            targets: options.targets()?,
            checkpointing: options.checkpointing,
            seed: options.seed,
        },
    )?;
    if let Some(from) = &job.from {
        let values = adapter::values(from, &learner.tensors())?;
        learner.parameters_mut().0.copy_from_slice(&values);
    }
    let trainable = learner.parameters().len();
    let vocabulary = learner.vocabulary();
    let ids = examples.train.iter().chain(&examples.validation).flat_map(|e| &e.input_ids);
    if let Some(id) = ids.clone().find(|id| **id as usize >= vocabulary) {
        return Err(TrainingError::NoData(format!("the model has no token {id}")));
    }
    let checkpoint = job.folder.join(TrainJob::CHECKPOINT);
    voice.say(&WorkerReport::Event(Event::TrainingPrepared {
        trainable,
        tokens,
        memory_bytes,
        step: 0,
    }));
    let every = Duration::from_secs(job.checkpoint_seconds);
    let trainer = Trainer {
        learner: &mut *learner,
        options,
        examples: &examples,
        checkpoint: (checkpoint.clone(), every),
    };
    let trained = trainer.run(&mut |progress| {
        voice.say(&report(progress, &checkpoint));
        if STOP.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some((loss, 0)) = trained.best {
        return Err(TrainingError::NoGain { loss });
    }
    let adapter_dir = job.folder.join(TrainJob::ADAPTER);
    adapter::save(&adapter_dir, (&trained.values, &learner.tensors()), options, &job.base_model)?;
    let (best_loss, best_step) = trained.best.unzip();
    let best_step = best_step.unwrap_or(trained.steps);
    Ok(WorkerReport::Done { adapter_dir, best_step, best_loss, steps: trained.steps })
}

/// The base with a fresh adapter, on the device that is asked for.
fn learner(job: &TrainJob, options: TunerOptions) -> Result<Box<dyn TrainBackend>, TrainingError> {
    match job.options.device {
        TrainDevice::Processor => Ok(Box::new(LoraModel::load(&job.model, options)?)),
        #[cfg(feature = "torch")]
        device => {
            let is_cuda = device == TrainDevice::Cuda;
            Ok(Box::new(super::torch::TorchTuner::load(&job.model, options, is_cuda)?))
        }
        #[cfg(not(feature = "torch"))]
        TrainDevice::TorchCpu | TrainDevice::Cuda => {
            let reason =
                "this rune was built without libtorch: the README says how (feature torch)";
            Err(TrainingError::Device(reason.to_owned()))
        }
    }
}

fn read_examples(path: &Path) -> Result<ExampleSets, TrainingError> {
    let files = |source| TrainingError::Files { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(files)?;
    let examples: ExampleSets = serde_json::from_slice(&text)
        .map_err(|error| TrainingError::NoData(format!("{}: {error}", path.display())))?;
    if examples.train.iter().all(|example| example.n_labelled() == 0) {
        return Err(TrainingError::NoData("no token is to be learned".to_owned()));
    }
    Ok(examples)
}

fn report(progress: TrainerProgress, checkpoint: &Path) -> WorkerReport {
    WorkerReport::Event(match progress {
        TrainerProgress::Step { step, total, loss, lr, grad_norm, tokens_per_s } => {
            let rss = estimate::resident_bytes();
            Event::TrainingStep { step, total, loss, lr, grad_norm, tokens_per_s, rss }
        }
        TrainerProgress::Evaluation { step, loss } => Event::TrainingValidated { step, loss },
        TrainerProgress::Checkpoint => Event::TrainingCheckpointed { path: checkpoint.to_owned() },
    })
}
