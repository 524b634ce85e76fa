//! Runs a task through all phases.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::PipelineError;
use super::PipelineTools;
use super::Solution;
use super::assemble::assemble;
use super::code::CodedPart;
use super::code::PartVersions;
use super::code::code;
use super::code::combinations;
use super::context::TaskContext;
use super::decompose::decompose;
use super::generated;
use super::integrate::integrate;
use super::integrate::warn_missing;
use super::requirements::Assignment;
use super::runner::SessionRunner;
use crate::registry::HeldClaim;
use crate::task::SourceFile;
use crate::task::Subtask;
use crate::trajectory::Attempt;
use crate::trajectory::VerifiedBy;

/// Solves an assignment in the claimed session. `recorded` are the attempts of a resumed session,
/// empty for a new one. Dropping the future stops everything; the session can be resumed.
///
/// # Errors
/// [`PipelineError`], except an exhausted budget, which is reported in [`Solution::budget`] with
/// the best candidate so far.
pub async fn solve(
    tools: &PipelineTools<'_>,
    claim: &HeldClaim,
    assignment: &Assignment,
    recorded: Vec<Attempt>,
) -> Result<Solution, PipelineError> {
    let run = SessionRunner::new(tools, claim, recorded);
    let work = TaskContext::new(&run, assignment);
    let result = run_phases(&work).await;
    let (budget, generated_tests) = match result {
        Ok(tests) => (None, tests),
        Err(error @ PipelineError::Budget { .. }) => (Some(error.to_string()), Vec::new()),
        Err(error) => return Err(error),
    };
    let (tokens_in, tokens_out) = run.tokens();
    let best = work.best();
    let verified_by = best.as_ref().map_or(VerifiedBy::None, |(_, by)| *by);
    let (files, verdict) =
        best.map(|(candidate, _)| (candidate.files, candidate.verdict)).unwrap_or_default();
    Ok(Solution {
        files,
        generated_tests: match verified_by {
            VerifiedBy::GeneratedTests => generated_tests,
            _ => Vec::new(),
        },
        verdict,
        verified_by,
        budget,
        tokens_in,
        tokens_out,
        elapsed: run.elapsed(),
    })
}

/// Runs the phases and keeps candidates in `work`. Returns generated tests, if any.
async fn run_phases(work: &TaskContext<'_>) -> Result<Vec<SourceFile>, PipelineError> {
    let subtasks = decompose(work).await?;
    let tests = match work.suite {
        Some(_) => Vec::new(),
        None => generated::tests(work).await?,
    };
    let parts = write_parts(work, &subtasks).await?;
    let assembled = best_assembly(work, &parts).await?;
    match work.targets.first() {
        Some(target) if work.suite.is_none() && !tests.is_empty() => {
            generated::agree(work, target, &tests, assembled).await
        }
        _ => {
            integrate(work, assembled, subtasks.len() > 1).await?;
            Ok(Vec::new())
        }
    }
}

/// Assembles the combination of versions that passes the most tests.
async fn best_assembly(
    work: &TaskContext<'_>,
    parts: &[PartVersions],
) -> Result<Vec<SourceFile>, PipelineError> {
    /// Maximum combinations to judge: their number is exponential in the number of parts.
    const MAX_COMBINATIONS: usize = 64;
    let mut best: Option<(f64, Vec<SourceFile>)> = None;
    for parts in combinations(parts, MAX_COMBINATIONS) {
        let files = assemble(work.targets, &parts, false);
        let Some(verdict) = work.judge(&files).await? else { return Ok(files) };
        if best.as_ref().is_none_or(|(score, _)| verdict.score() > *score) {
            best = Some((verdict.score(), files));
        }
        if verdict.passed() {
            break;
        }
    }
    Ok(best.map(|(_, files)| files).unwrap_or_default())
}

/// Plans and codes every subtask as soon as its dependencies are finished, several at a time.
async fn write_parts(
    work: &TaskContext<'_>,
    subtasks: &[Subtask],
) -> Result<Vec<PartVersions>, PipelineError> {
    let mut finished: BTreeMap<usize, PartVersions> = BTreeMap::new();
    let mut started = vec![false; subtasks.len()];
    let mut in_flight = FuturesUnordered::new();
    while finished.len() < subtasks.len() {
        for (index, subtask) in subtasks.iter().enumerate() {
            let is_ready = subtask.depends_on.iter().all(|part| finished.contains_key(part));
            if is_ready && !started[index] {
                started[index] = true;
                let dependencies: Vec<PartVersions> = subtask
                    .depends_on
                    .iter()
                    .filter_map(|part| finished.get(part).cloned())
                    .collect();
                let is_whole = subtasks.len() == 1;
                let coded = write_part(work, subtask, dependencies, is_whole);
                in_flight.push(coded.map(move |coded| (index, coded)));
            }
        }
        // `None` if nothing can start: the dependencies of the remaining parts form a cycle.
        let Some((index, coded)) = in_flight.next().await else { break };
        let CodedPart { versions, settled } = coded?;
        finished.insert(index, versions);
        // The tests of this part may have decided which version of a dependency is right.
        for part in settled {
            let digest = &part.inspection.digest;
            let known = finished.values_mut().find(|versions| {
                versions.iter().any(|version| version.inspection.digest == *digest)
            });
            if let Some(versions) = known {
                *versions = vec![part];
            }
        }
    }
    Ok(finished.into_values().collect())
}

async fn write_part(
    work: &TaskContext<'_>,
    subtask: &Subtask,
    dependencies: Vec<PartVersions>,
    is_whole: bool,
) -> Result<CodedPart, PipelineError> {
    let coded = code(work, subtask, &dependencies, is_whole).await?;
    if coded.versions.is_empty() {
        warn_missing(work, &subtask.name)?;
    }
    Ok(coded)
}
