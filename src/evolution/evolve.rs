//! The workflow of `rune evolve`: measures the adapters of a project, keeps what evidence shows to
//! be better, and merges what may be better still.
//!
//! ```text
//! adapters -> duplicates out -> race on dev -> clearly worse than the base: archived
//!                                   |
//!                                   +-> ahead of the incumbent: gate -> promoted
//!                                   +-> good at different tasks: merged -> gate -> stored
//! ```
//!
//! Without evidence nothing changes. Every decision is a row of the ledger with a key, and every
//! answer is cached, so a call that was killed is continued by the next one, and a call after a
//! finished one changes nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::durable;
use crate::evaluation;
use crate::evaluation::EvaluationError;
use crate::evaluation::Evaluator;
use crate::evaluation::MeasureOptions;
use crate::evaluation::SuiteStore;
use crate::evaluation::TaskSuite;
use crate::families::FamilySplit;
use crate::home::Home;
use crate::model;
use crate::provider::BaseModel;
use crate::provider::ProviderError;
use crate::registry::AdapterStore;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::trajectory::Sampling;

use super::error::EvolutionError;
use super::examiner::Examiner;
use super::request::EvolveReport;
use super::request::EvolveRequest;
use super::request::Population;
use super::round::Round;
use super::trial::TrialTasks;

/// Maximum tasks of other projects on which a promotion must do no harm.
const MAX_SENTINELS: usize = 64;

/// Returns what a call of [`evolve`] would begin with. Nothing is asked.
///
/// # Errors
/// [`EvolutionError::Evaluation`] when the model cannot be read; [`EvolutionError::Registry`].
pub async fn plan(
    services: &Services,
    request: &EvolveRequest,
) -> Result<Population, EvolutionError> {
    let found = services.models.find(&services.config.run.model, &*services.reporter).await;
    let model = found.map_err(EvaluationError::from)?;
    let identity = model::identify(&model.path).map_err(ProviderError::from);
    let identity = identity.map_err(EvaluationError::from)?;
    let base_model = format!("{}@{}", model.hub_id, identity.tokenizer_digest);
    let base = BaseModel { base_model, base_digest: identity.base_digest };
    request.population(&services.registry, &base)
}

/// Evolves the adapters of a project.
///
/// # Errors
/// [`EvolutionError::Busy`] when another process evolves; [`EvolutionError::Evaluation`];
/// [`EvolutionError::Registry`]; [`EvolutionError::System`]; [`EvolutionError::Peft`] and
/// [`EvolutionError::Merge`] when a merge cannot be stored; [`EvolutionError::Stopped`] on
/// shutdown. What was decided before stays decided.
pub async fn evolve(
    (services, sandbox): (&Services, &Arc<Sandbox>),
    request: &EvolveRequest,
) -> Result<EvolveReport, EvolutionError> {
    let _lock = lock(&services.home)?;
    // A merge belongs to the project whose adapters it is made of.
    let services = &Services { project: request.project.clone(), ..services.clone() };
    let [dev, gate] = [FamilySplit::Dev, FamilySplit::Gate].map(|split| request.part(split));
    let mut report = EvolveReport {
        project: request.project.clone(),
        suite: request.suite.name.clone(),
        n_dev: dev.n_tasks(),
        n_gate: gate.n_tasks(),
        n_missing: request.n_missing(),
        raced: Vec::new(),
        decisions: Vec::new(),
        incumbent: None,
        is_complete: true,
    };
    if report.n_missing > 0 {
        return Ok(report);
    }
    let sentinels = sentinels(services, request)?;
    let options = measure_options(request.lib.as_deref());
    let needs_pytest = request.suite.has_sessions() || sentinels.has_sessions();
    let sandboxed = (services, sandbox);
    let evaluator = Evaluator::open(sandboxed, (&request.modules, needs_pytest), &options).await?;
    let base = evaluator.provider.base();
    let mut round = Round {
        examiner: Examiner::new(services, &evaluator, (&options.sampling, request.deadline)),
        store: AdapterStore::open(&services.registry, &services.home)?,
        request,
        base: base.clone(),
        dev: &dev,
        tasks: TrialTasks { gate: &gate, sentinels: &sentinels },
        report: &mut report,
    };
    match round.repeat().await {
        Ok(()) => {}
        Err(EvolutionError::OutOfTime) => round.report.is_complete = false,
        Err(error) => return Err(error),
    }
    report.incumbent = services.registry.incumbent(&request.project, &base.base_digest)?;
    Ok(report)
}

/// Options of all measurements: one greedy completion a task, which may import the packages of the
/// folder `lib`.
pub fn measure_options(lib: Option<&Path>) -> MeasureOptions {
    MeasureOptions {
        lib: lib.map(Path::to_owned),
        sampling: Sampling { max_tokens: 512, ..Sampling::default() },
        ..MeasureOptions::default()
    }
}

/// Keeps other processes from deciding at the same time.
pub(super) fn lock(home: &Home) -> Result<File, EvolutionError> {
    durable::try_lock(&home.evolve_lock())?.ok_or(EvolutionError::Busy)
}

/// Returns tasks of other projects and suites, of families that nothing is trained on. HumanEval is
/// an external anchor, which nothing is promoted by.
fn sentinels(services: &Services, request: &EvolveRequest) -> Result<TaskSuite, EvolutionError> {
    let store = SuiteStore::open(&services.home)?;
    let mut all = TaskSuite::new("sentinels", Vec::new());
    for name in store.names()? {
        if name != request.suite.name && !name.starts_with("humaneval") {
            all.extend(store.read(&name)?.part(FamilySplit::Gate));
        }
    }
    for project in services.registry.projects()? {
        if project != request.project {
            let suite = evaluation::session_suite(&services.registry, &project)?;
            all.extend(suite.part(FamilySplit::Gate));
        }
    }
    Ok(all.by_family().first(MAX_SENTINELS))
}
