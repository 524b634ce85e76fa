//! [`Event`]: everything that can happen.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::task::TaskType;
use crate::trajectory::Assurance;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::figures::MemoryVerdict;
use super::figures::MetricSummary;
use super::figures::PairedScores;
use super::figures::PassRate;
use super::figures::ScoreComparison;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// A session began. The first line about it.
    #[serde(rename = "session.started")]
    SessionStarted {
        /// Version of the JSON lines: [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema: u32,
        /// The task in the user's words.
        task: String,
        /// The kind of work.
        task_type: TaskType,
        /// Who generates.
        provider: String,
        /// The model's name.
        model: String,
        /// Seed of the session.
        seed: u64,
    },
    /// A session goes on where it stopped. The first line of a resumed run's stream.
    #[serde(rename = "session.resumed")]
    SessionResumed {
        /// Version of the JSON lines: [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema: u32,
        /// Attempts that are there already.
        n_attempts: u32,
    },
    /// A phase began.
    #[serde(rename = "phase.started")]
    PhaseStarted {
        /// The phase.
        phase: Phase,
        /// The subtask's name; `None` where the whole task is meant.
        subtask: Option<String>,
    },
    /// Decompose is done.
    #[serde(rename = "subtasks.planned")]
    SubtasksPlanned {
        /// The parts.
        subtasks: Vec<PlannedSubtask>,
    },
    /// The model answered, and the answer was judged.
    #[serde(rename = "attempt.completed")]
    AttemptCompleted {
        /// Place of the attempt in the session.
        attempt_seq: u32,
        /// The phase.
        phase: Phase,
        /// The subtask's name.
        subtask: Option<String>,
        /// Which of several samples.
        candidate: u32,
        /// Tokens of the prompt.
        tokens_in: u32,
        /// Tokens generated.
        tokens_out: u32,
        /// Time to read the prompt, in milliseconds.
        prefill_ms: u64,
        /// Time to generate, in milliseconds.
        decode_ms: u64,
        /// What came of it.
        verdict: AttemptVerdict,
        /// The verdict in one line.
        summary: String,
    },
    /// A test suite was run on the whole.
    #[serde(rename = "suite.judged")]
    SuiteJudged {
        /// Tests that passed.
        n_passed: u32,
        /// Tests that there are.
        n_total: u32,
        /// One word for what came of it.
        outcome: String,
    },
    /// Something the user should know that stops nothing.
    #[serde(rename = "warning")]
    Warning {
        /// What it is.
        message: String,
    },
    /// The session ran to its end. A last line.
    #[serde(rename = "session.completed")]
    SessionCompleted {
        /// `solved` or `unsolved`.
        status: SessionStatus,
        /// What stands behind `solved`.
        verified_by: VerifiedBy,
        /// Where it was decided that the user's tests pass.
        #[serde(default)]
        assurance: Option<Assurance>,
        /// Why the assurance is not `separate`, or why the tests' verdict does not count; empty
        /// otherwise.
        #[serde(default)]
        reason: String,
        /// The exit code of `rune`.
        exit_code: i32,
        /// Paths of the files that make up the result.
        files: Vec<String>,
        /// Prompt tokens of all attempts.
        tokens_in: u64,
        /// Generated tokens of all attempts.
        tokens_out: u64,
        /// Wall time of this run.
        seconds: f64,
        /// The outcome in one line.
        summary: String,
    },
    /// The session was broken off by an error. A last line.
    #[serde(rename = "session.failed")]
    SessionFailed {
        /// The exit code of `rune`.
        exit_code: i32,
        /// The error with its causes.
        error: String,
    },
    /// The session was stopped by a signal and can be resumed. `session.failed` follows as last
    /// line.
    #[serde(rename = "session.interrupted")]
    SessionInterrupted,
    /// A test of `rune judge`. Never stored; of no session, as those that follow.
    #[serde(rename = "judge.test")]
    JudgeTest {
        /// The framework's id of the test.
        id: String,
        /// `passed`, `failed`, `error`, `skipped`, `expected_failure` or `missing`.
        status: String,
        /// Why it did not pass.
        message: String,
        /// Wall time.
        seconds: f64,
    },
    /// The verdict of `rune judge`. A last line.
    #[serde(rename = "judge.completed")]
    JudgeCompleted {
        /// One word for the outcome: `pass`, `wrong`, `exception`, ...
        outcome: String,
        /// `separate`, `same_process` or `unconfirmed`; `None` where it is no pass.
        assurance: Option<String>,
        /// Why the assurance is not `separate`, or why the verdict does not count.
        reason: String,
        /// Tests that passed.
        n_passed: u32,
        /// Tests that had to pass.
        n_total: u32,
        /// Wall time of the run.
        seconds: f64,
        /// The exit code of `rune`.
        exit_code: i32,
    },
    /// `rune judge` came to no verdict. A last line.
    #[serde(rename = "judge.failed")]
    JudgeFailed {
        /// The exit code of `rune`.
        exit_code: i32,
        /// The error with its causes.
        error: String,
    },
    /// An adapter was taken in. Not of a session's stream, as those that follow.
    #[serde(rename = "adapter.created")]
    AdapterCreated {
        /// Where it comes from.
        source: AdapterSource,
        /// What it fits.
        base_model: String,
    },
    /// An adapter is no longer to be chosen.
    #[serde(rename = "adapter.archived")]
    AdapterArchived {
        /// Why.
        reason: String,
    },
    /// An archived adapter was taken back.
    #[serde(rename = "adapter.restored")]
    AdapterRestored,
    /// A training run began.
    #[serde(rename = "training.started")]
    TrainingStarted {
        /// What it is trained on.
        dataset_digest: String,
        /// What it is trained for.
        base_model: String,
    },
    /// What a training run would do, and what that takes. Never stored.
    #[serde(rename = "training.planned")]
    TrainingPlanned {
        /// What it would be trained on.
        dataset_digest: String,
        /// Examples to learn from.
        n_train: usize,
        /// Examples that are held out.
        n_validation: usize,
        /// Families of records.
        n_families: usize,
        /// Tokens of a pass over the data.
        tokens: usize,
        /// Those of them that are learned.
        labelled_tokens: usize,
        /// Records left out that are there twice.
        n_duplicates: usize,
        /// Records left out that are too long.
        n_too_long: usize,
        /// Secrets taken out.
        n_secrets: usize,
        /// Examples that are the base's own answers to general questions.
        n_rehearsal: usize,
        /// Estimate of the memory.
        memory_bytes: u64,
        /// Estimate of the time.
        seconds: f64,
        /// How it would be trained.
        options: Value,
    },
    /// The worker of a training run has loaded the model. Never stored, as the next three.
    #[serde(rename = "training.prepared")]
    TrainingPrepared {
        /// Numbers that are trained.
        trainable: usize,
        /// Tokens of a pass over the data.
        tokens: usize,
        /// Estimate of the memory.
        memory_bytes: u64,
        /// Steps that were done before.
        step: u32,
    },
    /// A step of a training run is done.
    #[serde(rename = "training.step")]
    TrainingStep {
        /// Its number, from 1.
        step: u32,
        /// The last one's.
        total: u32,
        /// Mean loss of a token in nats, weighted.
        loss: f64,
        /// Learning rate.
        lr: f32,
        /// Length of the gradient before it was clipped.
        grad_norm: f64,
        /// Tokens a second.
        tokens_per_s: f64,
        /// Resident memory of the worker in bytes.
        rss: u64,
    },
    /// A training run was held against the families that it does not learn from.
    #[serde(rename = "training.validated")]
    TrainingValidated {
        /// Steps before it.
        step: u32,
        /// Mean loss of a held-out token in nats, weighted.
        loss: f64,
    },
    /// A training run can be gone on with from here.
    #[serde(rename = "training.checkpointed")]
    TrainingCheckpointed {
        /// The file.
        path: PathBuf,
    },
    /// A training run goes on.
    #[serde(rename = "training.resumed")]
    TrainingResumed {
        /// Steps that are known to be done.
        step: u32,
    },
    /// A training run ended with an adapter.
    #[serde(rename = "training.completed")]
    TrainingCompleted {
        /// The adapter.
        adapter_id: AdapterId,
    },
    /// A training run ended without one.
    #[serde(rename = "training.failed")]
    TrainingFailed {
        /// The kind, a colon, the detail.
        error: String,
    },
    /// An adapter, or the base alone, was evaluated.
    #[serde(rename = "evaluation.created")]
    EvaluationCreated {
        /// The suite.
        suite: String,
        /// Share of the answers that passed.
        pass_at_1: f64,
    },
    /// An answer of an evaluation was judged. Never stored, as those that follow.
    #[serde(rename = "evaluation.answered")]
    EvaluationAnswered {
        /// Whose it is; `None` is the base.
        adapter_id: Option<AdapterId>,
        /// The task.
        task: String,
        /// Whether it passed.
        passed: bool,
        /// Answers so far, everyone's.
        n_done: usize,
        /// Answers in all.
        n_total: usize,
    },
    /// The base has answered one of the general questions that trainings rehearse.
    #[serde(rename = "rehearsal.answered")]
    RehearsalAnswered {
        /// Answers so far.
        n_done: usize,
        /// Answers in all.
        n_total: usize,
    },
    /// The model is writing.
    #[serde(rename = "text.generated")]
    TextGenerated {
        /// The phase.
        phase: Phase,
        /// The subtask's name; `None` where the whole task is meant.
        subtask: Option<String>,
        /// The new piece, about a token.
        text: String,
    },
    /// Something that a person who waits likes to know.
    #[serde(rename = "notice")]
    Notice {
        /// What it is.
        message: String,
    },
    /// An answer of a finished evaluation, as the judge saw it. Never stored, as those that follow.
    #[serde(rename = "evaluation.outcome")]
    EvaluationOutcome {
        /// An adapter's id, or `base`.
        who: String,
        /// The task.
        id: String,
        /// The row of a table that the task counts in.
        group: String,
        /// Whether the task is a control.
        is_control: bool,
        /// The task's family.
        family: String,
        /// Index of the answer among all answers to the task.
        sample: u32,
        /// Whether it passed.
        passed: bool,
        /// Where it was decided that it passed.
        assurance: Option<Assurance>,
        /// The answer.
        answer: String,
        /// The verdict in one line.
        summary: String,
    },
    /// A task that cannot be judged on this machine, and counts for nobody.
    #[serde(rename = "evaluation.void")]
    EvaluationVoid {
        /// The task.
        id: String,
        /// Why.
        reason: String,
    },
    /// A score on one group of tasks.
    #[serde(rename = "evaluation.score")]
    EvaluationScore {
        /// An adapter's id, `base`, or a condition of `rune bench memory`.
        who: String,
        /// The group.
        group: String,
        /// The part of `rune bench memory --rounds`; absent elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<String>,
        /// The score.
        score: PassRate,
        /// The share of it.
        pass_at_1: f64,
        /// The comparison with whoever comes first; `None` for the first.
        against: Option<ScoreComparison>,
    },
    /// The gain of an adapter on tasks of its own kind, beside that on others.
    #[serde(rename = "evaluation.generalization")]
    EvaluationGeneralization {
        /// The adapter's id.
        who: String,
        /// Against the base, on the suite.
        in_distribution: PairedScores,
        /// Against the base, on the suite of other tasks.
        out_of_distribution: PairedScores,
        /// The first gain less the second.
        delta: f64,
    },
    /// A task of a suite that records for training hold as well.
    #[serde(rename = "evaluation.overlap")]
    EvaluationOverlap {
        /// The task.
        task: String,
        /// The family of the first such record.
        family: String,
        /// Whether the run is in the task's answer, not only in its question.
        of_answer: bool,
        /// The first run of tokens that both have.
        run: String,
    },
    /// Another process pulls the same model, and this one waits for it. The subject of a pull is
    /// the model's name.
    #[serde(rename = "pull.waiting")]
    PullWaiting,
    /// A source is tried.
    #[serde(rename = "pull.trying")]
    PullTrying {
        /// `hub`, `mirror` or `file`.
        source: String,
    },
    /// Bytes of a model's file have arrived.
    #[serde(rename = "pull.progress")]
    PullProgress {
        /// Bytes of the file that are on disk.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// The file is complete and its digest is being checked.
    #[serde(rename = "pull.verifying")]
    PullVerifying,
    /// A source did not have the file.
    #[serde(rename = "pull.failed")]
    PullFailed {
        /// `hub`, `mirror` or `file`.
        source: String,
        /// Why, in one line.
        reason: String,
    },
    /// The file is in its place.
    #[serde(rename = "pull.completed")]
    PullCompleted {
        /// `hub`, `mirror`, `file`, or `here` when it was there before.
        source: String,
    },
    /// A benchmark knows what it measures.
    #[serde(rename = "bench.started")]
    BenchStarted {
        /// Version of the JSON lines: [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema: u32,
        /// `infer`, `sandbox` or `train`.
        bench: String,
        /// Model, threads and the like, by name.
        conditions: Value,
        /// The machine, its load included.
        machine: Value,
    },
    /// A benchmark begins its next step.
    #[serde(rename = "bench.progress")]
    BenchProgress {
        /// Steps that are done.
        done: usize,
        /// All steps.
        total: usize,
        /// What is measured next.
        next: String,
    },
    /// A figure of a benchmark.
    #[serde(rename = "bench.metric")]
    BenchMetric {
        /// Its name.
        name: String,
        /// Its unit.
        unit: String,
        /// Rune's measurements, summed up; `None` where there are none.
        rune: Option<MetricSummary>,
        /// The peer's.
        peer: Option<MetricSummary>,
        /// Median of how many times better Rune is, pair by pair.
        ratio: Option<f64>,
        /// Every measurement of Rune.
        rune_values: Vec<f64>,
        /// Every measurement of the peer, each taken just after Rune's.
        peer_values: Vec<f64>,
    },
    /// The verdict of `rune bench memory`.
    #[serde(rename = "bench.memory")]
    BenchMemory {
        /// Whether parametric memory works.
        works: bool,
        /// What speaks against it.
        faults: Vec<String>,
        /// The adapters against the base.
        against_base: MemoryVerdict,
    },
}

/// A subtask as `subtasks.planned` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSubtask {
    /// Its name.
    pub name: String,
    /// The file it is written to.
    pub file: String,
    /// Indices of the subtasks it waits for.
    pub depends_on: Vec<usize>,
}
