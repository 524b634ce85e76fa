//! The thread that owns weights and keys, and the channel to it.
//!
//! Sequences are decoded together, a token each a pass, while the prompt of one newcomer is read along in
//! pieces (continuous batching: Yu et al. 2022, Orca). Caches of finished sequences are kept: a prompt that
//! begins like one of them, or like one at work, is read only from where they part.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::unbounded_channel;

use super::ModelError;
use super::chat::ChatTemplate;
use super::gguf::Gguf;
use super::kernels::Isa;
use super::kv::KvCache;
use super::sequence::Generation;
use super::sequence::Sequence;
use super::tokenizer::Tokenizer;
use super::transformer::Chunk;
use super::transformer::Precision;
use super::transformer::Transformer;
use crate::trajectory::Completion;
use crate::trajectory::Message;

/// Rows of a prompt that are read in one pass.
const PREFILL_ROWS: usize = 256;

/// How the engine is run.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Threads that compute, at least 1.
    pub n_threads: usize,
    /// The most tokens of one sequence; the model's own limit holds as well.
    pub context: usize,
    /// The most sequences at a time.
    pub max_sequences: usize,
    /// How weights are held.
    pub precision: Precision,
    /// Which kernels compute.
    pub isa: Isa,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_threads: std::thread::available_parallelism().map_or(1, usize::from),
            context: 8192,
            max_sequences: 6,
            precision: Precision::Packed,
            isa: Isa::detect(),
        }
    }
}

/// What is known of the loaded model.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// The file.
    pub path: PathBuf,
    /// The architecture's name, such as `qwen2`.
    pub architecture: String,
    /// sha256 of the file.
    pub base_digest: String,
    /// sha256 of vocabulary, merges and pre-tokenizer.
    pub tokenizer_digest: String,
    /// The most tokens of one sequence here.
    pub context: usize,
    /// Bytes of the weights in memory.
    pub weight_bytes: usize,
    /// Bytes of the keys and values of one token.
    pub token_bytes: usize,
    /// Threads that compute.
    pub n_threads: usize,
    /// The kernels in use.
    pub isa: Isa,
}

/// News of a generation.
#[derive(Debug)]
pub enum Update {
    /// More text.
    Text(String),
    /// The end: the whole answer.
    Done(Completion),
    /// The end: no answer.
    Failed(ModelError),
}

/// A generation, and where its news go.
type Request = (Generation, UnboundedSender<Update>);

/// A loaded model at work on its own thread. Dropping it ends the thread after the pass at hand.
pub struct Engine {
    facts: ModelFacts,
    tokenizer: Arc<Tokenizer>,
    chat: ChatTemplate,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Loads the GGUF file at `path` and starts the thread. Takes about a second per 500 MB.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file can't be used.
    pub fn start(path: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        let gguf = Gguf::open(path)?;
        let tokenizer = Arc::new(Tokenizer::load(&gguf)?);
        let chat = ChatTemplate::load(&gguf, &tokenizer)?;
        let hashing = {
            let path = path.to_owned();
            std::thread::spawn(move || super::file_digest(&path))
        };
        let transformer =
            Transformer::load(&gguf, options.precision, options.isa, options.n_threads)?;
        if transformer.vocabulary() < tokenizer.n_tokens() {
            return Err(ModelError::Malformed {
                path: path.to_owned(),
                reason: "it has more tokens than embeddings".to_owned(),
            });
        }
        let facts = ModelFacts {
            path: path.to_owned(),
            architecture: gguf.text("general.architecture")?.to_owned(),
            base_digest: hashing.join().unwrap_or(Err(ModelError::EngineGone))?,
            tokenizer_digest: tokenizer.digest().to_owned(),
            context: options.context.min(transformer.shape.context),
            weight_bytes: transformer.n_bytes(),
            token_bytes: transformer.shape.n_layers
                * transformer.shape.kv_width()
                * 2
                * size_of::<f32>(),
            n_threads: transformer.n_threads(),
            isa: transformer.isa(),
        };
        let (requests, inbox) = mpsc::channel();
        let mut scheduler = Scheduler {
            context: facts.context,
            tokenizer: Arc::clone(&tokenizer),
            slots: (0..options.max_sequences.max(1))
                .map(|_| Slot::new(KvCache::new(&transformer.shape)))
                .collect(),
            transformer,
            waiting: Vec::new(),
            n_passes: 0,
            logits: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("rune-engine".to_owned())
            .spawn(move || scheduler.run(&inbox))
            .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        Ok(Self { facts, tokenizer, chat, requests: Some(requests), thread: Some(thread) })
    }

    /// What is known of the model.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A chat as prompt tokens, up to where the model's turn begins.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] when the model's template refuses the messages, [`ModelError::Tokenizer`].
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.chat.render(messages)?)
    }

    /// Hands a generation to the engine. Dropping the receiver takes it back. The last update is
    /// [`Update::Done`] or [`Update::Failed`]; a receiver that ends without either has outlived the engine.
    ///
    /// # Errors
    /// [`ModelError::Prompt`] when the prompt is empty or has tokens from another vocabulary,
    /// [`ModelError::ContextOverflow`] when the prompt leaves no room for an answer,
    /// [`ModelError::EngineGone`] when the thread has ended.
    pub fn submit(&self, generation: Generation) -> Result<UnboundedReceiver<Update>, ModelError> {
        let (n_tokens, limit) = (generation.prompt.len(), self.facts.context);
        if n_tokens == 0 {
            return Err(ModelError::Prompt("it has no tokens".to_owned()));
        }
        if n_tokens >= limit {
            return Err(ModelError::ContextOverflow { n_tokens, limit });
        }
        let n_known = self.tokenizer.n_tokens();
        if let Some(token) = generation.prompt.iter().find(|token| **token as usize >= n_known) {
            return Err(ModelError::Prompt(format!("there is no token {token}")));
        }
        let (updates, receiver) = unbounded_channel();
        let requests = self.requests.as_ref().ok_or(ModelError::EngineGone)?;
        requests.send((generation, updates)).map_err(|_| ModelError::EngineGone)?;
        Ok(receiver)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _panic_already_reported = thread.join();
        }
    }
}

