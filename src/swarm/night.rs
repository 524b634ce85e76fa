//! The workflow of `rune swarm`: one loop that claims jobs, does them, and queues what follows.

mod steps;

use std::collections::HashMap;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::json;

use crate::digest::sha256;
use crate::durable;
use crate::error_class::with_causes;
use crate::evaluation;
use crate::evaluation::TaskSuite;
use crate::event::Event;
use crate::event::Reporter;
use crate::hardware;
use crate::job::JobKind;
use crate::job::JobState;
use crate::registry::ClaimHolder;
use crate::registry::HeldClaim;
use crate::registry::Job;
use crate::registry::JobEnd;
use crate::registry::JobFilter;
use crate::registry::NewJob;
use crate::registry::RegistryError;
use crate::registry::RunStatus;
use crate::registry::SwarmRow;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::shutdown::Shutdown;
use crate::shutdown::StopReason;
use crate::task::Task;

use super::config::SwarmConfig;
use super::config::SwarmLimits;
use super::config::TrainShare;
use super::error::SwarmError;
use super::report;
use super::report::SwarmReport;
use super::tasks::SwarmTasks;
use super::watchdog::Pressure;
use super::watchdog::ResourcesLeft;
use super::watchdog::Watchdog;
use super::work::SolvePayload;
use super::work::SolveResult;
use super::work::TrainPayload;
use super::work::Workplace;
use super::work::decode;
use super::work::new_job;
use steps::NextStep;

/// Pause between two looks at the machine.
const TICK: Duration = Duration::from_secs(1);
/// Time between two looks from which this process did not run in between: it was stopped by a
/// signal, or the machine slept.
const PAUSE: Duration = Duration::from_secs(30);
/// Time without any sign of a job after which it is taken back.
const SILENCE: Duration = Duration::from_mins(5);
/// Number of newly solved tasks that are trained on at the end of a generation.
const MIN_TRAINED: usize = 8;
/// Sessions per thread of this machine that the engine serves well.
const AGENTS_PER_THREAD: usize = 2;

/// Request for a new swarm.
#[derive(Debug, Clone)]
pub struct SwarmRequest {
    /// What the swarm does.
    pub config: SwarmConfig,
    /// Tasks of the swarm.
    pub tasks: SwarmTasks,
    /// When this call ends.
    pub limits: SwarmLimits,
}

/// Runs a new swarm until nothing is left to do, a limit is reached, or a signal stops it.
///
/// # Errors
/// [`SwarmError::Busy`]; [`SwarmError::Stopped`], after which it can be resumed; those of the
/// registry, the model and the file system. Errors of jobs are recorded with the jobs.
pub async fn run(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    request: SwarmRequest,
) -> Result<SwarmReport, SwarmError> {
    let lock = lock(services)?;
    let SwarmRequest { config, tasks: SwarmTasks { suite, to_solve }, limits } = request;
    let swarm = SwarmRow::new(&services.project, json!(config))?;
    // The tasks come before the row, so that a swarm that exists can be resumed.
    let path = services.home.swarm(&swarm.id).join(SUITE);
    durable::write(&path, suite.to_lines().as_bytes()).map_err(SwarmError::files(path))?;
    let seed = services.config.run.seed;
    let jobs: Vec<NewJob> =
        to_solve.iter().map(|task| solve_job(&swarm.id, 1, (task, seed))).collect();
    let event = Event::SwarmStarted {
        suite: config.suite.clone(),
        n_tasks: jobs.len(),
        generations: config.generations,
    };
    let claim = services.registry.begin_swarm(&swarm, &jobs, &event)?;
    services.report(&swarm.id, &event);
    let night = begin((services, sandbox), (swarm, config, suite), claim, limits).await?;
    night.through(lock).await
}

/// Resumes a swarm where it stopped.
///
/// # Errors
/// Those of [`run`]; [`RegistryError::SwarmCompleted`]; [`SwarmError::OtherVersion`].
pub async fn resume(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    id: &str,
    limits: SwarmLimits,
) -> Result<SwarmReport, SwarmError> {
    let lock = lock(services)?;
    let config = services.registry.swarm(id)?.config;
    let config: SwarmConfig = serde_json::from_value(config).map_err(SwarmError::OtherVersion)?;
    let suite = TaskSuite::read(&services.home.swarm(id).join(SUITE))?;
    let (swarm, claim) = services.registry.reopen_swarm(id)?;
    services.report(id, &Event::SwarmResumed { generation: swarm.generation });
    services.registry.recover_jobs(id)?;
    let services = &Services { project: swarm.project.clone(), ..services.clone() };
    let night = begin((services, sandbox), (swarm, config, suite), claim, limits).await?;
    night.through(lock).await
}

