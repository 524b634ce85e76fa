//! Answers with code: asking, continuing truncated answers, parsing and inspecting.

use serde_json::json;

use super::PipelineError;
use super::context::TaskContext;
use super::parse::CodeBlock;
use super::parse::code_blocks;
use super::parse::continuation;
use super::parse::stitch;
use super::prompt::PromptDraft;
use super::runner::AttemptSlot;
use super::runner::ModelAnswer;
use super::runner::SessionRunner;
use crate::judge::FileInspection;
use crate::judge::Verdict;
use crate::provider::Grammar;
use crate::task::SourceFile;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::FinishReason;

/// Code in an answer of the model.
pub(super) struct CodeDraft {
    pub(super) answer: ModelAnswer,
    pub(super) blocks: Vec<CodeBlock>,
}

/// Asks for code, constrained to `grammar` if the provider supports it. A truncated answer is
/// continued once, and both texts are joined.
pub(super) async fn draft(
    work: &TaskContext<'_>,
    place: AttemptSlot,
    prompt: PromptDraft,
    trial: u32,
    grammar: Option<&Grammar>,
) -> Result<CodeDraft, PipelineError> {
    /// Lines of the truncated answer that the continuation prompt repeats.
    const TAIL: usize = 12;
    let run = work.run;
    let phase = place.phase;
    let mut sampling = run.sampling(phase, trial);
    if work.targets.len() == 1 {
        // Only one block is needed; text after it is explanation.
        sampling.stop = vec!["\n```\n\n".to_owned()];
    }
    let asked = prompt.clone().fit(run, phase)?;
    let answer = run.ask(place.clone(), asked, sampling.clone(), grammar).await?;
    let text = answer.completion.text.clone();
    if answer.completion.finish_reason != FinishReason::Length {
        return Ok(CodeDraft { blocks: code_blocks(&text), answer });
    }
    run.record(
        &answer,
        AttemptVerdict::Truncated,
        "truncated at the token limit of the phase",
        &json!({}),
        &[],
    )?;
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let go_on = run.templates.render("continue", json!({ "tail": tail }))?;
    let asked = prompt.and_then(go_on).fit(run, phase)?;
    let answer = run.ask(place, asked, sampling, None).await?;
    let rest = continuation(&answer.completion.text);
    Ok(CodeDraft { blocks: code_blocks(&stitch(&text, &rest)), answer })
}

impl CodeDraft {
    /// Records the attempt with its verdict; `None` if there were no tests.
    pub(super) fn record(
        &self,
        run: &SessionRunner<'_>,
        verdict: Option<&Verdict>,
        is_accepted: bool,
        files: &[SourceFile],
    ) -> Result<(), PipelineError> {
        let (word, summary) = match verdict {
            None => (AttemptVerdict::Accepted, "compiles; no tests were given".to_owned()),
            Some(verdict) if verdict.passed() => (AttemptVerdict::Passed, verdict.summary()),
            Some(verdict) if is_accepted => (AttemptVerdict::Accepted, verdict.summary()),
            Some(verdict) => (AttemptVerdict::Failed, verdict.summary()),
        };
        run.record(&self.answer, word, &summary, &json!(verdict), files)
    }

    /// Returns all code of the answer as one file.
    pub(super) fn as_file(&self, path: &str) -> SourceFile {
        let codes: Vec<&str> = self.blocks.iter().map(|block| block.code.as_str()).collect();
        SourceFile::new(path, codes.join("\n"))
    }

    /// Assigns code blocks to the required files: a block goes to the file that it names, else to
    /// the first file without a block.
    pub(super) fn as_files(&self, paths: &[&str]) -> Vec<SourceFile> {
        if let [path] = paths {
            return vec![self.as_file(path)];
        }
        let mut files: Vec<SourceFile> = Vec::new();
        for block in &self.blocks {
            let named = paths.iter().find(|path| block.path.as_deref() == Some(**path));
            let free = paths.iter().find(|path| !files.iter().any(|file| file.path == **path));
            let Some(path) = named.or(free) else { continue };
            match files.iter_mut().find(|file| file.path == **path) {
                Some(file) => file.text = format!("{}\n\n{}", file.text.trim_end(), block.code),
                None => files.push(SourceFile::new(*path, block.code.as_str())),
            }
        }
        files
    }
}

/// Returns why code cannot be run; `None` if it can. [`empty_body`] checks for empty bodies.
pub(super) fn fault(inspections: &[FileInspection], names: &[String]) -> Option<String> {
    for inspection in inspections {
        if let Some(error) = &inspection.error {
            let (line, text) = (error.line, error.text.trim());
            return Some(format!("syntax error in line {line}, `{text}`: {}", error.message));
        }
        if let Some(elision) = inspection.elisions.first() {
            return Some(format!("code is left out: `{elision}`"));
        }
    }
    let defined = |name: &String| inspections.iter().any(|i| i.defines.contains(name));
    let missing = names.iter().find(|name| !defined(name))?;
    Some(format!("`{missing}` is not defined"))
}

/// Returns the first function with an empty body. This is a fault only if the tests do not pass,
/// because some methods are meant to do nothing.
pub(super) fn empty_body(inspections: &[FileInspection]) -> Option<String> {
    let stub = inspections.iter().flat_map(|inspection| &inspection.stubs).next()?;
    Some(format!("`{stub}` has no body"))
}
