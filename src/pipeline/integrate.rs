//! Phase integrate: judges the assembled parts; if they fail, writes the solution as a whole, then
//! diagnoses and repairs.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use super::PipelineError;
use super::code::of_trial;
use super::code::with_and_without;
use super::context::CandidateSolution;
use super::context::TaskContext;
use super::draft::draft;
use super::draft::empty_body;
use super::draft::fault;
use super::imports;
use super::prompt::KeptEnd;
use super::prompt::PromptDraft;
use super::recombine::recombine;
use super::runner::AttemptSlot;
use crate::event::Event;
use crate::judge::FileInspection;
use crate::task::SourceFile;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::FinishReason;
use crate::trajectory::Phase;

/// Judges the assembled parts, and repairs them if they fail; `work` keeps the best candidate.
/// `several` is false for a task of one part, whose samples were already drawn.
pub(super) async fn integrate(
    work: &TaskContext<'_>,
    assembled: Vec<SourceFile>,
    several: bool,
) -> Result<(), PipelineError> {
    work.run.begin(Phase::Integrate, None)?;
    let mut best = work.judge_whole(assembled).await?;
    if let Some(verdict) = &best.verdict {
        work.run.tell_verdict(verdict, verdict.outcome.to_string())?;
    }
    if several {
        best = recombine(work, best).await?;
    }
    if best.passed() {
        return Ok(());
    }
    if several || best.files.is_empty() {
        let n = work.run.tools.settings.candidates.max(1);
        // Half of the prompts show the assembled parts, whose errors a model tends to copy.
        let new = with_and_without(work, &from_scratch(work));
        let prompts = |trial: u32| {
            if trial.is_multiple_of(2) && !best.files.is_empty() {
                work.prompt_about("integrate", &best)
            } else {
                of_trial(&new, trial).clone()
            }
        };
        let trials = (0..n).map(|trial| (trial, prompts(trial))).collect();
        best = best_of(work, Phase::Integrate, trials, best.clone()).await?;
        best = recombine(work, best).await?;
    }
    for round in 0..work.run.tools.settings.repairs {
        if best.passed() || best.files.is_empty() {
            break;
        }
        let repaired = recombine(work, repair(work, round, &best).await?).await?;
        // One round without progress may be a bad diagnosis; a second one is not worth its tokens.
        if repaired.score() <= best.score() && round > 0 {
            break;
        }
        best = repaired;
    }
    Ok(())
}

/// Builds the prompt for a complete new solution.
pub(super) fn from_scratch(work: &TaskContext<'_>) -> PromptDraft {
    let names: Vec<&String> = work.targets.iter().flat_map(|target| &target.names).collect();
    if let [target] = work.targets {
        return work
            .prompt("code")
            .with("path", &target.path)
            .with("part", "")
            .with("others", Vec::<String>::new())
            .with("names", names)
            .with_section("plan", "", KeptEnd::Head);
    }
    work.prompt_about("integrate", &CandidateSolution { files: Vec::new(), verdict: None })
}

/// Diagnoses the failure, then draws several corrections. Corrections that make things worse are
/// dropped.
async fn repair(
    work: &TaskContext<'_>,
    round: u32,
    broken: &CandidateSolution,
) -> Result<CandidateSolution, PipelineError> {
    let run = work.run;
    run.begin(Phase::Diagnose, None)?;
    let place = AttemptSlot { phase: Phase::Diagnose, subtask: None, candidate: round };
    let prompt = work.prompt_about("diagnose", broken).fit(run, Phase::Diagnose)?;
    let mut sampling = run.sampling(Phase::Diagnose, 0);
    // The diagnosis is prose: code at this point would be an untested repair.
    sampling.stop = vec!["```".to_owned()];
    let answer = run.ask(place, prompt, sampling, None).await?;
    let diagnosis = answer.completion.text.trim().to_owned();
    let is_whole = answer.completion.finish_reason == FinishReason::Stop;
    let verdict = if is_whole { AttemptVerdict::Accepted } else { AttemptVerdict::Truncated };
    run.record(&answer, verdict, diagnosis.lines().next().unwrap_or(""), &json!({}), &[])?;

    run.begin(Phase::Repair, None)?;
    let n = run.tools.settings.candidates.div_ceil(2).max(1);
    let prompt = |trial: u32| {
        // Every other prompt omits the diagnosis, which may be wrong.
        let diagnosis = if trial.is_multiple_of(2) { diagnosis.as_str() } else { "" };
        work.prompt_about("repair", broken).with_section("diagnosis", diagnosis, KeptEnd::Head)
    };
    let trials = (0..n).map(|trial| (round * n + trial, prompt(trial))).collect();
    best_of(work, Phase::Repair, trials, broken.clone()).await
}

