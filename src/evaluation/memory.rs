//! [`SuiteMemory`]: the records of earlier sessions that an evaluation shows.

use std::collections::BTreeMap;

use crate::config::MemoryConfig;
use crate::memory;
use crate::memory::ExcludedTasks;
use crate::memory::MemoryError;
use crate::memory::RecallRequest;
use crate::provider::Provider;
use crate::registry::ExperienceRecord;
use crate::registry::Registry;

use super::suite::TaskSuite;
use super::task::EvalTask;

/// Records to show for each task of a suite: those of the registry that are nearest, except
/// sessions of the suite's own tasks. They are chosen once, so that the base and all adapters see
/// the same ones.
#[derive(Debug, Default)]
pub struct SuiteMemory {
    /// Records by the id of the task, nearest first.
    shown: BTreeMap<String, Vec<ExperienceRecord>>,
}

impl SuiteMemory {
    /// Finds the records for all tasks of `suite`.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn recall(
        (registry, provider): (&Registry, &Provider),
        settings: &MemoryConfig,
        project: &str,
        suite: &TaskSuite,
    ) -> Result<Self, MemoryError> {
        let texts: Vec<&str> = suite.tasks().iter().flat_map(EvalTask::texts).collect();
        let excluded = &ExcludedTasks::new(suite.families(), &texts);
        let mut shown = BTreeMap::new();
        for task in suite.tasks() {
            let Some(text) = task.texts().next() else { continue };
            let request = RecallRequest { text, project, excluded };
            let near = memory::recall(registry, provider, settings, request)?;
            shown.insert(task.id.clone(), near.into_iter().map(|near| near.record).collect());
        }
        Ok(Self { shown })
    }

    /// Returns the records to show for a task, nearest first.
    pub(super) fn of(&self, task: &EvalTask) -> &[ExperienceRecord] {
        self.shown.get(&task.id).map_or(&[], Vec::as_slice)
    }
}