/// Prepares a swarm that is claimed. If that fails, so has the swarm.
async fn begin(
    place: (&Services, &Arc<Sandbox>),
    what: (SwarmRow, SwarmConfig, TaskSuite),
    claim: HeldClaim,
    limits: SwarmLimits,
) -> Result<Night, SwarmError> {
    let registry = &place.0.registry;
    let started = Night::start(place, what, claim.clone(), limits).await;
    if let Err(error) = &started {
        let status = match error {
            SwarmError::Stopped { .. } => RunStatus::Interrupted,
            _ => RunStatus::Failed,
        };
        registry.end_swarm(&claim, (status, &with_causes(error)))?;
    }
    started
}

/// Name of the file with the tasks of a swarm, in its folder.
const SUITE: &str = "suite.jsonl";

fn lock(services: &Services) -> Result<File, SwarmError> {
    let path = services.home.swarm_lock();
    durable::try_lock(&path).map_err(SwarmError::files(path))?.ok_or(SwarmError::Busy)
}

/// Returns the job of a task in a generation, each of which has a seed of its own.
fn solve_job(swarm_id: &str, generation: u32, (task, seed): (&Task, u64)) -> NewJob {
    let digest = sha256(json!(task).to_string().as_bytes());
    let drawn = sha256(format!("{seed} {generation} {digest}").as_bytes());
    // Positive as a signed number, which the registry stores.
    let seed = u64::from_str_radix(&drawn[..15], 16).unwrap_or(seed);
    let payload = json!(SolvePayload { task: task.clone(), seed });
    new_job(swarm_id, (JobKind::Solve, generation), &json!([digest, generation]), payload)
}

/// A swarm that runs in this process.
struct Night {
    workplace: Arc<Workplace>,
    swarm: SwarmRow,
    claim: HeldClaim,
    limits: SwarmLimits,
    started: Instant,
    /// Tokens that this call has generated.
    tokens_out: u64,
    n_agents: usize,
    running: FuturesUnordered<LocalBoxFuture<'static, EndedWork>>,
    /// Jobs at work by their ids.
    at_work: HashMap<String, JobAtWork>,
    watchdog: Watchdog,
    pressure: Pressure,
    /// Time up to which the seconds of the swarm are counted.
    counted: Instant,
    /// Time of the last look at the machine and the jobs.
    looked: Instant,
    /// Solved sessions in the order in which they ended.
    solved: Vec<String>,
    /// Number of those that the newest training was given.
    n_trained: usize,
    stopping: Option<StopReason>,
}

/// The id of a job with the outcome of its work.
type EndedWork = (String, Result<JobEnd, SwarmError>);

/// A job that is being done.
struct JobAtWork {
    job: Job,
    claim: HeldClaim,
    started: Instant,
    shutdown: Shutdown,
    heard: Arc<Heard>,
    /// Tokens that its session has generated before.
    tokens_before: u64,
    /// Why the watchdog has taken it back.
    taken_back: Option<String>,
}

/// Reporter that remembers when it last heard of a job.
struct Heard {
    reporter: Arc<dyn Reporter>,
    started: Instant,
    /// Time of the last event, in milliseconds after `started`.
    last: AtomicU64,
}

impl Heard {
    fn note(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }
}

impl Reporter for Heard {
    fn report(&self, subject: &str, event: &Event) {
        self.note();
        self.reporter.report(subject, event);
    }
}

