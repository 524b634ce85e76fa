//! Phase code: takes the first answer if its tests pass, else the best of several.

use std::ops::Range;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use super::PipelineError;
use super::assemble::FinishedPart;
use super::assemble::NOT_WRITTEN;
use super::assemble::assemble;
use super::context::CandidateSolution;
use super::context::TaskContext;
use super::draft::draft;
use super::draft::empty_body;
use super::draft::fault;
use super::imports;
use super::plan::PartPlan;
use super::plan::part;
use super::plan::plan;
use super::prompt::KeptEnd;
use super::prompt::PromptDraft;
use super::runner::AttemptSlot;
use crate::judge::StatementKind;
use crate::judge::TestStatus;
use crate::judge::Verdict;
use crate::judge::VerdictOutcome;
use crate::task::SourceFile;
use crate::task::Subtask;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;
use crate::trajectory::VerifiedBy;

/// Maximum versions of a part to keep while no test distinguishes them.
const VERSIONS: usize = 6;
/// Maximum combinations of versions of other parts to try with one answer.
const COMBINATIONS: usize = 12;

/// Versions of a finished part, best first; more than one while no test distinguishes them.
pub(super) type PartVersions = Vec<FinishedPart>;

/// Result of a subtask.
pub(super) struct CodedPart {
    /// Versions of the part; empty if no answer had usable code.
    pub(super) versions: PartVersions,
    /// Versions of dependencies that the tests of this part have selected.
    pub(super) settled: Vec<FinishedPart>,
}

/// A version of a part with its test results.
#[derive(Debug, Clone, Default)]
struct TriedPart {
    part: Option<FinishedPart>,
    /// Versions of other parts with which it passed the most tests.
    others: Vec<FinishedPart>,
    is_accepted: bool,
    n_passed: usize,
}

impl TriedPart {
    fn rank(&self) -> (bool, bool, usize) {
        (self.is_accepted, self.part.is_some(), self.n_passed)
    }

    /// Whether some tests pass and none fail.
    fn is_settled(&self) -> bool {
        self.is_accepted && self.n_passed > 0
    }
}

/// Number of answers to the short prompt before a plan is made. The default model passes more of
/// HumanEval's docstring examples without seeing the tests: 46 of the first 60 instead of 43.
const BRIEF: u32 = 4;

/// Writes a part. `others` are the versions of the finished parts that it may call.
///
/// A plan comes first if there are other parts to agree with, or no tests to run. If the part is
/// the whole task and has tests, the first few answers come from a short prompt without plan and
/// tests. If none passes, short and full prompts alternate, so that a misleading prompt spoils only
/// half of the answers. The same holds for records of earlier sessions: see [`of_trial`].
pub(super) async fn code(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    others: &[PartVersions],
    is_whole: bool,
) -> Result<CodedPart, PipelineError> {
    let n = work.run.tools.settings.candidates.max(1);
    let n = if is_whole { n } else { n.div_ceil(2) };
    let brief =
        (is_whole && work.suite.is_some()).then(|| with_and_without(work, &brief(work, subtask)));
    let n_brief = brief.as_ref().map_or(0, |_| n.min(BRIEF));
    let mut all = Vec::new();
    if let Some(brief) = &brief {
        work.run.begin(Phase::Code, Some(&subtask.name))?;
        // The first answer alone, because it often passes.
        for trials in [0..1, 1..n_brief] {
            let prompt = |trial: u32| of_trial(brief, trial);
            if let Some(settled) = draw(work, subtask, others, trials, prompt, &mut all).await? {
                return Ok(coded(vec![settled]));
            }
        }
        if n_brief == n {
            return Ok(coded(all));
        }
    }
    let plan = plan(work, subtask, &interfaces(others, &subtask.file)).await?;
    work.run.begin(Phase::Code, Some(&subtask.name))?;
    if let Some(file) = &plan.file {
        let (tried, _) = checked(work, subtask, file, others).await?;
        if tried.is_settled() {
            return Ok(coded(vec![tried]));
        }
        all.push(tried);
    }
    let planned = with_and_without(work, &planned(work, subtask, &plan, others, is_whole));
    let prompt = |trial: u32| {
        let prompts = brief.as_ref().filter(|_| !trial.is_multiple_of(2)).unwrap_or(&planned);
        of_trial(prompts, trial)
    };
    // If no test can judge the part yet, later tests need several versions to choose from; if a
    // test failed, another answer may pass.
    for trials in [n_brief..n_brief + 1, n_brief + 1..n] {
        let is_first = trials.start == n_brief;
        let settled = draw(work, subtask, others, trials, prompt, &mut all).await?;
        let is_untested = |first: &&TriedPart| first.is_accepted && work.suite.is_none();
        let untested = all.last().filter(|_| is_first).filter(is_untested);
        if let Some(enough) = settled.or_else(|| untested.cloned()) {
            return Ok(coded(vec![enough]));
        }
    }
    Ok(coded(all))
}

