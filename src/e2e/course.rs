//! [`run`]: all steps, one after the other.

use std::path::PathBuf;
use std::time::Instant;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::home::Home;
use crate::registry::AdapterFilter;
use crate::shutdown::Shutdown;
use crate::shutdown::StoppedEarly;

use super::binary::RuneBinary;
use super::report::E2eReport;
use super::report::E2eStep;
use super::report::StepFailure;
use super::report::StepOutcome;
use super::report::StepResult;
use super::tasks::E2eProfile;
use super::tasks::Lesson;

/// Project that the sessions and adapters belong to.
pub(super) const PROJECT: &str = "e2e";

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct E2eRequest {
    /// How much is done.
    pub profile: E2eProfile,
    /// Path of the `rune` binary.
    pub executable: PathBuf,
    /// Empty folder for all homes and files.
    pub folder: PathBuf,
    /// Home whose models and packages are used.
    pub user: Home,
    /// Python interpreter of the settings; empty for the first one on `PATH`.
    pub python: String,
    /// Name of the model that learns.
    pub model: String,
    /// Name of the model that solves tasks.
    pub solver: String,
    /// Whether every step is first taken with a fault that it has to notice.
    pub tries_faults: bool,
}

/// Takes all steps, up to the first that fails. `on_step` is called before a step, with no outcome,
/// and after it.
///
/// # Errors
/// [`StoppedEarly`] when a signal stops it. Its processes are killed then.
pub async fn run(
    request: &E2eRequest,
    shutdown: &Shutdown,
    on_step: &mut dyn FnMut(E2eStep, Option<&StepOutcome>),
) -> Result<E2eReport, StoppedEarly> {
    let mut course = Course::new(request);
    let mut report = E2eReport::default();
    for step in E2eStep::ALL {
        on_step(step, None);
        let started = Instant::now();
        let (figures, failure) = match shutdown.or_stop(Box::pin(course.prove(step))).await? {
            Ok(figures) => (figures, None),
            Err(StepFailure(why)) => (Vec::new(), Some(why)),
        };
        let seconds = started.elapsed().as_secs_f64();
        let outcome = StepOutcome { step, seconds, figures, failure };
        on_step(step, Some(&outcome));
        let has_failed = outcome.failure.is_some();
        report.steps.push(outcome);
        if has_failed {
            break;
        }
    }
    Ok(report)
}

/// The binary, and what steps leave for later ones.
#[derive(Debug)]
pub(super) struct Course<'a> {
    pub(super) request: &'a E2eRequest,
    pub(super) rune: RuneBinary,
    /// The libraries that adapters learn.
    pub(super) lessons: Vec<Lesson>,
    /// Ids of the solved session and of the unsolved one.
    pub(super) sessions: Vec<String>,
    /// SHA-256 of the adapter that a short training gives.
    pub(super) short_sha256: String,
    /// The adapter of each library.
    pub(super) adapters: Vec<AdapterId>,
    pub(super) merged: Option<AdapterId>,
    pub(super) promoted: Option<AdapterId>,
}

impl<'a> Course<'a> {
    fn new(request: &'a E2eRequest) -> Self {
        let rune = RuneBinary {
            executable: request.executable.clone(),
            home: Home::new(request.folder.join("home")),
            folder: request.folder.clone(),
            variables: vec![
                ("RUNE_RUN_MODEL", request.model.clone()),
                ("RUNE_RUN_PROJECT", PROJECT.to_owned()),
                ("RUNE_SANDBOX_PYTHON", request.python.clone()),
            ],
        };
        Self {
            request,
            rune,
            lessons: Vec::new(),
            sessions: Vec::new(),
            short_sha256: String::new(),
            adapters: Vec::new(),
            merged: None,
            promoted: None,
        }
    }

    /// Takes a step; before that, with its fault if that is wanted.
    async fn prove(&mut self, step: E2eStep) -> StepResult {
        if !self.request.tries_faults {
            return self.take(step, false).await;
        }
        let Err(StepFailure(noticed)) = self.take(step, true).await else {
            return Err(StepFailure(format!("not noticed: {}", step.fault())));
        };
        let mut figures = self.take(step, false).await?;
        figures.push(format!("noticed that {}: {noticed}", step.fault()));
        Ok(figures)
    }

    async fn take(&mut self, step: E2eStep, has_fault: bool) -> StepResult {
        match step {
            E2eStep::Doctor => self.doctor(has_fault).await,
            E2eStep::Run => self.run(has_fault).await,
            E2eStep::Sessions => self.sessions(has_fault).await,
            E2eStep::Train => self.train(has_fault).await,
            E2eStep::Evaluate => self.evaluate(has_fault).await,
            E2eStep::Merge => self.merge(has_fault).await,
            E2eStep::Evolve => self.evolve(has_fault).await,
            E2eStep::Use => self.use_promoted(has_fault).await,
            E2eStep::Crash => self.crash(has_fault).await,
            E2eStep::Swarm => self.swarm(has_fault).await,
            E2eStep::Integrity => self.integrity(has_fault).await,
        }
    }

    pub(super) fn is_smoke(&self) -> bool {
        self.request.profile == E2eProfile::Smoke
    }

    /// Returns a path for a folder that does not exist yet.
    pub(super) fn new_folder(&self, name: &str) -> PathBuf {
        let numbered = |number: usize| self.request.folder.join(format!("{name}-{number}"));
        let mut paths = (1..).map(numbered);
        paths.find(|path| !path.exists()).unwrap_or_else(|| numbered(0))
    }

    /// Returns the binary in a new home, as another user would have it.
    pub(super) fn elsewhere(&self, name: &str) -> Result<RuneBinary, StepFailure> {
        self.rune.with_new_home(self.new_folder(name))
    }

    /// Returns the adapter that is stored under this name.
    pub(super) fn adapter_named(rune: &RuneBinary, name: &str) -> Result<Adapter, StepFailure> {
        let all = rune.registry()?.adapters(&AdapterFilter::default())?;
        let found = all.into_iter().find(|adapter| adapter.name.as_deref() == Some(name));
        found.ok_or_else(|| StepFailure(format!("no adapter is called {name}")))
    }
}
