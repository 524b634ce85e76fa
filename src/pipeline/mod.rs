//! Task -> code and trajectory: decompose, plan, code, integrate, and, while it fails, diagnose and
//! repair.
//!
//! The model only writes; what runs when, where code goes and what counts as solved is decided
//! here. [`solve`] leaves every attempt in the registry as it ends. Called again for the same
//! session it gives the recorded answers to the same questions and goes on where it stopped.
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

/// The pipeline's version, as outcomes carry it: it changes when a session could come to something
/// else, but for the prompts.
pub const VERSION: &str = "pipeline-3";

/// Budgets and manners of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSettings {
    /// The adapter to answer with, which the provider has loaded; `None` is the base.
    pub adapter_id: Option<AdapterId>,
    /// Seed of all sampling.
    pub seed: u64,
    /// Temperature of the first answer to a question.
    pub temperature: f32,
    /// Temperature of the further ones.
    pub retry_temperature: f32,
    /// See [`crate::trajectory::Sampling::top_p`].
    pub top_p: f32,
    /// See [`crate::trajectory::Sampling::top_k`].
    pub top_k: u32,
    /// See [`crate::trajectory::Sampling::repetition_penalty`].
    pub repetition_penalty: f32,
    /// The most tokens to generate in the session.
    pub max_tokens: u64,
    /// The most time to spend.
    pub max_time: Duration,
    /// Attempts at an answer that can be read.
    pub attempts: u32,
    /// Samples of code when the first one fails.
    pub candidates: u32,
    /// Rounds of diagnose and repair.
    pub repairs: u32,
    /// The most tokens of an answer of each phase: decompose, plan, code, integrate, diagnose,
    /// repair.
    pub phase_tokens: [u32; 6],
}

impl SessionSettings {
    /// The settings that a configuration stands for.
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

    /// How the `trial`th answer to one question is drawn: the first one carefully, the others apart
    /// from each other.
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

    /// The most tokens of an answer of a phase.
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

/// What a session came to.
#[derive(Debug, Clone)]
pub struct Solution {
    /// The files of the best candidate; empty when there was none.
    pub files: Vec<SourceFile>,
    /// The generated tests that verified it; empty otherwise.
    pub generated_tests: Vec<SourceFile>,
    /// What the judge said of it.
    pub verdict: Option<Verdict>,
    /// What stands behind "solved"; [`VerifiedBy::None`] means unsolved.
    pub verified_by: VerifiedBy,
    /// The budget that ended the session, in words.
    pub budget: Option<String>,
    /// Prompt tokens of all attempts.
    pub tokens_in: u64,
    /// Generated tokens of all attempts.
    pub tokens_out: u64,
    /// Wall time of this run.
    pub elapsed: Duration,
}

impl Solution {
    /// Whether the task is solved and verified.
    pub fn is_solved(&self) -> bool {
        self.verified_by != VerifiedBy::None
    }

    /// Where it was decided that the user's tests pass. Tests of the model's own assure nothing.
    pub fn assurance(&self) -> Option<Assurance> {
        let verdict = self.verdict.as_ref().filter(|_| self.verified_by == VerifiedBy::UserTests);
        verdict.and_then(|verdict| verdict.assurance)
    }

    /// Why the assurance is not [`Assurance::Separate`], or why the verdict does not count; empty
    /// otherwise.
    pub fn reason(&self) -> &str {
        self.verdict.as_ref().map_or("", Verdict::why)
    }

    /// The outcome in one honest line.
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
