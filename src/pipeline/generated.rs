//! Acceptance without the user's tests: generated asserts that fail on a stub and on which independent solutions
//! agree.
//!
//! CodeT (Chen et al. 2022, arXiv:2207.10397): solutions that pass the same tests form a cluster; a cluster counts
//! by its solutions and its tests. One solution alone is no agreement.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use super::PipelineError;
use super::draft::draft;
use super::integrate::from_scratch;
use super::integrate::whole;
use super::requirements::Target;
use super::run::Place;
use super::work::Candidate;
use super::work::Work;
use crate::event::Event;
use crate::judge::Status;
use crate::judge::Suite;
use crate::judge::Verdict;
use crate::task::SourceFile;
use crate::trajectory::Phase;
use crate::trajectory::VerifiedBy;

/// Asserts asked for in one answer, and the most that are used.
const ASKED: usize = 8;
const MOST: usize = 16;
/// The least asserts and solutions that make an agreement.
const LEAST_TESTS: usize = 2;
const LEAST_SOLUTIONS: usize = 2;

/// Generates asserts for the task and throws out those that pass on a stub.
pub(super) async fn tests(work: &Work<'_>) -> Result<Vec<String>, PipelineError> {
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
        let place = Place { phase: Phase::Plan, subtask: None, candidate: trial };
        let draft = draft(work, place, prompt, trial).await?;
        let text = draft.as_file("asserts.py").text;
        let found = asserts_in(&text, &target.names);
        let new: Vec<String> = found.into_iter().filter(|line| !asserts.contains(line)).collect();
        let lines: Vec<SourceFile> = vec![SourceFile::new("asserts.py", new.join("\n"))];
        let word = if new.is_empty() { "malformed" } else { "accepted" };
        run.record(&draft.answer, word, &format!("{} asserts", new.len()), json!({}), &lines)?;
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

/// Draws further solutions beside `first` and picks the one that most agree with. The session's best candidate
/// becomes the pick, verified when there is an agreement.
pub(super) async fn agree(
    work: &Work<'_>,
    tests: &[String],
    first: Vec<SourceFile>,
) -> Result<Candidate, PipelineError> {
    let run = work.run;
    run.begin(Phase::Integrate, None)?;
    let mut solutions: Vec<Vec<SourceFile>> = Vec::new();
    if !first.is_empty() {
        solutions.push(first);
    }
    let trials = (1..=run.tools.settings.candidates.max(2))
        .map(|trial| whole(work, Phase::Integrate, trial, from_scratch(work)));
    let mut drawn = stream::iter(trials).buffered(run.tools.provider.capabilities().parallel);
    while let Some(candidate) = drawn.next().await {
        solutions.extend(candidate?.map(|candidate| candidate.files));
    }
    let Some(target) = work.targets.first() else {
        return Ok(Candidate { files: Vec::new(), verdict: None });
    };
    let mut clusters: BTreeMap<Vec<usize>, Vec<(usize, Verdict)>> = BTreeMap::new();
    let suite = suite(target, tests);
    for (index, files) in solutions.iter().enumerate() {
        let verdict = run.tools.judge.run_suite(&suite, files).await?;
        clusters.entry(passed(&verdict)).or_default().push((index, verdict));
    }
    // The cluster with the most solutions times tests; of equals the one of the earliest solution.
    let value = |(tests, members): &(&Vec<usize>, &Vec<(usize, Verdict)>)| {
        (tests.len() * members.len(), std::cmp::Reverse(members[0].0))
    };
    let Some((agreed, members)) = clusters.iter().max_by_key(value) else {
        return Ok(Candidate { files: Vec::new(), verdict: None });
    };
    let files = solutions[members[0].0].clone();
    let is_agreement = agreed.len() >= LEAST_TESTS && members.len() >= LEAST_SOLUTIONS;
    let agreed: Vec<String> = agreed.iter().map(|index| tests[*index].clone()).collect();
    let verdict = match is_agreement {
        true => run.tools.judge.run_suite(&self::suite(target, &agreed), &files).await?,
        false => members[0].1.clone(),
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    run.tell(&Event::SuiteJudged {
        n_passed: count(verdict.n_passed),
        n_total: count(verdict.n_total),
        outcome: format!("{} of {} solutions agree", members.len(), solutions.len()),
    })?;
    let candidate = Candidate { files, verdict: is_agreement.then_some(verdict) };
    work.offer(&candidate, VerifiedBy::GeneratedTests);
    Ok(candidate)
}

/// The generated tests as the user may keep them.
pub(super) fn suite(target: &Target, asserts: &[String]) -> Suite {
    let module = SourceFile::new(target.path.as_str(), "").module().unwrap_or_default();
    let mut text = format!("from {module} import {}\n", target.names.join(", "));
    for (index, line) in asserts.iter().enumerate() {
        text.push_str(&format!("\n\ndef test_{index:02}():\n    {line}\n"));
    }
    Suite::new(vec![SourceFile::new("test_generated.py", text)])
}

/// Indices of the tests that passed.
fn passed(verdict: &Verdict) -> Vec<usize> {
    let passed = verdict.tests.iter().filter(|test| test.status == Status::Passed);
    let mut indices: Vec<usize> =
        passed.filter_map(|test| test.id.rsplit('_').next()?.parse().ok()).collect();
    indices.sort_unstable();
    indices
}

/// One-line asserts that call a name asked for.
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

/// The asserts that fail on functions that do nothing: the others say nothing.
async fn failing_on_stubs(
    work: &Work<'_>,
    target: &Target,
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
