//! Continuous-batching scheduler: decides which tokens go into each forward pass.
//!
//! ```text
//! submit --> waiting (FIFO) --admit--> active --> one forward pass over all active sequences
//!                                        ^          decode:  1 token each
//!                                        |          prefill: up to 256 prompt rows, shared
//!                                        |        v
//!                                        +------- sample, finish, cache prefixes
//! ```
//!
//! Decoding sequences advance one token per pass while prompts are prefilled in chunks beside them
//! (continuous batching: Yu et al. 2022, Orca; chunked prefill: Agrawal et al. 2023,
//! arXiv:2308.16369). Prefill starts after the longest cached prefix; a prompt that shares a prefix
//! with one being prefilled waits for it. Sequences are admitted in order of arrival, as soon as
//! the KV store can hold their maximum length.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::mpsc;

use tokio::sync::mpsc::UnboundedSender;

use super::ModelError;
use super::engine::EngineUpdate;
use super::grammar::GrammarState;
use super::kernels::PAGE;
use super::kv::KvCache;
use super::kv::KvStore;
use super::sequence::GenerationRequest;
use super::sequence::ModelSequence;
use super::tokenizer::Tokenizer;
use super::transformer::TokenChunk;
use super::transformer::Transformer;

/// Maximum prompt rows per pass, all prefilling sequences together.
const PREFILL_ROWS: usize = 256;
/// Minimum gain in shared prefix tokens for which a sequence waits for another's prefill.
const WORTH_WAITING: usize = PAGE;

/// A submitted request, its compiled grammar, and the channel for its updates.
pub(super) type QueuedGeneration =
    (GenerationRequest, Option<GrammarState>, UnboundedSender<EngineUpdate>);

/// The engine's loop; lives on the inference thread.
pub(super) struct Scheduler {
    transformer: Transformer,
    store: KvStore,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    max_sequences: usize,
    active: Vec<ActiveSequence>,
    /// Not admitted yet, oldest first.
    waiting: VecDeque<ModelSequence>,
    logits: Vec<f32>,
}

/// An admitted sequence with its KV cache.
struct ActiveSequence {
    sequence: ModelSequence,
    cache: KvCache,
    /// Pages reserved for its maximum length.
    max_pages: usize,
}

impl ActiveSequence {
    fn adapter(&self) -> u64 {
        adapter_number(&self.sequence)
    }

    fn reads_prompt(&self) -> bool {
        self.sequence.next.is_none()
    }

    /// Input tokens of the next pass: up to `rows` remaining prompt tokens, or the last sampled
    /// token.
    fn pending(&self, rows: usize) -> Vec<u32> {
        if let Some(token) = self.sequence.next {
            return vec![token];
        }
        let rest = &self.sequence.prompt[self.cache.len()..];
        rest[..rest.len().min(rows)].to_vec()
    }
}

/// Number of the sequence's adapter, 0 for none.
fn adapter_number(sequence: &ModelSequence) -> u64 {
    sequence.adapter.as_ref().map_or(0, |adapter| adapter.number())
}

impl Scheduler {
    pub(super) fn new(
        transformer: Transformer,
        store: KvStore,
        tokenizer: Arc<Tokenizer>,
        context: usize,
        max_sequences: usize,
    ) -> Self {
        let (active, waiting, logits) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { transformer, store, tokenizer, context, max_sequences, active, waiting, logits }
    }

    /// Runs until the engine is dropped or a pass panics, then fails all pending generations.
    pub(super) fn run(&mut self, inbox: &mpsc::Receiver<QueuedGeneration>) {
        while self.receive(inbox) {
            self.drop_abandoned();
            self.admit();
            let pass = catch_unwind(AssertUnwindSafe(|| self.pass()));
            if pass.is_err() {
                break;
            }
        }
        for request in inbox.try_iter() {
            self.waiting.push_back(ModelSequence::new(request, self.context));
        }
        let active = self.active.iter().map(|active| &active.sequence);
        active.chain(&self.waiting).for_each(|sequence| sequence.fail(ModelError::EngineGone));
    }