/// Draws complete solutions until one passes; returns the best, including `start`.
async fn best_of(
    work: &TaskContext<'_>,
    phase: Phase,
    trials: Vec<(u32, PromptDraft)>,
    start: CandidateSolution,
) -> Result<CandidateSolution, PipelineError> {
    let drawn = trials.into_iter().map(|(trial, prompt)| whole(work, phase, trial, prompt));
    let mut drawn = stream::iter(drawn).buffered(work.run.tools.provider.capabilities().parallel);
    let mut best = start;
    while let Some(next) = drawn.next().await {
        let Some(next) = next? else { continue };
        if next.score() > best.score() || best.files.is_empty() {
            best = next;
        }
        if best.passed() {
            break;
        }
    }
    Ok(best)
}

/// Draws, judges and records one complete solution; `None` if the answer has no code.
pub(super) async fn whole(
    work: &TaskContext<'_>,
    phase: Phase,
    trial: u32,
    prompt: PromptDraft,
) -> Result<Option<CandidateSolution>, PipelineError> {
    let run = work.run;
    let place = AttemptSlot { phase, subtask: None, candidate: trial };
    let draft = draft(work, place, prompt, trial, None).await?;
    let paths: Vec<&str> = work.targets.iter().map(|target| target.path.as_str()).collect();
    let mut files = draft.as_files(&paths);
    let names: Vec<String> = work.targets.iter().flat_map(|target| target.names.clone()).collect();
    let wrong = if draft.blocks.is_empty() {
        Some("it holds no code".to_owned())
    } else {
        let mut inspections = run.tools.judge.inspect(&files).await?;
        for (file, inspection) in files.iter_mut().zip(&mut inspections) {
            let mut imports = imports::forgotten(inspection, work.targets);
            imports::add_to(inspection, work.targets);
            work.remember(inspection);
            // Nothing may stand before a `from __future__`, which also spares what is most often
            // forgotten.
            if !file.text.contains("from __future__") {
                imports.push(std::mem::take(&mut file.text));
                file.text = imports.join("\n");
            }
        }
        match fault(&inspections, &names) {
            Some(wrong) => Some(wrong),
            None => unwritten(work, &inspections, &files).await?,
        }
    };
    if let Some(wrong) = wrong {
        run.record(&draft.answer, AttemptVerdict::Malformed, &wrong, &json!({}), &files)?;
        return Ok(None);
    }
    let candidate = work.judge_whole(files).await?;
    draft.record(run, candidate.verdict.as_ref(), candidate.passed(), &candidate.files)?;
    Ok(Some(candidate))
}

/// Returns the first function with an empty body, unless the tests pass with it.
async fn unwritten(
    work: &TaskContext<'_>,
    inspections: &[FileInspection],
    files: &[SourceFile],
) -> Result<Option<String>, PipelineError> {
    let Some(empty) = empty_body(inspections) else { return Ok(None) };
    let verdict = work.judge(files).await?;
    Ok((!verdict.is_some_and(|verdict| verdict.passed())).then_some(empty))
}

/// Records a warning that a part is missing.
pub(super) fn warn_missing(work: &TaskContext<'_>, name: &str) -> Result<(), PipelineError> {
    let message = format!("no answer for the part `{name}` was usable code");
    work.run.tell(&Event::Warning { message })
}
