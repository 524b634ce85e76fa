//! What a session tells while it runs: [`Event`], and the JSON lines of `--json`.
//!
//! The same events are stored in the registry, in the transaction of the change they tell of. As JSON
//! lines they carry `ts`, a gap-free `seq` and the session's id besides; `src/event.schema.json`
//! ([`SCHEMA`]) describes a line.

use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::adapter::Source;
use crate::task::TaskType;
use crate::trajectory::Assurance;
use crate::trajectory::Phase;
use crate::trajectory::Status;
use crate::trajectory::VerifiedBy;

/// Version of the JSON lines; `session.started` carries it.
pub const SCHEMA_VERSION: u32 = 1;

/// The JSON schema (draft 2020-12) of one JSON line.
pub const SCHEMA: &str = include_str!("event.schema.json");

/// One thing that happened in a session.
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
        /// The verdict's word.
        verdict: String,
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
            Self::TrainingResumed { .. } => "training.resumed",
            Self::TrainingCompleted { .. } => "training.completed",
            Self::TrainingFailed { .. } => "training.failed",
            Self::EvaluationCreated { .. } => "evaluation.created",
        }
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

/// Numbers the events of one session's stream and makes lines of them.
#[derive(Debug, Clone)]
pub struct Stream {
    session_id: String,
    next_seq: u64,
}

impl Stream {
    /// A stream that starts at `seq` 0.
    pub fn new(session_id: impl Into<String>) -> Self {
        Self { session_id: session_id.into(), next_seq: 0 }
    }

    /// The next line, without its line end, for an event of `ts` (RFC 3339, milliseconds).
    pub fn line(&mut self, ts: &str, event: &Event) -> String {
        let mut line = json!({ "ts": ts, "seq": self.next_seq, "type": event.kind() });
        self.next_seq += 1;
        line["session_id"] = Value::from(self.session_id.as_str());
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
        let mut stream = Stream::new("s1");
        let ts = timestamp(SystemTime::UNIX_EPOCH);
        let warning = Event::Warning { message: "low\ndisk".into() };
        insta::assert_snapshot!(stream.line(&ts, &warning),
            @r#"{"ts":"1970-01-01T00:00:00.000Z","seq":0,"type":"warning","session_id":"s1","message":"low\ndisk"}"#);
        insta::assert_snapshot!(stream.line(&ts, &Event::SessionInterrupted),
            @r#"{"ts":"1970-01-01T00:00:00.000Z","seq":1,"type":"session.interrupted","session_id":"s1"}"#);
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
        let mut stream = Stream::new("s1");
        for event in samples() {
            let line = stream.line(&timestamp(SystemTime::UNIX_EPOCH), &event);
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
                verdict: "passed".into(),
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
        ]
    }
}
