//! Measures merges of adapters, by Rune and by PEFT in turn: seconds, processor seconds, and memory
//! beside the inputs.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::time::TimeValLike;
use nix::time::ClockId;
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
use crate::event::Reporter;
use crate::hardware::Machine;
use crate::hardware::peak_rss;
use crate::hardware::rss;
use crate::merge;
use crate::merge::MergeError;
use crate::merge::MergeParent;
use crate::merge::MergeRecipe;
use crate::peft::LoraFactors;
use crate::peft::PeftConfig;
use crate::peft::PeftFiles;
use crate::peft::write_factors;
use crate::rng::SplitMix64;

/// Source of the peer.
const PEER: &str = include_str!("python/merge.py");
/// What a Python needs to merge.
const PEER_NEEDS: &str = "it needs torch and peft";

/// Model whose linear layers the adapters have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeSize {
    /// One layer of 1536 inputs and outputs.
    Matrix,
    /// All layers of `SmolLM2` 135M.
    Smollm2,
    /// All layers of Qwen2.5 1.5B.
    Qwen15,
    /// All layers of Qwen2.5 7B.
    Qwen7,
}

impl MergeSize {
    /// Returns the modules with their outputs and inputs.
    fn modules(self) -> Vec<(String, usize, usize)> {
        let (n_layers, hidden, key, ffn) = match self {
            Self::Matrix => {
                return vec![("model.layers.0.self_attn.q_proj".to_owned(), 1536, 1536)];
            }
            Self::Smollm2 => (30, 576, 192, 1536),
            Self::Qwen15 => (28, 1536, 256, 8960),
            Self::Qwen7 => (28, 3584, 512, 18944),
        };
        let kinds = [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", key, hidden),
            ("self_attn.v_proj", key, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ];
        let layer = |layer| {
            kinds.map(|(kind, n_out, n_in)| (format!("model.layers.{layer}.{kind}"), n_out, n_in))
        };
        (0..n_layers).flat_map(layer).collect()
    }
}

/// Options of the merge benchmark.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// Modules of the adapters.
    pub size: MergeSize,
    /// Numbers of adapters to merge, one measurement each.
    pub adapters: Vec<usize>,
    /// Rank of every adapter.
    pub rank: usize,
    /// Recipe of the merges.
    pub recipe: MergeRecipe,
    /// Type of PEFT's merge, such as `svd`.
    pub peer_type: String,
    /// Number of compute threads.
    pub n_threads: usize,
    /// Measurements of each kind, at least 1.
    pub n_runs: usize,
    /// Program and arguments that lead to [`merger_main`].
    pub merger: Vec<OsString>,
    /// A Python that has PEFT and PyTorch.
    pub peer: Option<PathBuf>,
}

/// Result of the merge benchmark.
#[derive(Debug, Clone)]
pub struct MergeReport {
    /// The machine when the bench began, its load included.
    pub machine: Machine,
    /// All figures, in the order of measurement.
    pub metrics: Vec<Metric>,
}

/// Adapters to merge, as sent to a process. Rune reads the folders; the peer invents weights of the
/// same sizes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct MergeBenchJob {
    folders: Vec<PathBuf>,
    recipe: MergeRecipe,
    modules: Vec<(String, usize, usize)>,
    adapters: usize,
    rank: usize,
    threads: usize,
    r#type: String,
}

/// One merge, as reported by a process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct MergeBenchRun {
    seconds: f64,
    cpu: f64,
    /// Peak memory beyond that in use before the merge, in bytes.
    peak: u64,
}

/// Measures merges of adapters with random weights.
///
/// # Errors
/// [`BenchError::Examine`] when the adapters cannot be written; [`BenchError::PeerStart`] and
/// [`BenchError::PeerEnded`].
pub fn merge(options: &MergeOptions, reporter: &dyn Reporter) -> Result<MergeReport, BenchError> {
    let machine = Machine::read().map_err(BenchError::examine("this machine"))?;
    let conditions = json!({
        "size": format!("{:?}", options.size).to_lowercase(),
        "adapters": options.adapters,
        "rank": options.rank,
        "recipe": options.recipe,
        "peer_type": options.peer_type,
        "n_threads": options.n_threads,
    });
    report_start(reporter, "merge", &machine, conditions);
    let write = || BenchError::examine("the adapters of the bench");
    let folder = tempfile::tempdir().map_err(write())?;
    let modules = options.size.modules();
    let most = options.adapters.iter().copied().max().unwrap_or(0);
    let steps = StepCounter::new(most + options.adapters.len() * options.n_runs, reporter);
    let mut folders = Vec::new();
    for index in 0..most {
        steps.next("writing adapters");
        let path = folder.path().join(index.to_string());
        invent(&path, &modules, options.rank, index as u64).map_err(write())?;
        folders.push(path);
    }
    let mut metrics = Vec::new();
    for n_adapters in &options.adapters {
        let job = MergeBenchJob {
            folders: folders[..*n_adapters].to_vec(),
            recipe: options.recipe.clone(),
            modules: modules.clone(),
            adapters: *n_adapters,
            rank: options.rank,
            threads: options.n_threads,
            r#type: options.peer_type.clone(),
        };
        metrics.extend(measure(options, &job, &steps)?);
    }
    report_metrics(reporter, &metrics);
    Ok(MergeReport { machine, metrics })
}

