//! [`infer`]: speed and memory of the in-process engine.
//!
//! First one sequence at a time, each measurement followed by the peer's; then memory; then, with
//! the peer gone, batches and loading. While one side is measured the other has nothing to do, and
//! its threads sleep.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes stay below 2^52")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use super::BenchError;
use super::metric::Metric;
use super::metric::MetricUnit;
use super::peer::PeerServer;
use super::peer::PeerSource;
use super::progress::StepCounter;
use super::progress::report_metrics;
use super::progress::report_start;
use super::prompts::PromptSource;
use crate::event::Reporter;
use crate::hardware::Machine;
use crate::hardware::peak_rss;
use crate::model::Engine;
use crate::model::EngineOptions;
use crate::model::EngineUpdate;
use crate::model::GenerationRequest;
use crate::model::Grammar;
use crate::model::LoraAdapter;
use crate::model::ModelError;
use crate::model::ModelFacts;
use crate::provider::RawRequest;
use crate::trajectory::Completion;
use crate::trajectory::Sampling;

/// Tokens of the prompt that is read for its speed.
const PROMPT: usize = 512;
/// Tokens of the prompt that is read for the time to the first token.
const LONG_PROMPT: usize = 1000;
/// Tokens at its end that differ when its beginning was read before: a sentence.
const LAST_SENTENCE: usize = 24;
/// Tokens of the prompts that are gone on from.
const SHORT_PROMPT: usize = 16;
/// Tokens generated in each run.
const ANSWER: u32 = 64;
/// Tokens that the store of keys and values has beyond the context: a page is set aside.
const SPARE_TOKENS: usize = 64;
/// Different adapters in a batch, and their rank.
const ADAPTERS: u64 = 4;
const RANK: usize = 16;
/// Sequences in a batch.
const BATCHES: [usize; 4] = [1, 2, 4, 8];

