//! Measures the queue of a swarm: how fast jobs are queued, claimed and ended, and in what memory.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::BenchError;
use super::progress::StepCounter;
use crate::digest::sha256;
use crate::event::Event;
use crate::event::Reporter;
use crate::hardware;
use crate::job::JobKind;
use crate::registry::ClaimHolder;
use crate::registry::JobEnd;
use crate::registry::NewJob;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::SwarmRow;

/// How many jobs to queue, and how to work through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBenchmark {
    /// Number of jobs that are queued, at least 1.
    pub n_queued: usize,
    /// Number of jobs that are claimed and ended, at most `n_queued`.
    pub n_ended: usize,
    /// Number of threads that claim at once, at least 1.
    pub n_claimers: usize,
}

/// What the queue has cost. A job that does nothing is claimed and ended: two transactions, each of
/// which is on the disk before it returns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueFigures {
    /// Number of jobs that were queued.
    pub n_queued: usize,
    /// Seconds for that, in one transaction.
    pub queue_seconds: f64,
    /// How much the resident memory of this process has grown by the end, in bytes.
    pub memory_bytes: u64,
    /// Number of jobs that were claimed and ended.
    pub n_ended: usize,
    /// Number of threads that did so at once.
    pub n_claimers: usize,
    /// Jobs ended a second, by all threads together.
    pub jobs_per_second: f64,
    /// Median time of a claim, in milliseconds.
    pub claim_p50_ms: f64,
    /// 99th percentile of the time of a claim, in milliseconds.
    pub claim_p99_ms: f64,
    /// Time of one write to the same disk that is durable, in milliseconds.
    pub fsync_ms: f64,
}

/// Measures the queue in a registry of its own below `folder`.
///
/// # Errors
/// [`BenchError::Registry`]; [`BenchError::Examine`] when the folder cannot be used.
pub fn swarm(
    folder: &Path,
    request: QueueBenchmark,
    reporter: &dyn Reporter,
) -> Result<QueueFigures, BenchError> {
    let steps = StepCounter::new(3, reporter);
    let scratch = tempfile::tempdir_in(folder)
        .map_err(BenchError::examine("create a folder in Rune's home"))?;
    let registry = Registry::open(&scratch.path().join("rune.db"))?;
    let rss = || hardware::rss().map_err(BenchError::examine("the memory of this process"));
    let before = rss()?;
    steps.next("queue jobs");
    let swarm = SwarmRow::new("bench", json!({}))?;
    let event = Event::SwarmStarted { suite: "bench".to_owned(), n_tasks: 0, generations: 1 };
    registry.begin_swarm(&swarm, &[], &event)?;
    let jobs: Vec<NewJob> = (0..request.n_queued).map(job).collect();
    let started = Instant::now();
    registry.queue_jobs(&swarm.id, &jobs)?;
    let queue_seconds = started.elapsed().as_secs_f64();
    drop(jobs);
    steps.next("claim and end jobs");
    let started = Instant::now();
    let mut claims = claim_all(&registry, &swarm.id, request)?;
    let seconds = started.elapsed().as_secs_f64();
    let memory_bytes = rss()?.saturating_sub(before);
    steps.next("write to the disk");
    let fsync = hardware::fsync_latency(scratch.path()).map_err(BenchError::examine("the disk"))?;
    claims.sort_by(f64::total_cmp);
    let at = |share: usize| claims[(claims.len() - 1) * share / 100];
    #[expect(clippy::cast_precision_loss, reason = "jobs are fewer than 2^52")]
    let jobs_per_second = claims.len() as f64 / seconds;
    Ok(QueueFigures {
        n_queued: request.n_queued,
        queue_seconds,
        memory_bytes,
        n_ended: claims.len(),
        n_claimers: request.n_claimers,
        jobs_per_second,
        claim_p50_ms: at(50),
        claim_p99_ms: at(99),
        fsync_ms: fsync.as_secs_f64() * 1e3,
    })
}

/// Claims and ends jobs on several threads. Returns the time of each claim, in milliseconds.
fn claim_all(
    registry: &Registry,
    swarm_id: &str,
    request: QueueBenchmark,
) -> Result<Vec<f64>, RegistryError> {
    let n_each = request.n_ended.div_ceil(request.n_claimers);
    let claims = Mutex::new(Vec::new());
    let work = || -> Result<(), RegistryError> {
        for _ in 0..n_each {
            let started = Instant::now();
            let found = registry.claim_job(swarm_id, JobKind::Solve, &ClaimHolder::ThisProcess)?;
            let took = started.elapsed().as_secs_f64() * 1e3;
            let Some((_, claim)) = found else { return Ok(()) };
            registry.end_job(&claim, &JobEnd::Done(json!({}), Vec::new()), 0.0)?;
            claims.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..request.n_claimers).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect::<Result<(), _>>()
    })?;
    Ok(claims.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Returns a job with a task as long as one of MBPP.
fn job(number: usize) -> NewJob {
    let text = format!("Write a function to find the {number}th element of a list.");
    let tests = format!("assert nth([1, 2, 3], {number}) == 2\n").repeat(3);
    let task =
        json!({ "id": number, "text": text, "tests": [{ "path": "test.py", "text": tests }] });
    NewJob {
        kind: JobKind::Solve,
        key: sha256(number.to_string().as_bytes()),
        generation: 1,
        payload: json!({ "task": task, "seed": number }),
    }
}
