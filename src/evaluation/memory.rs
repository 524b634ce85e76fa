//! [`SuiteMemory`]: the records and passages that an evaluation shows.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::judge::Judge;
use crate::memory;
use crate::memory::ExcludedTasks;
use crate::memory::FoundPassages;
use crate::memory::RecallRequest;
use crate::memory::ShownMemory;
use crate::provider::Provider;
use crate::services::Services;

use super::error::EvaluationError;
use super::suite::TaskSuite;
use super::task::EvalTask;

/// What to show for each task of a suite, as `rune run` does: the records of the registry that are
/// nearest, except sessions of the suite's own tasks, and passages about the packages that the task
/// names. They are chosen once, so that the base and all adapters see the same ones.
#[derive(Debug, Default)]
pub struct SuiteMemory {
    shown: BTreeMap<String, ShownMemory>,
    nothing: ShownMemory,
}

impl SuiteMemory {
    /// Finds records and passages for all tasks of `suite`; packages are looked for below `libs`
    /// and, if the tests of a task import them, among the installed ones.
    ///
    /// # Errors
    /// [`EvaluationError::Memory`]; [`EvaluationError::Judge`] when the sandbox fails.
    pub async fn recall(
        (services, provider, judge): (&Services, &Provider, &Judge),
        libs: &[PathBuf],
        suite: &TaskSuite,
    ) -> Result<Self, EvaluationError> {
        let (registry, settings) = (&services.registry, &services.config.memory);
        let texts: Vec<&str> = suite.tasks().iter().flat_map(EvalTask::texts).collect();
        let excluded = &ExcludedTasks::new(suite.families(), &texts);
        let (mut shown, mut noticed) = (BTreeMap::new(), BTreeSet::new());
        for task in suite.tasks() {
            let Some(asked) = task.as_user_task() else { continue };
            let FoundPassages { passages, left_out } =
                memory::package_passages(judge, libs, &asked).await?;
            for reason in left_out {
                if noticed.insert(reason.clone()) {
                    services.notice(reason);
                }
            }
            let request = RecallRequest { text: &asked.text, project: &services.project, excluded };
            let (near, passages) =
                memory::recall(registry, provider, settings, (request, passages.as_slice()))?;
            let records = near.into_iter().map(|near| near.record).collect();
            shown.insert(task.id.clone(), ShownMemory { records, passages });
        }
        Ok(Self { shown, nothing: ShownMemory::default() })
    }

    /// Returns what to show for a task.
    pub(super) fn of(&self, task: &EvalTask) -> &ShownMemory {
        self.shown.get(&task.id).unwrap_or(&self.nothing)
    }
}
