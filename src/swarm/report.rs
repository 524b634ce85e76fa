//! [`SwarmReport`]: what a night has brought, read from the registry.

mod markdown;
mod plot;

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::Serialize;

use crate::adapter::AdapterId;
use crate::durable;
use crate::error_class::ErrorClass;
use crate::evaluation::PairedAnswer;
use crate::event::DecisionKind;
use crate::event::PairedScores;
use crate::home::Home;
use crate::job::JobKind;
use crate::job::JobState;
use crate::registry::Job;
use crate::registry::JobFilter;
use crate::registry::LedgerRow;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::SwarmRow;

use super::error::SwarmError;
use super::work::HeldOutAnswer;
use super::work::HeldOutScore;
use super::work::SolveResult;
use super::work::TrainResult;
use super::work::decode;

/// What a swarm has done so far.
#[derive(Debug, Clone, Serialize)]
pub struct SwarmReport {
    /// The swarm: its status, and where its time went.
    pub swarm: SwarmRow,
    /// Name of the suite whose tasks it solves.
    pub suite: String,
    /// What each generation has done, in order.
    pub generations: Vec<GenerationReport>,
    /// Number of tasks that any generation has solved.
    pub n_solved: usize,
    /// Prompt tokens of all sessions.
    pub tokens_in: u64,
    /// Generated tokens of all sessions.
    pub tokens_out: u64,
    /// Why tasks are not solved, the most frequent cause first.
    pub failures: Vec<FailureCause>,
}

/// What a generation of a swarm has done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GenerationReport {
    /// Number of the generation, from 1.
    pub generation: u32,
    /// Number of tasks that it was given.
    pub n_tasks: usize,
    /// Number of tasks that it has solved.
    pub n_solved: usize,
    /// Number of solved tasks by what verified them.
    pub verified: BTreeMap<String, usize>,
    /// Number of tasks that were tried and not solved.
    pub n_unsolved: usize,
    /// Number of tasks that ended with an error.
    pub n_errors: usize,
    /// Number of tasks that are not tried yet.
    pub n_open: usize,
    /// Number of sessions that used an adapter.
    pub n_with_adapter: usize,
    /// Adapters that were trained.
    pub adapters: Vec<AdapterId>,
    /// Decisions about adapters, in order.
    pub decisions: Vec<LedgerRow>,
    /// Scores on held-out tasks at its end.
    pub held_out: Vec<HeldOutScore>,
    /// Comparison with the generation before on the same tasks, by name and split of the suite.
    pub against_previous: Vec<(String, PairedScores)>,
}

/// Why tasks are not solved.
#[derive(Debug, Clone, Serialize)]
pub struct FailureCause {
    /// The cause in words.
    pub cause: String,
    /// Number of tasks, and of other jobs, with this cause.
    pub n: usize,
    /// Id of one of them.
    pub job_id: String,
    /// Its session, if it had one.
    pub session_id: Option<String>,
}

impl FailureCause {
    fn new(cause: String, job: &Job, session_id: Option<String>) -> Self {
        Self { cause, n: 1, job_id: job.id.clone(), session_id }
    }
}

impl GenerationReport {
    /// Whether an adapter was promoted.
    pub fn has_promoted(&self) -> bool {
        self.decisions.iter().any(|row| row.kind == DecisionKind::Promote)
    }
}

/// Reads what a swarm has done so far.
///
/// # Errors
/// [`RegistryError::NotFound`]; [`RegistryError::Database`]; [`RegistryError::Unreadable`].
pub fn report(registry: &Registry, id: &str) -> Result<SwarmReport, RegistryError> {
    let swarm = registry.swarm(id)?;
    let suite = swarm.config["suite"].as_str().unwrap_or_default().to_owned();
    let mut report = SwarmReport {
        swarm,
        suite,
        generations: Vec::new(),
        n_solved: 0,
        tokens_in: 0,
        tokens_out: 0,
        failures: Vec::new(),
    };
    let filter = JobFilter { swarm_id: Some(id.to_owned()), ..JobFilter::default() };
    // How the last attempt at each task has ended; `None` once it is solved.
    let mut tasks = BTreeMap::new();
    for job in registry.jobs(&filter, u32::MAX)? {
        report.add(registry, &job, &mut tasks)?;
    }
    report.n_solved = tasks.values().filter(|failure| failure.is_none()).count();
    for failure in tasks.into_values().flatten() {
        report.add_failure(failure);
    }
    report.failures.sort_by(|a, b| b.n.cmp(&a.n).then(a.cause.cmp(&b.cause)));
    for later in 1..report.generations.len() {
        report.generations[later].against_previous =
            against(&report.generations[later - 1].held_out, &report.generations[later].held_out);
    }
    Ok(report)
}