impl Night {
    async fn start(
        (services, sandbox): (&Services, &Arc<Sandbox>),
        (swarm, config, suite): (SwarmRow, SwarmConfig, TaskSuite),
        claim: HeldClaim,
        limits: SwarmLimits,
    ) -> Result<Self, SwarmError> {
        let modules = evaluation::modules_of(config.lib.as_deref())?;
        let opened = services.models.open(&services.config, &*services.reporter);
        let provider = match services.shutdown.or_stop(opened).await {
            Ok(provider) => provider?,
            Err(stopped) => {
                return Err(SwarmError::Stopped { id: swarm.id, reason: stopped.0 });
            }
        };
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let served = provider.capabilities().parallel.min(AGENTS_PER_THREAD * n_threads);
        let n_agents = config.agents.unwrap_or(served).min(provider.capabilities().parallel).max(1);
        let (solved, n_trained) = sessions_so_far(services, &swarm.id)?;
        Ok(Self {
            workplace: Arc::new(Workplace {
                id: swarm.id.clone(),
                services: services.clone(),
                sandbox: Arc::clone(sandbox),
                config,
                suite,
                modules,
                provider,
            }),
            swarm,
            claim,
            limits,
            started: Instant::now(),
            tokens_out: 0,
            n_agents,
            running: FuturesUnordered::new(),
            at_work: HashMap::new(),
            watchdog: Watchdog::default(),
            pressure: Pressure::None,
            counted: Instant::now(),
            looked: Instant::now(),
            solved,
            n_trained,
            stopping: None,
        })
    }

    /// Works until the end, and returns the report. The lock is held until then.
    async fn through(mut self, _lock: File) -> Result<SwarmReport, SwarmError> {
        let ended = self.work().await;
        // Whatever is still at work stops and goes back to the queue.
        self.stop_all(self.stopping.unwrap_or(StopReason::Terminated));
        let drained = self.drain().await;
        self.count_seconds();
        let (status, reason) = match (&ended, self.stopping) {
            (Ok(_), Some(_)) => (RunStatus::Interrupted, "stopped by a signal".to_owned()),
            (Ok(ended), None) => ended.clone(),
            (Err(error), _) => (RunStatus::Failed, with_causes(error)),
        };
        let registry = &self.services().registry;
        // The error that has ended the swarm is worth more than one that follows from it.
        let recorded = registry
            .record_swarm_seconds(&self.claim, &self.swarm.seconds)
            .and_then(|()| registry.end_swarm(&self.claim, (status, &reason)));
        if ended.is_ok() {
            recorded?;
        }
        let report = report::report(registry, &self.swarm.id);
        if let Ok(Err(error)) = report.as_ref().map(|report| report.write(&self.services().home)) {
            self.services().notice(format!("the report is not written: {}", with_causes(&error)));
        }
        let event = Event::SwarmEnded { status: status.as_str().to_owned(), reason };
        self.services().report(&self.swarm.id, &event);
        ended?;
        drained?;
        match self.stopping {
            Some(reason) => Err(SwarmError::Stopped { id: self.swarm.id, reason }),
            None => Ok(report?),
        }
    }