/// A cache, and the sequence that is using it.
struct Slot {
    cache: KvCache,
    sequence: Option<Sequence>,
    /// The pass in which it was last used.
    used: u64,
}

impl Slot {
    fn new(cache: KvCache) -> Self {
        Self { cache, sequence: None, used: 0 }
    }

    /// Tokens for the next pass: what is left of the prompt, up to `rows`, or the token drawn last.
    fn pending(&self, rows: usize) -> &[u32] {
        match &self.sequence {
            Some(Sequence { next: Some(token), .. }) => std::slice::from_ref(token),
            Some(Sequence { prompt, .. }) => {
                let rest = &prompt[self.cache.len()..];
                &rest[..rest.len().min(rows)]
            }
            None => &[],
        }
    }

    fn reads_prompt(&self) -> bool {
        self.sequence.as_ref().is_some_and(|sequence| sequence.next.is_none())
    }
}

/// Decides what goes into each pass. Lives on the engine's thread.
struct Scheduler {
    transformer: Transformer,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    slots: Vec<Slot>,
    /// Sequences without a slot, oldest first.
    waiting: Vec<Sequence>,
    n_passes: u64,
    logits: Vec<f32>,
}

impl Scheduler {
    /// Works until the engine is dropped or a pass panics; whoever still waits then is told.
    fn run(&mut self, inbox: &mpsc::Receiver<Request>) {
        while self.receive(inbox) {
            self.drop_abandoned();
            self.admit();
            let pass = catch_unwind(AssertUnwindSafe(|| self.pass()));
            if pass.is_err() {
                break;
            }
        }
        for (generation, updates) in inbox.try_iter() {
            self.waiting.push(Sequence::new(generation, self.context, updates));
        }
        let working = self.slots.iter().filter_map(|slot| slot.sequence.as_ref());
        working.chain(&self.waiting).for_each(|sequence| sequence.fail(ModelError::EngineGone));
    }