impl SwarmReport {
    fn add(
        &mut self,
        registry: &Registry,
        job: &Job,
        tasks: &mut BTreeMap<String, Option<FailureCause>>,
    ) -> Result<(), RegistryError> {
        let index = job.generation as usize - 1;
        while self.generations.len() <= index {
            let generation = u32::try_from(self.generations.len()).unwrap_or(u32::MAX) + 1;
            self.generations.push(GenerationReport { generation, ..GenerationReport::default() });
        }
        if job.kind == JobKind::Solve {
            return self.add_solve((registry, index), job, tasks);
        }
        let generation = &mut self.generations[index];
        match (job.kind, &job.result) {
            (JobKind::Train, Some(result)) => {
                generation.adapters.push(decode::<TrainResult>(result)?.adapter_id);
            }
            (JobKind::Evolve, Some(result)) => {
                generation.decisions.extend(decode::<Vec<LedgerRow>>(&result["decisions"])?);
            }
            (JobKind::Evaluate, Some(result)) => generation.held_out = decode(result)?,
            (_, None) if matches!(job.state, JobState::Failed | JobState::Discarded) => {
                let cause = format!("{}: {}", job.kind.as_str(), last_error(registry, job)?);
                self.add_failure(FailureCause::new(cause, job, None));
            }
            _ => {}
        }
        Ok(())
    }

    fn add_solve(
        &mut self,
        (registry, index): (&Registry, usize),
        job: &Job,
        tasks: &mut BTreeMap<String, Option<FailureCause>>,
    ) -> Result<(), RegistryError> {
        let task = job.payload["task"].to_string();
        let generation = &mut self.generations[index];
        generation.n_tasks += 1;
        let result = job.result.as_ref().map(decode::<SolveResult>).transpose()?;
        let Some(result) = result else {
            if job.state.is_open() {
                generation.n_open += 1;
            } else if job.state != JobState::Cancelled {
                generation.n_errors += 1;
                let cause = last_error(registry, job)?;
                tasks.insert(task, Some(FailureCause::new(cause, job, None)));
            }
            return Ok(());
        };
        self.tokens_in += result.tokens_in;
        self.tokens_out += result.tokens_out;
        generation.n_with_adapter += usize::from(result.adapter_id.is_some());
        if result.is_solved {
            generation.n_solved += 1;
            let word = result.verified_by.as_str().to_owned();
            *generation.verified.entry(word).or_default() += 1;
            tasks.insert(task, None);
            return Ok(());
        }
        generation.n_unsolved += 1;
        let is_budget = result.exit_code == Some(ErrorClass::Budget.exit_code().into());
        let cause = if is_budget {
            "the budget of the session was used up"
        } else {
            "the best candidate fails its tests"
        };
        let failure = FailureCause::new(cause.to_owned(), job, Some(result.session_id));
        tasks.insert(task, Some(failure));
        Ok(())
    }

    fn add_failure(&mut self, failure: FailureCause) {
        match self.failures.iter_mut().find(|known| known.cause == failure.cause) {
            Some(known) => known.n += 1,
            None => self.failures.push(failure),
        }
    }

    /// Writes the report and its plot to the folder of the swarm.
    ///
    /// # Errors
    /// [`SwarmError::Files`].
    pub(super) fn write(&self, home: &Home) -> Result<(), SwarmError> {
        let folder = home.swarm(&self.swarm.id);
        for (name, text) in [("report.md", self.to_markdown()), ("report.svg", self.to_svg())] {
            let path = folder.join(name);
            durable::write(&path, text.as_bytes()).map_err(SwarmError::files(path))?;
        }
        Ok(())
    }
}

fn last_error(registry: &Registry, job: &Job) -> Result<String, RegistryError> {
    let errors = registry.job_errors(&job.id)?;
    Ok(errors.last().map_or_else(|| "unknown".to_owned(), |error| error.error.clone()))
}

/// Compares the scores of two generations, suite by suite.
fn against<'a>(
    before: &'a [HeldOutScore],
    after: &'a [HeldOutScore],
) -> Vec<(String, PairedScores)> {
    let mut compared = Vec::new();
    for after in after {
        let label = after.label();
        let Some(before) = before.iter().find(|before| before.label() == label) else { continue };
        let passed: HashMap<&str, bool> =
            before.answers.iter().map(|answer| (answer.task.as_str(), answer.passed)).collect();
        let pair = |answer: &'a HeldOutAnswer| {
            let (family, after) = (answer.family.as_str(), answer.passed);
            Some(PairedAnswer { family, before: *passed.get(answer.task.as_str())?, after })
        };
        let pairs: Vec<PairedAnswer<'_>> = after.answers.iter().filter_map(pair).collect();
        if !pairs.is_empty() {
            compared.push((label, PairedScores::new(&pairs)));
        }
    }
    compared
}