    /// Receives submitted requests, blocking only when idle. Returns `false` once the engine has
    /// been dropped.
    fn receive(&mut self, inbox: &mpsc::Receiver<QueuedGeneration>) -> bool {
        let mut idle = self.waiting.is_empty() && self.active.is_empty();
        loop {
            let received = if idle {
                inbox.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
            } else {
                inbox.try_recv()
            };
            match received {
                Ok(request) => {
                    self.waiting.push_back(ModelSequence::new(request, self.context));
                    idle = false;
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn drop_abandoned(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_abandoned());
        for active in self.active.extract_if(.., |active| active.sequence.is_abandoned()) {
            self.store.release(active.cache);
        }
    }

    /// Admits waiting sequences. One that waits for another's prefill may be overtaken; one that
    /// waits for memory blocks those behind it, or it could starve.
    fn admit(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() && self.active.len() < self.max_sequences {
            if self.gains_by_waiting(&self.waiting[index]) {
                index += 1;
                continue;
            }
            let sequence = &self.waiting[index];
            let prompt = &sequence.prompt;
            // The last prompt token is always computed, even if cached: sampling needs its logits.
            let cache = self.store.begin(adapter_number(sequence), &prompt[..prompt.len() - 1]);
            // One page more than its tokens fill: copy-on-write holds original and copy for a
            // moment.
            let max_pages = sequence.max_tokens().div_ceil(PAGE) + 1;
            // Pages are allocated as sequences grow, but admission reserves the maximum, so that
            // `KvStore::allocate` never fails halfway through an answer.
            let growing = self.active.iter().map(|w| w.max_pages - w.cache.n_pages());
            let reserved: usize = growing.sum();
            if reserved + max_pages - cache.n_pages() > self.store.n_available() {
                self.store.release(cache);
                return;
            }
            if let Some(mut sequence) = self.waiting.remove(index) {
                sequence.begin();
                // Rows with the same adapter stay adjacent, so that its factors are read once for
                // all of them.
                let adapter = adapter_number(&sequence);
                let last = self.active.iter().rposition(|active| active.adapter() == adapter);
                let place = last.map_or(self.active.len(), |last| last + 1);
                self.active.insert(place, ActiveSequence { sequence, cache, max_pages });
            }
        }
    }

    /// Whether a prompt being prefilled shares a longer prefix with `sequence` than the cache holds
    /// now.
    fn gains_by_waiting(&self, sequence: &ModelSequence) -> bool {
        let adapter = adapter_number(sequence);
        let same = |active: &&ActiveSequence| active.reads_prompt() && active.adapter() == adapter;
        let common = self.active.iter().filter(same).map(|active| {
            let pairs = active.sequence.prompt.iter().zip(&sequence.prompt);
            pairs.take_while(|(a, b)| a == b).count()
        });
        let most = common.max().unwrap_or(0);
        most >= WORTH_WAITING
            && most >= self.store.n_cached(adapter, &sequence.prompt) + WORTH_WAITING
    }

    /// Runs one forward pass over all active sequences.
    fn pass(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let n_reading = self.active.iter().filter(|active| active.reads_prompt()).count();
        let rows = (PREFILL_ROWS / n_reading.max(1)).max(PAGE);
        let tokens: Vec<_> = self.active.iter().map(|active| active.pending(rows)).collect();
        let mut chunks = Vec::with_capacity(tokens.len());
        for (active, tokens) in self.active.iter_mut().zip(&tokens) {
            let ActiveSequence { sequence, cache, .. } = active;
            self.store.grow(cache, tokens.len());
            let adapter = sequence.adapter.as_deref();
            chunks.push(TokenChunk { cache, tokens, adapter, all_logits: false });
        }
        self.transformer.forward(&mut self.store, &mut chunks, &mut self.logits);
        drop(chunks);
        self.step();
    }

    /// Samples a token for each sequence past prefill, and finishes those that are done.
    fn step(&mut self) {
        let Self { store, tokenizer, active, logits, transformer, .. } = self;
        let mut rows = logits.chunks_exact_mut(transformer.vocabulary());
        let is_done = |active: &mut ActiveSequence| {
            let Some(logits) = rows.next() else { return false };
            if active.cache.len() < active.sequence.prompt.len() {
                return false;
            }
            if active.reads_prompt() {
                // Cached now rather than at the end, for the sequences that wait for this prefix.
                store.remember(active.adapter(), &active.cache);
            }
            active.sequence.step(tokenizer, logits)
        };
        let done: Vec<_> = active.extract_if(.., is_done).collect();
        for ActiveSequence { sequence, cache, .. } in done {
            store.remember(adapter_number(&sequence), &cache);
            store.release(cache);
        }
    }
}
