//! What follows in a swarm: it depends on the queue, the limits of the call and what was solved.

use serde_json::json;

use crate::job::JobKind;
use crate::job::JobState;
use crate::registry::JobCount;
use crate::registry::JobFilter;
use crate::registry::RunStatus;
use crate::swarm::config::SwarmLimits;
use crate::swarm::error::SwarmError;
use crate::swarm::report;
use crate::swarm::report::GenerationReport;
use crate::swarm::work::SolvePayload;
use crate::swarm::work::SolveResult;
use crate::swarm::work::TrainPayload;
use crate::swarm::work::decode;
use crate::swarm::work::new_job;
use crate::task::Task;

use super::MIN_TRAINED;
use super::Night;
use super::solve_job;

/// What a swarm does when no job is left to claim.
pub(super) enum NextStep {
    /// Jobs were queued, which it may claim now.
    Claim,
    /// Jobs come back after a pause.
    Wait,
    /// Nothing is left to do, or a limit is reached.
    End(RunStatus, String),
}

impl Night {
    /// Whether at least `n` tasks were solved since the newest training.
    pub(super) fn may_train(&self, n: usize) -> bool {
        let is_wanted = self.workplace.config.train_every > 0;
        is_wanted && self.solved.len() - self.n_trained >= n
    }

    /// Queues a training on everything that was solved so far.
    pub(super) fn queue_training(&mut self) -> Result<(), SwarmError> {
        let mut sessions = self.solved.clone();
        sessions.sort();
        let (kind, about) = ((JobKind::Train, self.swarm.generation), json!(sessions));
        let job = new_job(&self.swarm.id, kind, &about, json!(TrainPayload { sessions }));
        self.services().registry.queue_jobs(&self.swarm.id, &[job])?;
        self.n_trained = self.solved.len();
        Ok(())
    }

    /// Queues what follows when no job is at work and none was claimed.
    pub(super) fn next_step(&mut self) -> Result<NextStep, SwarmError> {
        let limit = self.limit_reached();
        let counts = self.services().registry.job_counts(&self.swarm.id, self.swarm.generation)?;
        let n_open = |kind| {
            let is_open = |count: &&JobCount| count.kind == kind && count.state.is_open();
            counts.iter().filter(is_open).map(|count| count.n).sum::<u64>()
        };
        let n_left = n_open(JobKind::Solve);
        let others = [JobKind::Train, JobKind::Evolve, JobKind::Evaluate];
        let n_others = match limit {
            Some(_) => n_open(JobKind::Evaluate),
            None => others.map(n_open).iter().sum(),
        };
        if n_others > 0 || n_left > 0 && limit.is_none() {
            return Ok(NextStep::Wait);
        }
        if limit.is_none() && self.may_train(MIN_TRAINED.min(self.workplace.config.train_every)) {
            self.queue_training()?;
            return Ok(NextStep::Claim);
        }
        let incumbent = self.workplace.incumbent()?;
        let about = json!([self.swarm.generation, incumbent]);
        let evaluate =
            new_job(&self.swarm.id, (JobKind::Evaluate, self.swarm.generation), &about, json!({}));
        // A known key is not queued again: base and incumbent are measured already.
        if self.services().registry.queue_jobs(&self.swarm.id, &[evaluate])? > 0 {
            return Ok(NextStep::Claim);
        }
        if let Some(limit) = limit {
            return Ok(NextStep::End(RunStatus::Interrupted, limit));
        }
        self.next_generation()
    }

    /// Begins the next generation with the tasks that none has solved, if anything has changed that
    /// could solve them.
    fn next_generation(&mut self) -> Result<NextStep, SwarmError> {
        let end = |reason: &str| Ok(NextStep::End(RunStatus::Completed, reason.to_owned()));
        let (generation, swarm_id) = (self.swarm.generation, self.swarm.id.clone());
        let filter = JobFilter {
            swarm_id: Some(swarm_id.clone()),
            kind: Some(JobKind::Solve),
            ..JobFilter::default()
        };
        let (mut unsolved, mut n_solved) = (Vec::new(), 0);
        for job in self.services().registry.jobs(&filter, u32::MAX)? {
            if job.generation != generation {
                continue;
            }
            let result = job.result.as_ref().map(decode::<SolveResult>).transpose()?;
            match (job.state, result) {
                (JobState::Done, Some(result)) if result.is_solved => n_solved += 1,
                (JobState::Done | JobState::Discarded, _) => {
                    unsolved.push(decode::<SolvePayload>(&job.payload)?.task);
                }
                _ => {}
            }
        }
        if unsolved.is_empty() {
            return end("every task that could be tried is solved");
        }
        if generation >= self.workplace.config.generations {
            return end("the last generation has ended");
        }
        // Without a new adapter or a new record to show, the same would be asked again.
        if n_solved == 0 && !self.has_promoted()? {
            return end("nothing was learned that could solve the other tasks");
        }
        let seed = self.services().config.run.seed;
        let job = |task: &Task| solve_job(&swarm_id, generation + 1, (task, seed));
        self.begin_generation(&unsolved.iter().map(job).collect::<Vec<_>>())?;
        Ok(NextStep::Claim)
    }

    /// Whether the current generation has promoted an adapter.
    fn has_promoted(&self) -> Result<bool, SwarmError> {
        let report = report::report(&self.services().registry, &self.swarm.id)?;
        let current = report.generations.last();
        Ok(current.is_some_and(GenerationReport::has_promoted))
    }

    /// Names the limit that is reached.
    pub(super) fn limit_reached(&self) -> Option<String> {
        let SwarmLimits { seconds, max_tokens } = self.limits;
        if seconds.is_some_and(|limit| self.started.elapsed().as_secs() >= limit) {
            return Some("the time is used up".to_owned());
        }
        if max_tokens.is_some_and(|limit| self.tokens_out >= limit) {
            return Some("the tokens are used up".to_owned());
        }
        None
    }
}
