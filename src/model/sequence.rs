//! State of one generation: samples tokens, assembles text and decides when to stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::ModelError;
use super::engine::EngineUpdate;
use super::grammar::Grammar;
use super::grammar::GrammarState;
use super::kernels::Isa;
use super::kernels::largest_if_sound;
use super::lora::LoraAdapter;
use super::sample::Sampler;
use super::scheduler::QueuedGeneration;
use super::tokenizer::Tokenizer;
use crate::trajectory::Completion;
use crate::trajectory::FinishReason;
use crate::trajectory::Sampling;

/// Length of the n-gram that detects degenerate repetition, in tokens.
const LOOP_TOKENS: usize = 24;
/// Occurrences of the same n-gram at which a generation is stopped.
const LOOP_TIMES: u32 = 4;

/// A generation to run on the engine.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// Prompt token ids, at least one.
    pub prompt: Vec<u32>,
    /// Sampling settings, stop texts and the token limit.
    pub sampling: Sampling,
    /// Adapter to apply; must have been loaded by the same engine. `None` is the base model.
    pub adapter: Option<Arc<LoraAdapter>>,
    /// Whether to fill [`Completion::logprobs`].
    pub logprobs: bool,
    /// Grammar that constrains the answer.
    pub grammar: Option<Grammar>,
    /// Ignores end-of-turn tokens and repetition until `max_tokens` is reached; for benchmarks.
    pub ignore_end: bool,
}

impl GenerationRequest {
    /// Creates a request to the base model without grammar or log probabilities.
    pub fn new(prompt: Vec<u32>, sampling: Sampling) -> Self {
        let (adapter, logprobs, grammar, ignore_end) = (None, false, None, false);
        Self { prompt, sampling, adapter, logprobs, grammar, ignore_end }
    }
}

/// A generation received by the engine, waiting or active.
pub(super) struct ModelSequence {
    pub(super) prompt: Vec<u32>,
    /// Input token of the next decode pass; `None` during prefill.
    pub(super) next: Option<u32>,
    pub(super) adapter: Option<Arc<LoraAdapter>>,
    sampler: Sampler,
    sampling: Sampling,
    constraint: Option<GrammarState>,
    updates: UnboundedSender<EngineUpdate>,
    n_generated: u32,
    /// Context window minus prompt, in tokens.
    max_new: u32,
    bytes: Vec<u8>,
    /// Number of bytes already sent to the receiver.
    sent: usize,
    logprobs: Option<Vec<f32>>,
    loops: LoopDetector,
    ignore_end: bool,
    started: Instant,
    prefill: Duration,
}

impl ModelSequence {
    pub(super) fn new((generation, constraint, updates): QueuedGeneration, context: usize) -> Self {
        let GenerationRequest { prompt, sampling, adapter, logprobs, grammar: _, ignore_end } =
            generation;
        let max_new = context.saturating_sub(prompt.len());
        Self {
            sampler: Sampler::new(sampling.clone(), &prompt),
            prompt,
            next: None,
            adapter,
            sampling,
            constraint,
            updates,
            n_generated: 0,
            max_new: u32::try_from(max_new).unwrap_or(u32::MAX),
            bytes: Vec::new(),
            sent: 0,
            logprobs: logprobs.then(Vec::new),
            loops: LoopDetector::default(),
            ignore_end,
            started: Instant::now(),
            prefill: Duration::ZERO,
        }
    }

