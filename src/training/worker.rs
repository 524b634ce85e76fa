//! The worker process: reads a job from standard input, and writes reports to standard output, one
//! JSON object per line.

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
use super::checkpoint::ValidationLosses;
use super::estimate;
use super::example::ExampleSets;
use super::options::TrainDevice;
use super::options::TrainingOptions;
use super::steps::StepPlan;
use super::trainer::Trainer;
use super::trainer::TrainerProgress;

/// Maximum time without a report.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Exit code of a worker that was asked to stop: 128 + SIGTERM.
const STOPPED: u8 = 143;
/// Exit code of any other failure.
const FAILED: u8 = 1;

/// The job of a worker: the one line on its standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainJob {
    /// Id of the parent process. The worker stops when it ends.
    pub parent: u32,
    /// Path of the model file.
    pub model: PathBuf,
    /// Hub id of the base model, for PEFT's configuration.
    pub base_model: String,
    /// The run's folder, which contains [`TrainJob::EXAMPLES`]. Checkpoint and adapter are written
    /// to it.
    pub folder: PathBuf,
    /// PEFT folder with the initial parameters; `None` for a fresh adapter.
    pub from: Option<PathBuf>,
    /// Hyperparameters of the run.
    pub options: TrainingOptions,
    /// Number of compute threads.
    pub n_threads: usize,
    /// Minimum time between two checkpoints, in seconds.
    pub checkpoint_seconds: u64,
}

impl TrainJob {
    /// File name of the examples in the run's folder.
    pub const EXAMPLES: &str = "examples.json";
    /// File name of the checkpoint in the run's folder.
    pub const CHECKPOINT: &str = "checkpoint.safetensors";
    /// Name of the adapter's folder in the run's folder.
    pub const ADAPTER: &str = "adapter";
}

/// A report of a worker: one line on its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerReport {
    /// An event of the run, which the parent forwards.
    Event(Event),
    /// Sent when nothing else was reported for a while.
    Heartbeat,
    /// The final report of a success: the adapter is on disk.
    Done {
        /// Folder of the adapter.
        adapter_dir: PathBuf,
        /// Step after which the adapter's parameters were taken.
        best_step: u32,
        /// Losses after that step; `None` without validation.
        best: Option<ValidationLosses>,
        /// Losses before the first step; `None` without validation.
        untrained: Option<ValidationLosses>,
        /// Number of steps done.
        steps: u32,
    },
    /// The final report of a failure: there is no adapter.
    Failed {
        /// Kind of the failure.
        kind: FailureKind,
        /// Error message with its causes.
        detail: String,
    },
}

/// Set when the worker should write a checkpoint and exit.
static STOP: AtomicBool = AtomicBool::new(false);

/// Writes reports to standard output; holds the time of the last one.
struct ReportWriter(Mutex<Instant>);

impl ReportWriter {
    /// Writes a report. If the reader is gone, the worker is asked to stop.
    fn send(&self, report: &WorkerReport) {
        // The lock is held while writing: the heartbeat comes from another thread, and lines must
        // not interleave.
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

/// Runs the worker process and returns its exit code. Must be called before any other thread is
/// started: the signal mask set here is inherited by later threads only.
pub fn worker_main() -> u8 {
    handle_signals();
    let reports = ReportWriter(Mutex::new(Instant::now()));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // During a long step, heartbeats show that the worker is alive, and writing them notices
        // a reader that is gone.
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                if reports.is_silent() {
                    reports.send(&WorkerReport::Heartbeat);
                }
            }
        });
        let result = read_job().and_then(|job| work(&job, &reports));
        // Before the final report: no heartbeat may follow it.
        is_over.store(true, Relaxed);
        match result {
            Ok(done) => {
                reports.send(&done);
                0
            }
            Err(error) => {
                let detail = with_causes(&error);
                reports.send(&WorkerReport::Failed { kind: error.kind(), detail });
                if error.kind() == FailureKind::Interrupted { STOPPED } else { FAILED }
            }
        }
    })
}

/// Starts a thread that sets [`STOP`] on SIGTERM and SIGINT.
fn handle_signals() {
    // Blocked in every thread and received with `sigwait`: unlike a signal handler, this does not
    // interrupt system calls and needs no async-signal-safe code.
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
        .map_err(|error| TrainingError::BadOption(format!("invalid job: {error}")))?;
    bind_to(job.parent)?;
    Ok(job)
}

/// Has the kernel send SIGTERM to this process when its parent ends.
fn bind_to(parent: u32) -> Result<(), TrainingError> {
    match child::bind_to(parent, Signal::SIGTERM) {
        // The parent has died already. The run still writes a checkpoint after its first step.
        Err(Errno::ESRCH) => STOP.store(true, Relaxed),
        bound => bound.map_err(|errno| TrainingError::BadOption(format!("prctl: {errno}")))?,
    }
    Ok(())
}

