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
use super::imports;
use super::plan::Plan;
use super::plan::part;
use super::prompt::Keep;
use super::prompt::Prompt;
use super::run::Place;
use super::work::Work;
use crate::judge::StatementKind;
use crate::judge::Status;
use crate::judge::Verdict;
use crate::task::SourceFile;
use crate::task::Subtask;
use crate::trajectory::Phase;

/// A part that was tried, and how it did.
#[derive(Default)]
struct Tried {
    part: Option<Part>,
    is_accepted: bool,
    n_passed: usize,
}

impl Tried {
    /// The better of two; of equals the first.
    fn or_better(self, next: Self) -> Self {
        let rank = |tried: &Self| (tried.is_accepted, tried.part.is_some(), tried.n_passed);
        if rank(&next) > rank(&self) { next } else { self }
    }
}

/// Writes a part. `others` are the finished parts that it may use. `None` when no answer was code.
pub(super) async fn code(
    work: &Work<'_>,
    subtask: &Subtask,
    plan: &Plan,
    others: &[Part],
    is_whole: bool,
) -> Result<Option<Part>, PipelineError> {
    let run = work.run;
    run.begin(Phase::Code, Some(&subtask.name))?;
    let mut best = match &plan.file {
        Some(file) => checked(work, subtask, file, others).await?.0,
        None => Tried::default(),
    };
    if best.is_accepted && work.suite.is_some() {
        return Ok(best.part);
    }
    let part_line = if is_whole { String::new() } else { part(subtask) };
    let prompt = work
        .prompt("code")
        .with("path", &subtask.file)
        .with("part", part_line)
        .with("others", elsewhere(work, subtask))
        .with("names", work.names(subtask))
        .with_section("plan", &plan.outline, Keep::Head)
        .with_section("interfaces", interfaces(others, &subtask.file), Keep::Tail);
    let first = attempt(work, subtask, &prompt, others, 0).await?;
    if first.is_accepted {
        return Ok(first.part);
    }
    best = best.or_better(first);
    let trials = (1..run.tools.settings.candidates.max(1))
        .map(|trial| attempt(work, subtask, &prompt, others, trial));
    let mut tried = stream::iter(trials).buffered(run.tools.provider.capabilities().parallel);
    while let Some(next) = tried.next().await {
        best = best.or_better(next?);
        if best.is_accepted {
            break;
        }
    }
    Ok(best.part)
}

/// Names of the same file that other parts answer for.
fn elsewhere(work: &Work<'_>, subtask: &Subtask) -> Vec<String> {
    let own = work.names(subtask);
    let target = work.targets.iter().find(|target| target.path == subtask.file);
    let names = target.map(|target| target.names.as_slice()).unwrap_or_default();
    match own.is_empty() {
        true => Vec::new(),
        false => names.iter().filter(|name| !own.contains(name)).cloned().collect(),
    }
}

/// What finished parts look like to the writer of another: those of the same file whole, as far as they are short,
/// the others by their interfaces.
pub(super) fn interfaces(parts: &[Part], path: &str) -> String {
    /// The most lines of a part that is shown whole.
    const LINES: usize = 60;
    let one = |part: &Part| {
        let statements = part.inspection.statements.iter();
        let definitions =
            statements.filter(|statement| statement.kind == StatementKind::Definition);
        let text =
            definitions.map(|statement| statement.text.as_str()).collect::<Vec<_>>().join("\n\n");
        match part.path == path && text.lines().count() <= LINES {
            true => text,
            false => format!("# {}\n{}", part.path, part.inspection.interface),
        }
    };
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
    if draft.blocks.is_empty() {
        run.record(&draft.answer, "malformed", "it holds no code", json!({}), &[])?;
        return Ok(Tried::default());
    }
    let (tried, checked) = checked(work, subtask, &file, others).await?;
    let files = std::slice::from_ref(&file);
    match checked {
        Err(fault) => run.record(&draft.answer, "malformed", &fault, json!({}), files)?,
        Ok(verdict) => note(work, &draft, verdict.as_ref(), tried.is_accepted, files)?,
    }
    Ok(tried)
}

/// Looks a part over and runs it with the finished ones against the tests. The fault is what keeps it from being
/// run; the verdict is missing where there are no tests.
async fn checked(
    work: &Work<'_>,
    subtask: &Subtask,
    file: &SourceFile,
    others: &[Part],
) -> Result<(Tried, Result<Option<Verdict>, String>), PipelineError> {
    let names = work.names(subtask);
    let inspections = work.run.tools.judge.inspect(std::slice::from_ref(file)).await?;
    if let Some(fault) = fault(&inspections, &names) {
        return Ok((Tried::default(), Err(fault)));
    }
    let Some(mut inspection) = inspections.into_iter().next() else {
        return Ok((Tried::default(), Err("it holds no Python".to_owned())));
    };
    imports::add_to(&mut inspection);
    let part = Part { path: subtask.file.clone(), names, inspection };
    let parts: Vec<Part> = others.iter().cloned().chain([part.clone()]).collect();
    let verdict = work.judge(&assemble(&work.targets, &parts, true)).await?;
    let tried = Tried {
        part: Some(part),
        is_accepted: verdict.as_ref().is_none_or(holds_so_far),
        n_passed: verdict.as_ref().map_or(0, |verdict| verdict.n_passed),
    };
    Ok((tried, Ok(verdict)))
}

fn note(
    work: &Work<'_>,
    draft: &Draft,
    verdict: Option<&Verdict>,
    is_accepted: bool,
    files: &[SourceFile],
) -> Result<(), PipelineError> {
    let (word, summary) = match verdict {
        None => ("accepted", "compiles; no tests were given".to_owned()),
        Some(verdict) if verdict.passed() => ("passed", verdict.summary()),
        Some(verdict) if is_accepted => ("accepted", verdict.summary()),
        Some(verdict) => ("failed", verdict.summary()),
    };
    work.run.record(&draft.answer, word, &summary, json!(verdict), files)
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
