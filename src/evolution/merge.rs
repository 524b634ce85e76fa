//! Merges adapters of the registry into a new one.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::adapter::ParentAdapter;
use crate::adapter::Scope;
use crate::digest::sha256;
use crate::event::Event;
use crate::event::timestamp;
use crate::merge;
use crate::merge::MergeError;
use crate::merge::MergeParent;
use crate::merge::MergeRecipe;
use crate::merge::MergedAdapter;
use crate::merge::ModuleReport;
use crate::peft::PeftFiles;
use crate::provider::engine_options;
use crate::registry::AdapterStore;
use crate::registry::RegistryError;
use crate::registry::new_id;
use crate::services::Services;
use crate::shutdown::StoppedEarly;
use crate::task::TaskType;

use super::error::EvolutionError;

/// Adapters to merge, with the recipe.
#[derive(Debug, Clone)]
pub struct MergeRequest {
    /// The parents with their weights.
    pub parents: Vec<ParentAdapter>,
    /// How they are merged.
    pub recipe: MergeRecipe,
    /// Display name of the result.
    pub name: Option<String>,
    /// Whether the merge is only reported, and nothing is stored.
    pub is_dry_run: bool,
}

/// Result of a merge.
#[derive(Debug)]
pub struct MergeOutcome {
    /// Id of the adapter; `None` for a dry run.
    pub id: Option<AdapterId>,
    /// Whether the adapter was there already: the same recipe, or the same weights.
    pub is_known: bool,
    /// Report of each module, by name.
    pub modules: Vec<(String, ModuleReport)>,
}

/// Merges adapters of one base model, and stores the result. It is unevaluated until it is
/// measured, and may not be evaluated on what any of its parents was trained on.
///
/// # Errors
/// [`EvolutionError::Twice`]; [`EvolutionError::Incompatible`] with the name of the field;
/// [`EvolutionError::Damaged`]; [`EvolutionError::Merge`]; [`EvolutionError::Peft`];
/// [`EvolutionError::Registry`], also for an unknown parent; [`EvolutionError::Stopped`] on
/// shutdown.
pub async fn merge(
    services: &Services,
    request: &MergeRequest,
) -> Result<MergeOutcome, EvolutionError> {
    let store = AdapterStore::open(&services.registry, &services.home)?;
    let mut known = BTreeSet::new();
    let mut parents = Vec::new();
    for parent in &request.parents {
        if !known.insert(&parent.id) {
            return Err(EvolutionError::Twice(parent.id.clone()));
        }
        parents.push(services.registry.adapter(&parent.id)?);
    }
    check_compatible(&parents)?;
    let merged = compute(services, &store, (&request.parents, &request.recipe)).await?;
    let modules = merged.reports().map(|(name, report)| (name.to_owned(), report.clone()));
    let modules = modules.collect();
    if request.is_dry_run {
        return Ok(MergeOutcome { id: None, is_known: false, modules });
    }
    let files = merged.files()?;
    let adapter = described(services, request, &parents, &files)?;
    let (id, is_known) = match store.publish(&adapter, &files) {
        Err(RegistryError::AdapterExists(id)) => (id, true),
        stored => (stored.map(|()| adapter.id)?, false),
    };
    Ok(MergeOutcome { id: Some(id), is_known, modules })
}

/// A text in the metadata of an adapter.
type TextField = fn(&Adapter) -> &str;