/// Draws answers, several at a time, until one passes its tests, and returns it. The others are
/// added to `all`.
async fn draw<'p>(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    others: &[PartVersions],
    trials: Range<u32>,
    prompt: impl Fn(u32) -> &'p PromptDraft,
    all: &mut Vec<TriedPart>,
) -> Result<Option<TriedPart>, PipelineError> {
    let drawn = trials.map(|trial| attempt(work, subtask, prompt(trial), others, trial));
    let parallel = work.run.tools.provider.capabilities().parallel;
    let mut drawn = stream::iter(drawn).buffered(parallel);
    while let Some(next) = drawn.next().await {
        let next = next?;
        if next.is_settled() {
            return Ok(Some(next));
        }
        all.push(next);
    }
    Ok(None)
}

/// Returns a prompt with the session's records of earlier ones, and without.
pub(super) fn with_and_without(work: &TaskContext<'_>, prompt: &PromptDraft) -> [PromptDraft; 2] {
    [prompt.clone().with_records(&work.run.tools.memory.records), prompt.clone()]
}

/// Selects the prompt of a trial. Two trials see the records and the next two do not, so that a
/// record that misleads spoils only half of the answers, of every kind of prompt.
pub(super) fn of_trial(prompts: &[PromptDraft; 2], trial: u32) -> &PromptDraft {
    &prompts[usize::from(!(trial / 2).is_multiple_of(2))]
}

/// Builds the short prompt, which has only the task.
fn brief(work: &TaskContext<'_>, subtask: &Subtask) -> PromptDraft {
    PromptDraft::new("brief")
        .with("task", work.task.text.trim())
        .with("path", &subtask.file)
        .with("names", work.names(subtask))
        .with_passages(&work.run.tools.memory.passages)
}

/// Builds the full prompt, with plan, tests and other parts.
fn planned(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    plan: &PartPlan,
    others: &[PartVersions],
    is_whole: bool,
) -> PromptDraft {
    let part_line = if is_whole { String::new() } else { part(subtask) };
    work.prompt("code")
        .with("path", &subtask.file)
        .with("part", part_line)
        .with("others", elsewhere(work, subtask))
        .with("names", work.names(subtask))
        .with_section("plan", &plan.outline, KeptEnd::Head)
        .with_section("interfaces", interfaces(others, &subtask.file), KeptEnd::Tail)
}

/// Selects the best version: alone if its tests pass, else with other versions that differ.
fn coded(mut all: Vec<TriedPart>) -> CodedPart {
    all.sort_by_key(|tried| std::cmp::Reverse(tried.rank()));
    let Some(best) = all.first() else {
        return CodedPart { versions: Vec::new(), settled: Vec::new() };
    };
    if best.is_settled() {
        let settled = best.others.clone();
        return CodedPart { versions: best.part.clone().into_iter().collect(), settled };
    }
    let mut versions: PartVersions = Vec::new();
    for part in all.into_iter().filter_map(|tried| tried.part) {
        let digest = &part.inspection.digest;
        if versions.len() < VERSIONS
            && !versions.iter().any(|known| known.inspection.digest == *digest)
        {
            versions.push(part);
        }
    }
    CodedPart { versions, settled: Vec::new() }
}

/// Enumerates combinations of one version per part, at most `most`, best versions first.
pub(super) fn combinations(parts: &[PartVersions], most: usize) -> Vec<Vec<FinishedPart>> {
    let mut all: Vec<Vec<FinishedPart>> = vec![Vec::new()];
    for versions in parts.iter().filter(|versions| !versions.is_empty()) {
        // The versions of later parts vary slowest, so truncation keeps their best versions.
        let longer = versions.iter().flat_map(|version| {
            all.iter().map(move |head| {
                let mut longer = head.clone();
                longer.push(version.clone());
                longer
            })
        });
        all = longer.take(most).collect();
    }
    all
}

/// Returns names of the same file that other parts are responsible for.
fn elsewhere(work: &TaskContext<'_>, subtask: &Subtask) -> Vec<String> {
    let own = work.names(subtask);
    let target = work.targets.iter().find(|target| target.path == subtask.file);
    let names = target.map(|target| target.names.as_slice()).unwrap_or_default();
    if own.is_empty() {
        return Vec::new();
    }
    names.iter().filter(|name| !own.contains(name)).cloned().collect()
}

/// Renders finished parts for the prompt of another part, by their best versions. Short parts of
/// the same file are shown in full, others by their signatures.
fn interfaces(parts: &[PartVersions], path: &str) -> String {
    /// Maximum lines of a part that is shown in full.
    const LINES: usize = 60;
    let one = |part: &FinishedPart| {
        let statements = part.inspection.statements.iter();
        let definitions =
            statements.filter(|statement| statement.kind == StatementKind::Definition);
        let text =
            definitions.map(|statement| statement.text.as_str()).collect::<Vec<_>>().join("\n\n");
        if part.path == path && text.lines().count() <= LINES {
            text
        } else {
            format!("# {}\n{}", part.path, part.inspection.interface)
        }
    };
    let firsts = parts.iter().filter_map(|versions| versions.first());
    firsts.map(one).collect::<Vec<_>>().join("\n\n")
}

