//! Acceptance without user tests: generated asserts that fail on a stub and on which independent
//! solutions agree.
//!
//! Follows CodeT (Chen et al. 2022, arXiv:2207.10397): solutions that pass the same tests form a
//! cluster, which is scored by its numbers of solutions and tests. A single solution is not an
//! agreement.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use super::PipelineError;
use super::context::CandidateSolution;
use super::context::TaskContext;
use super::draft::draft;
use super::integrate::from_scratch;
use super::integrate::whole;
use super::requirements::TargetFile;
use super::runner::AttemptSlot;
use crate::event::Event;
use crate::judge::TestStatus;
use crate::judge::TestSuite;
use crate::judge::Verdict;
use crate::task::SourceFile;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;
use crate::trajectory::VerifiedBy;

/// Number of asserts to ask for in one answer, and the maximum to use.
const ASKED: usize = 8;
const MOST: usize = 16;
/// Minimum numbers of asserts and solutions for an agreement.
const LEAST_TESTS: usize = 2;
const LEAST_SOLUTIONS: usize = 2;

/// Generates asserts for the task and discards those that pass on a stub.
pub(super) async fn tests(work: &TaskContext<'_>) -> Result<Vec<String>, PipelineError> {
    let run = work.run;
    let Some(target) = work.targets.first().filter(|target| !target.names.is_empty()) else {
        return Ok(Vec::new());
    };
    run.begin(Phase::Plan, None)?;
    let mut asserts: Vec<String> = Vec::new();
    for trial in 0..run.tools.settings.attempts.max(1) {
        let prompt = work
            .prompt("tests")
            .with("n", ASKED)
            .with("path", &target.path)
            .with("names", &target.names);
        let place = AttemptSlot { phase: Phase::Plan, subtask: None, candidate: trial };
        let draft = draft(work, place, prompt, trial, None).await?;
        let text = draft.as_file("asserts.py").text;
        let found = asserts_in(&text, &target.names);
        let new: Vec<String> = found.into_iter().filter(|line| !asserts.contains(line)).collect();
        let lines: Vec<SourceFile> = vec![SourceFile::new("asserts.py", new.join("\n"))];
        let word =
            if new.is_empty() { AttemptVerdict::Malformed } else { AttemptVerdict::Accepted };
        run.record(&draft.answer, word, &format!("{} asserts", new.len()), &json!({}), &lines)?;
        asserts.extend(new);
        if asserts.len() >= ASKED {
            break;
        }
    }
    asserts.truncate(MOST);
    let kept = failing_on_stubs(work, target, asserts).await?;
    if kept.len() < LEAST_TESTS {
        let message = "too few generated tests say anything: nothing can be verified".to_owned();
        run.tell(&Event::Warning { message })?;
        return Ok(Vec::new());
    }
    Ok(kept)
}

/// Draws more solutions and clusters them with `first`. The largest cluster provides the best
/// candidate, which is verified if the cluster is an agreement. Returns the tests that verified it.
pub(super) async fn agree(
    work: &TaskContext<'_>,
    target: &TargetFile,
    tests: &[String],
    first: Vec<SourceFile>,
) -> Result<Vec<SourceFile>, PipelineError> {
    let run = work.run;
    run.begin(Phase::Integrate, None)?;
    let solutions = solutions(work, first).await?;
    let all = suite(target, tests);
    let mut clusters: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (index, files) in solutions.iter().enumerate() {
        let verdict = run.tools.judge.run_suite(&all, files).await?;
        clusters.entry(passed(&verdict)).or_default().push(index);
    }
    // CodeT's score: solutions times tests. Ties go to the cluster with the earliest solution.
    let value = |(tests, members): &(&Vec<usize>, &Vec<usize>)| {
        (tests.len() * members.len(), std::cmp::Reverse(members[0]))
    };
    let Some((agreed, members)) = clusters.iter().max_by_key(value) else {
        return Ok(Vec::new());
    };
    let files = solutions[members[0]].clone();
    let asserts: Vec<String> = agreed.iter().map(|index| tests[*index].clone()).collect();
    let is_agreement = agreed.len() >= LEAST_TESTS && members.len() >= LEAST_SOLUTIONS;
    // Asserts outside of the agreement are probably wrong, so they must not fail the solution.
    let suite = if is_agreement { suite(target, &asserts) } else { all };
    let verdict = run.tools.judge.run_suite(&suite, &files).await?;
    let agreement = format!("{} of {} solutions agree", members.len(), solutions.len());
    run.tell_verdict(&verdict, agreement)?;
    let verdict = is_agreement.then_some(verdict);
    work.settle_on(CandidateSolution { files, verdict }, VerifiedBy::GeneratedTests);
    Ok(if is_agreement { suite.files().to_vec() } else { Vec::new() })
}

