//! A loaded model, and the channel to the thread on which it works.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::unbounded_channel;

use super::ModelError;
use super::chat::ChatTemplate;
use super::gguf::GgufFile;
use super::grammar::GrammarCompiler;
use super::kernels::Isa;
use super::lora::LoraAdapter;
use super::scheduler::QueuedGeneration;
use super::scheduler::Scheduler;
use super::sequence::GenerationRequest;
use super::tokenizer::Tokenizer;
use super::transformer::Transformer;
use super::weights::ModelShape;
use super::weights::Precision;
use crate::trajectory::Completion;
use crate::trajectory::Message;

/// How the engine is run.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Threads that compute, at least 1.
    pub n_threads: usize,
    /// The most tokens of one sequence; the model's own limit holds as well.
    pub context: usize,
    /// The most sequences at a time, at least 1.
    pub max_sequences: usize,
    /// The most bytes of keys and values, of sequences at work and remembered ones together.
    pub kv_bytes: usize,
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
            max_sequences: 8,
            kv_bytes: 1 << 30,
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
pub enum EngineUpdate {
    /// More text.
    Text(String),
    /// The end: the whole answer.
    Done(Completion),
    /// The end: no answer.
    Failed(ModelError),
}

/// A loaded model at work on its own thread. Dropping it ends the thread after the pass at hand.
pub struct Engine {
    facts: ModelFacts,
    shape: ModelShape,
    vocabulary: usize,
    precision: Precision,
    tokenizer: Arc<Tokenizer>,
    chat: ChatTemplate,
    grammars: GrammarCompiler,
    requests: Option<mpsc::Sender<QueuedGeneration>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Loads the GGUF file at `path` and starts the thread. Takes about a second per 500 MB.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be used.
    pub fn start(path: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let tokenizer = Arc::new(Tokenizer::load(&gguf)?);
        let chat = ChatTemplate::load(&gguf, &tokenizer)?;
        let hashing = {
            let path = path.to_owned();
            std::thread::spawn(move || super::digest_of(&path))
        };
        let transformer =
            Transformer::load(&gguf, options.precision, options.isa, options.n_threads)?;
        if transformer.vocabulary() < tokenizer.n_tokens() {
            return Err(ModelError::Malformed {
                path: path.to_owned(),
                reason: "it has more tokens than embeddings".to_owned(),
            });
        }
        let shape = transformer.shape.clone();
        let vocabulary = transformer.vocabulary();
        let store = transformer.store(options.kv_bytes);
        let facts = ModelFacts {
            path: path.to_owned(),
            architecture: gguf.text("general.architecture")?.to_owned(),
            base_digest: hashing.join().unwrap_or(Err(ModelError::EngineGone))?,
            tokenizer_digest: tokenizer.digest().to_owned(),
            context: options.context.min(shape.context).min(store.max_tokens()),
            weight_bytes: transformer.n_bytes(),
            token_bytes: store.token_bytes(),
            n_threads: transformer.n_threads(),
            isa: transformer.isa(),
        };
        let (requests, inbox) = mpsc::channel();
        let mut scheduler = Scheduler::new(
            transformer,
            store,
            Arc::clone(&tokenizer),
            facts.context,
            options.max_sequences.max(1),
        );
        let thread = std::thread::Builder::new()
            .name("rune-engine".to_owned())
            .spawn(move || scheduler.run(&inbox))
            .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        let (requests, thread) = (Some(requests), Some(thread));
        let (precision, grammars) = (options.precision, GrammarCompiler::default());
        Ok(Self {
            facts,
            shape,
            vocabulary,
            precision,
            tokenizer,
            chat,
            grammars,
            requests,
            thread,
        })
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
    /// [`ModelError::ChatTemplate`] when the model's template refuses the messages,
    /// [`ModelError::Tokenizer`].
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.chat.render(messages)?)
    }

    /// Reads the PEFT folder at `folder`. The adapter is then given with each
    /// [`GenerationRequest`]; the base is never touched. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// [`ModelError::Peft`] when a file can't be read, or when Rune would not run the adapter
    /// exactly as PEFT does; [`ModelError::Adapter`] when it does not fit this model.
    pub fn load_adapter(&self, folder: &Path) -> Result<Arc<LoraAdapter>, ModelError> {
        let exact = self.precision == Precision::Exact;
        LoraAdapter::load(folder, &self.shape, self.vocabulary, exact).map(Arc::new)
    }

    /// An adapter of random numbers on all linear layers of the decoder, to measure what adapters
    /// cost.
    pub fn random_adapter(&self, rank: usize, seed: u64) -> Arc<LoraAdapter> {
        Arc::new(LoraAdapter::random(&self.shape, rank, seed))
    }

    /// Hands a generation to the engine. Dropping the receiver takes it back. The last update is
    /// [`EngineUpdate::Done`] or [`EngineUpdate::Failed`]; a receiver that ends without either has
    /// outlived the engine.
    ///
    /// # Errors
    /// [`ModelError::Prompt`] when the prompt is empty or has tokens from another vocabulary,
    /// [`ModelError::ContextOverflow`] when the prompt leaves no room for an answer,
    /// [`ModelError::Grammar`] when no answer can be held to the grammar,
    /// [`ModelError::EngineGone`] when the thread has ended.
    pub fn submit(
        &self,
        generation: GenerationRequest,
    ) -> Result<UnboundedReceiver<EngineUpdate>, ModelError> {
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
        let grammar = generation.grammar.as_ref();
        let constraint = grammar.map(|grammar| self.grammars.compile(grammar, &self.tokenizer));
        let constraint = constraint.transpose()?;
        let (updates, receiver) = unbounded_channel();
        let requests = self.requests.as_ref().ok_or(ModelError::EngineGone)?;
        requests.send((generation, constraint, updates)).map_err(|_| ModelError::EngineGone)?;
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::Engine;
    use super::EngineOptions;
    use super::EngineUpdate;
    use super::GenerationRequest;
    use super::ModelError;
    use crate::model::tests::smollm2_file;
    use crate::trajectory::Sampling;

    #[test]
    fn a_panic_in_a_pass_is_an_error_for_all_who_wait() {
        let options = EngineOptions { n_threads: 2, ..EngineOptions::default() };
        let engine = Engine::start(&smollm2_file(), &options).unwrap();
        let generation = |token| GenerationRequest::new(vec![token], Sampling::default());
        let requests = engine.requests.as_ref().unwrap();
        // `submit` would refuse a token without an embedding.
        let receivers = [5, u32::MAX, 5].map(|token| {
            let (updates, receiver) = unbounded_channel();
            requests.send((generation(token), None, updates)).unwrap();
            receiver
        });
        for mut receiver in receivers {
            let last = std::iter::from_fn(|| receiver.blocking_recv()).last();
            assert!(matches!(last, Some(EngineUpdate::Failed(ModelError::EngineGone))), "{last:?}");
        }
        while !engine.thread.as_ref().unwrap().is_finished() {
            std::thread::yield_now();
        }
        assert!(matches!(engine.submit(generation(5)), Err(ModelError::EngineGone)));
    }
}
