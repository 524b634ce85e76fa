//! Tables of `rune evolve`.

use serde::Serialize;
use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::cli::context::Context;
use crate::cli::ledger;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::evaluation;
use crate::evolution::Audit;
use crate::evolution::EvolveReport;
use crate::evolution::EvolveRequest;
use crate::evolution::MIN_GATE_TASKS;
use crate::evolution::Population;
use crate::registry::Registry;

/// Renders what a dry run has found.
pub(super) fn plan(
    context: &Context,
    request: &EvolveRequest,
    population: &Population,
) -> anyhow::Result<String> {
    let ids: Vec<&AdapterId> = population.adapters.iter().map(|adapter| &adapter.id).collect();
    let left_out = &population.left_out;
    if context.json {
        return line(&json!({ "project": request.project, "adapters": ids, "left_out": left_out }));
    }
    let missing = request.n_missing();
    let mut text = match missing {
        0 => String::new(),
        _ => format!("{missing} tasks for the gate are missing: nothing would be decided\n"),
    };
    let (project, suite) = (escape_line(&request.project), escape_line(&request.suite.name));
    text.extend([format!("{} adapters of project {project} would race on `{suite}`\n", ids.len())]);
    let name = |adapter: &Adapter| escape_line(adapter.name.as_deref().unwrap_or("-")).into_owned();
    text.extend(
        population.adapters.iter().map(|adapter| format!("{} {}\n", adapter.id, name(adapter))),
    );
    text.extend(left_out.iter().map(|(id, reason)| format!("{id} is left out: {reason}\n")));
    Ok(text)
}

/// Renders what was measured and decided.
pub(super) fn evolved(
    context: &Context,
    registry: &Registry,
    report: &EvolveReport,
) -> anyhow::Result<String> {
    if context.json {
        return line(report);
    }
    let project = escape_line(&report.project);
    if report.n_missing > 0 {
        return Ok(format!(
            "project {project}: {} tasks for the gate are missing: `{}` has {} of {MIN_GATE_TASKS}; \
             nothing is decided\n",
            report.n_missing,
            escape_line(&report.suite),
            report.n_gate,
        ));
    }
    let mut text = scores(registry, report)?;
    text.extend(report.decisions.iter().map(|row| ledger::words(row) + "\n"));
    if report.decisions.is_empty() {
        text += "nothing new was decided\n";
    }
    if !report.is_complete {
        text += "the budget is used up: the next call resumes\n";
    }
    let used =
        report.incumbent.as_ref().map_or("the base model alone".to_owned(), ToString::to_string);
    Ok(format!("{text}project {project} uses {used}\n"))
}

fn scores(registry: &Registry, report: &EvolveReport) -> anyhow::Result<String> {
    if report.raced.is_empty() {
        return Ok("no adapters of this project fit the model: `rune train` makes one\n".to_owned());
    }
    let head = ["ADAPTER", "NAME", "TASKS", "PASS (95 %)", "AGAINST BASE (90 %)", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for raced in &report.raced {
        let name = registry.adapter(&raced.adapter_id)?.name.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            raced.adapter_id.to_string(),
            escape_line(&name).into_owned(),
            raced.score.n_tasks.to_string(),
            raced.score.to_string(),
            evaluation::points(raced.against_base.difference, raced.against_base.interval_90),
            if raced.has_finished { "" } else { "dropped out" }.to_owned(),
        ]);
    }
    Ok(output::table(&rows))
}

/// Renders the gains on each split.
pub(super) fn audit(context: &Context, audit: &Audit) -> anyhow::Result<String> {
    if context.json {
        return line(audit);
    }
    let head = ["SPLIT", "TASKS", "GAIN (95 %)", "GAP TO THE RACE"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for gain in &audit.gains {
        rows.push(vec![
            gain.split.clone(),
            gain.n_tasks.to_string(),
            evaluation::points(gain.paired.difference, gain.paired.interval),
            format!(
                "{:+.1}{}",
                100.0 * gain.gap,
                if gain.is_alarming { ", more than 2 SE" } else { "" }
            ),
        ]);
    }
    Ok(format!("{}\n{}", audit.adapter_id, output::table(&rows)))
}

fn line(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}