/// Runs the job; returns the final report of a success.
fn work(job: &TrainJob, reports: &ReportWriter) -> Result<WorkerReport, TrainingError> {
    job.options.check()?;
    let examples = read_examples(&job.folder.join(TrainJob::EXAMPLES))?;
    let tokens = StepPlan::new(&examples, &job.options).statistics(&examples).n_tokens;
    // Checked before anything is allocated: the OOM killer would give no usable error. The estimate
    // is for Rune's own kernels, so with libtorch it is only reported.
    let memory_bytes = estimate::memory(&job.model, &job.options, &examples)?;
    if job.options.device == TrainDevice::Processor {
        estimate::check_memory(memory_bytes)?;
    }
    let options = &job.options;
    let mut backend = load_backend(
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
        let values = adapter::values(from, &backend.tensors())?;
        backend.parameters_mut().0.copy_from_slice(&values);
    }
    let trainable = backend.parameters().len();
    // The examples may have been made for another model: an unknown id would index past the end of
    // the embedding.
    let vocabulary = backend.vocabulary();
    let mut ids = examples.all().flat_map(|example| &example.input_ids);
    if let Some(id) = ids.find(|id| **id as usize >= vocabulary) {
        return Err(TrainingError::NoData(format!("token {id} is not in the model's vocabulary")));
    }
    let checkpoint = job.folder.join(TrainJob::CHECKPOINT);
    reports.send(&WorkerReport::Event(Event::TrainingPrepared {
        trainable,
        tokens,
        memory_bytes,
        step: 0,
    }));
    let trainer = Trainer {
        backend: &mut *backend,
        options,
        examples: &examples,
        checkpoint_path: checkpoint.clone(),
        checkpoint_interval: Duration::from_secs(job.checkpoint_seconds),
    };
    let trained = trainer.run(&mut |progress| {
        if let Some(event) = event_of(progress, &checkpoint) {
            reports.send(&WorkerReport::Event(event));
        }
        if STOP.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    // The best validation was the one before the first step: every step made it worse.
    if let Some((best, 0)) = trained.best {
        return Err(TrainingError::NoGain { loss: best.loss });
    }
    let adapter_dir = job.folder.join(TrainJob::ADAPTER);
    adapter::save(&adapter_dir, &trained.values, &backend.tensors(), options, &job.base_model)?;
    let (best, best_step) = trained.best.unzip();
    let (steps, untrained) = (trained.steps, trained.untrained);
    let best_step = best_step.unwrap_or(steps);
    Ok(WorkerReport::Done { adapter_dir, best_step, best, untrained, steps })
}

/// Loads the base model with a fresh adapter on the requested device.
fn load_backend(
    job: &TrainJob,
    options: TunerOptions,
) -> Result<Box<dyn TrainBackend>, TrainingError> {
    match job.options.device {
        TrainDevice::Processor => Ok(Box::new(LoraModel::load(&job.model, options)?)),
        #[cfg(feature = "torch")]
        device => {
            let is_cuda = device == TrainDevice::Cuda;
            Ok(Box::new(super::torch::TorchTuner::load(&job.model, options, is_cuda)?))
        }
        #[cfg(not(feature = "torch"))]
        TrainDevice::TorchCpu | TrainDevice::Cuda => {
            let reason = "this binary was built without it (cargo feature `torch`)";
            Err(TrainingError::Device(reason.to_owned()))
        }
    }
}

fn read_examples(path: &Path) -> Result<ExampleSets, TrainingError> {
    let files = |source| TrainingError::Files { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(files)?;
    let examples: ExampleSets = serde_json::from_slice(&text)
        .map_err(|error| TrainingError::NoData(format!("{}: {error}", path.display())))?;
    if examples.train.iter().all(|example| example.n_labeled() == 0) {
        return Err(TrainingError::NoData("all tokens have weight 0".to_owned()));
    }
    Ok(examples)
}

/// Returns the event to report; `None` for a single batch.
fn event_of(progress: TrainerProgress, checkpoint: &Path) -> Option<Event> {
    Some(match progress {
        TrainerProgress::Batch => return None,
        TrainerProgress::Step { step, total, loss, lr, grad_norm, tokens_per_s } => {
            let rss = estimate::resident_bytes();
            Event::TrainingStep { step, total, loss, lr, grad_norm, tokens_per_s, rss }
        }
        TrainerProgress::Evaluation { step, losses: ValidationLosses { loss, rehearsal } } => {
            Event::TrainingValidated { step, loss, rehearsal_loss: rehearsal }
        }
        TrainerProgress::Checkpoint => Event::TrainingCheckpointed { path: checkpoint.to_owned() },
    })
}
