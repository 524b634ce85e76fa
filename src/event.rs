//! What sessions, training runs and evaluations tell while they run: [`Event`], and the JSON lines of `--json`.
//!
//! Workflows report every event to a [`Reporter`] as it happens. The registry stores events in the same transaction as the
//! change they describe, except for transient ones ([`Event::is_transient`]), which are never stored. A JSON line adds
//! `ts`, a gap-free `seq` and the `subject` of the event; `src/event.schema.json` ([`SCHEMA`]) describes it.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::adapter::Source;
use crate::task::TaskType;
use crate::trajectory::Assurance;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Phase;
use crate::trajectory::Status;
use crate::trajectory::VerifiedBy;

/// Version of the JSON lines; `session.started` carries it.
pub const SCHEMA_VERSION: u32 = 1;

/// The JSON schema (draft 2020-12) of one JSON line.
pub const SCHEMA: &str = include_str!("event.schema.json");

/// Hears of everything as it happens: the terminal, a file of JSON lines, a server's subscribers.
pub trait Reporter: Send + Sync {
    /// Takes news of `subject`: the id of a session or a training run, or nothing before there is one.
    fn report(&self, subject: &str, event: &Event);
}

impl<F: Fn(&str, &Event) + Send + Sync> Reporter for F {
    fn report(&self, subject: &str, event: &Event) {
        self(subject, event);
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// A session began. Always the first line.
    #[serde(rename = "session.started")]
    SessionStarted {
        /// Version of the JSON lines: [`SCHEMA_VERSION`].
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
        /// Version of the JSON lines: [`SCHEMA_VERSION`].
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
        status: Status,
        /// What stands behind `solved`.
        verified_by: VerifiedBy,
        /// Where it was decided that the user's tests pass.
        #[serde(default)]
        assurance: Option<Assurance>,
        /// Why the assurance is not `separate`, or why the tests' verdict does not count; empty otherwise.
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
    /// The session was stopped by a signal and can be resumed. `session.failed` follows as last line.
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
        source: Source,
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

impl Event {
    /// The event's name, such as `session.started`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SessionStarted { .. } => "session.started",
            Self::SessionResumed { .. } => "session.resumed",
            Self::PhaseStarted { .. } => "phase.started",
            Self::SubtasksPlanned { .. } => "subtasks.planned",
            Self::AttemptCompleted { .. } => "attempt.completed",
            Self::SuiteJudged { .. } => "suite.judged",
            Self::Warning { .. } => "warning",
            Self::SessionCompleted { .. } => "session.completed",
            Self::SessionFailed { .. } => "session.failed",
            Self::SessionInterrupted => "session.interrupted",
            Self::JudgeTest { .. } => "judge.test",
            Self::JudgeCompleted { .. } => "judge.completed",
            Self::JudgeFailed { .. } => "judge.failed",
            Self::AdapterCreated { .. } => "adapter.created",
            Self::AdapterArchived { .. } => "adapter.archived",
            Self::AdapterRestored => "adapter.restored",
            Self::TrainingStarted { .. } => "training.started",
            Self::TrainingPlanned { .. } => "training.planned",
            Self::TrainingPrepared { .. } => "training.prepared",
            Self::TrainingStep { .. } => "training.step",
            Self::TrainingValidated { .. } => "training.validated",
            Self::TrainingCheckpointed { .. } => "training.checkpointed",
            Self::TrainingResumed { .. } => "training.resumed",
            Self::TrainingCompleted { .. } => "training.completed",
            Self::TrainingFailed { .. } => "training.failed",
            Self::EvaluationCreated { .. } => "evaluation.created",
            Self::EvaluationAnswered { .. } => "evaluation.answered",
            Self::RehearsalAnswered { .. } => "rehearsal.answered",
            Self::TextGenerated { .. } => "text.generated",
            Self::Notice { .. } => "notice",
        }
    }

    /// Whether it is of the moment, and never stored.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::JudgeTest { .. }
                | Self::JudgeCompleted { .. }
                | Self::JudgeFailed { .. }
                | Self::TrainingPlanned { .. }
                | Self::TrainingPrepared { .. }
                | Self::TrainingStep { .. }
                | Self::TrainingValidated { .. }
                | Self::TrainingCheckpointed { .. }
                | Self::EvaluationAnswered { .. }
                | Self::RehearsalAnswered { .. }
                | Self::TextGenerated { .. }
                | Self::Notice { .. }
        )
    }

    /// [`Self::Notice`] of `message`.
    pub fn notice(message: impl Into<String>) -> Self {
        Self::Notice { message: message.into() }
    }

    /// Who tells it, as `CloudEvents` have it.
    pub fn source(&self) -> &'static str {
        match self.kind().split('.').next() {
            Some("adapter" | "evaluation") => "/rune/adapters",
            Some("training") => "/rune/training",
            Some("judge") => "/rune/judge",
            _ => "/rune/sessions",
        }
    }
}

/// Numbers the events of one stream and makes lines of them.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    next_seq: u64,
}

impl Stream {
    /// The next line, without its line end, for an event about `subject` of `ts` (RFC 3339, milliseconds).
    pub fn line(&mut self, ts: &str, subject: &str, event: &Event) -> String {
        let mut line = json!({ "ts": ts, "seq": self.next_seq, "type": event.kind() });
        self.next_seq += 1;
        line["subject"] = Value::from(subject);
        if let (Value::Object(line), Ok(Value::Object(fields))) =
            (&mut line, serde_json::to_value(event))
        {
            line.extend(fields);
        }
        line.to_string()
    }
}

