//! The work of each kind of job. Every job can be tried again from any point: it first looks for
//! what an earlier attempt has left.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::config::Config;
use crate::digest::sha256;
use crate::error_class::ErrorClass;
use crate::error_class::with_causes;
use crate::evaluation;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvaluationError;
use crate::evaluation::MeasureOptions;
use crate::evaluation::MeasuredAdapters;
use crate::evaluation::PackageModules;
use crate::evaluation::SuiteStore;
use crate::evaluation::TaskSuite;
use crate::event::PairedScores;
use crate::event::PassRate;
use crate::evolution;
use crate::evolution::EvolveReport;
use crate::evolution::EvolveRequest;
use crate::families::FamilySplit;
use crate::job::JobKind;
use crate::judge::RequestError;
use crate::pipeline;
use crate::pipeline::OutputFolder;
use crate::pipeline::SessionError;
use crate::pipeline::SessionRequest;
use crate::provider::Provider;
use crate::registry::Job;
use crate::registry::JobEnd;
use crate::registry::LedgerFilter;
use crate::registry::LedgerRow;
use crate::registry::NewJob;
use crate::registry::RegistryError;
use crate::registry::RunStatus;
use crate::registry::TrainingRun;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::task::Task;
use crate::training;
use crate::training::DataRequest;
use crate::training::TrainingError;
use crate::training::TrainingRequest;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::config::SwarmConfig;
use super::error::SwarmError;

/// Seconds between two checkpoints of a training.
const CHECKPOINT_SECONDS: u64 = 60;

/// What all jobs of a swarm share.
pub(super) struct Workplace {
    pub(super) id: String,
    pub(super) services: Services,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) config: SwarmConfig,
    pub(super) suite: TaskSuite,
    pub(super) modules: PackageModules,
    /// Kept open for as long as the swarm runs; sessions and evaluations open the same one.
    pub(super) provider: Arc<Provider>,
}

/// What a job of the kind [`JobKind::Solve`] is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SolvePayload {
    pub(super) task: Task,
    /// Random seed of the session.
    pub(super) seed: u64,
}

/// What it has led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SolveResult {
    pub(super) session_id: String,
    pub(super) is_solved: bool,
    pub(super) verified_by: VerifiedBy,
    /// Whether the session may be trained on.
    pub(super) is_sound: bool,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
    pub(super) adapter_id: Option<AdapterId>,
    pub(super) exit_code: Option<i32>,
}

/// What a job of the kind [`JobKind::Train`] is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainPayload {
    /// Ids of the sessions to train on.
    pub(super) sessions: Vec<String>,
}

/// What it has led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainResult {
    pub(super) adapter_id: AdapterId,
    pub(super) n_sessions: usize,
}

/// Score of base and incumbent on held-out tasks: a part of the result of a job of the kind
/// [`JobKind::Evaluate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutScore {
    /// Name of the suite.
    pub suite: String,
    /// Split of its tasks: `gate`, or `all` for a suite that nothing is trained on.
    pub split: String,
    /// Score of the base model.
    pub base: PassRate,
    /// Adapter that the project uses; `None` for the base model alone.
    pub incumbent: Option<AdapterId>,
    /// Score of the incumbent: that of the base model if there is none.
    pub score: PassRate,
    /// The incumbent compared with the base.
    pub against_base: PairedScores,
    /// Tasks that the incumbent solves, with the family of each.
    pub answers: Vec<HeldOutAnswer>,
}

/// Whether the incumbent solves a held-out task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOutAnswer {
    /// Id of the task.
    pub task: String,
    /// Family of the task.
    pub family: String,
    /// Whether the answer passed.
    pub passed: bool,
}

/// Decodes the payload or the result of a job.
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, RegistryError> {
    serde_json::from_value(value.clone()).map_err(|error| RegistryError::Unreadable {
        column: "job.payload_json",
        text: error.to_string(),
    })
}

/// Creates a job of a swarm.
pub(super) fn new_job(
    swarm_id: &str,
    (kind, generation): (JobKind, u32),
    about: &Value,
    payload: Value,
) -> NewJob {
    let key = sha256(json!([swarm_id, kind.as_str(), about]).to_string().as_bytes());
    NewJob { kind, key, generation, payload }
}

impl Workplace {
    /// Does a job with `services`, which stop it and hear of its progress.
    ///
    /// # Errors
    /// [`SwarmError::Registry`]. Any other error is that of the job.
    pub(super) async fn work(&self, services: &Services, job: &Job) -> Result<JobEnd, SwarmError> {
        match job.kind {
            JobKind::Solve => self.solve(services, job).await,
            JobKind::Train => self.train(services, job).await,
            JobKind::Evolve => self.evolve(services, job).await,
            JobKind::Evaluate => self.evaluate(services).await,
        }
    }

