//! [`SuiteMemory`]: the records of earlier sessions that an evaluation shows.

use std::collections::BTreeSet;

use crate::config::MemoryConfig;
use crate::memory;
use crate::memory::MemoryError;
use crate::memory::RecallRequest;
use crate::provider::Provider;
use crate::registry::ExperienceRecord;
use crate::registry::Registry;
use crate::trajectory::family_of;

use super::suite::TaskSuite;
use super::task::EvalTask;

/// Records that an evaluation may show: those of the registry, except the families of the measured
/// suite.
#[derive(Debug, Default)]
pub struct SuiteMemory {
    /// Limits; `None` if no records are shown.
    settings: Option<MemoryConfig>,
    project: String,
    excluded_families: BTreeSet<String>,
}

impl SuiteMemory {
    /// Creates the memory of an evaluation of `suite`. A session of a task of the suite is excluded
    /// also if it was run from the text of the task alone, without a family.
    pub fn new(settings: &MemoryConfig, project: &str, suite: &TaskSuite) -> Self {
        let families = suite.families().map(str::to_owned);
        let texts = suite.tasks().iter().flat_map(EvalTask::texts).map(family_of);
        Self {
            settings: Some(settings.clone()),
            project: project.to_owned(),
            excluded_families: families.chain(texts).collect(),
        }
    }

    /// Finds the records to show for a task, nearest first.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub(super) fn recall(
        &self,
        registry: &Registry,
        provider: &Provider,
        task: &EvalTask,
    ) -> Result<Vec<ExperienceRecord>, MemoryError> {
        let (Some(settings), Some(text)) = (&self.settings, task.texts().next()) else {
            return Ok(Vec::new());
        };
        let (project, excluded_families) = (self.project.as_str(), &self.excluded_families);
        let request = RecallRequest { text, project, excluded_families };
        let shown = memory::recall(registry, provider, settings, request)?;
        Ok(shown.into_iter().map(|near| near.record).collect())
    }
}