/// The time `at` as events, attempts and sessions carry it: RFC 3339 UTC with milliseconds.
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_time_number_kind_and_session() {
        let mut stream = Stream::default();
        let ts = timestamp(SystemTime::UNIX_EPOCH);
        let warning = Event::Warning { message: "low\ndisk".into() };
        insta::assert_snapshot!(stream.line(&ts, "s1", &warning),
            @r#"{"ts":"1970-01-01T00:00:00.000Z","seq":0,"type":"warning","subject":"s1","message":"low\ndisk"}"#);
        insta::assert_snapshot!(stream.line(&ts, "s1", &Event::SessionInterrupted),
            @r#"{"ts":"1970-01-01T00:00:00.000Z","seq":1,"type":"session.interrupted","subject":"s1"}"#);
    }

    #[test]
    fn the_kind_is_the_tag() {
        for event in samples() {
            let value = serde_json::to_value(&event).unwrap();
            assert_eq!(value["type"], event.kind());
            assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
        }
    }

    #[test]
    fn every_line_fits_the_schema_and_a_wrong_one_does_not() {
        let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
        let mut stream = Stream::default();
        for event in samples() {
            let line = stream.line(&timestamp(SystemTime::UNIX_EPOCH), "s1", &event);
            let mut line: Value = serde_json::from_str(&line).unwrap();
            let errors: Vec<_> = schema.iter_errors(&line).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{line}: {errors:?}");
            line["surprise"] = json!(1);
            assert!(!schema.is_valid(&line), "{line}");
        }
    }

    /// One event of each kind.
    fn samples() -> Vec<Event> {
        vec![
            Event::SessionStarted {
                schema: SCHEMA_VERSION,
                task: "add".into(),
                task_type: TaskType::Function,
                provider: "scripted".into(),
                model: "m".into(),
                seed: 7,
            },
            Event::SessionResumed { schema: SCHEMA_VERSION, n_attempts: 2 },
            Event::PhaseStarted { phase: Phase::Code, subtask: Some("a".into()) },
            Event::SubtasksPlanned {
                subtasks: vec![PlannedSubtask {
                    name: "a".into(),
                    file: "a.py".into(),
                    depends_on: vec![],
                }],
            },
            Event::AttemptCompleted {
                attempt_seq: 0,
                phase: Phase::Code,
                subtask: None,
                candidate: 0,
                tokens_in: 1,
                tokens_out: 2,
                prefill_ms: 3,
                decode_ms: 4,
                verdict: AttemptVerdict::Passed,
                summary: "3 of 3".into(),
            },
            Event::SuiteJudged { n_passed: 1, n_total: 2, outcome: "failed".into() },
            Event::Warning { message: "w".into() },
            Event::SessionCompleted {
                status: Status::Solved,
                verified_by: VerifiedBy::UserTests,
                assurance: Some(Assurance::SameProcess),
                reason: "r".into(),
                exit_code: 0,
                files: vec!["a.py".into()],
                tokens_in: 1,
                tokens_out: 2,
                seconds: 0.5,
                summary: "s".into(),
            },
            Event::SessionFailed { exit_code: 4, error: "e".into() },
            Event::SessionInterrupted,
            Event::JudgeTest {
                id: "test_a.py::test_b".into(),
                status: "failed".into(),
                message: "1 != 2".into(),
                seconds: 0.25,
            },
            Event::JudgeCompleted {
                outcome: "unconfirmed".into(),
                assurance: Some("unconfirmed".into()),
                reason: "r".into(),
                n_passed: 1,
                n_total: 1,
                seconds: 0.5,
                exit_code: 1,
            },
            Event::JudgeFailed { exit_code: 3, error: "e".into() },
            Event::AdapterCreated { source: Source::Qlora, base_model: "m".into() },
            Event::AdapterArchived { reason: "worse".into() },
            Event::AdapterRestored,
            Event::TrainingStarted { dataset_digest: "d".into(), base_model: "m".into() },
            Event::TrainingPlanned {
                dataset_digest: "d".into(),
                n_train: 9,
                n_validation: 1,
                n_families: 3,
                tokens: 100,
                labelled_tokens: 50,
                n_duplicates: 1,
                n_too_long: 0,
                n_secrets: 0,
                n_rehearsal: 4,
                memory_bytes: 1 << 30,
                seconds: 60.0,
                options: json!({ "rank": 8 }),
            },
            Event::TrainingPrepared { trainable: 8, tokens: 100, memory_bytes: 1 << 30, step: 0 },
            Event::TrainingStep {
                step: 1,
                total: 2,
                loss: 1.5,
                lr: 0.5,
                grad_norm: 2.0,
                tokens_per_s: 100.0,
                rss: 1 << 30,
            },
            Event::TrainingValidated { step: 1, loss: 1.25 },
            Event::TrainingCheckpointed { path: "c".into() },
            Event::TrainingResumed { step: 1 },
            Event::TrainingCompleted { adapter_id: AdapterId::parse("01k9zz").unwrap() },
            Event::TrainingFailed { error: "nan: e".into() },
            Event::EvaluationCreated { suite: "s".into(), pass_at_1: 0.5 },
            Event::EvaluationAnswered {
                adapter_id: None,
                task: "t".into(),
                passed: true,
                n_done: 1,
                n_total: 2,
            },
            Event::RehearsalAnswered { n_done: 1, n_total: 64 },
            Event::TextGenerated { phase: Phase::Code, subtask: None, text: "def".into() },
            Event::notice("loading"),
        ]
    }
}
