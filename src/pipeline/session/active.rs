//! [`ActiveSession`]: a session from its first event to its last.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use serde_json::json;

use crate::documents::Document;
use crate::documents::Passage;
use crate::durable;
use crate::error_class::ErrorClass;
use crate::error_class::with_causes;
use crate::event::Event;
use crate::event::SCHEMA_VERSION;
use crate::judge::Judge;
use crate::judge::TestSuite;
use crate::judge::VerdictOutcome;
use crate::memory;
use crate::memory::ExcludedTasks;
use crate::memory::FoundPassages;
use crate::memory::RecallRequest;
use crate::memory::ShownMemory;
use crate::pipeline::PipelineTools;
use crate::pipeline::SessionSettings;
use crate::pipeline::Solution;
use crate::pipeline::new_session::NewSession;
use crate::pipeline::requirements::Assignment;
use crate::pipeline::solve::solve;
use crate::provider::Provider;
use crate::registry::AdapterStore;
use crate::registry::ClaimHolder;
use crate::registry::HeldClaim;
use crate::registry::SessionEnd;
use crate::sandbox::Sandbox;
use crate::selection;
use crate::selection::AdapterChoice;
use crate::services::Services;
use crate::shutdown::StopReason;
use crate::task::SourceFile;
use crate::task::Task;
use crate::trajectory::Attempt;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::OutputFolder;
use super::SessionError;
use super::SessionOutcome;
use super::SessionRequest;
use super::judge_of;
use super::prepare_suite;

/// A session that is running in this process.
pub(super) struct ActiveSession<'a> {
    pub(super) services: &'a Services,
    pub(super) sandbox: &'a Arc<Sandbox>,
    pub(super) target: &'a OutputFolder,
    /// Set once the session is in the registry; until then there is nothing to end.
    pub(super) claim: OnceLock<HeldClaim>,
}