    /// Whether the receiver has been dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.updates.is_closed()
    }

    /// Maximum length of the sequence in tokens, prompt included.
    pub(super) fn max_tokens(&self) -> usize {
        self.prompt.len() + self.sampling.max_tokens.min(self.max_new) as usize
    }

    /// Starts the prefill timer.
    pub(super) fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// Samples the next token and sends new text. Returns whether the generation is finished.
    pub(super) fn step(&mut self, tokenizer: &Tokenizer, logits: &mut [f32]) -> bool {
        if self.next.is_none() {
            self.prefill = self.started.elapsed();
        }
        if largest_if_sound(Isa::detect(), logits).is_nan() {
            self.fail(ModelError::NotFinite);
            return true;
        }
        let allowed = match self.constraint.as_mut().map(GrammarState::allowed).transpose() {
            Ok(allowed) => allowed,
            Err(error) => {
                self.fail(error);
                return true;
            }
        };
        // `-inf` passes the check above. Sampling it means that no candidate had a finite logit.
        let (token, logprob) = self.sampler.draw(logits, allowed.as_ref(), self.logprobs.is_some());
        if !logits.get(token as usize).is_some_and(|logit| logit.is_finite()) {
            self.fail(ModelError::NotFinite);
            return true;
        }
        if tokenizer.is_end(token) && !self.ignore_end {
            return self.finish(FinishReason::Stop);
        }
        self.next = Some(token);
        self.n_generated += 1;
        self.logprobs.iter_mut().for_each(|logprobs| logprobs.extend(logprob));
        self.bytes.extend_from_slice(tokenizer.bytes(token));
        if let Some(at) = self.stop_at(tokenizer.bytes(token).len()) {
            self.bytes.truncate(at);
            return self.finish(FinishReason::Stop);
        }
        match self.constraint.as_mut().map(|constraint| constraint.advance(token)) {
            Some(Err(error)) => {
                self.fail(error);
                return true;
            }
            Some(Ok(true)) => return self.finish(FinishReason::Stop),
            Some(Ok(false)) | None => {}
        }
        if !self.ignore_end && self.loops.push(token) {
            return self.finish(FinishReason::Repetition);
        }
        if self.n_generated >= self.sampling.max_tokens.min(self.max_new) {
            return self.finish(FinishReason::Length);
        }
        self.send_text(self.bytes.len().saturating_sub(self.held_back()));
        false
    }

    /// Reports failure to the receiver.
    pub(super) fn fail(&self, error: ModelError) {
        let _caller_gone = self.updates.send(EngineUpdate::Failed(error));
    }

    /// Start of the first stop text that ends within the last `n_new` bytes.
    fn stop_at(&self, n_new: usize) -> Option<usize> {
        let stops = self.sampling.stop.iter().filter(|stop| !stop.is_empty());
        stops
            .filter_map(|stop| {
                // Earlier windows were searched when their bytes arrived.
                let from = self.bytes.len().saturating_sub(n_new + stop.len() - 1);
                let windows = self.bytes[from..].windows(stop.len());
                windows.enumerate().find(|(_, w)| *w == stop.as_bytes()).map(|(at, _)| from + at)
            })
            .min()
    }

    /// Bytes at the end that must not be sent yet: they could be the start of a stop text.
    fn held_back(&self) -> usize {
        self.sampling.stop.iter().map(|stop| stop.len().saturating_sub(1)).max().unwrap_or(0)
    }

    /// Sends unsent bytes before `end`, up to the last complete character.
    fn send_text(&mut self, end: usize) {
        if end <= self.sent {
            return;
        }
        self.send_bytes(self.sent + whole_characters(&self.bytes[self.sent..end]));
    }

    fn send_bytes(&mut self, end: usize) {
        let text = String::from_utf8_lossy(&self.bytes[self.sent..end]).into_owned();
        self.sent = end;
        if !text.is_empty() {
            let _caller_gone = self.updates.send(EngineUpdate::Text(text));
        }
    }

    fn finish(&mut self, finish_reason: FinishReason) -> bool {
        self.send_bytes(self.bytes.len());
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let completion = Completion {
            text: String::from_utf8_lossy(&self.bytes).into_owned(),
            finish_reason,
            tokens_in: u32::try_from(self.prompt.len()).unwrap_or(u32::MAX),
            tokens_out: self.n_generated,
            prefill_ms: milliseconds(self.prefill),
            decode_ms: milliseconds(self.started.elapsed().saturating_sub(self.prefill)),
            logprobs: self.logprobs.take(),
        };
        let _caller_gone = self.updates.send(EngineUpdate::Done(completion));
        true
    }
}

/// Length of `bytes` without an incomplete UTF-8 character at the end. Invalid bytes in the middle
/// count as complete: they are replaced when sent.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut checked = 0;
    loop {
        match std::str::from_utf8(&bytes[checked..]) {
            Ok(_) => return bytes.len(),
            Err(error) => match error.error_len() {
                None => return checked + error.valid_up_to(),
                Some(broken) => checked += error.valid_up_to() + broken,
            },
        }
    }
}

/// Detects degenerate repetition: the same n-gram of tokens occurring [`LOOP_TIMES`] times.
#[derive(Default)]
struct LoopDetector {
    tokens: Vec<u32>,
    seen: HashMap<[u32; LOOP_TOKENS], u32>,
}

impl LoopDetector {
    /// Adds a token. Returns whether the current n-gram has reached the limit.
    fn push(&mut self, token: u32) -> bool {
        self.tokens.push(token);
        let Some(run) = self.tokens.last_chunk::<LOOP_TOKENS>() else { return false };
        let times = self.seen.entry(*run).or_insert(0);
        *times += 1;
        *times >= LOOP_TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::LoopDetector;

    #[test]
    fn repetition_is_detected_only_in_looping_text() {
        let mut detector = LoopDetector::default();
        assert!((0..2000_u32).all(|i| !detector.push(i * i % 4099)), "no loop");
        let mut detector = LoopDetector::default();
        let noticed = (0..500_u32).position(|i| detector.push(i % 7));
        assert!(noticed.is_some_and(|at| at < 60), "{noticed:?}");
    }
}
