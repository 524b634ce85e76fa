//! Properties of an [`Event`] that follow from its type.

use super::kind::Event;

impl Event {
    /// Returns the type of the event, such as `session.started`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SessionStarted { .. } => "session.started",
            Self::SessionResumed { .. } => "session.resumed",
            Self::MemoryRecalled { .. } => "memory.recalled",
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
            Self::EvolutionDecided { .. } => "evolution.decided",
            Self::TrainingStarted { .. } => "training.started",
            Self::TrainingPlanned { .. } => "training.planned",
            Self::TrainingPrepared { .. } => "training.prepared",
            Self::TrainingStep { .. } => "training.step",
            Self::TrainingValidated { .. } => "training.validated",
            Self::TrainingCheckpointed { .. } => "training.checkpointed",
            Self::TrainingResumed { .. } => "training.resumed",
            Self::TrainingCompleted { .. } => "training.completed",
            Self::TrainingFailed { .. } => "training.failed",
            Self::LeaseChanged { .. } => "lease.changed",
            Self::SwarmStarted { .. } => "swarm.started",
            Self::SwarmResumed { .. } => "swarm.resumed",
            Self::SwarmGenerationStarted { .. } => "swarm.generation",
            Self::SwarmEnded { .. } => "swarm.ended",
            Self::JobChanged { .. } => "job.changed",
            Self::SwarmProgress { .. } => "swarm.progress",
            Self::EvaluationCreated { .. } => "evaluation.created",
            Self::EvaluationAnswered { .. } => "evaluation.answered",
            Self::RehearsalAnswered { .. } => "rehearsal.answered",
            Self::MergeProgress { .. } => "merge.progress",
            Self::TextGenerated { .. } => "text.generated",
            Self::Notice { .. } => "notice",
            Self::EvaluationOutcome { .. } => "evaluation.outcome",
            Self::EvaluationVoid { .. } => "evaluation.void",
            Self::EvaluationScore { .. } => "evaluation.score",
            Self::EvaluationGeneralization { .. } => "evaluation.generalization",
            Self::EvaluationOverlap { .. } => "evaluation.overlap",
            Self::PullWaiting => "pull.waiting",
            Self::PullTrying { .. } => "pull.trying",
            Self::PullProgress { .. } => "pull.progress",
            Self::PullVerifying => "pull.verifying",
            Self::PullFailed { .. } => "pull.failed",
            Self::PullCompleted { .. } => "pull.completed",
            Self::BenchStarted { .. } => "bench.started",
            Self::BenchProgress { .. } => "bench.progress",
            Self::BenchMetric { .. } => "bench.metric",
            Self::BenchMemory { .. } => "bench.memory",
        }
    }

    /// Whether the event is transient: it is reported, but never stored in the registry.
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
                | Self::SwarmProgress { .. }
                | Self::EvaluationAnswered { .. }
                | Self::RehearsalAnswered { .. }
                | Self::MergeProgress { .. }
                | Self::TextGenerated { .. }
                | Self::Notice { .. }
                | Self::EvaluationOutcome { .. }
                | Self::EvaluationVoid { .. }
                | Self::EvaluationScore { .. }
                | Self::EvaluationGeneralization { .. }
                | Self::EvaluationOverlap { .. }
                | Self::PullWaiting
                | Self::PullTrying { .. }
                | Self::PullProgress { .. }
                | Self::PullVerifying
                | Self::PullFailed { .. }
                | Self::PullCompleted { .. }
                | Self::BenchStarted { .. }
                | Self::BenchProgress { .. }
                | Self::BenchMetric { .. }
                | Self::BenchMemory { .. }
        )
    }

    /// Creates a [`Self::Notice`] with this message.
    pub fn notice(message: impl Into<String>) -> Self {
        Self::Notice { message: message.into() }
    }

    /// Returns the origin of the event, for the attribute `source` of `CloudEvents`.
    pub fn source(&self) -> &'static str {
        match self.kind().split('.').next() {
            Some("adapter" | "evaluation" | "evolution") => "/rune/adapters",
            Some("training") => "/rune/training",
            Some("lease") => "/rune/servers",
            Some("swarm" | "job") => "/rune/swarm",
            Some("judge") => "/rune/judge",
            Some("pull") => "/rune/models",
            Some("bench") => "/rune/bench",
            _ => "/rune/sessions",
        }
    }
}
