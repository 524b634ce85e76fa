//! Turns a task into code and a trajectory.
//!
//! The model only writes text. This module decides what runs when, where code goes, and what counts
//! as solved.
//!
//! ```text
//!  task + tests
//!       |
//!       v
//!  requirements      files and names that the task and its tests require
//!       |
//!       v
//!  decompose         parts and their dependencies
//!       |
//!       v            for each part, once its dependencies are finished
//!  +-> plan -----> signatures
//!  |   code -----> candidates --> judge: keep the best versions
//!  +-- next part
//!       |
//!       v
//!  assemble          the versions that pass the most tests together
//!       |
//!       v
//!  judge ---- pass ----> solved (user's tests, or generated tests that solutions agree on)
//!   ^   |
//!   |   +---- fail ----> diagnose --> repair --+   at most `run.repairs` rounds; then the best
//!   |                                          |   candidate is returned as unsolved
//!   +------------------------------------------+
//! ```
//!
//! Every attempt is recorded as it ends. [`solve`] is deterministic between answers: for a resumed
//! session it runs again from the start, takes the recorded answer to each question it repeats, and
//! asks the model only from the point where the session stopped.
//!
//! **Invariant:** `solved` means that the judge passed the user's tests, or generated tests that
//! fail on a stub and on which independent solutions agree.

mod assemble;
mod code;
mod context;
mod decompose;
mod draft;
mod error;
mod generated;
mod imports;
mod integrate;
mod mention;
mod new_session;
mod parse;
mod plan;
mod prompt;
mod recombine;
mod requirements;
mod runner;
mod session;
mod solve;
mod task_file;

use std::time::Duration;

use crate::adapter::AdapterId;
use crate::config::Config;
use crate::judge::Verdict;
use crate::task::SourceFile;
use crate::trajectory::Assurance;
use crate::trajectory::Phase;
use crate::trajectory::Sampling;
use crate::trajectory::VerifiedBy;

pub use error::PipelineError;
pub(crate) use new_session::NewSession;
pub use parse::CodeBlock;
pub use parse::code_blocks;
pub use requirements::Assignment;
pub use runner::AttemptSlot;
pub use runner::PipelineTools;
pub use session::OutputFolder;
pub use session::SessionError;
pub use session::SessionOutcome;
pub use session::SessionPlan;
pub use session::SessionRequest;
pub use session::plan_session;
pub use session::recorded_settings;
pub use session::run_session;
pub use solve::solve;
pub use task_file::ReadTask;
pub use task_file::TaskFileError;
pub(crate) use task_file::is_task_line;
pub use task_file::plain_task;
pub use task_file::read_task;
pub use task_file::read_tasks;

/// Version of the pipeline in evaluation outcomes. It changes whenever a session could end
/// differently with the same prompts.
pub const VERSION: &str = "pipeline-3";

/// Budgets and sampling of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSettings {
    /// Adapter for all answers, which the provider must have loaded; `None` is the base.
    pub adapter_id: Option<AdapterId>,
    /// Random seed for sampling.
    pub seed: u64,
    /// Temperature of the first answer to a question.
    pub temperature: f32,
    /// Temperature of every further answer.
    pub retry_temperature: f32,
    /// See [`crate::trajectory::Sampling::top_p`].
    pub top_p: f32,
    /// See [`crate::trajectory::Sampling::top_k`].
    pub top_k: u32,
    /// See [`crate::trajectory::Sampling::repetition_penalty`].
    pub repetition_penalty: f32,
    /// Maximum generated tokens per session.
    pub max_tokens: u64,
    /// Maximum wall time per session.
    pub max_time: Duration,
    /// Maximum attempts to get an answer that can be parsed.
    pub attempts: u32,
    /// Number of code samples when the first one fails.
    pub candidates: u32,
    /// Maximum rounds of diagnose and repair.
    pub repairs: u32,
    /// Maximum tokens per answer of each phase: decompose, plan, code, integrate, diagnose, repair.
    pub phase_tokens: [u32; 6],
}

