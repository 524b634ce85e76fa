//! [`NewSession`]: the registry row of a session that starts.

use std::time::SystemTime;

use serde_json::Value;

use crate::documents::Passage;
use crate::event::Event;
use crate::event::SCHEMA_VERSION;
use crate::event::timestamp;
use crate::provider::Provider;
use crate::registry::ClaimHolder;
use crate::registry::HeldClaim;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::registry::new_id;
use crate::selection::Selection;
use crate::task::Task;
use crate::trajectory::RecalledRecord;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

/// A session that is not recorded yet.
pub(crate) struct NewSession {
    pub(crate) task: Task,
    /// Random seed for sampling.
    pub(crate) seed: u64,
    /// Key of the project that the session belongs to.
    pub(crate) project: String,
    /// Absolute path of the output folder.
    pub(crate) workspace: Option<String>,
    /// Selected adapter, with the reason.
    pub(crate) selection: Selection,
    /// Records of earlier sessions that it shows.
    pub(crate) memory: Vec<RecalledRecord>,
    /// Passages of documents that it shows.
    pub(crate) passages: Vec<Passage>,
    /// Isolation of model-written code, as recorded.
    pub(crate) sandbox_tier: String,
    /// Settings, which a resumed session uses again.
    pub(crate) config: Value,
    /// Name of the base model.
    pub(crate) model: String,
    /// Job of a swarm that the session belongs to.
    pub(crate) job_id: Option<String>,
}

impl NewSession {
    /// Creates a session without project and adapter.
    pub(crate) fn new(task: Task, seed: u64) -> Self {
        Self {
            task,
            seed,
            project: String::new(),
            workspace: None,
            selection: Selection::none(String::new()),
            memory: Vec::new(),
            passages: Vec::new(),
            sandbox_tier: String::new(),
            config: Value::Null,
            model: String::new(),
            job_id: None,
        }
    }

    /// Stores the session with its first event and claims it for this process. Returns the session,
    /// the claim and the event.
    ///
    /// # Errors
    /// Those of the registry.
    pub(crate) fn record(
        self,
        registry: &Registry,
        provider: &Provider,
    ) -> Result<(Session, HeldClaim, Event), RegistryError> {
        let base = provider.base();
        let session = Session {
            id: new_id()?,
            project: self.project,
            workspace: self.workspace,
            provider: provider.name().to_owned(),
            base_model: base.base_model,
            base_digest: base.base_digest,
            adapter_id: self.selection.adapter_id,
            adapter_reason: self.selection.reason,
            propensity: self.selection.propensity,
            memory: self.memory,
            passages: self.passages,
            status: SessionStatus::Running,
            verified_by: VerifiedBy::None,
            assurance: None,
            sandbox_tier: self.sandbox_tier,
            seed: self.seed,
            config_json: self.config,
            tokens_in: 0,
            tokens_out: 0,
            started_at: timestamp(SystemTime::now()),
            ended_at: None,
            exit_code: None,
            job_id: self.job_id,
            task: self.task,
        };
        let event = Event::SessionStarted {
            schema: SCHEMA_VERSION,
            task: session.task.text.clone(),
            task_type: session.task.task_type,
            provider: session.provider.clone(),
            model: self.model,
            seed: session.seed,
        };
        let claim = registry.begin_session(&session, &ClaimHolder::ThisProcess, &event)?;
        Ok((session, claim, event))
    }
}