/// Returns `first`, unless it is empty, and newly drawn solutions.
async fn solutions(
    work: &TaskContext<'_>,
    first: Vec<SourceFile>,
) -> Result<Vec<Vec<SourceFile>>, PipelineError> {
    let mut solutions: Vec<Vec<SourceFile>> = Vec::new();
    if !first.is_empty() {
        solutions.push(first);
    }
    let settings = &work.run.tools.settings;
    let trials = (1..=settings.candidates.max(2))
        .map(|trial| whole(work, Phase::Integrate, trial, from_scratch(work)));
    let parallel = work.run.tools.provider.capabilities().parallel;
    let mut drawn = stream::iter(trials).buffered(parallel);
    while let Some(candidate) = drawn.next().await {
        solutions.extend(candidate?.map(|candidate| candidate.files));
    }
    Ok(solutions)
}

/// Renders the generated tests as a unittest file, which runs on every Python.
fn suite(target: &TargetFile, asserts: &[String]) -> TestSuite {
    let module = SourceFile::new(target.path.as_str(), "").module().unwrap_or_default();
    let names = target.names.join(", ");
    let head = format!(
        "import unittest\n\nfrom {module} import {names}\n\n\nclass TestGenerated(unittest.TestCase):"
    );
    let test = |(index, line): (usize, &String)| {
        format!("\n    def test_{index:02}(self):\n        {line}\n")
    };
    let tests: Vec<String> = asserts.iter().enumerate().map(test).collect();
    let text = head + &tests.concat();
    TestSuite::new(vec![SourceFile::new("test_generated.py", text)])
}

/// Returns the indices of passed tests.
fn passed(verdict: &Verdict) -> Vec<usize> {
    let passed = verdict.tests.iter().filter(|test| test.status == TestStatus::Passed);
    let mut indices: Vec<usize> =
        passed.filter_map(|test| test.id.rsplit('_').next()?.parse().ok()).collect();
    indices.sort_unstable();
    indices
}

/// Extracts one-line asserts that call a required name.
fn asserts_in(text: &str, names: &[String]) -> Vec<String> {
    let calls = |line: &str| names.iter().any(|name| line.contains(&format!("{name}(")));
    text.lines()
        .map(str::trim)
        .filter(|line| {
            line.starts_with("assert ")
                && line.contains("==")
                    | line.contains(" is ")
                    | line.contains(" in ")
                    | line.contains(" not ")
        })
        .filter(|line| calls(line))
        .map(str::to_owned)
        .collect()
}

/// Keeps asserts that fail on functions that do nothing; the others prove nothing.
async fn failing_on_stubs(
    work: &TaskContext<'_>,
    target: &TargetFile,
    asserts: Vec<String>,
) -> Result<Vec<String>, PipelineError> {
    if asserts.is_empty() {
        return Ok(asserts);
    }
    let suite = suite(target, &asserts);
    let mut vacuous: Vec<usize> = Vec::new();
    for body in ["return None", "raise NotImplementedError"] {
        let stub = target.names.iter().map(|name| stub(name, body)).collect::<String>();
        let files = [SourceFile::new(target.path.as_str(), stub)];
        let verdict = work.run.tools.judge.run_suite(&suite, &files).await?;
        vacuous.extend(passed(&verdict));
    }
    let kept = asserts.into_iter().enumerate().filter(|(index, _)| !vacuous.contains(index));
    Ok(kept.map(|(_, line)| line).collect())
}

fn stub(name: &str, body: &str) -> String {
    if name.starts_with(char::is_uppercase) {
        let method = format!(
            "lambda *args, **kwargs: {}",
            if body == "return None" { "None" } else { "1 / 0" }
        );
        format!(
            "class {name}:\n    def __init__(self, *args, **kwargs):\n        pass\n\n    def __getattr__(self, name):\n        return {method}\n\n\n"
        )
    } else {
        format!("def {name}(*args, **kwargs):\n    {body}\n\n\n")
    }
}
