//! Selects the adapter, if any, for a task.
//!
//! Only measured adapters are candidates: those that fit the base model and scored better than the
//! base alone on exactly these weights. Of several, the one with the highest lower bound of its
//! confidence interval is selected. Adapters of the project come before global ones.

use crate::adapter::AdapterId;
use crate::provider::BaseModel;
use crate::registry::MeasuredAdapter;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::task::TaskType;

/// Adapter that the user requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The best measured adapter, or none.
    Auto,
    /// Use the base model alone.
    Nothing,
    /// The adapter with this id.
    Adapter(AdapterId),
}

impl AdapterChoice {
    /// Parses `auto`, `none` or an adapter id.
    ///
    /// # Errors
    /// [`crate::adapter::InvalidAdapterId`] if it is neither.
    pub fn parse(text: &str) -> Result<Self, crate::adapter::InvalidAdapterId> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::Nothing,
            id => Self::Adapter(AdapterId::parse(id)?),
        })
    }
}

/// Selected adapter with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Id of the adapter; `None` is the base model.
    pub adapter_id: Option<AdapterId>,
    /// Reason in words, which the session records.
    pub reason: String,
}

/// Selects an adapter for a task of `project`.
///
/// # Errors
/// [`RegistryError::NotFound`] if the requested adapter does not exist;
/// [`RegistryError::DoesNotFit`] if it was trained for another base model.
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
