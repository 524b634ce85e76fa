//! Rebuilds an adapter, to prove that its record says how it was made.

use serde_json::Value;

use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::merge::MergeRecipe;
use crate::peft::PeftFiles;
use crate::registry::AdapterStore;
use crate::services::Services;

use super::error::EvolutionError;
use super::merge::compute;

/// Stored files of an adapter beside those that its record makes anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// SHA-256 of the stored weights.
    pub stored: String,
    /// SHA-256 of the weights that were made anew.
    pub rebuilt: String,
    /// Whether weights and configuration are equal, byte for byte.
    pub is_identical: bool,
}

/// Merges the parents of an adapter again, by its recipe, and compares the files. Nothing is
/// stored.
///
/// # Errors
/// [`EvolutionError::NotRebuildable`] for an adapter that was not merged;
/// [`EvolutionError::Recipe`]; the errors of [`super::merge()`].
pub async fn replay(services: &Services, id: &AdapterId) -> Result<ReplayOutcome, EvolutionError> {
    let store = AdapterStore::open(&services.registry, &services.home)?;
    let adapter = services.registry.adapter(id)?;
    if adapter.source != AdapterSource::Merge {
        let (id, origin) = (adapter.id, adapter.source);
        return Err(EvolutionError::NotRebuildable { id, origin });
    }
    let recipe = adapter.recipe.get("merge").cloned().unwrap_or(Value::Null);
    let recipe: MergeRecipe = serde_json::from_value(recipe).map_err(|error| {
        EvolutionError::Recipe { id: adapter.id.clone(), reason: error.to_string() }
    })?;
    let stored = PeftFiles::read(&store.path(id))?;
    let rebuilt = compute(services, &store, (&adapter.parents, &recipe)).await?.files()?;
    Ok(ReplayOutcome {
        stored: stored.sha256(),
        rebuilt: rebuilt.sha256(),
        is_identical: stored.tensors == rebuilt.tensors && stored.config == rebuilt.config,
    })
}
