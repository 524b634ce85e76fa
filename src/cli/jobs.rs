//! `rune jobs`.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::job::JobKind;
use crate::job::JobState;
use crate::registry::Job;
use crate::registry::JobError;
use crate::registry::JobFilter;

/// Maximum characters of the work in the list.
const WORK_WIDTH: usize = 50;

/// List, cancel and retry the jobs of swarms
#[derive(Debug, clap::Subcommand)]
pub(super) enum JobsArgs {
    /// List jobs in the order in which they were queued
    List {
        /// Print only the jobs of this swarm
        #[arg(long, value_name = "ID")]
        swarm: Option<String>,
        /// Print only jobs of this kind
        #[arg(long, value_parser = one_of(&JobKind::ALL, JobKind::as_str))]
        kind: Option<JobKind>,
        /// Print only jobs in this state
        #[arg(long, value_parser = one_of(&JobState::ALL, JobState::as_str))]
        state: Option<JobState>,
        /// Maximum number of jobs
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Print a job with its result and all of its errors
    Show {
        /// Job id
        id: String,
    },
    /// Cancel a job that is waiting
    Cancel {
        /// Job id
        id: String,
    },
    /// Queue a job again that failed, was discarded or cancelled
    Retry {
        /// Job id
        id: String,
    },
}

/// Parses one of `all` by its word.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    word: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let known = PossibleValuesParser::new(all.iter().map(|one| word(*one)));
    known.map(move |text| {
        let found = all.iter().find(|one| word(**one) == text);
        *found.expect("clap lets only these words through")
    })
}

pub(super) fn run(context: &Context, args: &JobsArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    match args {
        JobsArgs::List { swarm, kind, state, limit } => {
            let filter = JobFilter { swarm_id: swarm.clone(), kind: *kind, state: *state };
            output::print(&list(context, &registry.jobs(&filter, *limit)?))?;
        }
        JobsArgs::Show { id } => {
            let (job, errors) = (registry.job(id)?, registry.job_errors(id)?);
            output::print(&if context.json {
                json!({ "job": job, "errors": errors }).to_string() + "\n"
            } else {
                show(&job, &errors)
            })?;
        }
        JobsArgs::Cancel { id } => registry.cancel_job(id)?,
        JobsArgs::Retry { id } => registry.retry_job(id)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context, jobs: &[Job]) -> String {
    if context.json {
        return jobs.iter().map(|job| json!(job).to_string() + "\n").collect();
    }
    if jobs.is_empty() {
        return "no such jobs: `rune swarm` queues them\n".to_owned();
    }
    let head = ["ID", "KIND", "STATE", "ATTEMPT", "GENERATION", "SECONDS", "WORK"];
    let rows = jobs.iter().map(|job| {
        vec![
            job.id.clone(),
            job.kind.as_str().to_owned(),
            job.state.as_str().to_owned(),
            job.attempt.to_string(),
            job.generation.to_string(),
            format!("{:.1}", job.seconds),
            work(job).chars().take(WORK_WIDTH).collect(),
        ]
    });
    output::table(
        &std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>(),
    )
}

fn show(job: &Job, errors: &[JobError]) -> String {
    let result = job.result.as_ref().map_or_else(|| "-".to_owned(), |result| format!("{result:#}"));
    let rows = [
        ("job", job.id.clone()),
        ("swarm", job.swarm_id.clone()),
        ("kind", job.kind.as_str().to_owned()),
        ("state", job.state.as_str().to_owned()),
        ("attempt", format!("{} of {}", job.attempt, job.kind.max_attempts())),
        ("generation", job.generation.to_string()),
        ("work", work(job)),
        ("seconds", format!("{:.1}", job.seconds)),
        ("queued", job.queued_at.clone()),
        ("ended", job.ended_at.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    let error = |found: &JobError| {
        let JobError { attempt, error, at } = found;
        format!("\n{at}  attempt {attempt}: {}\n", escape_line(error))
    };
    let errors: String = errors.iter().map(error).collect();
    format!("{}{errors}\nresult: {result}\n", output::table(&rows))
}

/// Describes what a job is to do.
fn work(job: &Job) -> String {
    let words = match job.kind {
        JobKind::Solve => job.payload["task"]["id"].as_str().unwrap_or_default().to_owned(),
        JobKind::Train => {
            let n_sessions = job.payload["sessions"].as_array().map_or(0, Vec::len);
            format!("{n_sessions} sessions")
        }
        JobKind::Evaluate => "base and incumbent on held-out tasks".to_owned(),
        JobKind::Evolve => "adapters of the project".to_owned(),
    };
    escape_line(&words).into_owned()
}
