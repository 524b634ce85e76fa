//! A loaded model, and the channel to its inference thread.

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

/// Resource limits and compute settings of an [`Engine`].
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Compute threads, at least 1.
    pub n_threads: usize,
    /// Maximum tokens per sequence, prompt and answer together; the model's own limit also applies.
    pub context: usize,
    /// Maximum number of sequences decoded concurrently, at least 1.
    pub max_sequences: usize,
    /// Size limit of the KV cache in bytes, active sequences and cached prefixes together.
    pub kv_bytes: usize,
    /// In-memory format of the weights.
    pub precision: Precision,
    /// Instruction set of the kernels.
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

/// Properties of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// Path of the model file.
    pub path: PathBuf,
    /// GGUF name of the architecture, such as `qwen2`.
    pub architecture: String,
    /// SHA-256 of the model file.
    pub base_digest: String,
    /// SHA-256 of vocabulary, merges and pre-tokenizer name.
    pub tokenizer_digest: String,
    /// Effective context window in tokens: the minimum of the model's, the configured one and what
    /// fits the KV cache.
    pub context: usize,
    /// Size of the weights in memory, in bytes.
    pub weight_bytes: usize,
    /// KV cache bytes per token, all layers together.
    pub token_bytes: usize,
    /// Number of compute threads.
    pub n_threads: usize,
    /// Instruction set of the kernels in use.
    pub isa: Isa,
}

/// Streamed output of one generation.
#[derive(Debug)]
pub enum EngineUpdate {
    /// The next piece of generated text, whole characters only.
    Text(String),
    /// Final update: the complete answer.
    Done(Completion),
    /// Final update: the generation failed.
    Failed(ModelError),
}

/// A loaded model that generates on its own thread. Dropping it stops the thread after the current
/// forward pass.
///
/// ```no_run
/// use std::path::Path;
///
/// use rune::model::Engine;
/// use rune::model::EngineOptions;
/// use rune::model::EngineUpdate;
/// use rune::model::GenerationRequest;
/// use rune::trajectory::Message;
/// use rune::trajectory::Sampling;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(Path::new("qwen2.5-coder.gguf"), &EngineOptions::default())?;
/// let prompt = engine.prompt(&[Message::user("Write a haiku about Rust.")])?;
/// let sampling = Sampling { max_tokens: 64, ..Sampling::default() };
/// let mut updates = engine.submit(GenerationRequest::new(prompt, sampling))?;
/// while let Some(update) = updates.blocking_recv() {
///     match update {
///         EngineUpdate::Text(text) => print!("{text}"),
///         EngineUpdate::Done(completion) => println!("\n{} tokens", completion.tokens_out),
///         EngineUpdate::Failed(error) => return Err(error.into()),
///     }
/// }
/// # Ok(())
/// # }
/// ```
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
    /// Loads the GGUF file at `path` and starts the inference thread. Takes about a second per 500
    /// MB.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Malformed`] or [`ModelError::Unsupported`] when the file
    /// can't be loaded.
    pub fn start(path: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let tokenizer = Arc::new(Tokenizer::load(&gguf)?);
        let chat = ChatTemplate::load(&gguf, &tokenizer)?;
        // Hashing a large file takes as long as repacking it, so both run at the same time.
        let hashing = {
            let path = path.to_owned();
            std::thread::spawn(move || super::digest_of(&path))
        };
        let transformer =
            Transformer::load(&gguf, options.precision, options.isa, options.n_threads)?;
        if transformer.vocabulary() < tokenizer.n_tokens() {
            return Err(ModelError::Malformed {
                path: path.to_owned(),
                reason: "fewer embeddings than tokens".to_owned(),
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

    /// Returns the properties of the loaded model.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Returns the model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Renders a chat with the model's template and tokenizes it, up to the start of the model's
    /// turn.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] when the template rejects the messages,
    /// [`ModelError::Tokenizer`] when the rendered text can't be tokenized.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.chat.render(messages)?)
    }

    /// Loads the PEFT adapter in `folder`, to be attached to any [`GenerationRequest`]. The base
    /// weights stay unchanged. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// [`ModelError::Peft`] when a file can't be read or uses a PEFT feature that Rune does not
    /// implement; [`ModelError::Adapter`] when the adapter does not fit this model.
    pub fn load_adapter(&self, folder: &Path) -> Result<Arc<LoraAdapter>, ModelError> {
        let exact = self.precision == Precision::Exact;
        LoraAdapter::load(folder, &self.shape, self.vocabulary, exact).map(Arc::new)
    }

    /// Creates an adapter with random factors on all linear layers of the decoder, for benchmarks.
    pub fn random_adapter(&self, rank: usize, seed: u64) -> Arc<LoraAdapter> {
        Arc::new(LoraAdapter::random(&self.shape, rank, seed))
    }

    /// Queues a generation. Dropping the receiver cancels it. The last update is
    /// [`EngineUpdate::Done`] or [`EngineUpdate::Failed`]; a channel that closes without either
    /// means that the engine is gone.
    ///
    /// # Errors
    /// [`ModelError::Prompt`] when the prompt is empty or has token ids outside the vocabulary,
    /// [`ModelError::ContextOverflow`] when the prompt fills the context window,
    /// [`ModelError::Grammar`] when the grammar can't be compiled, [`ModelError::EngineGone`] when
    /// the thread has ended.
    pub fn submit(
        &self,
        generation: GenerationRequest,
    ) -> Result<UnboundedReceiver<EngineUpdate>, ModelError> {
        let (n_tokens, limit) = (generation.prompt.len(), self.facts.context);
        if n_tokens == 0 {
            return Err(ModelError::Prompt("it is empty".to_owned()));
        }
        if n_tokens >= limit {
            return Err(ModelError::ContextOverflow { n_tokens, limit });
        }
        let n_known = self.tokenizer.n_tokens();
        if let Some(token) = generation.prompt.iter().find(|token| **token as usize >= n_known) {
            return Err(ModelError::Prompt(format!("unknown token id {token}")));
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
        // Closing the channel is what makes the scheduler's loop return.
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
    fn panic_in_a_pass_fails_every_pending_generation() {
        let options = EngineOptions { n_threads: 2, ..EngineOptions::default() };
        let engine = Engine::start(&smollm2_file(), &options).unwrap();
        let generation = |token| GenerationRequest::new(vec![token], Sampling::default());
        let requests = engine.requests.as_ref().unwrap();
        // `submit` would reject a token id without an embedding, so this goes around it.
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