    /// Takes up what was submitted, and waits for it when there is nothing else to do. Returns whether the engine is
    /// still there.
    fn receive(&mut self, inbox: &mpsc::Receiver<Request>) -> bool {
        let mut idle = self.waiting.is_empty() && self.slots.iter().all(|s| s.sequence.is_none());
        loop {
            let received = if idle {
                inbox.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
            } else {
                inbox.try_recv()
            };
            match received {
                Ok((generation, updates)) => {
                    self.waiting.push(Sequence::new(generation, self.context, updates));
                    idle = false;
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn drop_abandoned(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_abandoned());
        for slot in &mut self.slots {
            if slot.sequence.as_ref().is_some_and(Sequence::is_abandoned) {
                slot.sequence = None;
            }
        }
    }

    /// Gives the oldest waiting sequence a slot, unless another prompt is still being read: what that one leaves
    /// in its cache may be what the newcomer begins with.
    fn admit(&mut self) {
        if self.waiting.is_empty() || self.slots.iter().any(Slot::reads_prompt) {
            return;
        }
        let mut sequence = self.waiting.remove(0);
        sequence.begin();
        let prompt = &sequence.prompt;
        // The last token is always read again: its logits are wanted.
        let prefix = |slot: &Slot| slot.cache.common_prefix(&prompt[..prompt.len() - 1]);
        let idle = (0..self.slots.len()).filter(|i| self.slots[*i].sequence.is_none());
        let Some(oldest) = idle.clone().min_by_key(|i| self.slots[*i].used) else {
            self.waiting.insert(0, sequence);
            return;
        };
        let donor = (0..self.slots.len()).max_by_key(|i| prefix(&self.slots[*i])).unwrap_or(0);
        let common = prefix(&self.slots[donor]);
        let own = idle.max_by_key(|i| prefix(&self.slots[*i])).unwrap_or(oldest);
        let chosen = if common == 0 {
            self.slots[oldest].cache.truncate(0);
            oldest
        } else if prefix(&self.slots[own]) == common
            && (own == oldest || common * 2 >= self.slots[own].cache.len())
        {
            // What it would lose by being cut is less than what it keeps, or has not been used for longest.
            self.slots[own].cache.truncate(common);
            own
        } else {
            let [from, to] = self.slots.get_disjoint_mut([donor, oldest]).expect("two slots");
            to.cache.copy_prefix(&from.cache, common);
            oldest
        };
        self.slots[chosen].sequence = Some(sequence);
    }

    /// One pass over all sequences at work.
    fn pass(&mut self) {
        self.n_passes += 1;
        let mut busy = Vec::new();
        let mut chunks = Vec::new();
        let mut tokens = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.sequence.is_some() {
                busy.push(index);
                tokens.push(slot.pending(PREFILL_ROWS).to_vec());
            }
        }
        if busy.is_empty() {
            return;
        }
        let working = self.slots.iter_mut().filter(|slot| slot.sequence.is_some());
        for (slot, tokens) in working.zip(&tokens) {
            slot.used = self.n_passes;
            chunks.push(Chunk { cache: &mut slot.cache, tokens, all_logits: false });
        }
        self.transformer.forward(&mut chunks, &mut self.logits);
        let rows = self.logits.chunks_exact_mut(self.transformer.vocabulary());
        for (index, logits) in busy.into_iter().zip(rows) {
            let slot = &mut self.slots[index];
            let Some(sequence) = &mut slot.sequence else { continue };
            if slot.cache.len() >= sequence.prompt.len() && sequence.step(&self.tokenizer, logits) {
                slot.sequence = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::Engine;
    use super::EngineOptions;
    use super::Generation;
    use super::ModelError;
    use super::Update;
    use crate::model::tests::smollm2_file;
    use crate::trajectory::Sampling;

    #[test]
    fn a_panic_in_a_pass_is_an_error_for_all_who_wait() {
        let options = EngineOptions { n_threads: 2, ..EngineOptions::default() };
        let engine = Engine::start(&smollm2_file(), &options).unwrap();
        let generation = |token| Generation::new(vec![token], Sampling::default());
        let requests = engine.requests.as_ref().unwrap();
        // `submit` would refuse a token without an embedding.
        let receivers = [5, u32::MAX, 5].map(|token| {
            let (updates, receiver) = unbounded_channel();
            requests.send((generation(token), updates)).unwrap();
            receiver
        });
        for mut receiver in receivers {
            let last = std::iter::from_fn(|| receiver.blocking_recv()).last();
            assert!(matches!(last, Some(Update::Failed(ModelError::EngineGone))), "{last:?}");
        }
        while !engine.thread.as_ref().unwrap().is_finished() {
            std::thread::yield_now();
        }
        assert!(matches!(engine.submit(generation(5)), Err(ModelError::EngineGone)));
    }
}
