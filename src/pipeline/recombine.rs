//! Recombines functions of several solutions. A small model seldom writes all functions correctly
//! in one answer.

use super::PipelineError;
use super::assemble::FinishedPart;
use super::assemble::assemble;
use super::assemble::parts_of;
use super::context::CandidateSolution;
use super::context::TaskContext;
use crate::task::SourceFile;

/// Maximum combinations to judge concurrently.
const MOST: usize = 60;
/// Maximum passes over all names.
const SWEEPS: usize = 2;

/// Coordinate ascent: for each name in turn, selects the version that passes the most tests with
/// the others fixed. Starts from `best`, and never returns a worse solution.
pub(super) async fn recombine(
    work: &TaskContext<'_>,
    best: CandidateSolution,
) -> Result<CandidateSolution, PipelineError> {
    let pool = work.pool();
    let n_names: usize = work.targets.iter().map(|target| target.names.len()).sum();
    if best.passed() || n_names < 2 || work.suite.is_none() {
        return Ok(best);
    }
    let inspections = work.run.tools.judge.inspect(&best.files).await?;
    let mut chosen: Vec<FinishedPart> =
        inspections.iter().flat_map(|own| parts_of(work.targets, own)).collect();
    let mut best = best;
    let mut n_judged = 0;
    for _ in 0..SWEEPS {
        let before = best.score();
        for target in work.targets {
            for name in &target.names {
                let at = chosen.iter().position(|part| answers(part, &target.path, name));
                for version in pool.iter().filter(|part| answers(part, &target.path, name)) {
                    let mut parts = chosen.clone();
                    match at {
                        Some(at) => parts[at] = version.clone(),
                        None => parts.push(version.clone()),
                    }
                    let files: Vec<SourceFile> = assemble(work.targets, &parts, false);
                    let candidate = work.judge_whole(files).await?;
                    n_judged += 1;
                    // Greedy: later names are tried on top of this version.
                    if candidate.score() > best.score() {
                        (best, chosen) = (candidate, parts);
                    }
                    if best.passed() || n_judged >= MOST {
                        return Ok(best);
                    }
                }
            }
        }
        // Another pass pays only if this one changed what the versions are combined with.
        if best.score() <= before {
            break;
        }
    }
    Ok(best)
}

fn answers(part: &FinishedPart, path: &str, name: &String) -> bool {
    part.path == path && part.names.contains(name)
}
