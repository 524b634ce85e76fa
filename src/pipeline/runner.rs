//! Asks the model within a session's budgets, and records every attempt as it ends.
//!
//! In a resumed session, recorded answers are replayed for the same questions. The pipeline so
//! reaches the point where it stopped without asking the model, and continues from there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::json;

use super::PipelineError;
use super::SessionSettings;
use crate::event::Event;
use crate::event::Reporter;
use crate::event::timestamp;
use crate::judge::Judge;
use crate::judge::Verdict;
use crate::memory::ShownMemory;
use crate::provider::CompletionRequest;
use crate::provider::EncodedPrompt;
use crate::provider::Grammar;
use crate::provider::Provider;
use crate::registry::HeldClaim;
use crate::registry::Registry;
use crate::task::SourceFile;
use crate::template::PromptTemplates;
use crate::trajectory::Attempt;
use crate::trajectory::AttemptVerdict;
use crate::trajectory::Completion;
use crate::trajectory::Message;
use crate::trajectory::Phase;
use crate::trajectory::Sampling;

/// Services and settings of a session.
pub struct PipelineTools<'a> {
    /// The backend that generates answers.
    pub provider: &'a Provider,
    /// Judge of the user's tests.
    pub judge: Judge,
    /// Registry that records attempts and events.
    pub registry: &'a Registry,
    /// Budgets and sampling of the session.
    pub settings: SessionSettings,
    /// What prompts show: passages of documents in all of them, and records of earlier sessions in
    /// those for code. They are the same everywhere, so that the prefix cache can reuse their
    /// tokens.
    pub memory: &'a ShownMemory,
    /// Receiver of every event.
    pub reporter: &'a dyn Reporter,
}

/// A running session, shared by all parts that are written concurrently.
pub(super) struct SessionRunner<'a> {
    pub(super) tools: &'a PipelineTools<'a>,
    pub(super) templates: PromptTemplates,
    claim: &'a HeldClaim,
    started: Instant,
    state: Mutex<RunnerState>,
}

#[derive(Default)]
struct RunnerState {
    n_attempts: u32,
    tokens_in: u64,
    tokens_out: u64,
    /// Number of questions that the model is answering.
    n_in_flight: u64,
    /// Recorded attempts that were not replayed yet, by question, oldest first.
    recorded: HashMap<String, Vec<Attempt>>,
}

/// Position of an attempt in a session.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptSlot {
    /// Phase of the pipeline.
    pub phase: Phase,
    /// Name of the subtask; `None` for the whole task.
    pub subtask: Option<String>,
    pub(super) candidate: u32,
}

/// Answer of the model, before it is judged.
pub(super) struct ModelAnswer {
    pub(super) place: AttemptSlot,
    pub(super) completion: Completion,
    prompt: EncodedPrompt,
    sampling: Sampling,
    /// Whether the answer was replayed, so that the registry already has it.
    is_recorded: bool,
}

impl<'a> SessionRunner<'a> {
    /// Creates a runner for the claimed session with its `recorded` attempts.
    pub(super) fn new(
        tools: &'a PipelineTools<'a>,
        claim: &'a HeldClaim,
        recorded: Vec<Attempt>,
    ) -> Self {
        let mut state = RunnerState::default();
        for attempt in recorded {
            state.n_attempts += 1;
            state.tokens_in += u64::from(attempt.completion.tokens_in);
            state.tokens_out += u64::from(attempt.completion.tokens_out);
            let place = AttemptSlot {
                phase: attempt.phase,
                subtask: attempt.subtask.clone(),
                candidate: attempt.candidate,
            };
            let key = question(&place, &attempt.prompt, &attempt.sampling);
            state.recorded.entry(key).or_default().push(attempt);
        }
        Self {
            tools,
            templates: PromptTemplates::default(),
            claim,
            started: Instant::now(),
            state: Mutex::new(state),
        }
    }

    /// Returns prompt tokens and generated tokens of all attempts.
    pub(super) fn tokens(&self) -> (u64, u64) {
        let state = self.state();
        (state.tokens_in, state.tokens_out)
    }

    /// Returns the wall time since the runner was created.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Records and reports an event.
    pub(super) fn tell(&self, event: &Event) -> Result<(), PipelineError> {
        self.tools.registry.append_event(self.claim, event)?;
        self.tools.reporter.report(self.claim.id(), event);
        Ok(())
    }