impl ActiveSession<'_> {
    pub(super) async fn run(
        &self,
        request: SessionRequest,
    ) -> Result<SessionOutcome, SessionError> {
        let services = self.services;
        let mut judge = judge_of(services, self.sandbox)?;
        let mut of_job = None;
        let (assignment, left_out, found, resumed) = match request {
            SessionRequest::New { task, left_out, documents, job_id } => {
                of_job = job_id;
                let found = self.passages(&judge, &task, &documents).await?;
                (Assignment::of_new_task(&judge, task).await?, left_out, found, None)
            }
            SessionRequest::Resume(session) => {
                let assignment = Assignment::read(&judge, session.task.clone()).await?;
                (assignment, Vec::new(), FoundPassages::default(), Some(*session))
            }
        };
        // Everything that can be refused cheaply is refused before the model is loaded.
        prepare_suite(services, &mut judge, assignment.suite.as_ref()).await?;
        self.refuse_to_overwrite(assignment.paths())?;
        let provider = services.models.open(&services.config, &*services.reporter).await?;
        let (session, recorded) = if let Some(session) = resumed {
            self.resume(session)?
        } else {
            let asked = (assignment.task.clone(), of_job);
            (self.start(&provider, asked, &found.passages)?, Vec::new())
        };
        for omitted in left_out.iter().map(ToString::to_string).chain(found.left_out) {
            self.record_event(&Event::Warning { message: format!("left out {omitted}") })?;
        }
        self.load_adapter(&provider, &session).await?;
        let memory = ShownMemory {
            records: memory::shown_again(&services.registry, &session.memory)?,
            passages: session.passages.clone(),
        };
        let pipeline = PipelineTools {
            provider: &provider,
            judge,
            registry: &services.registry,
            settings: SessionSettings {
                seed: session.seed,
                adapter_id: session.adapter_id.clone(),
                ..SessionSettings::new(&services.config)
            },
            memory: &memory,
            reporter: &*services.reporter,
        };
        let claim = self.claim.get().expect("`start` and `resume` set the claim");
        let mut solution = solve(&pipeline, claim, &assignment, recorded).await?;
        self.check_against_stub(&pipeline.judge, assignment.suite.as_ref(), &mut solution).await?;
        self.finish(&session, claim, solution)
    }

    /// Warns if the user's tests also pass on a stub of the solution, and so prove nothing. With
    /// `run.strict_tests` the task then counts as unsolved.
    async fn check_against_stub(
        &self,
        judge: &Judge,
        suite: Option<&TestSuite>,
        solution: &mut Solution,
    ) -> Result<(), SessionError> {
        let Some(suite) = suite else { return Ok(()) };
        let is_decided = solution.verified_by == VerifiedBy::UserTests;
        if !is_decided || !judge.passes_on_a_stub(suite, &solution.files).await? {
            return Ok(());
        }
        let message =
            "the tests pass on a stub of the solution as well: they cannot decide about it";
        if let Some(verdict) =
            solution.verdict.as_mut().filter(|_| self.services.config.run.strict_tests)
        {
            verdict.outcome = VerdictOutcome::Unconfirmed(message.to_owned());
            verdict.assurance = None;
            solution.verified_by = VerifiedBy::None;
        }
        self.record_event(&Event::Warning { message: message.to_owned() })
    }

    /// Fails if a file of the solution already exists and `--force` is not set.
    fn refuse_to_overwrite(
        &self,
        mut paths: impl Iterator<Item = impl AsRef<Path>>,
    ) -> Result<(), SessionError> {
        let folder = &self.target.folder;
        match paths.find(|path| folder.join(path).exists()) {
            Some(path) if !self.target.force => Err(SessionError::InTheWay(folder.join(path))),
            _ => Ok(()),
        }
    }

    /// Returns the passages of the given documents, and of the packages that the task names.
    async fn passages(
        &self,
        judge: &Judge,
        task: &Task,
        documents: &[Document],
    ) -> Result<FoundPassages, SessionError> {
        let config = &self.services.config;
        let mut found = memory::passages_of(judge, documents).await?;
        if config.memory.kind.shows_records() {
            let lib = Some(&config.run.lib).filter(|lib| !lib.is_empty());
            let libs: Vec<PathBuf> = lib.into_iter().map(PathBuf::from).collect();
            found.extend(memory::package_passages(judge, &libs, task).await?);
        }
        Ok(found)
    }

    fn start(
        &self,
        provider: &Provider,
        (task, job_id): (Task, Option<String>),
        passages: &[Passage],
    ) -> Result<Session, SessionError> {
        let config = &self.services.config;
        let choice = if config.memory.kind.uses_adapter() {
            AdapterChoice::parse(&config.run.adapter)?
        } else {
            AdapterChoice::Nothing
        };
        let project = self.services.project.as_str();
        let (registry, base) = (&self.services.registry, provider.base());
        let wanted = (project, &task, config.run.seed);
        let selection = selection::select(registry, &base, wanted, &choice)?;
        let (text, excluded) = (task.text.as_str(), &ExcludedTasks::default());
        let request = RecallRequest { text, project, excluded };
        let (shown, passages) =
            memory::recall(registry, provider, &config.memory, (request, passages))?;
        let tier = json!(self.sandbox.facilities().tier);
        let folder = &self.target.folder;
        let workspace = std::path::absolute(folder)
            .map_err(|source| SessionError::Files { path: folder.clone(), source })?;
        let new = NewSession {
            project: project.to_owned(),
            workspace: Some(workspace.display().to_string()),
            selection,
            memory: memory::recalled(&shown),
            passages,
            sandbox_tier: tier.as_str().unwrap_or("none").to_owned(),
            config: json!(**config),
            model: config.run.model.clone(),
            job_id,
            ..NewSession::new(task, config.run.seed)
        };
        let (session, claim, event) = new.record(registry, provider)?;
        self.claim.get_or_init(|| claim);
        self.services.report(&session.id, &event);
        if let Some(event) = Event::memory_of(&session) {
            self.services.report(&session.id, &event);
        }
        Ok(session)
    }

    fn resume(&self, session: Session) -> Result<(Session, Vec<Attempt>), SessionError> {
        let registry = &self.services.registry;
        let event = |n_attempts| Event::SessionResumed { schema: SCHEMA_VERSION, n_attempts };
        let claim = registry.reopen_session(&session.id, &ClaimHolder::ThisProcess, event)?;
        self.claim.get_or_init(|| claim);
        let recorded = registry.attempts(&session.id)?;
        let n_attempts = u32::try_from(recorded.len()).unwrap_or(u32::MAX);
        self.services.report(&session.id, &event(n_attempts));
        Ok((session, recorded))
    }

    /// Loads the session's adapter into the provider.
    async fn load_adapter(
        &self,
        provider: &Provider,
        session: &Session,
    ) -> Result<(), SessionError> {
        let Some(id) = &session.adapter_id else { return Ok(()) };
        let store = AdapterStore::open(&self.services.registry, &self.services.home)?;
        provider.load_adapter(id, &store.path(id)).await?;
        let message = format!("adapter {id}: {}", session.adapter_reason);
        self.services.report(&session.id, &Event::notice(message));
        Ok(())
    }

    /// Writes the solution and ends the session. A copy always goes to Rune's home first, so that
    /// nothing is lost if the output folder cannot be written.
    fn finish(
        &self,
        session: &Session,
        claim: &HeldClaim,
        solution: Solution,
    ) -> Result<SessionOutcome, SessionError> {
        let kept = self.services.home.session(&session.id);
        write(&kept, &solution.files)?;
        write(&kept, &solution.generated_tests)?;
        // Files may have appeared since the first check, many minutes ago.
        let in_the_way =
            self.refuse_to_overwrite(solution.files.iter().map(|file| &file.path)).err();
        let is_written = solution.is_solved() && in_the_way.is_none();
        let folder = if is_written { &self.target.folder } else { &kept };
        if is_written {
            write(folder, &solution.files)?;
        }
        let paths: Vec<PathBuf> =
            solution.files.iter().map(|file| folder.join(&file.path)).collect();
        let (status, class) = match (solution.is_solved(), &solution.budget) {
            (true, _) if is_written => (SessionStatus::Solved, None),
            (true, _) => (SessionStatus::Solved, Some(ErrorClass::Conflict)),
            (false, Some(_)) => (SessionStatus::Unsolved, Some(ErrorClass::Budget)),
            (false, None) => (SessionStatus::Unsolved, Some(ErrorClass::Unsolved)),
        };
        let exit_code = i32::from(class.map_or(0, ErrorClass::exit_code));
        let (verified_by, assurance) = (solution.verified_by, solution.assurance());
        let event = Event::SessionCompleted {
            status,
            verified_by,
            assurance,
            reason: solution.reason().to_owned(),
            exit_code,
            files: paths.iter().map(|path| path.display().to_string()).collect(),
            tokens_in: solution.tokens_in,
            tokens_out: solution.tokens_out,
            seconds: solution.elapsed.as_secs_f64(),
            summary: solution.summary(),
        };
        let ending = SessionEnd { status, verified_by, assurance, exit_code };
        self.services.registry.end_session_with(claim, &ending, &event, &solution.files)?;
        self.services.report(&session.id, &event);
        let outcome = SessionOutcome { id: session.id.clone(), solution, paths, class };
        if !is_written && !outcome.paths.is_empty() {
            self.services.report(&session.id, &Event::notice(outcome.kept()));
        }
        match in_the_way {
            Some(in_the_way) if outcome.solution.is_solved() => Err(in_the_way),
            _ => Ok(outcome),
        }
    }

    /// Ends a session that an error interrupted.
    pub(super) fn end_failed(&self, error: &SessionError) {
        let Some(claim) = self.claim.get() else { return };
        let exit_code = i32::from(error.class().exit_code());
        let event = Event::SessionFailed { exit_code, error: with_causes(error) };
        let ending = SessionEnd::unverified(SessionStatus::Failed, exit_code);
        // The registry itself may be what failed, or the session may already be over. The caller
        // reports `error`, so a second error is dropped.
        if self.services.registry.end_session(claim, &ending, &event).is_ok() {
            let id = claim.id();
            self.services.report(id, &event);
            let message = format!("resume with: rune run --resume {id}");
            self.services.report(id, &Event::notice(message));
        }
    }

    /// Ends a session that a signal stopped, and returns the error to report.
    pub(super) fn end_stopped(&self, reason: StopReason) -> SessionError {
        let claim = self.claim.get();
        let id = claim.map(|claim| claim.id().to_owned());
        let error = SessionError::Stopped { id, reason };
        let Some(claim) = claim else { return error };
        let exit_code = i32::from(error.class().exit_code());
        let event = Event::SessionFailed { exit_code, error: error.to_string() };
        let ending = SessionEnd::unverified(SessionStatus::Interrupted, exit_code);
        let ended = self
            .record_event(&Event::SessionInterrupted)
            .and_then(|()| Ok(self.services.registry.end_session(claim, &ending, &event)?));
        match ended {
            Ok(()) => {
                self.services.report(claim.id(), &event);
                error
            }
            Err(error) => error,
        }
    }

    /// Records and reports an event of the session.
    fn record_event(&self, event: &Event) -> Result<(), SessionError> {
        if let Some(claim) = self.claim.get() {
            self.services.registry.append_event(claim, event)?;
            self.services.report(claim.id(), event);
        }
        Ok(())
    }
}

impl Drop for ActiveSession<'_> {
    /// Gives the session back if a panic has ended its work, or the future of the work was dropped.
    fn drop(&mut self) {
        // Whatever else has ended the session has released the claim, and this is refused.
        let _already_over = self.end_stopped(StopReason::Terminated);
    }
}

impl SessionOutcome {
    /// Says where a candidate is that was not written to the output folder.
    fn kept(&self) -> String {
        let noun = if self.solution.is_solved() { "solution" } else { "best candidate" };
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        format!("the {noun} is kept: {}", paths.join(", "))
    }
}

/// Writes each file atomically.
fn write(folder: &Path, files: &[SourceFile]) -> Result<(), SessionError> {
    for file in files {
        let path = folder.join(&file.path);
        durable::write(&path, file.bytes())
            .map_err(|source| SessionError::Files { path: path.clone(), source })?;
    }
    Ok(())
}
