//! Subtask -> code: the first answer if it holds, else the best of several.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use super::PipelineError;
use super::assemble::NOT_WRITTEN;
use super::assemble::Part;
use super::assemble::assemble;
use super::draft::Draft;
use super::draft::draft;
use super::draft::fault;
use super::plan::part;
use super::prompt::Keep;
use super::prompt::Prompt;
use super::run::Place;
use super::work::Work;
use crate::judge::Status;
use crate::judge::Verdict;
use crate::task::Subtask;
use crate::trajectory::Phase;

/// A part that was tried, and how it did.
struct Tried {
    part: Option<Part>,
    is_accepted: bool,
    n_passed: usize,
}

/// Writes a part. `others` are the finished parts that it may use. `None` when no answer was code.
pub(super) async fn code(
    work: &Work<'_>,
    subtask: &Subtask,
    plan: &str,
    others: &[Part],
    is_whole: bool,
) -> Result<Option<Part>, PipelineError> {
    let run = work.run;
    run.begin(Phase::Code, Some(&subtask.name))?;
    let part_line = if is_whole { String::new() } else { part(subtask) };
    let prompt = work
        .prompt("code")
        .with("path", &subtask.file)
        .with("part", part_line)
        .with("names", work.names(subtask))
        .with_section("plan", plan, Keep::Head)
        .with_section("interfaces", interfaces(others), Keep::Tail);
    let first = attempt(work, subtask, &prompt, others, 0).await?;
    if first.is_accepted {
        return Ok(first.part);
    }
    let mut best = first;
    let trials = (1..run.tools.settings.candidates.max(1))
        .map(|trial| attempt(work, subtask, &prompt, others, trial));
    let mut tried = stream::iter(trials).buffered(run.tools.provider.capabilities().parallel);
    while let Some(next) = tried.next().await {
        let next = next?;
        let is_better = best.part.is_none() || next.n_passed > best.n_passed;
        if next.is_accepted || next.part.is_some() && is_better {
            best = next;
        }
        if best.is_accepted {
            break;
        }
    }
    Ok(best.part)
}

/// The interfaces of finished parts.
pub(super) fn interfaces(parts: &[Part]) -> String {
    let one = |part: &Part| format!("# {}\n{}", part.path, part.inspection.interface);
    parts.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// One answer, looked over, run against the tests that it can meet already, and recorded.
async fn attempt(
    work: &Work<'_>,
    subtask: &Subtask,
    prompt: &Prompt,
    others: &[Part],
    trial: u32,
) -> Result<Tried, PipelineError> {
    let run = work.run;
    let place = Place { phase: Phase::Code, subtask: Some(subtask.name.clone()), candidate: trial };
    let draft = draft(work, place, prompt.clone(), trial).await?;
    let file = draft.as_file(&subtask.file);
    let names = work.names(subtask);
    let inspections = run.tools.judge.inspect(std::slice::from_ref(&file)).await?;
    let wrong = match draft.blocks.is_empty() {
        true => Some("it holds no code".to_owned()),
        false => fault(&inspections, &names),
    };
    let Some(inspection) = inspections.into_iter().next().filter(|_| wrong.is_none()) else {
        let wrong = wrong.unwrap_or_else(|| "it holds no Python".to_owned());
        run.record(&draft.answer, "malformed", &wrong, json!({}), &[file])?;
        return Ok(Tried { part: None, is_accepted: false, n_passed: 0 });
    };
    let part = Part { path: subtask.file.clone(), names, inspection };
    let parts: Vec<Part> = others.iter().cloned().chain([part.clone()]).collect();
    let files = assemble(&work.targets, &parts, true);
    let verdict = work.judge(&files).await?;
    let is_accepted = verdict.as_ref().is_none_or(holds_so_far);
    note(work, &draft, verdict.as_ref(), is_accepted, &file)?;
    let n_passed = verdict.map_or(0, |verdict| verdict.n_passed);
    Ok(Tried { part: Some(part), is_accepted, n_passed })
}

fn note(
    work: &Work<'_>,
    draft: &Draft,
    verdict: Option<&Verdict>,
    is_accepted: bool,
    file: &crate::task::SourceFile,
) -> Result<(), PipelineError> {
    let (word, summary) = match verdict {
        None => ("accepted", "compiles; no tests were given".to_owned()),
        Some(verdict) if verdict.passed() => ("passed", verdict.summary()),
        Some(verdict) if is_accepted => ("accepted", verdict.summary()),
        Some(verdict) => ("failed", verdict.summary()),
    };
    work.run.record(&draft.answer, word, &summary, json!(verdict), std::slice::from_ref(file))
}

/// Whether every test passed or met a name that is not written yet.
fn holds_so_far(verdict: &Verdict) -> bool {
    let waits = |message: &str| message.contains(NOT_WRITTEN);
    verdict.passed()
        || !verdict.tests.is_empty()
            && verdict.tests.iter().all(|test| {
                test.status == Status::Passed || waits(&test.message) || waits(&test.trace)
            })
}
