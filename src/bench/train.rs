//! Measures training: steps of Rune and of PEFT on the same model, tokens and threads, in turn.

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use super::BenchError;
use super::metric::Metric;
use super::metric::MetricUnit;
use super::process::BenchProcess;
use super::process::read_job;
use super::progress::StepCounter;
use super::progress::report_metrics;
use super::progress::report_start;
use super::prompts::PromptSource;
use crate::event::Reporter;
use crate::hardware::Machine;
use crate::hardware::peak_rss;
use crate::model::ChatEncoder;
use crate::model::Isa;
use crate::model::LoraModel;
use crate::model::Precision;
use crate::model::TrainBatch;
use crate::model::TunedModules;
use crate::model::TunerOptions;
use crate::training::AdamW;
use crate::training::AdamWOptions;

/// What the peer runs.
const PEER: &str = include_str!("python/train.py");

/// Options of the training benchmark.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// The model's GGUF file.
    pub model: PathBuf,
    /// Rank of the adapter.
    pub rank: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Sequences of a step, one measurement each.
    pub batches: Vec<usize>,
    /// Number of compute threads.
    pub n_threads: usize,
    /// Measurements of each kind, at least 1.
    pub n_runs: usize,
    /// Program and arguments that lead to [`trainee_main`].
    pub trainee: Vec<OsString>,
    /// A Python that has PEFT, PyTorch and transformers.
    pub peer: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct TrainReport {
    /// The machine when the bench began, its load included.
    pub machine: Machine,
    /// All figures, in the order of measurement.
    pub metrics: Vec<Metric>,
}

/// What a process is to train.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TrainBenchJob {
    model: PathBuf,
    rank: usize,
    length: usize,
    sequences: usize,
    threads: usize,
    /// `packed`, `f32` or `bf16`.
    r#type: String,
    checkpointing: bool,
    tokens: Vec<u32>,
}

/// A step, as a process tells of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct TrainBenchStep {
    seconds: f64,
    loss: f64,
    /// The most resident memory so far, in bytes.
    peak: u64,
}

/// What a Python needs to train.
const PEER_NEEDS: &str = "it needs torch, peft, transformers and gguf";

/// Measures steps of training. Takes some seconds a run and kind.
///
/// # Errors
/// [`BenchError`].
pub fn train(options: &TrainOptions, reporter: &dyn Reporter) -> Result<TrainReport, BenchError> {
    let machine = Machine::read().map_err(BenchError::examine("this machine"))?;
    let encoder = ChatEncoder::load(&options.model)?;
    let mut prompts = PromptSource::new(encoder.tokenizer())?;
    let conditions = json!({
        "model": options.model,
        "rank": options.rank,
        "length": options.length,
        "n_threads": options.n_threads,
    });
    report_start(reporter, "train", &machine, conditions);
    let steps = StepCounter::new(options.batches.len() * options.n_runs, reporter);
    let mut metrics = Vec::new();
    for sequences in &options.batches {
        let tokens = (0..*sequences).flat_map(|_| prompts.fresh(options.length)).collect();
        let job = |r#type: &str, checkpointing| TrainBenchJob {
            model: options.model.clone(),
            rank: options.rank,
            length: options.length,
            sequences: *sequences,
            threads: options.n_threads,
            r#type: r#type.to_owned(),
            checkpointing,
            tokens: Vec::clone(&tokens),
        };
        metrics.extend(batch(options, *sequences, &job, &steps)?);
    }
    report_metrics(reporter, &metrics);
    Ok(TrainReport { machine, metrics })
}

/// Metrics of the speed and the memory of steps of `sequences` sequences.
fn speed_and_memory(sequences: usize, names: [&str; 2], labels: &[String; 2]) -> [Metric; 2] {
    let metric = |name: &str, label: &str, unit| {
        Metric::new(format!("{name}_b{sequences}"), format!("{label}, batch {sequences}"), unit)
    };
    [
        metric(names[0], &labels[0], MetricUnit::TokensPerSecond),
        metric(names[1], &labels[1], MetricUnit::Bytes),
    ]
}

/// As [`speed_and_memory`], compared with PEFT on the number type `peer`.
fn beside(sequences: usize, peer: &str) -> [Metric; 2] {
    let names = [format!("train_{peer}"), format!("train_{peer}_peak")];
    let labels = ["training", "peak memory"].map(|label| format!("{label} beside PEFT {peer}"));
    speed_and_memory(sequences, [&names[0], &names[1]], &labels)
}

