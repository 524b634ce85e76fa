//! The record of a session: what was asked of the model, what it answered, what came of it.
//!
//! An [`Attempt`] is one trip round a phase's loop. It is stored as soon as it ends and never
//! changed; a [`Session`] with its attempts is a trajectory, the raw material of training.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::adapter::AdapterId;
use crate::task::SourceFile;
use crate::task::Task;

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Standing instructions.
    System,
    /// The question.
    User,
    /// The model.
    Assistant,
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }
}

/// How tokens are drawn from logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// `0.0` is greedy; else logits are divided by it. Range `0.0..=2.0`.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probability reaches this. Range `0.0 < top_p <= 1.0`.
    pub top_p: f32,
    /// Keeps that many tokens; `0` keeps all.
    pub top_k: u32,
    /// Divides positive and multiplies negative logits of tokens seen; `1.0` is off.
    pub repetition_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Generation ends before any of these texts.
    pub stop: Vec<String>,
    /// The most tokens to generate.
    pub max_tokens: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
            seed: 0,
            stop: Vec::new(),
            max_tokens: 1024,
        }
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended its turn, or a stop text was met.
    Stop,
    /// `max_tokens` or the context window was reached: the text is cut off.
    Length,
    /// The text ran in circles and was ended by the repetition detector.
    Repetition,
    /// The caller took the request back.
    Cancelled,
}

impl FinishReason {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Repetition => "repetition",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The generated text, special tokens left out.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub tokens_in: u32,
    /// Tokens generated.
    pub tokens_out: u32,
    /// Time to read the prompt, in milliseconds.
    pub prefill_ms: u64,
    /// Time to generate, in milliseconds.
    pub decode_ms: u64,
    /// The natural logarithm of each generated token's probability, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
}

/// The steps of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Task -> subtasks.
    Decompose,
    /// Subtask -> signatures and tests.
    Plan,
    /// Subtask -> code.
    Code,
    /// Parts -> one whole that runs.
    Integrate,
    /// Failure -> its cause, in words.
    Diagnose,
    /// Failure and cause -> new code.
    Repair,
}

impl Phase {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decompose => "decompose",
            Self::Plan => "plan",
            Self::Code => "code",
            Self::Integrate => "integrate",
            Self::Diagnose => "diagnose",
            Self::Repair => "repair",
        }
    }
}

/// One trip round a phase's loop: prompt, answer, verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Place in the session, from 0, without gaps.
    pub seq: u32,
    /// The phase.
    pub phase: Phase,
    /// The subtask's name; `None` where the whole task is meant.
    pub subtask: Option<String>,
    /// Which of several samples for the same prompt, from 0.
    pub candidate: u32,
    /// What the model was shown.
    pub prompt: Vec<Message>,
    /// What it answered.
    pub completion: Completion,
    /// How it was sampled, the seed included.
    pub sampling: Sampling,
    /// The adapter that was loaded.
    pub adapter_id: Option<AdapterId>,
    /// What came of it.
    pub verdict: AttemptVerdict,
    /// The details of the verdict.
    pub verdict_json: serde_json::Value,
    /// The files read out of the answer.
    pub files: Vec<SourceFile>,
    /// When it ended, RFC 3339 UTC.
    pub at: String,
}

/// What came of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptVerdict {
    /// Tests passed.
    Passed,
    /// It goes into what comes next; no test has decided about it.
    Accepted,
    /// Tests failed, or it does not compile.
    Failed,
    /// It is not what was asked for.
    Malformed,
    /// It was cut off at the most tokens of its phase.
    Truncated,
}

impl AttemptVerdict {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
        }
    }
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// At work, or killed without a word: resumable.
    Running,
    /// Stopped by a signal: resumable.
    Interrupted,
    /// Done and verified.
    Solved,
    /// Done, not verified; the best candidate is kept.
    Unsolved,
    /// Broken off by an error.
    Failed,
}

impl SessionStatus {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Solved => "solved",
            Self::Unsolved => "unsolved",
            Self::Failed => "failed",
        }
    }
}

/// What stands behind the word "solved".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifiedBy {
    /// The user's tests passed.
    UserTests,
    /// Generated tests passed that fail on a stub.
    GeneratedTests,
    /// Nothing.
    None,
}

impl VerifiedBy {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserTests => "user_tests",
            Self::GeneratedTests => "generated_tests",
            Self::None => "none",
        }
    }
}

/// Where it was decided that tests pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assurance {
    /// No code of the solution ran in the process that decided.
    Separate,
    /// Tests and solution shared a process; a screen of the solution's syntax found nothing that
    /// could deceive the tests.
    SameProcess,
}

impl Assurance {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::SameProcess => "same_process",
        }
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Separate => "decided in a separate process",
            Self::SameProcess => "decided in the solution's process",
        })
    }
}

/// The head of a trajectory: one task run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Sortable by time of birth.
    pub id: String,
    /// The project's key; `none` outside any.
    pub project: String,
    /// The task with its tests.
    pub task: Task,
    /// Where the result is written, when the user named a folder.
    pub workspace: Option<String>,
    /// The backend's name.
    pub provider: String,
    /// Canonical hub id and tokenizer digest.
    pub base_model: String,
    /// sha256 of the exact weights.
    pub base_digest: String,
    /// The adapter in use.
    pub adapter_id: Option<AdapterId>,
    /// Why that adapter, or none.
    pub adapter_reason: String,
    /// How it stands.
    pub status: SessionStatus,
    /// What stands behind `solved`.
    pub verified_by: VerifiedBy,
    /// Where it was decided that the user's tests pass; `None` where they do not, or an earlier
    /// version judged.
    #[serde(default)]
    pub assurance: Option<Assurance>,
    /// What the sandbox could enforce.
    pub sandbox_tier: String,
    /// Seed of the whole session.
    pub seed: u64,
    /// The settings that shape the result, as JSON.
    pub config_json: serde_json::Value,
    /// Prompt tokens of all attempts.
    pub tokens_in: u64,
    /// Generated tokens of all attempts.
    pub tokens_out: u64,
    /// RFC 3339 UTC.
    pub started_at: String,
    /// RFC 3339 UTC; `None` while running.
    pub ended_at: Option<String>,
    /// The exit code `rune` ended with.
    pub exit_code: Option<i32>,
}
