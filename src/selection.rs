//! Selects the adapter, if any, for a task.
//!
//! Only measured adapters are candidates. The one that `rune evolve` has promoted for the project
//! comes first. A project without one chooses among those that fit the base model and, on exactly
//! these weights, gained over the base on a suite of enough families and lost on none: the one
//! whose gain is highest at the lower end of its interval, those of the project before global ones.
//! The task must be near what the adapter was trained on. Scores of the races of `rune evolve`
//! qualify no adapter: they are of the tasks that it chooses by, and the gate decides.

use crate::adapter::AdapterId;
use crate::provider::BaseModel;
use crate::registry::AdapterCandidate;
use crate::registry::Evaluation;
use crate::registry::RACE;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::similarity::NEAR;
use crate::task::Task;

/// Number of families from which the gain on a suite counts.
pub const MIN_FAMILIES: u32 = 30;

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
    (project, task): (&str, &Task),
    wish: &AdapterChoice,
) -> Result<Selection, RegistryError> {
    match wish {
        AdapterChoice::Nothing => {
            Ok(Selection { adapter_id: None, reason: "none: as requested".to_owned() })
        }
        AdapterChoice::Adapter(id) => {
            let adapter = registry.adapter(id)?;
            if adapter.base_model != base.base_model {
                let base_model = base.base_model.clone();
                return Err(RegistryError::DoesNotFit { id: id.clone(), base_model });
            }
            Ok(Selection { adapter_id: Some(id.clone()), reason: "as requested".to_owned() })
        }
        AdapterChoice::Auto => automatic(registry, base, (project, task)),
    }
}

fn automatic(
    registry: &Registry,
    base: &BaseModel,
    (project, task): (&str, &Task),
) -> Result<Selection, RegistryError> {
    if let Some(used) = registry.in_use(project, &base.base_digest)? {
        return promoted(registry, used, task);
    }
    let weights = (base.base_model.as_str(), base.base_digest.as_str());
    let mut refused: Option<(AdapterId, f64)> = None;
    for (project, whose) in [(Some(project), "of this project"), (None, "for all projects")] {
        for candidate in registry.candidates(weights, project, task.task_type, MIN_FAMILIES)? {
            let Some(similarity) = similarity(registry, &candidate.adapter_id, &task.text)? else {
                continue;
            };
            if similarity >= NEAR {
                let reason = reason(&candidate, whose, similarity);
                return Ok(Selection { adapter_id: Some(candidate.adapter_id), reason });
            }
            if refused.as_ref().is_none_or(|(_, best)| similarity > *best) {
                refused = Some((candidate.adapter_id, similarity));
            }
        }
    }
    let reason = match refused {
        Some((id, similarity)) => too_far(&id, similarity),
        None => "none: no adapter was measured to gain over the base on these weights, without a \
                 loss elsewhere"
            .to_owned(),
    };
    Ok(Selection { adapter_id: None, reason })
}

/// Selects what the project uses: an adapter for tasks near what it was trained on, as far as that
/// is known, or the base model that it was rolled back to.
fn promoted(
    registry: &Registry,
    used: Option<AdapterId>,
    task: &Task,
) -> Result<Selection, RegistryError> {
    let nothing = |reason: String| Ok(Selection { adapter_id: None, reason });
    let Some(id) = used else {
        return nothing("none: this project was rolled back to the base".to_owned());
    };
    if registry.adapter(&id)?.archived_at.is_some() {
        return nothing(format!("none: `{id}`, which this project uses, is archived"));
    }
    Ok(match similarity(registry, &id, &task.text)? {
        Some(similarity) if similarity < NEAR => {
            Selection { reason: too_far(&id, similarity), adapter_id: None }
        }
        known => {
            let near = known.map(|similarity| format!("; similarity {similarity:.2}"));
            let reason = format!("promoted for this project{}", near.unwrap_or_default());
            Selection { reason, adapter_id: Some(id) }
        }
    })
}

fn too_far(id: &AdapterId, similarity: f64) -> String {
    format!(
        "none: the task is not near those that `{id}` was trained on (similarity {similarity:.2}, \
         below {NEAR})"
    )
}

/// Returns what keeps an adapter with these evaluations, its newest ones, from being selected for
/// any task; empty if nothing does. The rules are those of [`Registry::candidates`], and that the
/// tasks that it was trained on must be known.
///
/// # Errors
/// [`RegistryError::NotFound`] if there is no such adapter.
pub fn obstacles(
    registry: &Registry,
    id: &AdapterId,
    evaluations: &[Evaluation],
) -> Result<Vec<String>, RegistryError> {
    let is_gain = |one: &Evaluation| {
        let gain = one.gain.as_ref();
        !one.split.ends_with("-control")
            && !one.split.starts_with(RACE)
            && gain.is_some_and(|gain| gain.n_families >= MIN_FAMILIES && gain.interval.0 > 0.0)
    };
    let mut obstacles = Vec::new();
    if similarity(registry, id, "")?.is_none() {
        obstacles.push("the tasks that it was trained on are not known".to_owned());
    }
    if !evaluations.iter().any(is_gain) {
        obstacles.push(format!(
            "no suite of {MIN_FAMILIES} families or more on which its gain over the base is above \
             0 at the lower end"
        ));
    }
    for one in evaluations {
        let is_loss = one.gain.as_ref().is_some_and(|gain| gain.interval.1 < 0.0);
        if is_loss && !one.split.starts_with(RACE) {
            obstacles.push(format!("it is worse than the base on `{}` ({})", one.suite, one.split));
        }
    }
    Ok(obstacles)
}

/// Returns how near a task is to those that an adapter was trained on; `None` if they are not
/// known, as of an imported adapter or one that an earlier version trained.
fn similarity(
    registry: &Registry,
    id: &AdapterId,
    task: &str,
) -> Result<Option<f64>, RegistryError> {
    let adapter = registry.adapter(id)?;
    let Some(digest) = adapter.dataset_digest else {
        // A merged adapter was trained on what its parents were trained on, all of which must be
        // known.
        let mut nearest = None;
        for parent in &adapter.parents {
            let Some(found) = similarity(registry, &parent.id, task)? else { return Ok(None) };
            nearest = Some(nearest.map_or(found, |nearest: f64| nearest.max(found)));
        }
        return Ok(nearest);
    };
    let profile = registry.dataset(&digest)?.and_then(|dataset| dataset.profile);
    Ok(profile.map(|profile| profile.similarity(task)))
}

fn reason(candidate: &AdapterCandidate, whose: &str, similarity: f64) -> String {
    let AdapterCandidate { suite, n_tasks, gain, .. } = candidate;
    let points = |share: f64| format!("{:+.1}", share * 100.0);
    format!(
        "the best {whose}: {} points over the base on {n_tasks} tasks of `{suite}`, {} at the \
         lower end; similarity {similarity:.2}",
        points(gain.difference),
        points(gain.interval.0),
    )
}