/// Options of the inference benchmark.
#[derive(Debug, Clone)]
pub struct InferOptions {
    /// Path of the model's GGUF file.
    pub path: PathBuf,
    /// Threads, context and kernels; how many sequences is decided here.
    pub engine: EngineOptions,
    /// What to measure beside it.
    pub peer: Option<PeerSource>,
    /// Measurements of each kind, at least 1.
    pub n_runs: usize,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct InferReport {
    /// The machine when the bench began, its load included.
    pub machine: Machine,
    /// The model as the engine holds it.
    pub facts: ModelFacts,
    /// Size of its file.
    pub file_bytes: u64,
    /// Keys and values of the longest sequence that was in memory at the measured peak.
    pub kv_bytes: u64,
    /// The peer's address.
    pub peer: Option<String>,
    /// All figures, in the order of measurement.
    pub metrics: Vec<Metric>,
}

/// Measures the engine, and the peer when there is one. Takes some 10 s a run with a model of 135M
/// parameters.
///
/// # Errors
/// [`BenchError`].
pub async fn infer(
    options: &InferOptions,
    reporter: &dyn Reporter,
) -> Result<InferReport, BenchError> {
    let machine = Machine::read().map_err(BenchError::examine("this machine"))?;
    let file = std::fs::metadata(&options.path);
    let file_bytes = file.map_err(BenchError::examine(options.path.display().to_string()))?.len();
    // Loading and two rounds to warm up; then three kinds of pairs, a load, the batches, the
    // adapters and the grammar of each run.
    let n_steps = 3 + options.n_runs * (3 + 1 + BATCHES.len() + 1 + 1);
    let steps = StepCounter::new(n_steps, reporter);
    steps.next("loading");
    let engine = load(options, 1).await?;
    let facts = engine.facts().clone();
    drop(engine);
    // As much for keys and values as the context needs: what a server sets aside, and no more.
    let kv_bytes = facts.token_bytes * (facts.context + SPARE_TOKENS);
    let engine = EngineOptions { kv_bytes, ..options.engine.clone() };
    let engine = load(&InferOptions { engine, ..options.clone() }, 1).await?;
    let needed = LONG_PROMPT + ANSWER as usize;
    if facts.context < needed {
        return Err(BenchError::Context { limit: facts.context, needed });
    }
    let kv_bytes = (facts.token_bytes * LONG_PROMPT) as u64;
    let peer = match &options.peer {
        Some(source) => Some(PeerServer::new(source, &facts).await?),
        None => None,
    };
    let url = peer.as_ref().map(|peer| peer.client.url().to_owned());
    let conditions = json!({
        "model": facts.path,
        "base_digest": facts.base_digest,
        "file_bytes": file_bytes,
        "weight_bytes": facts.weight_bytes,
        "kv_bytes": kv_bytes,
        "isa": facts.isa.name(),
        "n_threads": facts.n_threads,
        "context": facts.context,
        "peer": url,
    });
    report_start(reporter, "infer", &machine, conditions);
    let load_of_peer = peer.as_ref().and_then(|peer| peer.load);
    let prompts = PromptSource::new(engine.tokenizer())?;
    let mut pairs = EnginePair { engine, peer, prompts };
    let mut metrics = pairs.measure(options.n_runs, &steps).await?;
    metrics.extend(pairs.memory(file_bytes + kv_bytes)?);
    let EnginePair { engine, peer, prompts } = pairs;
    drop(peer);
    drop(engine);
    let (mut loads, engine) = reload(options, &steps).await?;
    loads.peer.extend(load_of_peer.as_ref().map(Duration::as_secs_f64));
    metrics.extend(batches(&engine, prompts, options.n_runs, &steps).await?);
    metrics.extend(adapters(&engine, options.n_runs, &steps).await?);
    metrics.extend(constrained(&engine, options.n_runs, &steps).await?);
    metrics.push(loads);
    report_metrics(reporter, &metrics);
    Ok(InferReport { machine, facts, file_bytes, kv_bytes, peer: url, metrics })
}

/// Loads the model anew; its file is in the page cache by then.
async fn load(options: &InferOptions, max_sequences: usize) -> Result<Engine, BenchError> {
    let engine = EngineOptions { max_sequences, ..options.engine.clone() };
    let path = options.path.clone();
    let loading = tokio::task::spawn_blocking(move || Engine::start(&path, &engine));
    Ok(loading.await.unwrap_or(Err(ModelError::EngineGone))?)
}

/// Loads and drops the model once a run; the last one stays, with room for the largest batch.
async fn reload(
    options: &InferOptions,
    steps: &StepCounter<'_>,
) -> Result<(Metric, Engine), BenchError> {
    let n_sequences = BATCHES.into_iter().max().unwrap_or(1);
    let mut loads = Metric::new("load_s", "load, file in memory", MetricUnit::Seconds);
    loop {
        steps.next("loading again");
        let began = Instant::now();
        let engine = load(options, n_sequences).await?;
        loads.rune.push(began.elapsed().as_secs_f64());
        if loads.rune.len() >= options.n_runs {
            return Ok((loads, engine));
        }
    }
}

/// To generate `n` tokens, whatever they are.
fn generation(prompt: &[u32], n: u32) -> GenerationRequest {
    let sampling = Sampling { max_tokens: n, ..Sampling::default() };
    GenerationRequest { ignore_end: true, ..GenerationRequest::new(prompt.to_vec(), sampling) }
}

/// To generate an answer under an adapter, or none.
fn adapted(prompt: &[u32], adapter: Option<&Arc<LoraAdapter>>) -> GenerationRequest {
    GenerationRequest { adapter: adapter.cloned(), ..generation(prompt, ANSWER) }
}

/// Waits for the whole of an answer.
async fn complete(
    engine: &Engine,
    generation: GenerationRequest,
) -> Result<Completion, BenchError> {
    let mut updates = engine.submit(generation)?;
    while let Some(update) = updates.recv().await {
        match update {
            EngineUpdate::Text(_) => {}
            EngineUpdate::Done(completion) => return Ok(completion),
            EngineUpdate::Failed(error) => return Err(error.into()),
        }
    }
    Err(ModelError::EngineGone.into())
}

/// The engine and the peer, one sequence at a time.
struct EnginePair {
    engine: Engine,
    peer: Option<PeerServer>,
    prompts: PromptSource,
}

impl EnginePair {
    async fn measure(
        &mut self,
        n_runs: usize,
        steps: &StepCounter<'_>,
    ) -> Result<Vec<Metric>, BenchError> {
        let rate = MetricUnit::TokensPerSecond;
        let label = format!("prompt, {PROMPT} tokens");
        let mut prompt = Metric::new("prompt_tokens_per_s", label, rate);
        let label = format!("decode, {ANSWER} tokens");
        let mut decode = Metric::new("decode_tokens_per_s", label, rate);
        let label = format!("first token after {LONG_PROMPT}, cold");
        let mut cold = Metric::new("first_token_cold_s", label, MetricUnit::Seconds);
        let label = "first token, all but the last sentence read before";
        let mut warm = Metric::new("first_token_warm_s", label, MetricUnit::Seconds);
        steps.next("warming up");
        self.prompt(&mut Metric::new("", "", rate)).await?;
        steps.next("warming up");
        self.decode(&mut Metric::new("", "", rate)).await?;
        for _ in 0..n_runs {
            steps.next("reading a prompt");
            self.prompt(&mut prompt).await?;
            steps.next("decoding");
            self.decode(&mut decode).await?;
            steps.next("waiting for the first token");
            let long = self.prompts.fresh(LONG_PROMPT);
            self.first_token(&long, false, &mut cold).await?;
            let changed = self.prompts.with_another_end(&long, LAST_SENTENCE);
            self.first_token(&changed, true, &mut warm).await?;
        }
        let mut gain = Metric::new("first_token_cold_to_warm", "cold by warm", MetricUnit::Times);
        gain.rune = by_pairs(&cold.rune, &warm.rune);
        gain.peer = by_pairs(&cold.peer, &warm.peer);
        Ok(vec![prompt, decode, cold, warm, gain])
    }