    /// Claims and does jobs until nothing follows, or a signal stops it.
    async fn work(&mut self) -> Result<(RunStatus, String), SwarmError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shutdown = self.services().shutdown.clone();
        if self.may_train(self.workplace.config.train_every) {
            // The process was killed before it queued the training.
            self.queue_training()?;
        }
        loop {
            if let (true, Some(limit)) = (self.at_work.is_empty(), self.limit_reached())
                && self.pressure != Pressure::None
            {
                return Ok((RunStatus::Interrupted, limit));
            }
            if self.pressure == Pressure::None {
                self.claim_what_is_due()?;
                if self.at_work.is_empty() {
                    match self.next_step()? {
                        NextStep::Claim => continue,
                        NextStep::Wait => {}
                        NextStep::End(status, reason) => return Ok((status, reason)),
                    }
                }
            }
            tokio::select! {
                Some(ended) = self.running.next() => self.end(ended)?,
                _ = ticks.tick() => self.look_around()?,
                reason = shutdown.triggered() => {
                    self.stopping = Some(reason);
                    return Ok((RunStatus::Interrupted, String::new()));
                }
            }
        }
    }

    /// Claims jobs as far as they may run beside those at work.
    fn claim_what_is_due(&mut self) -> Result<(), SwarmError> {
        let is_shared = self.workplace.config.train_share == TrainShare::Shared;
        for kind in [JobKind::Train, JobKind::Evolve, JobKind::Evaluate] {
            // What runs alone waits for the agents, and they for it.
            let runs_alone = kind != JobKind::Train || !is_shared;
            let is_at_work = self.n_at_work(kind) > 0;
            let is_waiting = !self.at_work.is_empty() && self.is_due(kind)?;
            if runs_alone && (is_at_work || is_waiting) {
                return Ok(());
            }
            // At a limit, only the measurement for the report is still begun.
            let is_wanted = kind == JobKind::Evaluate || self.limit_reached().is_none();
            if is_wanted && !is_at_work && self.claim(kind)? && runs_alone {
                return Ok(());
            }
        }
        while self.n_at_work(JobKind::Solve) < self.n_agents
            && self.limit_reached().is_none()
            && self.claim(JobKind::Solve)?
        {}
        Ok(())
    }

    fn is_due(&self, kind: JobKind) -> Result<bool, RegistryError> {
        self.services().registry.is_job_due(&self.swarm.id, kind)
    }

    fn n_at_work(&self, kind: JobKind) -> usize {
        self.at_work.values().filter(|work| work.job.kind == kind).count()
    }

    /// Claims and begins a job of a kind. Returns whether there was one.
    fn claim(&mut self, kind: JobKind) -> Result<bool, SwarmError> {
        let registry = &self.services().registry;
        let found = registry.claim_job(&self.swarm.id, kind, &ClaimHolder::ThisProcess)?;
        let Some((job, claim)) = found else { return Ok(false) };
        let started = Instant::now();
        let heard = Arc::new(Heard {
            reporter: Arc::clone(&self.services().reporter),
            started,
            last: AtomicU64::new(0),
        });
        let shutdown = Shutdown::default();
        let services = Services {
            reporter: heard.clone(),
            shutdown: shutdown.clone(),
            ..self.services().clone()
        };
        let (workplace, todo) = (Arc::clone(&self.workplace), job.clone());
        let work = async move {
            let done = AssertUnwindSafe(workplace.work(&services, &todo)).catch_unwind().await;
            let panicked = |_| Ok(JobEnd::Retry("the work has panicked".to_owned()));
            (todo.id, done.unwrap_or_else(panicked))
        };
        self.running.push(Box::pin(work));
        let tokens_before = self.tokens_of(&job)?;
        let taken_back = None;
        let work = JobAtWork { job, claim, started, shutdown, heard, tokens_before, taken_back };
        self.at_work.insert(work.job.id.clone(), work);
        Ok(true)
    }

    /// Returns the tokens that the session of a job has generated so far.
    fn tokens_of(&self, job: &Job) -> Result<u64, RegistryError> {
        let session = self.services().registry.session_of_job(&job.id)?;
        Ok(session.map_or(0, |session| session.tokens_out))
    }

    /// Records how a job has ended.
    fn end(&mut self, (id, end): EndedWork) -> Result<(), SwarmError> {
        self.count_seconds();
        let work = self.at_work.remove(&id).expect("every running job is in the table");
        let JobAtWork { job, claim, started, tokens_before, taken_back, .. } = work;
        self.tokens_out += self.tokens_of(&job)?.saturating_sub(tokens_before);
        // What the watchdog takes back again and again is discarded, as any other failure.
        let end = match (end?, taken_back) {
            (JobEnd::Stopped, Some(why)) => JobEnd::Retry(why),
            (end, _) => end,
        };
        if let (JobKind::Solve, JobEnd::Done(result, _)) = (job.kind, &end) {
            let result: SolveResult = decode(result)?;
            self.solved.extend(result.is_sound.then_some(result.session_id));
        }
        let registry = &self.services().registry;
        let event = registry.end_job(&claim, &end, started.elapsed().as_secs_f64())?;
        registry.record_swarm_seconds(&self.claim, &self.swarm.seconds)?;
        self.services().report(&job.id, &event);
        if job.kind == JobKind::Solve && self.may_train(self.workplace.config.train_every) {
            self.queue_training()?;
        }
        Ok(())
    }

    fn begin_generation(&mut self, jobs: &[NewJob]) -> Result<(), SwarmError> {
        let generation = self.swarm.generation + 1;
        let event = self.services().registry.begin_generation(&self.claim, generation, jobs)?;
        self.swarm.generation = generation;
        self.services().report(&self.swarm.id, &event);
        Ok(())
    }

    /// Looks at the machine and at jobs that give no sign, and reports the progress.
    fn look_around(&mut self) -> Result<(), SwarmError> {
        self.count_seconds();
        if std::mem::replace(&mut self.looked, Instant::now()).elapsed() > PAUSE {
            self.at_work.values().for_each(|work| work.heard.note());
        }
        let home = self.services().home.path().to_owned();
        let left = ResourcesLeft::read(&home).map_err(SwarmError::files(home))?;
        let before = self.pressure;
        self.pressure = self.watchdog.check(left);
        if self.pressure != before {
            let message = match self.watchdog.cause {
                Some(cause) => format!("no work is begun: {cause} is short"),
                None => "work is begun again".to_owned(),
            };
            self.services().notice(message);
        }
        if self.pressure == Pressure::OverLimit
            && let Some(youngest) = self.at_work.values_mut().max_by_key(|work| work.started)
        {
            let cause = self.watchdog.cause.unwrap_or_default();
            youngest.take_back(format!("taken back: {cause} is short"));
        }
        for work in self.at_work.values_mut().filter(|work| work.is_silent()) {
            work.take_back(format!("taken back: no sign for {} minutes", SILENCE.as_secs() / 60));
        }
        self.report_progress(left)
    }

    fn report_progress(&self, left: ResourcesLeft) -> Result<(), SwarmError> {
        let registry = &self.services().registry;
        let counts = registry.job_counts(&self.swarm.id, self.swarm.generation)?;
        let n = |is: &dyn Fn(JobState) -> bool| {
            let of_tasks = counts.iter().filter(|count| count.kind == JobKind::Solve);
            of_tasks.filter(|count| is(count.state)).map(|count| count.n).sum()
        };
        self.services().report(
            &self.swarm.id,
            &Event::SwarmProgress {
                generation: self.swarm.generation,
                n_queued: n(&|state| state == JobState::Queued),
                n_running: self.at_work.len() as u64,
                n_ended: n(&|state| !state.is_open()),
                n_solved: self.solved.len() as u64,
                rss: hardware::rss().unwrap_or_default(),
                available: left.memory,
                paused: self.watchdog.cause.map(|cause| format!("{cause} is short")),
            },
        );
        Ok(())
    }

    /// Adds the time since the last call to the kind of work that went on.
    fn count_seconds(&mut self) {
        let now = Instant::now();
        let passed = (now - self.counted).as_secs_f64();
        self.counted = now;
        let is_at_work = |kind| self.n_at_work(kind) > 0;
        let is_measuring = is_at_work(JobKind::Evolve) || is_at_work(JobKind::Evaluate);
        let (is_training, is_solving) = (is_at_work(JobKind::Train), is_at_work(JobKind::Solve));
        let seconds = &mut self.swarm.seconds;
        let spent_on = if is_training {
            &mut seconds.training
        } else if is_measuring {
            &mut seconds.evaluation
        } else if is_solving {
            &mut seconds.solving
        } else {
            &mut seconds.idle
        };
        *spent_on += passed;
    }

    fn stop_all(&self, reason: StopReason) {
        for work in self.at_work.values() {
            work.shutdown.trigger(reason);
        }
    }

    /// Waits until everything at work has stopped. Returns the first error.
    async fn drain(&mut self) -> Result<(), SwarmError> {
        let mut drained = Ok(());
        while let Some(ended) = self.running.next().await {
            let ended = self.end(ended);
            drained = drained.and(ended);
        }
        drained
    }

    fn services(&self) -> &Services {
        &self.workplace.services
    }
}