    async fn solve(&self, services: &Services, job: &Job) -> Result<JobEnd, SwarmError> {
        let SolvePayload { task, seed } = decode(&job.payload)?;
        let registry = &services.registry;
        let folder = services.home.swarm(&self.id).join("solved").join(folder_name(&task));
        let request = match registry.session_of_job(&job.id)? {
            Some(session) if is_over(&session) => return Ok(solved(&session)),
            Some(session) => SessionRequest::Resume(Box::new(session)),
            None => SessionRequest::New {
                task,
                left_out: Vec::new(),
                documents: Vec::new(),
                job_id: Some(job.id.clone()),
            },
        };
        let mut config = Config::clone(&services.config);
        config.run.seed = seed;
        let services = Services { config: Arc::new(config), ..services.clone() };
        let target = OutputFolder { folder, force: true };
        match pipeline::run_session((&services, &self.sandbox), request, &target).await {
            Ok(outcome) => Ok(solved(&registry.session(&outcome.id)?)),
            Err(SessionError::Stopped { .. }) => Ok(JobEnd::Stopped),
            Err(
                error @ (SessionError::NothingChecked
                | SessionError::PassesOnNothing
                | SessionError::Request(RequestError::Suite(_))),
            ) => Ok(JobEnd::Failed(with_causes(&error))),
            Err(error) => Ok(JobEnd::Retry(with_causes(&error))),
        }
    }

    async fn train(&self, services: &Services, job: &Job) -> Result<JobEnd, SwarmError> {
        let payload: TrainPayload = decode(&job.payload)?;
        let n_sessions = payload.sessions.len();
        let trained = match services.registry.training_run_of_job(&job.id)? {
            Some(TrainingRun { status: RunStatus::Completed, adapter_id: Some(id), .. }) => Ok(id),
            Some(run) => training::resume(services, &run.id, CHECKPOINT_SECONDS).await,
            None => self.train_anew(services, job, payload).await,
        };
        let error = match trained {
            Ok(id) | Err(TrainingError::Registry(RegistryError::AdapterExists(id))) => {
                let kind = (JobKind::Evolve, job.generation);
                let next = new_job(&self.id, kind, &json!([id]), json!({}));
                let result = json!(TrainResult { adapter_id: id, n_sessions });
                return Ok(JobEnd::Done(result, vec![next]));
            }
            Err(error) => error,
        };
        Ok(match error.class() {
            ErrorClass::Stopped(_) => JobEnd::Stopped,
            ErrorClass::Usage | ErrorClass::NotFound | ErrorClass::Unsolved => {
                JobEnd::Failed(with_causes(&error))
            }
            _ => JobEnd::Retry(with_causes(&error)),
        })
    }

    async fn train_anew(
        &self,
        services: &Services,
        job: &Job,
        payload: TrainPayload,
    ) -> Result<AdapterId, TrainingError> {
        let wanted = DataRequest { sessions: payload.sessions, ..DataRequest::default() };
        let data = training::collect(&services.registry, &wanted, None, &*services.reporter)?;
        let request = TrainingRequest {
            data,
            options: self.config.training.clone(),
            name: Some(format!("{} {}", self.config.suite, job.generation)),
            scope: Scope::Project,
            session_id: None,
            from: None,
            checkpoint_seconds: CHECKPOINT_SECONDS,
            job_id: Some(job.id.clone()),
        };
        training::train(services, &request).await
    }

    async fn evolve(&self, services: &Services, job: &Job) -> Result<JobEnd, SwarmError> {
        let request = EvolveRequest {
            project: services.project.clone(),
            suite: self.suite.clone(),
            modules: self.modules.clone(),
            lib: self.config.lib.clone(),
            is_once: false,
            deadline: None,
        };
        Ok(match evolution::evolve((services, &self.sandbox), &request).await {
            Ok(report) => {
                // An earlier attempt may have made some of them.
                let decisions = self.decisions_since(&job.queued_at)?;
                JobEnd::Done(json!(EvolveReport { decisions, ..report }), Vec::new())
            }
            Err(error) => end_of(error.class(), with_causes(&error)),
        })
    }

    /// Returns the decisions of the project since `at`, oldest first.
    fn decisions_since(&self, at: &str) -> Result<Vec<LedgerRow>, RegistryError> {
        let services = &self.services;
        let project = Some(services.project.clone());
        let filter = LedgerFilter { project, ..LedgerFilter::default() };
        let mut rows = services.registry.ledger(&filter, u32::MAX)?;
        let base_digest = self.provider.base().base_digest;
        rows.retain(|row| row.base_digest == base_digest && row.at.as_str() >= at);
        rows.reverse();
        Ok(rows)
    }

