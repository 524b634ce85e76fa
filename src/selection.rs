//! Which adapter, or none, a task is done with.
//!
//! Only what was measured counts: of the adapters that fit the base model, the one that scored
//! better than no adapter on these very weights, and of several the one whose interval begins
//! highest; those of the project first, then those for all.

use crate::adapter::AdapterId;
use crate::provider::BaseModel;
use crate::registry::MeasuredAdapter;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::task::TaskType;

/// What the user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The best one that was measured, or none.
    Auto,
    /// None.
    Nothing,
    /// This one.
    Adapter(AdapterId),
}

impl AdapterChoice {
    /// Reads `auto`, `none` or an id.
    ///
    /// # Errors
    /// [`crate::adapter::InvalidAdapterId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, crate::adapter::InvalidAdapterId> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::Nothing,
            id => Self::Adapter(AdapterId::parse(id)?),
        })
    }
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The adapter, if any.
    pub adapter_id: Option<AdapterId>,
    /// In words, for the session.
    pub reason: String,
}

/// Chooses an adapter for a task of `project`.
///
/// # Errors
/// [`RegistryError::NotFound`] for a wish that isn't there; [`RegistryError::DoesNotFit`] for one
/// that is made for another base model.
pub fn select(
    registry: &Registry,
    base: &BaseModel,
    (project, task_type): (&str, TaskType),
    wish: &AdapterChoice,
) -> Result<Selection, RegistryError> {
    match wish {
        AdapterChoice::Nothing => {
            Ok(Selection { adapter_id: None, reason: "none: none was wanted".to_owned() })
        }
        AdapterChoice::Adapter(id) => {
            let adapter = registry.adapter(id)?;
            if adapter.base_model != base.base_model {
                let base_model = base.base_model.clone();
                return Err(RegistryError::DoesNotFit { id: id.clone(), base_model });
            }
            Ok(Selection { adapter_id: Some(id.clone()), reason: "it was asked for".to_owned() })
        }
        AdapterChoice::Auto => automatic(registry, base, (project, task_type)),
    }
}

fn automatic(
    registry: &Registry,
    base: &BaseModel,
    (project, task_type): (&str, TaskType),
) -> Result<Selection, RegistryError> {
    let weights = (base.base_model.as_str(), base.base_digest.as_str());
    for (project, whose) in [(Some(project), "of this project"), (None, "for all projects")] {
        let best = registry.candidates(weights, project, task_type)?.into_iter().next();
        if let Some(MeasuredAdapter { adapter_id, evaluation, base }) = best {
            let percent = |share: f64| format!("{:.1} %", share * 100.0);
            let reason = format!(
                "the best {whose}: {} against {} without it on {} tasks of `{}`",
                percent(evaluation.pass_at_1),
                percent(base.pass_at_1),
                evaluation.n_tasks,
                evaluation.suite,
            );
            return Ok(Selection { adapter_id: Some(adapter_id), reason });
        }
    }
    let reason = "none: none was measured to be better than the base on these weights";
    Ok(Selection { adapter_id: None, reason: reason.to_owned() })
}