impl SessionSettings {
    /// Takes the session settings from a configuration, without an adapter.
    pub fn new(config: &Config) -> Self {
        let Config { run, sampling, tokens, .. } = config;
        Self {
            adapter_id: None,
            seed: run.seed,
            temperature: sampling.temperature,
            retry_temperature: sampling.retry_temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            repetition_penalty: sampling.repetition_penalty,
            max_tokens: run.max_tokens,
            max_time: Duration::from_secs(run.max_seconds),
            attempts: run.attempts,
            candidates: run.candidates,
            repairs: run.repairs,
            phase_tokens: [
                tokens.decompose,
                tokens.plan,
                tokens.code,
                tokens.integrate,
                tokens.diagnose,
                tokens.repair,
            ],
        }
    }

    /// Returns the sampling of answer number `trial` to one question: the first at the base
    /// temperature, later ones more diverse. Each trial has its own seed.
    pub fn sampling(&self, phase: Phase, trial: u32) -> Sampling {
        let temperature = match trial {
            0 => self.temperature,
            _ => self.retry_temperature,
        };
        Sampling {
            temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.wrapping_add(u64::from(trial)),
            stop: Vec::new(),
            max_tokens: self.max_tokens_of(phase),
        }
    }

    /// Returns the maximum tokens per answer of a phase.
    pub fn max_tokens_of(&self, phase: Phase) -> u32 {
        self.phase_tokens[match phase {
            Phase::Decompose => 0,
            Phase::Plan => 1,
            Phase::Code => 2,
            Phase::Integrate => 3,
            Phase::Diagnose => 4,
            Phase::Repair => 5,
        }]
    }
}

/// Result of a session.
#[derive(Debug, Clone)]
pub struct Solution {
    /// Files of the best candidate; empty if no usable code was written.
    pub files: Vec<SourceFile>,
    /// Generated tests that verified the solution; empty otherwise.
    pub generated_tests: Vec<SourceFile>,
    /// Verdict on `files`; `None` if there was nothing to judge them by.
    pub verdict: Option<Verdict>,
    /// Evidence for "solved"; [`VerifiedBy::None`] means unsolved.
    pub verified_by: VerifiedBy,
    /// Message about the exhausted budget that ended the session, if one did.
    pub budget: Option<String>,
    /// Prompt tokens of all attempts.
    pub tokens_in: u64,
    /// Generated tokens of all attempts.
    pub tokens_out: u64,
    /// Wall time of this process's run, without earlier runs of a resumed session.
    pub elapsed: Duration,
}

impl Solution {
    /// Whether the task is solved and verified.
    pub fn is_solved(&self) -> bool {
        self.verified_by != VerifiedBy::None
    }

    /// Returns how the pass of the user's tests was confirmed; `None` for generated tests, which
    /// assure nothing.
    pub fn assurance(&self) -> Option<Assurance> {
        let verdict = self.verdict.as_ref().filter(|_| self.verified_by == VerifiedBy::UserTests);
        verdict.and_then(|verdict| verdict.assurance)
    }

    /// Returns why the assurance is not [`Assurance::Separate`], or why the verdict does not count;
    /// empty otherwise.
    pub fn reason(&self) -> &str {
        self.verdict.as_ref().map_or("", Verdict::why)
    }

    /// Summarizes the result in one line.
    pub fn summary(&self) -> String {
        let tests = self.verdict.as_ref().map(Verdict::summary);
        let outcome = match (self.verified_by, tests) {
            (VerifiedBy::UserTests, Some(tests)) => match (self.assurance(), self.reason()) {
                (None, _) => format!("solved: {tests}"),
                (Some(assurance), "") => format!("solved: {tests} ({assurance})"),
                (Some(assurance), reason) => format!("solved: {tests} ({assurance}: {reason})"),
            },
            (VerifiedBy::GeneratedTests, Some(tests)) => {
                format!("solved by its own measure, with generated tests: {tests}")
            }
            (_, Some(tests)) => format!("not solved: {tests}"),
            (_, None) if self.files.is_empty() => {
                "not solved: no usable code was written".to_owned()
            }
            (_, None) => "not verified: there was nothing to judge the code by".to_owned(),
        };
        match &self.budget {
            Some(budget) => format!("{outcome}; {budget}"),
            None => outcome,
        }
    }
}