    /// Speed of reading; for the engine with the way there and back and the first draw.
    async fn prompt(&mut self, metric: &mut Metric) -> Result<(), BenchError> {
        let tokens = self.prompts.fresh(PROMPT);
        let began = Instant::now();
        complete(&self.engine, generation(&tokens, 1)).await?;
        metric.rune.push(tokens.len() as f64 / began.elapsed().as_secs_f64());
        let Some(peer) = &self.peer else { return Ok(()) };
        let request = RawRequest { tokens: &tokens, n_predict: 1, cache_prompt: false };
        let timings = peer.client.complete(&request).await?;
        metric.peer.push(f64::from(timings.prompt_n) / seconds(timings.prompt_ms));
        Ok(())
    }

    /// Speed from the first token to the last: one pass fewer than there are tokens, on both sides.
    async fn decode(&mut self, metric: &mut Metric) -> Result<(), BenchError> {
        let tokens = self.prompts.fresh(SHORT_PROMPT);
        let done = complete(&self.engine, generation(&tokens, ANSWER)).await?;
        metric.rune.push(decode_rate(done.tokens_out, done.decode_ms as f64));
        let Some(peer) = &self.peer else { return Ok(()) };
        let request = RawRequest { tokens: &tokens, n_predict: ANSWER, cache_prompt: false };
        let timings = peer.client.complete(&request).await?;
        metric.peer.push(decode_rate(timings.predicted_n, timings.predicted_ms));
        Ok(())
    }

    /// Time to the first token; the peer's without the way there and back.
    async fn first_token(
        &mut self,
        tokens: &[u32],
        cache_prompt: bool,
        metric: &mut Metric,
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        complete(&self.engine, generation(tokens, 1)).await?;
        metric.rune.push(began.elapsed().as_secs_f64());
        let Some(peer) = &self.peer else { return Ok(()) };
        let request = RawRequest { tokens, n_predict: 1, cache_prompt };
        metric.peer.push(seconds(peer.client.complete(&request).await?.prompt_ms));
        Ok(())
    }

