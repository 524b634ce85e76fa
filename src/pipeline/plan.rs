//! Phase plan: asks for the signatures of a part.

use serde_json::json;

use super::PipelineError;
use super::context::TaskContext;
use super::draft::draft;
use super::prompt::KeptEnd;
use super::runner::AttemptSlot;
use crate::judge::FileInspection;
use crate::provider::Grammar;
use crate::task::SourceFile;
use crate::task::Subtask;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;

/// Signatures of a part, and the file that the model wrote them in.
#[derive(Debug, Clone, Default)]
pub(super) struct PartPlan {
    /// Signatures with docstrings; empty if no answer was usable.
    pub(super) outline: String,
    /// Complete code, if the model also wrote bodies as small models do; it is tried first.
    pub(super) file: Option<SourceFile>,
}

/// Asks for the signatures of a part. The plan is empty if no answer is usable; the code prompt
/// then has only the description.
pub(super) async fn plan(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    interfaces: &str,
) -> Result<PartPlan, PipelineError> {
    let run = work.run;
    run.begin(Phase::Plan, Some(&subtask.name))?;
    let names = work.names(subtask);
    let prompt = work
        .prompt("plan")
        .with("path", &subtask.file)
        .with("part", part(subtask))
        .with("names", &names)
        .with_section("interfaces", interfaces, KeptEnd::Tail);
    let grammar = block_grammar();
    let mut fault: Option<String> = None;
    for trial in 0..run.tools.settings.attempts.min(2) {
        let mut prompt = prompt.clone();
        if let Some(fault) = &fault {
            prompt =
                prompt.and_then(run.templates.render("plan_retry", json!({ "fault": fault }))?);
        }
        let place = AttemptSlot {
            phase: Phase::Plan,
            subtask: Some(subtask.name.clone()),
            candidate: trial,
        };
        let draft = draft(work, place, prompt, trial, Some(&grammar)).await?;
        let file = draft.as_file(&subtask.file);
        let inspections = run.tools.judge.inspect(std::slice::from_ref(&file)).await?;
        let found = inspections.first();
        let missing = names
            .iter()
            .find(|name| !found.is_some_and(|inspection| inspection.defines.contains(name)));
        let error = found.and_then(|inspection| inspection.error.as_ref());
        let wrong = match (draft.blocks.is_empty(), error, missing) {
            (true, ..) => Some("it holds no code".to_owned()),
            (_, Some(error), _) => Some(format!("line {}: {}", error.line, error.message)),
            (.., Some(name)) => Some(format!("`{name}` is missing")),
            _ => None,
        };
        if let Some(wrong) = wrong {
            run.record(&draft.answer, AttemptVerdict::Malformed, &wrong, &json!({}), &[])?;
            fault = Some(wrong);
            continue;
        }
        let outline = found.map(|inspection| outline(&inspection.interface)).unwrap_or_default();
        let summary = format!("{} lines", outline.lines().count());
        run.record(
            &draft.answer,
            AttemptVerdict::Accepted,
            &summary,
            &json!({}),
            std::slice::from_ref(&file),
        )?;
        let is_code = found.is_some_and(FileInspection::is_complete);
        return Ok(PartPlan { outline, file: is_code.then_some(file) });
    }
    Ok(PartPlan::default())
}

/// Grammar of a single Python code block. The judge inspects its content, because Python is not a
/// regular language.
fn block_grammar() -> Grammar {
    Grammar::Regex("```python\\n([^`]|`[^`]|``[^`])+\\n```".to_owned())
}

/// Renders signatures with their docstrings below them. Models would copy a body of `...` on the
/// line of the signature.
fn outline(interface: &str) -> String {
    let line = |line: &str| match line.split_once(": ...  # ") {
        Some((signature, doc)) => {
            let indent = " ".repeat(line.len() - line.trim_start().len() + 4);
            format!("{signature}:\n{indent}\"\"\"{doc}\"\"\"")
        }
        None => line.to_owned(),
    };
    interface.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Describes a part for prompts.
pub(super) fn part(subtask: &Subtask) -> String {
    if subtask.description.is_empty() || subtask.description == subtask.name {
        subtask.name.clone()
    } else {
        format!("{} - {}", subtask.name, subtask.description)
    }
}
