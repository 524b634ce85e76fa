//! Tests of events and their JSON lines.

use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

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
use crate::trajectory::SessionStatus;
use crate::trajectory::VerifiedBy;

use super::*;

#[test]
fn lines_carry_time_number_type_and_subject() {
    let mut stream = EventStream::default();
    let ts = timestamp(SystemTime::UNIX_EPOCH);
    let warning = Event::Warning { message: "low\ndisk".into() };
    insta::assert_snapshot!(stream.line(&ts, "s1", &warning),
        @r#"{"ts":"1970-01-01T00:00:00.000Z","seq":0,"type":"warning","subject":"s1","message":"low\ndisk"}"#);
    insta::assert_snapshot!(stream.line(&ts, "s1", &Event::SessionInterrupted),
        @r#"{"ts":"1970-01-01T00:00:00.000Z","seq":1,"type":"session.interrupted","subject":"s1"}"#);
}

#[test]
fn event_kind_equals_its_serde_tag() {
    for event in samples() {
        let value = serde_json::to_value(&event).unwrap();
        assert_eq!(value["type"], event.kind());
        assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    }
}

#[test]
fn every_event_matches_the_schema_and_invalid_lines_do_not() {
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let mut stream = EventStream::default();
    for event in samples() {
        let line = stream.line(&timestamp(SystemTime::UNIX_EPOCH), "s1", &event);
        let mut line: Value = serde_json::from_str(&line).unwrap();
        let errors: Vec<_> = schema.iter_errors(&line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
        line["surprise"] = json!(1);
        assert!(!schema.is_valid(&line), "{line}");
    }
}

/// One event of each type.
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
        Event::MemoryRecalled {
            sources: vec!["README.md".into()],
            records: vec![RecalledRecord { session_id: "s0".into(), similarity: 0.75 }],
        },
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
            status: SessionStatus::Solved,
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
        Event::AdapterCreated { source: AdapterSource::Qlora, base_model: "m".into() },
        Event::AdapterArchived { reason: "worse".into() },
        Event::AdapterRestored,
        Event::EvolutionDecided {
            kind: DecisionKind::Gate,
            decision: "accept".into(),
            project: "p".into(),
            other: None,
            suite: Some("s".into()),
        },
        Event::LeaseChanged { state: LeaseState::Degraded, detail: "d".into() },
        Event::SwarmStarted { suite: "s".into(), n_tasks: 4, generations: 2 },
        Event::SwarmResumed { generation: 1 },
        Event::SwarmGenerationStarted { generation: 2, n_tasks: 3 },
        Event::SwarmEnded { status: "completed".into(), reason: "r".into() },
        Event::JobChanged {
            kind: JobKind::Solve,
            generation: 1,
            state: JobState::Discarded,
            error: Some("e".into()),
        },
        Event::SwarmProgress {
            generation: 1,
            n_queued: 2,
            n_running: 1,
            n_ended: 1,
            n_solved: 1,
            rss: 1 << 20,
            available: 1 << 30,
            paused: Some("low memory".into()),
        },
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
            n_rehearsal_validation: 1,
            rehearsal_share: 0.5,
            min_rehearsal_share: 0.25,
            n_steps: 3,
            tokens_per_step: 50.5,
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
        Event::TrainingValidated { step: 1, loss: 1.25, rehearsal_loss: None },
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
        Event::MergeProgress { n_done: 1, n_total: 196 },
        Event::TextGenerated { phase: Phase::Code, subtask: None, text: "def".into() },
        Event::notice("loading"),
        Event::EvaluationOutcome {
            who: "base".into(),
            id: "t".into(),
            group: "g".into(),
            is_control: false,
            family: "f".into(),
            sample: 0,
            passed: true,
            assurance: Some(Assurance::Separate),
            answer: "def".into(),
            summary: "passed".into(),
        },
        Event::EvaluationVoid { id: "t".into(), reason: "r".into() },
        Event::EvaluationScore {
            who: "base".into(),
            group: "g".into(),
            part: None,
            score: score(),
            pass_at_1: 0.5,
            against: None,
        },
        Event::EvaluationScore {
            who: "01k9zz".into(),
            group: "g".into(),
            part: Some("round 1".into()),
            score: score(),
            pass_at_1: 0.5,
            against: Some(ScoreComparison { who: "base".into(), paired: paired() }),
        },
        Event::EvaluationGeneralization {
            who: "01k9zz".into(),
            in_distribution: paired(),
            out_of_distribution: paired(),
            delta: 0.0,
        },
        Event::EvaluationOverlap {
            task: "t".into(),
            family: "f".into(),
            of_answer: true,
            run: "a b".into(),
        },
        Event::PullWaiting,
        Event::PullTrying { source: "hub".into() },
        Event::PullProgress { done: 1, total: 2 },
        Event::PullVerifying,
        Event::PullFailed { source: "hub".into(), reason: "r".into() },
        Event::PullCompleted { source: "mirror".into() },
        Event::BenchStarted {
            schema: SCHEMA_VERSION,
            bench: "infer".into(),
            conditions: json!({ "n_threads": 2 }),
            machine: json!({ "n_cores": 2 }),
        },
        Event::BenchProgress { done: 0, total: 2, next: "loading".into() },
        Event::BenchMetric {
            name: "load_s".into(),
            unit: "s".into(),
            rune: Some(MetricSummary { median: 1.0, min: 0.5, max: 2.0 }),
            peer: None,
            ratio: None,
            rune_values: vec![1.0],
            peer_values: vec![],
        },
        Event::BenchMemory {
            works: true,
            faults: vec![],
            verdict: Box::new(MemoryVerdict {
                adapter: paired(),
                both: paired(),
                controls: vec![("N1".into(), paired())],
                damage: vec![("other's adapter + README".into(), paired())],
                n_invented: 0,
                reader: vec![("reader + README".into(), paired())],
            }),
            costs: vec![ConditionCost {
                condition: "base".into(),
                tokens_in: 80.5,
                tokens_out: 20.0,
                seconds: 0.5,
            }],
        },
    ]
}

fn score() -> PassRate {
    PassRate {
        n_tasks: 2,
        n_samples: 1,
        passed: 1,
        share: 0.5,
        interval: (0.25, 0.75),
        fitness: 0.25,
    }
}

fn paired() -> PairedScores {
    PairedScores {
        n_families: 1,
        gained: 1,
        lost: 0,
        difference: 0.5,
        interval: (-0.25, 0.75),
        interval_90: (-0.125, 0.625),
        p_value: 1.0,
        e_value: 1.5,
    }
}