    /// Records the verdict of the suite on the whole task, with a short `outcome`.
    pub(super) fn tell_verdict(
        &self,
        verdict: &Verdict,
        outcome: String,
    ) -> Result<(), PipelineError> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (n_passed, n_total) = (count(verdict.n_passed), count(verdict.n_total));
        self.tell(&Event::SuiteJudged { n_passed, n_total, outcome })
    }

    /// Records the start of a phase.
    pub(super) fn begin(&self, phase: Phase, subtask: Option<&str>) -> Result<(), PipelineError> {
        self.tell(&Event::PhaseStarted { phase, subtask: subtask.map(str::to_owned) })
    }

    /// Sampling of the given trial: see [`SessionSettings::sampling`].
    pub(super) fn sampling(&self, phase: Phase, trial: u32) -> Sampling {
        self.tools.settings.sampling(phase, trial)
    }

    /// Asks the model, or replays the recorded answer to the same question.
    ///
    /// # Errors
    /// [`PipelineError::Budget`] if a budget is exhausted, [`PipelineError::Provider`].
    pub(super) async fn ask(
        &self,
        place: AttemptSlot,
        prompt: EncodedPrompt,
        sampling: Sampling,
        grammar: Option<&Grammar>,
    ) -> Result<ModelAnswer, PipelineError> {
        let key = question(&place, prompt.messages(), &sampling);
        if let Some(completion) = self.recall(&key) {
            return Ok(ModelAnswer { place, completion, prompt, sampling, is_recorded: true });
        }
        let _asked = self.begin_asking()?;
        let supported = self.tools.provider.capabilities().grammar;
        let grammar = grammar.filter(|grammar| supported.covers(grammar));
        let adapter = self.tools.settings.adapter_id.as_ref();
        let request =
            CompletionRequest { adapter, grammar, ..CompletionRequest::new(&prompt, &sampling) };
        let left = self.time_left();
        let mut on_text = |text: &str| {
            let (phase, subtask, text) = (place.phase, place.subtask.clone(), text.to_owned());
            let event = Event::TextGenerated { phase, subtask, text };
            self.tools.reporter.report(self.claim.id(), &event);
        };
        let generated = self.tools.provider.generate(&request, &mut on_text);
        let Ok(completion) = tokio::time::timeout(left, generated).await else {
            return Err(self.out_of_time());
        };
        Ok(ModelAnswer { place, completion: completion?, prompt, sampling, is_recorded: false })
    }

    /// Records an answer with its verdict, unless it was replayed.
    ///
    /// # Errors
    /// [`PipelineError::Registry`].
    pub(super) fn record(
        &self,
        answer: &ModelAnswer,
        verdict: AttemptVerdict,
        summary: &str,
        details: &serde_json::Value,
        files: &[SourceFile],
    ) -> Result<(), PipelineError> {
        if answer.is_recorded {
            return Ok(());
        }
        let completion = &answer.completion;
        // The lock is held until the attempt is stored, so that numbers are assigned in order.
        let mut state = self.state();
        let attempt = Attempt {
            seq: state.n_attempts,
            phase: answer.place.phase,
            subtask: answer.place.subtask.clone(),
            candidate: answer.place.candidate,
            prompt: answer.prompt.messages().to_vec(),
            completion: completion.clone(),
            sampling: answer.sampling.clone(),
            adapter_id: self.tools.settings.adapter_id.clone(),
            verdict,
            verdict_json: json!({ "summary": summary, "details": details }),
            files: files.to_vec(),
            at: timestamp(SystemTime::now()),
        };
        let event = Event::AttemptCompleted {
            attempt_seq: attempt.seq,
            phase: attempt.phase,
            subtask: attempt.subtask.clone(),
            candidate: attempt.candidate,
            tokens_in: completion.tokens_in,
            tokens_out: completion.tokens_out,
            prefill_ms: completion.prefill_ms,
            decode_ms: completion.decode_ms,
            verdict,
            summary: summary.to_owned(),
        };
        self.tools.registry.append_attempt(self.claim, &attempt, &event)?;
        state.n_attempts += 1;
        state.tokens_in += u64::from(completion.tokens_in);
        state.tokens_out += u64::from(completion.tokens_out);
        drop(state);
        self.tools.reporter.report(self.claim.id(), &event);
        Ok(())
    }

    fn recall(&self, key: &str) -> Option<Completion> {
        let mut state = self.state();
        let answers = state.recorded.get_mut(key)?;
        (!answers.is_empty()).then(|| answers.remove(0).completion)
    }

    /// Reserves budget for a question as long as the guard lives. An answer in flight is assumed to
    /// reach the mean length of the session's answers.
    fn begin_asking(&self) -> Result<InFlightGuard<'_>, PipelineError> {
        if self.time_left().is_zero() {
            return Err(self.out_of_time());
        }
        let limit = self.tools.settings.max_tokens;
        let mut state = self.state();
        let mean = state.tokens_out / u64::from(state.n_attempts.max(1));
        if state.tokens_out + state.n_in_flight * mean >= limit {
            return Err(PipelineError::Budget { limit, unit: "generated tokens" });
        }
        state.n_in_flight += 1;
        Ok(InFlightGuard(&self.state))
    }

    fn time_left(&self) -> Duration {
        self.tools.settings.max_time.saturating_sub(self.elapsed())
    }

    fn out_of_time(&self) -> PipelineError {
        PipelineError::Budget { limit: self.tools.settings.max_time.as_secs(), unit: "seconds" }
    }

    fn state(&self) -> MutexGuard<'_, RunnerState> {
        locked(&self.state)
    }
}

fn locked(state: &Mutex<RunnerState>) -> MutexGuard<'_, RunnerState> {
    state.lock().expect("no holder of the lock panics")
}

/// Guard of a question that the model is answering.
struct InFlightGuard<'a>(&'a Mutex<RunnerState>);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        locked(self.0).n_in_flight -= 1;
    }
}

/// Returns the identity of a question: slot, prompt and sampling.
fn question(place: &AttemptSlot, prompt: &[Message], sampling: &Sampling) -> String {
    json!([place, prompt, sampling]).to_string()
}
