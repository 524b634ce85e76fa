//! [`Event`]: the events of sessions, training runs, evaluations, pulls and benchmarks.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::job::JobKind;
use crate::job::JobState;
use crate::lease::LeaseState;
use crate::task::TaskType;
use crate::trajectory::Assurance;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;
use crate::trajectory::RecalledRecord;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::figures::ConditionCost;
use super::figures::DecisionKind;
use super::figures::MemoryVerdict;
use super::figures::MetricSummary;
use super::figures::PairedScores;
use super::figures::PassRate;
use super::figures::ScoreComparison;

/// Something that happened, reported by a workflow. Serialized with its type as the tag `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// A session was started. The first line of its stream.
    #[serde(rename = "session.started")]
    SessionStarted {
        /// Version of the JSON lines: [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema: u32,
        /// Task description as the user wrote it.
        task: String,
        /// Type of the task.
        task_type: TaskType,
        /// Name of the inference backend.
        provider: String,
        /// Name of the model.
        model: String,
        /// Random seed of the session.
        seed: u64,
    },
    /// A session was resumed. The first line of the resumed stream.
    #[serde(rename = "session.resumed")]
    SessionResumed {
        /// Version of the JSON lines: [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema: u32,
        /// Number of attempts that were already recorded.
        n_attempts: u32,
    },
    /// Records of earlier sessions, or passages of documents, were found that the prompts of the
    /// session show.
    #[serde(rename = "memory.recalled")]
    MemoryRecalled {
        /// The records, nearest first.
        records: Vec<RecalledRecord>,
        /// Documents and modules that the shown passages are from.
        #[serde(default)]
        sources: Vec<String>,
    },
    /// A phase of the pipeline started.
    #[serde(rename = "phase.started")]
    PhaseStarted {
        /// Phase of the pipeline.
        phase: Phase,
        /// Name of the subtask; `None` for the whole task.
        subtask: Option<String>,
    },
    /// The phase `decompose` is done.
    #[serde(rename = "subtasks.planned")]
    SubtasksPlanned {
        /// The subtasks, in the order in which they are numbered.
        subtasks: Vec<PlannedSubtask>,
    },
    /// An answer of the model was judged and recorded.
    #[serde(rename = "attempt.completed")]
    AttemptCompleted {
        /// Number of the attempt in its session, from 0.
        attempt_seq: u32,
        /// Phase of the pipeline.
        phase: Phase,
        /// Name of the subtask; `None` for the whole task.
        subtask: Option<String>,
        /// Index among the samples for the same prompt, from 0.
        candidate: u32,
        /// Number of prompt tokens.
        tokens_in: u32,
        /// Number of generated tokens.
        tokens_out: u32,
        /// Duration of the prefill, in milliseconds.
        prefill_ms: u64,
        /// Duration of the decoding, in milliseconds.
        decode_ms: u64,
        /// Outcome of the attempt.
        verdict: AttemptVerdict,
        /// The verdict in one line.
        summary: String,
    },
    /// The test suite was run on the assembled solution.
    #[serde(rename = "suite.judged")]
    SuiteJudged {
        /// Number of tests that passed.
        n_passed: u32,
        /// Total number of tests.
        n_total: u32,
        /// The verdict in one word.
        outcome: String,
    },
    /// A problem that does not stop the session.
    #[serde(rename = "warning")]
    Warning {
        /// Text of the message.
        message: String,
    },
    /// The session ran to its end. The last line of its stream.
    #[serde(rename = "session.completed")]
    SessionCompleted {
        /// Final status: `solved` or `unsolved`.
        status: SessionStatus,
        /// Evidence for the status `solved`.
        verified_by: VerifiedBy,
        /// Assurance of a pass of the user's tests.
        #[serde(default)]
        assurance: Option<Assurance>,
        /// Reason why the assurance is not `separate`, or why the verdict does not count; empty
        /// otherwise.
        #[serde(default)]
        reason: String,
        /// Exit code of `rune`.
        exit_code: i32,
        /// Paths of the files of the result.
        files: Vec<String>,
        /// Total prompt tokens of all attempts.
        tokens_in: u64,
        /// Total generated tokens of all attempts.
        tokens_out: u64,
        /// Wall time of this run, in seconds.
        seconds: f64,
        /// The outcome in one line.
        summary: String,
    },
    /// The session was ended by an error. The last line of its stream.
    #[serde(rename = "session.failed")]
    SessionFailed {
        /// Exit code of `rune`.
        exit_code: i32,
        /// Error message with its causes.
        error: String,
    },
    /// The session was stopped by a signal and can be resumed. `session.failed` follows as the last
    /// line.
    #[serde(rename = "session.interrupted")]
    SessionInterrupted,
    /// The result of one test of `rune judge`. Never stored. It and the other events of `judge`
    /// belong to no session.
    #[serde(rename = "judge.test")]
    JudgeTest {
        /// Id of the test in its framework.
        id: String,
        /// `passed`, `failed`, `error`, `skipped`, `expected_failure` or `missing`.
        status: String,
        /// Reason why the test did not pass.
        message: String,
        /// Wall time of the test, in seconds.
        seconds: f64,
    },
    /// The verdict of `rune judge`. The last line of its stream.
    #[serde(rename = "judge.completed")]
    JudgeCompleted {
        /// The outcome in one word: `pass`, `wrong`, `exception`, ...
        outcome: String,
        /// `separate`, `same_process` or `unconfirmed`; `None` unless the suite passed.
        assurance: Option<String>,
        /// Reason why the assurance is not `separate`, or why the verdict does not count.
        reason: String,
        /// Number of tests that passed.
        n_passed: u32,
        /// Number of tests that had to pass.
        n_total: u32,
        /// Wall time of the run, in seconds.
        seconds: f64,
        /// Exit code of `rune`.
        exit_code: i32,
    },
    /// `rune judge` reached no verdict. The last line of its stream.
    #[serde(rename = "judge.failed")]
    JudgeFailed {
        /// Exit code of `rune`.
        exit_code: i32,
        /// Error message with its causes.
        error: String,
    },
    /// An adapter was stored in the registry. It and the events below belong to no session.
    #[serde(rename = "adapter.created")]
    AdapterCreated {
        /// Origin of the adapter.
        source: AdapterSource,
        /// Base model that the adapter fits, `id@digest`.
        base_model: String,
    },
    /// An adapter was archived and is no longer selected.
    #[serde(rename = "adapter.archived")]
    AdapterArchived {
        /// Reason in one line.
        reason: String,
    },
    /// An archived adapter was restored.
    #[serde(rename = "adapter.restored")]
    AdapterRestored,
    /// `rune evolve` has decided about an adapter, or about a merge by the digest of its recipe.
    /// The evidence is in the ledger.
    #[serde(rename = "evolution.decided")]
    EvolutionDecided {
        /// Kind of the decision: what it is about.
        kind: DecisionKind,
        /// The decision in one word, such as `accept`.
        decision: String,
        /// Key of the project.
        project: String,
        /// Adapter that it was compared with, or that a rollback returns to; `null` for the base.
        other: Option<AdapterId>,
        /// Suite that gave the evidence.
        suite: Option<String>,
    },
    /// A training run was started.
    #[serde(rename = "training.started")]
    TrainingStarted {
        /// Digest of the dataset.
        dataset_digest: String,
        /// Base model of the adapter, `id@digest`.
        base_model: String,
    },
    /// The plan of a training run and its estimated cost (`--dry-run`). Never stored.
    #[serde(rename = "training.planned")]
    TrainingPlanned {
        /// Digest of the dataset that would be trained on.
        dataset_digest: String,
        /// Number of records to train on.
        n_train: usize,
        /// Number of held-out records.
        n_validation: usize,
        /// Number of families of records.
        n_families: usize,
        /// Number of tokens of the records to train on.
        tokens: usize,
        /// Number of those tokens that contribute to the loss.
        labelled_tokens: usize,
        /// Number of near-duplicate records that were dropped.
        n_duplicates: usize,
        /// Number of over-long records that were dropped.
        n_too_long: usize,
        /// Number of redacted secrets.
        n_secrets: usize,
        /// Number of rehearsal examples to train on.
        n_rehearsal: usize,
        /// Number of held-out rehearsal examples.
        n_rehearsal_validation: usize,
        /// Mean share of rehearsal in the loss weight of a step, `0.0..=1.0`.
        rehearsal_share: f64,
        /// Minimum share of rehearsal in the loss weight of a step, `0.0..=1.0`.
        min_rehearsal_share: f64,
        /// Number of steps of the run.
        n_steps: usize,
        /// Mean number of tokens per step, rehearsal included.
        tokens_per_step: f64,
        /// Estimated peak memory, in bytes.
        memory_bytes: u64,
        /// Estimated wall time, in seconds.
        seconds: f64,
        /// Training options, as JSON.
        options: Value,
    },
    /// The worker of a training run has loaded the model. Never stored; nor are the next three.
    #[serde(rename = "training.prepared")]
    TrainingPrepared {
        /// Number of trainable parameters.
        trainable: usize,
        /// Number of tokens of all steps.
        tokens: usize,
        /// Estimated peak memory, in bytes.
        memory_bytes: u64,
        /// Number of steps done before.
        step: u32,
    },
    /// An optimizer step of a training run is done.
    #[serde(rename = "training.step")]
    TrainingStep {
        /// Number of the step, from 1.
        step: u32,
        /// Total number of steps.
        total: u32,
        /// Weighted mean loss, in nats per token.
        loss: f64,
        /// Learning rate of the step.
        lr: f32,
        /// Gradient norm before clipping.
        grad_norm: f64,
        /// Throughput in tokens per second.
        tokens_per_s: f64,
        /// Resident memory of the worker, in bytes.
        rss: u64,
    },
    /// A training run was validated on the held-out families.
    #[serde(rename = "training.validated")]
    TrainingValidated {
        /// Number of steps done before the validation.
        step: u32,
        /// Weighted mean loss of held-out records, in nats per token.
        loss: f64,
        /// Weighted mean loss of held-out rehearsal, in nats per token; `None` if there is none.
        #[serde(default)]
        rehearsal_loss: Option<f64>,
    },
    /// A training run has written a checkpoint.
    #[serde(rename = "training.checkpointed")]
    TrainingCheckpointed {
        /// Path of the checkpoint file.
        path: PathBuf,
    },
    /// A training run was resumed.
    #[serde(rename = "training.resumed")]
    TrainingResumed {
        /// Number of steps that are known to be done.
        step: u32,
    },
    /// A training run was completed with an adapter.
    #[serde(rename = "training.completed")]
    TrainingCompleted {
        /// Id of the new adapter.
        adapter_id: AdapterId,
    },
    /// A training run ended without an adapter.
    #[serde(rename = "training.failed")]
    TrainingFailed {
        /// Kind of the failure, a colon, the error message.
        error: String,
    },
    /// A model server has changed its state; the subject is its URL.
    #[serde(rename = "lease.changed")]
    LeaseChanged {
        /// State that the server has now.
        state: LeaseState,
        /// Why, if that is not clear.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// A swarm was started. It is the subject of this event and the next three.
    #[serde(rename = "swarm.started")]
    SwarmStarted {
        /// Name of the suite whose tasks it solves.
        suite: String,
        /// Number of tasks to solve.
        n_tasks: usize,
        /// Maximum number of generations.
        generations: u32,
    },
    /// A swarm was resumed.
    #[serde(rename = "swarm.resumed")]
    SwarmResumed {
        /// Generation that it goes on with, from 1.
        generation: u32,
    },
    /// A generation after the first has begun: unsolved tasks are tried again.
    #[serde(rename = "swarm.generation")]
    SwarmGenerationStarted {
        /// The generation, from 2.
        generation: u32,
        /// Number of tasks to try again.
        n_tasks: usize,
    },
    /// A swarm has ended. The last line of its stream.
    #[serde(rename = "swarm.ended")]
    SwarmEnded {
        /// `completed`, `interrupted` or `failed`.
        status: String,
        /// Why it has ended.
        reason: String,
    },
    /// A job of a swarm is no longer at work: it has ended, or is back in the queue.
    #[serde(rename = "job.changed")]
    JobChanged {
        /// Kind of the work.
        kind: JobKind,
        /// Generation of the swarm, from 1.
        generation: u32,
        /// New state of the job.
        state: JobState,
        /// Error of the attempt, with its causes.
        error: Option<String>,
    },
    /// The queue of a swarm and the memory of the machine. Never stored.
    #[serde(rename = "swarm.progress")]
    SwarmProgress {
        /// Generation of the swarm, from 1.
        generation: u32,
        /// Number of tasks of the generation that are waiting.
        n_queued: u64,
        /// Number of jobs that are at work.
        n_running: u64,
        /// Number of tasks of the generation that have ended.
        n_ended: u64,
        /// Number of tasks that the swarm has solved.
        n_solved: u64,
        /// Resident memory of this process, in bytes.
        rss: u64,
        /// Available memory of the machine, in bytes.
        available: u64,
        /// Why no work is begun; `null` if it is.
        paused: Option<String>,
    },
    /// An adapter, or the base model alone, was evaluated.
    #[serde(rename = "evaluation.created")]
    EvaluationCreated {
        /// Name of the suite.
        suite: String,
        /// Mean share of answers that passed, `0.0..=1.0`.
        pass_at_1: f64,
    },
    /// An answer of an evaluation was judged. Never stored; nor are the events below.
    #[serde(rename = "evaluation.answered")]
    EvaluationAnswered {
        /// The adapter that answered; `None` for the base model.
        adapter_id: Option<AdapterId>,
        /// Id of the task.
        task: String,
        /// Whether the answer passed.
        passed: bool,
        /// Number of answers so far, of all subjects.
        n_done: usize,
        /// Total number of answers.
        n_total: usize,
    },
    /// The base model has answered a rehearsal question.
    #[serde(rename = "rehearsal.answered")]
    RehearsalAnswered {
        /// Number of answers so far.
        n_done: usize,
        /// Total number of answers.
        n_total: usize,
    },
    /// A module of a merge is done.
    #[serde(rename = "merge.progress")]
    MergeProgress {
        /// Number of modules so far.
        n_done: usize,
        /// Total number of modules.
        n_total: usize,
    },
    /// The model has generated a piece of text.
    #[serde(rename = "text.generated")]
    TextGenerated {
        /// Phase of the pipeline.
        phase: Phase,
        /// Name of the subtask; `None` for the whole task.
        subtask: Option<String>,
        /// The new text, about one token.
        text: String,
    },
    /// A message for the user.
    #[serde(rename = "notice")]
    Notice {
        /// Text of the message.
        message: String,
    },
    /// A judged answer of a finished evaluation. Never stored; nor are the events below.
    #[serde(rename = "evaluation.outcome")]
    EvaluationOutcome {
        /// An adapter's id, or `base`.
        who: String,
        /// Id of the task.
        id: String,
        /// Group of the task: the row of the result table.
        group: String,
        /// Whether the task is a control task.
        is_control: bool,
        /// Family of the task.
        family: String,
        /// Index of the answer among all answers to the task.
        sample: u32,
        /// Whether the answer passed.
        passed: bool,
        /// Assurance of a pass; `None` for a failure.
        assurance: Option<Assurance>,
        /// Text of the answer.
        answer: String,
        /// The verdict in one line.
        summary: String,
    },
    /// A task that cannot be judged on this machine and is excluded from all scores.
    #[serde(rename = "evaluation.void")]
    EvaluationVoid {
        /// Id of the task.
        id: String,
        /// Reason in one line.
        reason: String,
    },
    /// A score on one group of tasks.
    #[serde(rename = "evaluation.score")]
    EvaluationScore {
        /// An adapter's id, `base`, or a condition of `rune bench memory`.
        who: String,
        /// Group of the tasks.
        group: String,
        /// Part of `rune bench memory --rounds`; absent for other commands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<String>,
        /// The pass rate with its interval.
        score: PassRate,
        /// The share alone, `0.0..=1.0`.
        pass_at_1: f64,
        /// Comparison with the first subject; `None` for the first subject itself.
        against: Option<ScoreComparison>,
    },
    /// The gain of an adapter on tasks of its own kind, compared with that on other tasks.
    #[serde(rename = "evaluation.generalization")]
    EvaluationGeneralization {
        /// Id of the adapter.
        who: String,
        /// Comparison with the base model on the suite.
        in_distribution: PairedScores,
        /// Comparison with the base model on the suite of other tasks.
        out_of_distribution: PairedScores,
        /// Difference of the two gains: in-distribution minus out-of-distribution.
        delta: f64,
    },
    /// A task of a suite that the training records contain (contamination check).
    #[serde(rename = "evaluation.overlap")]
    EvaluationOverlap {
        /// Id of the task.
        task: String,
        /// Family of the first such record.
        family: String,
        /// Whether the overlap is in the task's answer, not only in its question.
        of_answer: bool,
        /// The first sequence of tokens that both contain.
        run: String,
    },
    /// Another process pulls the same model, and this one waits for it. The subject of pull events
    /// is the name of the model.
    #[serde(rename = "pull.waiting")]
    PullWaiting,
    /// A download from a source starts.
    #[serde(rename = "pull.trying")]
    PullTrying {
        /// `hub`, `mirror` or `file`.
        source: String,
    },
    /// Progress of a download.
    #[serde(rename = "pull.progress")]
    PullProgress {
        /// Number of bytes on disk.
        done: u64,
        /// Size of the complete file, in bytes.
        total: u64,
    },
    /// The file is complete and its digest is being verified.
    #[serde(rename = "pull.verifying")]
    PullVerifying,
    /// The file could not be obtained from a source.
    #[serde(rename = "pull.failed")]
    PullFailed {
        /// `hub`, `mirror` or `file`.
        source: String,
        /// Error message in one line.
        reason: String,
    },
    /// The model file is in place.
    #[serde(rename = "pull.completed")]
    PullCompleted {
        /// `hub`, `mirror`, `file`, or `here` if it was already downloaded.
        source: String,
    },
    /// A benchmark was started.
    #[serde(rename = "bench.started")]
    BenchStarted {
        /// Version of the JSON lines: [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema: u32,
        /// `infer`, `sandbox` or `train`.
        bench: String,
        /// Conditions such as model and number of threads, by name.
        conditions: Value,
        /// Description of the machine, including its load.
        machine: Value,
    },
    /// A benchmark starts its next measurement.
    #[serde(rename = "bench.progress")]
    BenchProgress {
        /// Number of measurements done.
        done: usize,
        /// Total number of measurements.
        total: usize,
        /// Description of the next measurement.
        next: String,
    },
    /// A metric of a benchmark.
    #[serde(rename = "bench.metric")]
    BenchMetric {
        /// Name of the metric.
        name: String,
        /// Unit of the metric.
        unit: String,
        /// Summary of Rune's measurements; `None` if there are none.
        rune: Option<MetricSummary>,
        /// Summary of the peer's measurements; `None` if there are none.
        peer: Option<MetricSummary>,
        /// Median over pairs of measurements of how many times better Rune is.
        ratio: Option<f64>,
        /// All measurements of Rune.
        rune_values: Vec<f64>,
        /// All measurements of the peer, each taken right after Rune's.
        peer_values: Vec<f64>,
    },
    /// The verdict of `rune bench memory`.
    #[serde(rename = "bench.memory")]
    BenchMemory {
        /// Whether parametric memory works by all criteria.
        works: bool,
        /// The criteria that are not met.
        faults: Vec<String>,
        /// The comparisons that the criteria are about.
        verdict: Box<MemoryVerdict>,
        /// What an answer costs under each condition.
        costs: Vec<ConditionCost>,
    },
}

impl Event {
    /// Returns the event that says what a session shows; `None` if it shows nothing.
    pub fn memory_of(session: &Session) -> Option<Self> {
        let mut sources: Vec<String> =
            session.passages.iter().map(|passage| passage.source.clone()).collect();
        sources.dedup();
        let records = session.memory.clone();
        let is_empty = records.is_empty() && sources.is_empty();
        (!is_empty).then_some(Self::MemoryRecalled { records, sources })
    }
}

/// A subtask in `subtasks.planned`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSubtask {
    /// Short name of the subtask.
    pub name: String,
    /// File that the subtask is written to.
    pub file: String,
    /// Indices of the subtasks that it depends on.
    pub depends_on: Vec<usize>,
}
