//! [`SuiteMemory`]: the records of earlier sessions that an evaluation shows.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::json;

use crate::config::MemoryConfig;
use crate::digest::sha256;
use crate::memory;
use crate::memory::MemoryError;
use crate::memory::RecallRequest;
use crate::provider::Provider;
use crate::registry::ExperienceRecord;
use crate::registry::Registry;
use crate::trajectory::family_of;

use super::families;
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
    /// Finds the records for all tasks of `suite`. A session of a task of the suite is excluded
    /// also if it was run from the text of the task alone, without a family, or from a near-copy
    /// of it.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn recall(
        (registry, provider): (&Registry, &Provider),
        settings: &MemoryConfig,
        project: &str,
        suite: &TaskSuite,
    ) -> Result<Self, MemoryError> {
        let texts = || suite.tasks().iter().flat_map(EvalTask::texts);
        let families = suite.families().map(str::to_owned).chain(texts().map(family_of));
        let excluded_families: BTreeSet<String> = families.collect();
        let signatures: Vec<_> = texts().map(families::signature).collect();
        let is_copy = |record: &ExperienceRecord| {
            let question = families::signature(&record.question);
            signatures.iter().any(|asked| families::is_near_duplicate(asked, &question))
        };
        let mut shown = BTreeMap::new();
        for task in suite.tasks() {
            let Some(text) = task.texts().next() else { continue };
            let (excluded_families, max_tokens) = (&excluded_families, settings.max_tokens);
            let request = RecallRequest { text, project, excluded_families, max_tokens };
            let near = memory::recall(registry, provider, settings, request)?;
            let mut records: Vec<_> = near.into_iter().map(|near| near.record).collect();
            records.retain(|record| !is_copy(record));
            if !records.is_empty() {
                shown.insert(task.id.clone(), records);
            }
        }
        Ok(Self { shown })
    }

    /// Returns the records to show for a task, nearest first.
    pub(super) fn of(&self, task: &EvalTask) -> &[ExperienceRecord] {
        self.shown.get(&task.id).map_or(&[], Vec::as_slice)
    }

    /// Returns the sha256 of all that is shown; `None` if nothing is.
    pub(super) fn digest(&self) -> Option<String> {
        let texts = |(id, records): (&String, &Vec<ExperienceRecord>)| {
            let texts = records.iter().map(|record| json!([record.question, record.answer]));
            json!([id, texts.collect::<Vec<_>>()])
        };
        let all: Vec<_> = self.shown.iter().map(texts).collect();
        (!all.is_empty()).then(|| sha256(json!(all).to_string().as_bytes()))
    }
}