fn measure(
    options: &MergeOptions,
    job: &MergeBenchJob,
    steps: &StepCounter<'_>,
) -> Result<[Metric; 3], BenchError> {
    let (program, arguments) = options.merger.split_first().expect("a program");
    let mut ours = BenchProcess::start(Path::new(program), arguments, job, "it is Rune itself")?;
    let arguments = ["-c", PEER].map(OsString::from);
    let peer = options.peer.as_ref();
    let mut peer =
        peer.map(|python| BenchProcess::start(python, &arguments, job, PEER_NEEDS)).transpose()?;
    let method = options.recipe.method.as_str();
    let metric = |what: &str, label: &str, unit| {
        let name = format!("merge_{method}_{what}_{}", job.adapters);
        Metric::new(name, format!("{method}, {label}, {} adapters", job.adapters), unit)
    };
    let mut metrics = [
        metric("seconds", "time", MetricUnit::Seconds),
        metric("cpu", "processor time", MetricUnit::Seconds),
        metric("peak", "memory beside the inputs", MetricUnit::Bytes),
    ];
    for _ in 0..options.n_runs {
        steps.next("merging");
        put(&mut metrics, ours.ask()?, false);
        if let Some(peer) = &mut peer {
            put(&mut metrics, peer.ask()?, true);
        }
    }
    Ok(metrics)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
fn put(metrics: &mut [Metric; 3], run: MergeBenchRun, is_peer: bool) {
    for (metric, value) in metrics.iter_mut().zip([run.seconds, run.cpu, run.peak as f64]) {
        if is_peer { metric.peer.push(value) } else { metric.rune.push(value) }
    }
}

/// Writes an adapter with random weights.
fn invent(
    folder: &Path,
    modules: &[(String, usize, usize)],
    rank: usize,
    seed: u64,
) -> io::Result<()> {
    let mut random = SplitMix64::new(seed);
    let mut values = |n: usize| (0..n).map(|_| random.uniform() - 0.5).collect::<Vec<f32>>();
    let factors = modules.iter().map(|(module, n_out, n_in)| {
        let (a, b) = (values(rank * n_in), values(rank * n_out));
        (module.clone(), LoraFactors { rank, scaling: 1.0, a, b })
    });
    let factors: Vec<(String, LoraFactors)> = factors.collect();
    let rank = u32::try_from(rank).unwrap_or(u32::MAX);
    let config = PeftConfig::new(rank, rank.into(), vec!["all-linear".to_owned()]);
    write_factors(folder, &config, &factors).map_err(io::Error::other)
}

/// Merges for the bench in a process of its own, over the same lines as `python/merge.py`.
///
/// # Errors
/// [`BenchError::Examine`] when the job cannot be read, the adapters not be merged, or nobody reads
/// the answers.
///
/// # Panics
/// Never: a run is plain numbers.
pub fn merger_main() -> Result<(), BenchError> {
    let examine = || BenchError::examine("the lines of the bench");
    let mut lines = io::stdin().lines();
    let job: MergeBenchJob = read_job(&mut lines)?;
    let parents = parents(&job).map_err(examine())?;
    let before = rss().map_err(examine())?;
    let mut out = io::stdout().lock();
    writeln!(out, "{{\"ready\": true}}").map_err(examine())?;
    for line in lines {
        line.map_err(examine())?;
        forget_peak().map_err(examine())?;
        let (began, cpu) = (Instant::now(), cpu_seconds().map_err(examine())?);
        let merged =
            merge::merge(&parents, &job.recipe, (job.threads, &|_, _| ControlFlow::Continue(())));
        let files = merged.and_then(|merged| merged.files());
        let files = files.map_err(|error: MergeError| io::Error::other(error)).map_err(examine())?;
        let run = MergeBenchRun {
            seconds: began.elapsed().as_secs_f64(),
            cpu: cpu_seconds().map_err(examine())? - cpu,
            peak: peak_rss(None).map_err(examine())?.saturating_sub(before),
        };
        drop(files);
        let line = serde_json::to_string(&run).expect("plain numbers");
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(examine())?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "adapters are few")]
fn parents(job: &MergeBenchJob) -> io::Result<Vec<MergeParent>> {
    let weight = 1.0 / job.folders.len() as f64;
    let parent = |folder: &PathBuf| {
        let files = PeftFiles::read(folder).map_err(io::Error::other)?;
        Ok(MergeParent::new(folder.display().to_string(), files, weight))
    };
    job.folders.iter().map(parent).collect()
}

/// Makes the kernel forget the peak of this process's memory.
fn forget_peak() -> io::Result<()> {
    fs::write("/proc/self/clear_refs", "5")
}

/// Processor time of this process, of all its threads.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a benchmark")]
fn cpu_seconds() -> io::Result<f64> {
    let time = ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?;
    Ok(time.num_microseconds() as f64 / 1e6)
}
