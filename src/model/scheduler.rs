//! What goes into each pass of the model.
//!
//! Sequences are decoded together, a token each a pass, and prompts are read along in pieces
//! (continuous batching: Yu et al. 2022, Orca; chunked prefill: Agrawal et al. 2023,
//! arXiv:2308.16369). A prompt is read from where it parts from what is remembered; one that begins
//! like a prompt being read waits for that one. Sequences are taken up in the order in which they
//! came, when there is memory for the most that they can grow to.

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

/// Rows of prompts that are read in one pass.
const PREFILL_ROWS: usize = 256;
/// What a prompt must have in common with one being read to wait for it.
const WORTH_WAITING: usize = PAGE;

/// A generation, what it is held to, and where its news go.
pub(super) type QueuedGeneration =
    (GenerationRequest, Option<GrammarState>, UnboundedSender<EngineUpdate>);

/// Lives on the engine's thread.
pub(super) struct Scheduler {
    transformer: Transformer,
    store: KvStore,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    max_sequences: usize,
    active: Vec<ActiveSequence>,
    /// Not taken up yet, oldest first.
    waiting: VecDeque<ModelSequence>,
    logits: Vec<f32>,
}

/// A sequence that has been taken up.
struct ActiveSequence {
    sequence: ModelSequence,
    cache: KvCache,
    /// The most pages that it can come to.
    max_pages: usize,
}

impl ActiveSequence {
    fn adapter(&self) -> u64 {
        adapter_number(&self.sequence)
    }

    fn reads_prompt(&self) -> bool {
        self.sequence.next.is_none()
    }

    /// Tokens for the next pass: what is left of the prompt, up to `rows`, or the token drawn last.
    fn pending(&self, rows: usize) -> Vec<u32> {
        if let Some(token) = self.sequence.next {
            return vec![token];
        }
        let rest = &self.sequence.prompt[self.cache.len()..];
        rest[..rest.len().min(rows)].to_vec()
    }
}

/// The number of a sequence's adapter, 0 for none.
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

    /// Works until the engine is dropped or a pass panics; whoever still waits then is told.
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

    /// Takes in what was submitted, and waits for it when there is nothing else to do. Returns
    /// whether the engine is still there.
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

    /// Takes up waiting sequences. One that waits for a prompt to be read may be overtaken; one
    /// that waits for memory is not, or it might wait for ever.
    fn admit(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() && self.active.len() < self.max_sequences {
            if self.gains_by_waiting(&self.waiting[index]) {
                index += 1;
                continue;
            }
            let sequence = &self.waiting[index];
            let prompt = &sequence.prompt;
            // The last token is always read again: its logits are wanted.
            let cache = self.store.begin(adapter_number(sequence), &prompt[..prompt.len() - 1]);
            // One more than its tokens need: a shared page is copied before the original is given
            // back.
            let max_pages = sequence.max_tokens().div_ceil(PAGE) + 1;
            let growing = self.active.iter().map(|w| w.max_pages - w.cache.n_pages());
            let promised: usize = growing.sum();
            if promised + max_pages - cache.n_pages() > self.store.n_available() {
                self.store.release(cache);
                return;
            }
            if let Some(mut sequence) = self.waiting.remove(index) {
                sequence.begin();
                // Beside those with the same adapter, which is then read once for all of them.
                let adapter = adapter_number(&sequence);
                let last = self.active.iter().rposition(|active| active.adapter() == adapter);
                let place = last.map_or(self.active.len(), |last| last + 1);
                self.active.insert(place, ActiveSequence { sequence, cache, max_pages });
            }
        }
    }

    /// Whether a prompt that is being read will soon be remembered and has more in common with
    /// `sequence` than what is remembered now.
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

    /// One pass over all sequences at work.
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

    /// Draws a token for each sequence whose prompt has been read, and ends those that are done.
    fn step(&mut self) {
        let Self { store, tokenizer, active, logits, transformer, .. } = self;
        let mut rows = logits.chunks_exact_mut(transformer.vocabulary());
        let is_done = |active: &mut ActiveSequence| {
            let Some(logits) = rows.next() else { return false };
            if active.cache.len() < active.sequence.prompt.len() {
                return false;
            }
            if active.reads_prompt() {
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