    /// Peak memory so far, and its ratio to `needed`: the size of the model file and the KV cache.
    fn memory(&self, needed: u64) -> Result<[Metric; 2], BenchError> {
        let mut peak = Metric::new("peak_rss_bytes", "peak memory", MetricUnit::Bytes);
        let ours = peak_rss(None).map_err(BenchError::examine("the memory in use"))?;
        peak.rune.push(ours as f64);
        if let Some(peer) = &self.peer {
            peak.peer.extend(peer.peak_rss()?.map(|bytes| bytes as f64));
        }
        let label = "file with keys and values, by peak memory";
        let mut share = Metric::new("file_and_kv_to_peak_rss", label, MetricUnit::Times);
        share.rune = peak.rune.iter().map(|bytes| needed as f64 / bytes).collect();
        share.peer = peak.peer.iter().map(|bytes| needed as f64 / bytes).collect();
        Ok([peak, share])
    }
}

/// Decodes several sequences at once: tokens a second of all together, and by those of one alone.
async fn batches(
    engine: &Engine,
    mut prompts: PromptSource,
    n_runs: usize,
    steps: &StepCounter<'_>,
) -> Result<Vec<Metric>, BenchError> {
    let (mut rates, mut gains) = (Vec::new(), Vec::new());
    for n in BATCHES {
        let (name, label) = (format!("batch_{n}_tokens_per_s"), format!("decode, {n} at a time"));
        rates.push(Metric::new(name, label, MetricUnit::TokensPerSecond));
        let (name, label) = (format!("batch_{n}_to_1"), format!("{n} at a time, by one"));
        gains.push(Metric::new(name, label, MetricUnit::Times));
    }
    let most = BATCHES.into_iter().max().unwrap_or(1);
    let prompts: Vec<_> = (0..most).map(|_| prompts.fresh(SHORT_PROMPT)).collect();
    // From here on the prompts are in the cache, so that it is decoding that takes the time.
    batch(engine, &prompts).await?;
    for _ in 0..n_runs {
        for (n, rate) in BATCHES.into_iter().zip(&mut rates) {
            steps.next("decoding several at a time");
            rate.rune.push(batch(engine, &prompts[..n]).await?);
        }
    }
    for (gain, rate) in gains.iter_mut().zip(&rates) {
        gain.rune = by_pairs(&rate.rune, &rates[0].rune);
    }
    Ok(rates.into_iter().chain(gains.into_iter().skip(1)).collect())
}

/// Tokens a second of all `prompts` together.
async fn batch(engine: &Engine, prompts: &[Vec<u32>]) -> Result<f64, BenchError> {
    let began = Instant::now();
    let answers = prompts.iter().map(|prompt| complete(engine, generation(prompt, ANSWER)));
    let answers = futures_util::future::try_join_all(answers).await?;
    let n_tokens: u32 = answers.iter().map(|answer| answer.tokens_out).sum();
    Ok(f64::from(n_tokens) / began.elapsed().as_secs_f64())
}

/// Decodes with adapters of noise on all linear layers: one sequence with one and with none in
/// turn, then as many as the largest batch has, with several different ones.
async fn adapters(
    engine: &Engine,
    n_runs: usize,
    steps: &StepCounter<'_>,
) -> Result<[Metric; 4], BenchError> {
    let adapters: Vec<_> = (0..ADAPTERS).map(|seed| engine.random_adapter(RANK, seed)).collect();
    let n = BATCHES.into_iter().max().unwrap_or(1);
    let mut prompts = PromptSource::new(engine.tokenizer())?;
    let prompts: Vec<_> = (0..n).map(|_| prompts.fresh(SHORT_PROMPT)).collect();
    let rate = MetricUnit::TokensPerSecond;
    let label = format!("decode, an adapter of rank {RANK}");
    let mut with = Metric::new("adapter_decode_tokens_per_s", label, rate);
    let mut share = Metric::new("adapter_to_none", "an adapter, by none", MetricUnit::Times);
    let label = format!("decode, {n} at a time, {ADAPTERS} adapters");
    let mut many = Metric::new(format!("batch_{n}_adapters_tokens_per_s"), label, rate);
    let label = format!("{n} at a time, {ADAPTERS} adapters, by one, none");
    let mut gain = Metric::new(format!("batch_{n}_adapters_to_1"), label, MetricUnit::Times);
    // One round more than counts: after it all prompts are in the cache.
    for run in 0..=n_runs {
        if run > 0 {
            steps.next("decoding with adapters");
        }
        let mut rates = Vec::new();
        for adapter in [None, Some(&adapters[0])] {
            let done = complete(engine, adapted(&prompts[0], adapter)).await?;
            rates.push(decode_rate(done.tokens_out, done.decode_ms as f64));
        }
        let began = Instant::now();
        let sequences = prompts.iter().zip(adapters.iter().cycle());
        let answers =
            sequences.map(|(prompt, adapter)| complete(engine, adapted(prompt, Some(adapter))));
        let answers = futures_util::future::try_join_all(answers).await?;
        let n_tokens: u32 = answers.iter().map(|answer| answer.tokens_out).sum();
        let together = f64::from(n_tokens) / began.elapsed().as_secs_f64();
        if run > 0 {
            with.rune.push(rates[1]);
            share.rune.push(rates[1] / rates[0]);
            many.rune.push(together);
            gain.rune.push(together / rates[0]);
        }
    }
    Ok([with, share, many, gain])
}

/// Decodes without and with a grammar in turn: JSON that goes on for as long as it may.
async fn constrained(
    engine: &Engine,
    n_runs: usize,
    steps: &StepCounter<'_>,
) -> Result<[Metric; 2], BenchError> {
    let words = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1000 });
    let grammars = [None, Some(Grammar::JsonSchema(words))];
    let prompt = PromptSource::new(engine.tokenizer())?.fresh(SHORT_PROMPT);
    let label = "decode, held to a JSON schema";
    let mut with = Metric::new("grammar_decode_tokens_per_s", label, MetricUnit::TokensPerSecond);
    let mut share = Metric::new("grammar_to_none", "a JSON schema, by none", MetricUnit::Times);
    // One round more than counts: the grammar's tables are made in it.
    for run in 0..=n_runs {
        if run > 0 {
            steps.next("decoding with a grammar");
        }
        let mut rates = Vec::new();
        for grammar in grammars.clone() {
            let asked = GenerationRequest { grammar, ..generation(&prompt, ANSWER) };
            let done = complete(engine, asked).await?;
            rates.push(decode_rate(done.tokens_out, done.decode_ms as f64));
        }
        if run > 0 {
            with.rune.push(rates[1]);
            share.rune.push(rates[1] / rates[0]);
        }
    }
    Ok([with, share])
}

/// Tokens a second from the first token to the last: one pass fewer than there are tokens.
fn decode_rate(n_tokens: u32, ms: f64) -> f64 {
    f64::from(n_tokens.saturating_sub(1)) / seconds(ms)
}

fn by_pairs(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

/// Milliseconds as seconds, never zero.
fn seconds(milliseconds: f64) -> f64 {
    milliseconds.max(1e-3) / 1e3
}
