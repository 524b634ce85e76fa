//! Decisions of `rune evolve` in words.

use serde_json::Value;

use crate::cli::context::Context;
use crate::event::DecisionKind;
use crate::registry::LedgerRow;

/// Renders decisions, one a line.
pub(super) fn text(context: &Context, rows: &[LedgerRow]) -> anyhow::Result<String> {
    if context.json {
        let line = |row: &LedgerRow| Ok(serde_json::to_string(row)? + "\n");
        return rows.iter().map(line).collect();
    }
    if rows.is_empty() {
        return Ok("nothing was decided yet: `rune evolve` decides\n".to_owned());
    }
    let line = |row: &LedgerRow| {
        let at: String = row.at.chars().take(19).collect();
        format!("{at}  {}\n", words(row))
    };
    Ok(rows.iter().map(line).collect())
}

/// Says in one line what was decided, and by which figures.
pub(super) fn words(row: &LedgerRow) -> String {
    let LedgerRow { subject, decision, evidence, .. } = row;
    let other = row.other.as_ref().map_or("the base".to_owned(), ToString::to_string);
    match row.kind {
        DecisionKind::Gate => format!(
            "gate: {} against {other}: {decision} ({})",
            shortened(subject),
            trial(evidence)
        ),
        DecisionKind::Promote => format!("promoted: {subject} instead of {other} ({decision})"),
        DecisionKind::Rollback => format!("rolled back: {subject} to {other}"),
        DecisionKind::Archive if decision == "duplicate" => {
            format!("archived: {subject}, a duplicate of {other}")
        }
        DecisionKind::Archive => format!(
            "archived: {subject}, {decision} than the base: {} against {}",
            percent(&evidence["score"]["share"]),
            percent(&evidence["base"]["share"]),
        ),
        DecisionKind::Merge => {
            let n_tried = evidence["tried"].as_array().map_or(0, Vec::len);
            let name = shortened(subject);
            let n_parents = &evidence["n_parents"];
            format!("merge: {name} of {n_parents} parents, {n_tried} recipes tried: {decision}")
        }
    }
}

/// Recipes are named by the beginning of their digest.
fn shortened(subject: &str) -> &str {
    if subject.len() == 64 { &subject[..12] } else { subject }
}

/// Renders the figures of a trial.
fn trial(evidence: &Value) -> String {
    let against = |who: &str, one: &Value| {
        format!(
            "{who}: {} gained, {} lost, e = {:.1}",
            one["paired"]["gained"],
            one["paired"]["lost"],
            one["e_value"].as_f64().unwrap_or(0.0)
        )
    };
    let incumbent = &evidence["incumbent"];
    let mut parts = vec![against("base", &evidence["base"])];
    if !incumbent.is_null() {
        parts.push(against("it", incumbent));
    }
    let needed = evidence["alpha"].as_f64().map_or(0.0, |alpha| 1.0 / alpha);
    format!("{} tasks; {}; {needed:.1} needed", evidence["n_tasks"], parts.join("; "))
}

fn percent(share: &Value) -> String {
    format!("{:.1} %", 100.0 * share.as_f64().unwrap_or(0.0))
}