/// The figures of steps of so many sequences.
fn batch(
    options: &TrainOptions,
    sequences: usize,
    job: &dyn Fn(&str, bool) -> TrainBenchJob,
    steps: &StepCounter<'_>,
) -> Result<Vec<Metric>, BenchError> {
    let (program, arguments) = options.trainee.split_first().expect("a program");
    let ours = |r#type, checkpointing| {
        let job = job(r#type, checkpointing);
        BenchProcess::start(Path::new(program), arguments, &job, PEER_NEEDS)
    };
    let (mut whole, mut again) = (ours("packed", false)?, ours("packed", true)?);
    let mut peers = Vec::new();
    if let Some(python) = &options.peer {
        let arguments = ["-c", PEER].map(OsString::from);
        for r#type in ["f32", "bf16"] {
            let job = job(r#type, false);
            peers.push(BenchProcess::start(python, &arguments, &job, PEER_NEEDS)?);
        }
    }
    let mut alone = speed_and_memory(
        sequences,
        ["train_checkpointing", "train_checkpointing_peak"],
        &["training, activations again".to_owned(), "its memory".to_owned()],
    );
    let mut pairs = if peers.is_empty() {
        vec![speed_and_memory(
            sequences,
            ["train_alone", "train_alone_peak"],
            &["training".to_owned(), "peak memory".to_owned()],
        )]
    } else {
        vec![beside(sequences, "f32"), beside(sequences, "bf16")]
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of tokens and bytes")]
    let put = |metrics: &mut [Metric; 2], step: TrainBenchStep, is_peer: bool| {
        let n_tokens = (sequences * options.length) as f64;
        for (metric, value) in metrics.iter_mut().zip([n_tokens / step.seconds, step.peak as f64]) {
            if is_peer { metric.peer.push(value) } else { metric.rune.push(value) }
        }
    };
    // The first step touches memory that later ones have.
    whole.ask::<TrainBenchStep>()?;
    again.ask::<TrainBenchStep>()?;
    for peer in &mut peers {
        peer.ask::<TrainBenchStep>()?;
    }
    for _ in 0..options.n_runs {
        steps.next("training");
        put(&mut alone, again.ask()?, false);
        for (index, metrics) in pairs.iter_mut().enumerate() {
            put(metrics, whole.ask()?, false);
            if let Some(peer) = peers.get_mut(index) {
                put(metrics, peer.ask()?, true);
            }
        }
    }
    Ok(pairs.into_iter().flatten().chain(alone).collect())
}

/// The life of a process that trains for the bench: the lines of `python/train.py`, by Rune.
///
/// # Errors
/// When the job can't be read, the model not be loaded, or nobody reads the answers.
///
/// # Panics
/// Never: a step is plain numbers.
pub fn trainee_main() -> Result<(), BenchError> {
    let examine = || BenchError::examine("the lines of the bench");
    let mut lines = io::stdin().lines();
    let job: TrainBenchJob = read_job(&mut lines)?;
    let options = TunerOptions {
        n_threads: job.threads,
        precision: if job.r#type == "f32" { Precision::Exact } else { Precision::Packed },
        isa: Isa::detect(),
        rank: job.rank,
        scaling: 2.0,
        dropout: 0.0,
        neftune_alpha: 0.0,
        targets: TunedModules::all(),
        checkpointing: job.checkpointing,
        seed: 0,
    };
    let mut tuner = LoraModel::load(&job.model, options)?;
    let mut optimizer = AdamW::new(tuner.parameters().len());
    let mut batch = TrainBatch::default();
    for tokens in job.tokens.chunks(job.length) {
        batch.push(tokens, &vec![1.0; tokens.len()]);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{{\"ready\": true}}").map_err(examine())?;
    for line in lines {
        line.map_err(examine())?;
        let began = Instant::now();
        let scale = 1.0 / batch.weight();
        #[expect(clippy::cast_possible_truncation, reason = "a share of a sum")]
        let loss = tuner.accumulate(&batch, scale as f32, 0) * scale;
        #[expect(clippy::cast_possible_truncation, reason = "a factor of at most 1")]
        let clip = (1.0 / tuner.gradient_norm()).min(1.0) as f32;
        optimizer.step(&mut tuner, &AdamWOptions::default(), 2e-4, clip);
        let seconds = began.elapsed().as_secs_f64();
        let step = TrainBenchStep { seconds, loss, peak: peak_rss(None).map_err(examine())? };
        let line = serde_json::to_string(&step).expect("plain numbers");
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(examine())?;
    }
    Ok(())
}