impl JobAtWork {
    /// Stops the work for a reason that is recorded with the job.
    fn take_back(&mut self, why: String) {
        self.taken_back.get_or_insert(why);
        self.shutdown.trigger(StopReason::Terminated);
    }

    /// Whether a session has given no sign for long. Trainings and evaluations have steps that take
    /// minutes, and end by themselves.
    fn is_silent(&self) -> bool {
        let last = Duration::from_millis(self.heard.last.load(Ordering::Relaxed));
        let quiet = self.started.elapsed().saturating_sub(last);
        self.job.kind == JobKind::Solve && quiet > SILENCE
    }
}

/// Returns the solved sessions of a swarm, and how many of them the newest training was given.
fn sessions_so_far(
    services: &Services,
    swarm_id: &str,
) -> Result<(Vec<String>, usize), RegistryError> {
    let filter = JobFilter { swarm_id: Some(swarm_id.to_owned()), ..JobFilter::default() };
    let (mut solved, mut n_trained) = (Vec::new(), 0);
    for job in services.registry.jobs(&filter, u32::MAX)? {
        match (job.kind, &job.result) {
            (JobKind::Solve, Some(result)) => {
                let result: SolveResult = decode(result)?;
                solved.extend(result.is_sound.then_some(result.session_id));
            }
            (JobKind::Train, _) => {
                n_trained = decode::<TrainPayload>(&job.payload)?.sessions.len().max(n_trained);
            }
            _ => {}
        }
    }
    Ok((solved, n_trained))
}