    async fn evaluate(&self, services: &Services) -> Result<JobEnd, SwarmError> {
        Ok(match self.measure(services).await {
            Ok(scores) => JobEnd::Done(json!(scores), Vec::new()),
            Err(error) => end_of(error.class(), with_causes(&error)),
        })
    }

    /// Returns what base and incumbent are measured on, with the name of the split.
    fn parts(&self) -> Result<Vec<(TaskSuite, &str)>, EvaluationError> {
        let gate = FamilySplit::Gate;
        let mut parts = vec![(self.suite.clone().part(gate), gate.as_str())];
        let store = SuiteStore::open(&self.services.home)?;
        for name in &self.config.anchors {
            parts.push((store.read(name)?, "all"));
        }
        parts.retain(|(suite, _)| suite.n_tasks() > 0);
        Ok(parts)
    }

    async fn measure(&self, services: &Services) -> Result<Vec<HeldOutScore>, EvaluationError> {
        let incumbent = self.incumbent()?;
        let adapters = MeasuredAdapters::These(incumbent.iter().cloned().collect());
        let mut scores = Vec::new();
        for (suite, split) in self.parts()? {
            if let Some(id) = &incumbent {
                let seen = services.registry.adapter(id)?.train_families;
                if let Err(error) = evaluation::refuse_seen(&suite, &seen) {
                    services.notice(format!("`{}` is left out: {error}", suite.name));
                    continue;
                }
            }
            let options = MeasureOptions {
                split: split.to_owned(),
                // What a swarm reports is no reason to choose an adapter: the gate has decided.
                is_recorded: false,
                ..evolution::measure_options(self.config.lib.as_deref())
            };
            let what = (&suite, &self.modules);
            let measured =
                evaluation::measure((services, &self.sandbox), what, &adapters, &options).await?;
            let base: Vec<&EvalOutcome> = measured.base.iter().collect();
            let of_incumbent = measured.adapters.first().map_or(&measured.base, |(_, found)| found);
            let used: Vec<&EvalOutcome> = of_incumbent.iter().collect();
            scores.push(HeldOutScore {
                suite: suite.name.clone(),
                split: split.to_owned(),
                base: evaluation::score(&base),
                incumbent: incumbent.clone(),
                score: evaluation::score(&used),
                against_base: evaluation::compare(&base, &used),
                answers: used.into_iter().map(HeldOutAnswer::of).collect(),
            });
        }
        Ok(scores)
    }

    /// Returns the adapter that the project uses; `None` for the base model alone.
    pub(super) fn incumbent(&self) -> Result<Option<AdapterId>, RegistryError> {
        let services = &self.services;
        let base_digest = self.provider.base().base_digest;
        services.registry.incumbent(&services.project, &base_digest)
    }
}

impl HeldOutScore {
    /// Names what was measured.
    pub(super) fn label(&self) -> String {
        format!("{} ({})", self.suite, self.split)
    }
}

impl HeldOutAnswer {
    fn of(outcome: &EvalOutcome) -> Self {
        let EvalOutcome { id, family, passed, .. } = outcome;
        Self { task: id.clone(), family: family.clone(), passed: *passed }
    }
}

/// Whether a session has run to its end.
fn is_over(session: &Session) -> bool {
    matches!(session.status, SessionStatus::Solved | SessionStatus::Unsolved)
}

fn solved(session: &Session) -> JobEnd {
    let result = SolveResult {
        session_id: session.id.clone(),
        is_solved: session.status == SessionStatus::Solved,
        verified_by: session.verified_by,
        is_sound: session.is_sound(),
        tokens_in: session.tokens_in,
        tokens_out: session.tokens_out,
        adapter_id: session.adapter_id.clone(),
        exit_code: session.exit_code,
    };
    JobEnd::Done(json!(result), Vec::new())
}

fn end_of(class: ErrorClass, error: String) -> JobEnd {
    match class {
        ErrorClass::Stopped(_) => JobEnd::Stopped,
        ErrorClass::Usage | ErrorClass::NotFound => JobEnd::Failed(error),
        _ => JobEnd::Retry(error),
    }
}

/// Returns a name for the folder of a task's solution: its id, as far as a file system takes it,
/// and a digest, so that no two tasks share one.
fn folder_name(task: &Task) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = task.id.0.chars().map(plain).take(40).collect();
    format!("{name}-{}", &sha256(task.id.0.as_bytes())[..8])
}