/// Draws one answer, inspects it, runs the tests that can already run, and records the attempt.
async fn attempt(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    prompt: &PromptDraft,
    others: &[PartVersions],
    trial: u32,
) -> Result<TriedPart, PipelineError> {
    let run = work.run;
    let place =
        AttemptSlot { phase: Phase::Code, subtask: Some(subtask.name.clone()), candidate: trial };
    let draft = draft(work, place, prompt.clone(), trial, None).await?;
    let file = draft.as_file(&subtask.file);
    if draft.blocks.is_empty() {
        run.record(&draft.answer, AttemptVerdict::Malformed, "it holds no code", &json!({}), &[])?;
        return Ok(TriedPart::default());
    }
    let (tried, checked) = checked(work, subtask, &file, others).await?;
    let files = std::slice::from_ref(&file);
    match checked {
        Err(fault) => {
            run.record(&draft.answer, AttemptVerdict::Malformed, &fault, &json!({}), files)?;
        }
        Ok(verdict) => draft.record(run, verdict.as_ref(), tried.is_accepted, files)?,
    }
    Ok(tried)
}

/// Inspects a part and runs it with the finished parts against the tests. Returns a fault if it
/// cannot be run, and no verdict if there are no tests.
async fn checked(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    file: &SourceFile,
    others: &[PartVersions],
) -> Result<(TriedPart, Result<Option<Verdict>, String>), PipelineError> {
    let names = work.names(subtask);
    let inspections = work.run.tools.judge.inspect(std::slice::from_ref(file)).await?;
    if let Some(fault) = fault(&inspections, &names) {
        return Ok((TriedPart::default(), Err(fault)));
    }
    let Some(mut inspection) = inspections.into_iter().next() else {
        return Ok((TriedPart::default(), Err("it holds no Python".to_owned())));
    };
    let empty = empty_body(std::slice::from_ref(&inspection));
    if let Some(fault) = empty.as_ref().filter(|_| work.suite.is_none()) {
        return Ok((TriedPart::default(), Err(fault.clone())));
    }
    imports::add_to(&mut inspection, work.targets);
    if empty.is_none() {
        work.remember(&inspection);
    }
    let part = FinishedPart { path: subtask.file.clone(), names, inspection };
    let mut best: Option<(TriedPart, Option<Verdict>)> = None;
    for others in combinations(others, COMBINATIONS) {
        let parts: Vec<FinishedPart> = others.iter().cloned().chain([part.clone()]).collect();
        let files = assemble(work.targets, &parts, true);
        let verdict = work.judge(&files).await?;
        // A budget may end the session before the parts are assembled, so a complete candidate is
        // kept.
        let is_whole = !files.iter().any(|file| file.text.contains(NOT_WRITTEN));
        let is_passed = verdict.as_ref().is_some_and(Verdict::passed);
        if is_whole && (empty.is_none() || is_passed) {
            let candidate = CandidateSolution { files, verdict: verdict.clone() };
            work.offer(&candidate, VerifiedBy::UserTests);
        }
        let tried = TriedPart {
            part: Some(part.clone()),
            others,
            is_accepted: verdict.as_ref().is_none_or(holds_so_far),
            n_passed: verdict.as_ref().map_or(0, |verdict| verdict.n_passed),
        };
        let is_settled = tried.is_settled();
        if best.as_ref().is_none_or(|(best, _)| tried.rank() > best.rank()) {
            best = Some((tried, verdict));
        }
        if is_settled || work.suite.is_none() {
            break;
        }
    }
    let (tried, verdict) = best.unwrap_or_default();
    match empty {
        // Some methods are meant to do nothing, so an empty body is a fault only if tests fail.
        Some(fault) if !tried.is_settled() => Ok((TriedPart::default(), Err(fault))),
        _ => Ok((tried, Ok(verdict))),
    }
}

/// Whether every test passed or reached a name that is not written yet.
fn holds_so_far(verdict: &Verdict) -> bool {
    let waits = |message: &str| message.contains(NOT_WRITTEN);
    // An unconfirmed or void verdict says nothing for the code, whatever its tests reported.
    let is_failure = matches!(verdict.outcome, VerdictOutcome::Wrong | VerdictOutcome::Exception);
    verdict.passed()
        || is_failure
            && !verdict.tests.is_empty()
            && verdict.tests.iter().all(|test| {
                test.status == TestStatus::Passed || waits(&test.message) || waits(&test.trace)
            })
}
