//! Manual promotion and rollback.

use serde_json::json;

use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::digest::sha256;
use crate::event::DecisionKind;
use crate::home::Home;
use crate::registry::DecisionEffect;
use crate::registry::LedgerRow;
use crate::registry::Registry;
use crate::registry::new_id;

use super::error::EvolutionError;
use super::evolve::lock;

/// Makes a project use an adapter from now on, without evidence.
///
/// # Errors
/// [`EvolutionError::Busy`]; [`EvolutionError::Archived`]; [`EvolutionError::Incumbent`] if the
/// project uses it already; [`EvolutionError::Registry`] for an unknown adapter.
pub fn promote(
    (registry, home): (&Registry, &Home),
    project: &str,
    (id, scope): (&AdapterId, Scope),
) -> Result<LedgerRow, EvolutionError> {
    let _lock = lock(home)?;
    let adapter = registry.adapter(id)?;
    if adapter.archived_at.is_some() {
        return Err(EvolutionError::Archived(id.clone()));
    }
    let before = registry.incumbent(project, &adapter.base_digest)?;
    if before.as_ref() == Some(id) && adapter.scope >= scope {
        return Err(EvolutionError::Incumbent(id.clone()));
    }
    let key = sha256(new_id()?.as_bytes());
    let row = LedgerRow::new(
        DecisionKind::Promote,
        key,
        (project, &adapter.base_digest),
        (id.as_str(), before.as_ref()),
        (scope.as_str(), json!({ "by": "hand" })),
    )?;
    registry.decide(&row, DecisionEffect::Widen(id, scope))?;
    Ok(row)
}

/// Returns a project to what it used before the promotion of `id`, the adapter that it uses now.
///
/// # Errors
/// [`EvolutionError::Busy`]; [`EvolutionError::NotIncumbent`]; [`EvolutionError::Registry`] for an
/// unknown adapter.
pub fn rollback(
    (registry, home): (&Registry, &Home),
    project: &str,
    id: &AdapterId,
) -> Result<LedgerRow, EvolutionError> {
    let _lock = lock(home)?;
    let base_digest = registry.adapter(id)?.base_digest;
    let mut used = registry.promoted(project, &base_digest)?;
    if used.last() != Some(id) {
        return Err(EvolutionError::NotIncumbent(id.clone()));
    }
    while let Some(last) = used.last()
        && (last == id || registry.adapter(last)?.archived_at.is_some())
    {
        used.pop();
    }
    let key = sha256(new_id()?.as_bytes());
    let pair = (id.as_str(), used.last());
    let decision = ("rollback", json!({ "by": "hand" }));
    let place = (project, base_digest.as_str());
    let row = LedgerRow::new(DecisionKind::Rollback, key, place, pair, decision)?;
    registry.decide(&row, DecisionEffect::Nothing)?;
    Ok(row)
}