/// Refuses parents that were made for different models.
fn check_compatible(parents: &[Adapter]) -> Result<(), EvolutionError> {
    let fields: [(&'static str, TextField); 2] = [
        ("base_model", |adapter| &adapter.base_model),
        ("base_digest", |adapter| &adapter.base_digest),
    ];
    for (field, value) in fields {
        for pair in parents.windows(2) {
            if value(&pair[0]) != value(&pair[1]) {
                let of = |adapter: &Adapter| (adapter.id.clone(), value(adapter).to_owned());
                return Err(EvolutionError::Incompatible {
                    field,
                    one: of(&pair[0]),
                    other: of(&pair[1]),
                });
            }
        }
    }
    Ok(())
}

/// Reads the parents from their folders, and merges them until the work is stopped.
pub(super) async fn compute(
    services: &Services,
    store: &AdapterStore,
    (parents, recipe): (&[ParentAdapter], &MergeRecipe),
) -> Result<MergedAdapter, EvolutionError> {
    let (reporter, shutdown) = (Arc::clone(&services.reporter), services.shutdown.clone());
    let mut stored = Vec::new();
    for parent in parents {
        let sha256 = services.registry.adapter(&parent.id)?.sha256;
        stored.push((parent.clone(), store.path(&parent.id), sha256));
    }
    let recipe = recipe.clone();
    let n_threads = engine_options(&services.config).n_threads;
    let work = move || -> Result<MergedAdapter, EvolutionError> {
        let parents = stored.iter().map(|(parent, folder, sha256)| read(parent, folder, sha256));
        let parents: Vec<MergeParent> = parents.collect::<Result<_, EvolutionError>>()?;
        let progress = |n_done, n_total| {
            reporter.report("", &Event::MergeProgress { n_done, n_total });
            if shutdown.is_triggered() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        Ok(merge::merge(&parents, &recipe, (n_threads, &progress))?)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Err(EvolutionError::Merge(MergeError::Stopped))) => {
            Err(StoppedEarly(services.shutdown.triggered().await).into())
        }
        Ok(merged) => merged,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads a parent, whose weights must be those that were stored.
fn read(
    parent: &ParentAdapter,
    folder: &Path,
    sha256: &str,
) -> Result<MergeParent, EvolutionError> {
    let read = MergeParent::new(parent.id.as_str(), PeftFiles::read(folder)?, parent.weight);
    if read.sha256() != sha256 {
        return Err(EvolutionError::Damaged(parent.id.clone()));
    }
    Ok(read)
}

/// Describes the result of a merge.
fn described(
    services: &Services,
    request: &MergeRequest,
    parents: &[Adapter],
    files: &PeftFiles,
) -> Result<Adapter, EvolutionError> {
    let Some(first) = parents.first() else { return Err(MergeError::NoParents.into()) };
    let is_common = parents.iter().all(|parent| parent.project == first.project);
    let has_type = parents.iter().all(|parent| parent.task_type == first.task_type);
    // A result may be selected for no more tasks than each of its parents.
    let least = parents.iter().map(|parent| parent.scope).min();
    let families: BTreeSet<&String> =
        parents.iter().flat_map(|parent| &parent.train_families).collect();
    let sorted = in_order(&request.parents);
    let recipe_digest = recipe_digest(&first.base_digest, &sorted, &request.recipe);
    let id = AdapterId::parse(&new_id()?).map_err(std::io::Error::other)?;
    Ok(Adapter {
        id,
        name: request.name.clone(),
        project: if is_common { first.project.clone() } else { services.project.clone() },
        task_type: if has_type { first.task_type } else { TaskType::default() },
        scope: least.unwrap_or(Scope::Task),
        base_model: first.base_model.clone(),
        base_digest: first.base_digest.clone(),
        recipe_digest,
        rank: files.rank(),
        alpha: files.alpha(),
        target_modules: files.target_modules.clone(),
        sha256: files.sha256(),
        size_bytes: files.tensors.len() as u64,
        source: AdapterSource::Merge,
        session_id: None,
        dataset_digest: None,
        train_families: families.into_iter().cloned().collect(),
        generation: parents.iter().map(|parent| parent.generation).max().unwrap_or(0) + 1,
        parents: sorted,
        recipe: json!({ "merge": request.recipe, "rune": env!("CARGO_PKG_VERSION") }),
        created_at: timestamp(SystemTime::now()),
        archived_at: None,
        archive_reason: None,
    })
}

/// Returns the digest by which the same merge is recognized.
pub(super) fn recipe_digest(
    base_digest: &str,
    parents: &[ParentAdapter],
    recipe: &MergeRecipe,
) -> String {
    let text = json!([base_digest, in_order(parents), recipe]).to_string();
    sha256(format!("merge {text}").as_bytes())
}

/// Returns parents in the order of their ids: that in which they are given does not matter.
fn in_order(parents: &[ParentAdapter]) -> Vec<ParentAdapter> {
    let mut sorted = parents.to_vec();
    sorted.sort_by(|one, other| one.id.cmp(&other.id));
    sorted
}
