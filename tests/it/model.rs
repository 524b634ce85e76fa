//! The engine through its public interface: equal answers in every configuration, and errors for
//! damaged models.
//!
//! Needs SmolLM2 (`rune models pull smollm2-135m-instruct`). Damaged files are derived from a tiny
//! generated model.

pub(crate) mod adapters;
mod faults;
mod grammar;
mod memory;
pub(crate) mod tiny;

use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rune::home::Home;
use rune::hub;
use rune::hub::ModelCatalogue;
use rune::model::Engine;
use rune::model::EngineOptions;
use rune::model::EngineUpdate;
use rune::model::GenerationRequest;
use rune::model::ModelError;
use rune::trajectory::Completion;
use rune::trajectory::FinishReason;
use rune::trajectory::Message;
use rune::trajectory::Role;
use rune::trajectory::Sampling;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::skip::skip;

const SMOLLM2: &str = "smollm2-135m-instruct";
const QWEN: &str = "qwen2.5-coder-0.5b-instruct";

const PROMPTS: [&str; 4] = [
    "What is the capital of France?",
    "Write a Python function that adds two numbers.",
    "Count from one to five.",
    "What is the capital of Italy, and how many people live there?",
];

/// Path of a model in Rune's home, if it has been pulled.
fn model_file(name: &str) -> Option<PathBuf> {
    let home = match std::env::var_os("RUNE_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().unwrap().join(".rune"),
    };
    hub::path(&Home::new(home), ModelCatalogue::embedded().get(name).unwrap())
}

pub(crate) fn smollm2_file() -> PathBuf {
    model_file(SMOLLM2).unwrap_or_else(|| {
        panic!("this test needs a model: cargo run --release -- models pull {SMOLLM2}")
    })
}

fn smollm2(n_threads: usize, max_sequences: usize) -> Engine {
    let options =
        EngineOptions { n_threads, max_sequences, context: 2048, ..EngineOptions::default() };
    Engine::start(&smollm2_file(), &options).unwrap()
}

fn ask(engine: &Engine, question: &str, sampling: Sampling) -> UnboundedReceiver<EngineUpdate> {
    let message = Message { role: Role::User, content: question.to_owned() };
    let prompt = engine.prompt(&[message]).unwrap();
    engine
        .submit(GenerationRequest { logprobs: true, ..GenerationRequest::new(prompt, sampling) })
        .unwrap()
}

/// Waits for the end of an answer and checks that the streamed pieces add up to it.
fn end(mut receiver: UnboundedReceiver<EngineUpdate>) -> Result<Completion, ModelError> {
    let mut text = String::new();
    loop {
        match receiver.blocking_recv() {
            Some(EngineUpdate::Text(piece)) => text.push_str(&piece),
            Some(EngineUpdate::Done(completion)) => {
                assert_eq!(text, completion.text);
                return Ok(completion);
            }
            Some(EngineUpdate::Failed(error)) => return Err(error),
            None => panic!("the channel closed without a final update"),
        }
    }
}

fn short() -> Sampling {
    Sampling { max_tokens: 24, ..Sampling::default() }
}

/// The text of an answer and the bits of every token's log probability.
fn transcript(completion: &Completion) -> (String, Vec<u32>) {
    let logprobs = completion.logprobs.iter().flatten().map(|logprob| logprob.to_bits());
    (completion.text.clone(), logprobs.collect())
}

#[test]
fn answers_are_independent_of_threads_batch_and_cache() {
    let alone = smollm2(1, 1);
    let expected: Vec<_> =
        PROMPTS.iter().map(|p| transcript(&end(ask(&alone, p, short())).unwrap())).collect();
    assert!(expected[3].0.contains("Rome"), "{expected:?}");
    drop(alone);

    let shared = smollm2(2, 4);
    for round in ["uncached", "cached"] {
        let receivers = PROMPTS.map(|prompt| ask(&shared, prompt, short()));
        for (receiver, expected) in receivers.into_iter().zip(&expected) {
            assert_eq!(transcript(&end(receiver).unwrap()), *expected, "{round}");
        }
    }
    let receivers = [2, 0].map(|i| ask(&shared, PROMPTS[i], short()));
    for (receiver, i) in receivers.into_iter().zip([2, 0]) {
        assert_eq!(transcript(&end(receiver).unwrap()), expected[i], "in another order");
    }
}

#[test]
fn equal_seeds_give_equal_text_and_others_differ() {
    let engine = smollm2(2, 3);
    let draw = |seed| Sampling { temperature: 1.0, top_p: 0.95, top_k: 50, seed, ..short() };
    let receivers = [7, 7, 8].map(|seed| ask(&engine, "Tell me a story.", draw(seed)));
    let [first, second, third] = receivers.map(|receiver| transcript(&end(receiver).unwrap()));
    assert_eq!(first, second);
    assert_ne!(first, third);
}

#[test]
fn extreme_sampling_settings_give_the_greedy_answer() {
    let engine = smollm2(2, 4);
    let greedy = end(ask(&engine, PROMPTS[0], short())).unwrap().text;
    let hot = Sampling { temperature: 2.0, ..short() };
    for sampling in [
        Sampling { top_k: 1, ..hot.clone() },
        Sampling { top_p: 1e-9, ..hot },
        Sampling { temperature: 1e-6, ..short() },
        Sampling { temperature: f32::MIN_POSITIVE, ..short() },
    ] {
        assert_eq!(
            end(ask(&engine, PROMPTS[0], sampling.clone())).unwrap().text,
            greedy,
            "{sampling:?}"
        );
    }
}

#[test]
fn answer_ends_at_limit_stop_text_or_full_context() {
    let engine = smollm2(2, 2);
    let long = Sampling { max_tokens: 60, ..Sampling::default() };
    let whole = end(ask(&engine, PROMPTS[1], long.clone())).unwrap();
    let cut = end(ask(&engine, PROMPTS[1], Sampling { max_tokens: 5, ..long.clone() })).unwrap();
    assert_eq!((cut.tokens_out, cut.finish_reason), (5, FinishReason::Length));
    assert_eq!(cut.logprobs.unwrap().len(), 5);
    assert!(!cut.text.is_empty() && whole.text.starts_with(&cut.text));

    let middle = whole.text.char_indices().nth(whole.text.chars().count() / 2).unwrap().0;
    let stop: String = whole.text[middle..].chars().take(9).collect();
    let expected = &whole.text[..whole.text.find(&stop).unwrap()];
    let stopped = end(ask(&engine, PROMPTS[1], Sampling { stop: vec![stop], ..long })).unwrap();
    assert_eq!((stopped.text.as_str(), stopped.finish_reason), (expected, FinishReason::Stop));

    let options = EngineOptions { context: 50, n_threads: 2, ..EngineOptions::default() };
    let narrow = Engine::start(&smollm2_file(), &options).unwrap();
    let full = end(ask(&narrow, PROMPTS[1], Sampling::default())).unwrap();
    assert_eq!(full.finish_reason, FinishReason::Length);
    assert_eq!(full.tokens_in + full.tokens_out, 50);
}

#[test]
fn invalid_prompts_are_rejected() {
    let engine = smollm2(1, 1);
    let check = |prompt: Vec<u32>| {
        let generation = GenerationRequest::new(prompt, short());
        engine.submit(generation).map(|_| ()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(check(vec![]), @"invalid prompt: it is empty");
    insta::assert_snapshot!(check(vec![1, 49_152]), @"invalid prompt: unknown token id 49152");
    insta::assert_snapshot!(check(vec![5; 2048]), @"prompt too long: 2048 tokens, but the context window is 2048");
}

#[test]
fn repetitive_answers_are_ended() {
    let engine = smollm2(2, 1);
    let prompt = engine.tokenizer().encode(&"tick tock, ".repeat(20)).unwrap();
    let sampling = Sampling { max_tokens: 1500, ..Sampling::default() };
    let receiver = engine.submit(GenerationRequest::new(prompt, sampling)).unwrap();
    let completion = end(receiver).unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Repetition, "{completion:?}");
}

/// Starts a generation that practically never ends.
fn endless(engine: &Engine, seed: u64) -> UnboundedReceiver<EngineUpdate> {
    let sampling = Sampling { temperature: 2.0, max_tokens: 1 << 20, seed, ..Sampling::default() };
    let prompt = vec![500; 30];
    engine.submit(GenerationRequest::new(prompt, sampling)).unwrap()
}

#[test]
fn dropping_the_receiver_frees_the_engine() {
    let engine = smollm2(2, 1);
    for seed in 0..3 {
        let mut receiver = endless(&engine, seed);
        assert!(matches!(receiver.blocking_recv(), Some(EngineUpdate::Text(_))));
    }
    let waiting = endless(&engine, 9);
    drop(waiting);
    let answer = end(ask(&engine, PROMPTS[3], short())).unwrap();
    assert!(answer.text.contains("Rome"), "{answer:?}");
}

#[test]
fn new_request_does_not_wait_for_a_long_answer() {
    let engine = smollm2(2, 2);
    let mut long = endless(&engine, 1);
    assert!(matches!(long.blocking_recv(), Some(EngineUpdate::Text(_))));
    end(ask(&engine, PROMPTS[0], short())).unwrap();
    let ended = std::iter::from_fn(|| long.try_recv().ok())
        .any(|update| matches!(update, EngineUpdate::Done(_) | EngineUpdate::Failed(_)));
    assert!(!ended, "the long answer is still running");
}

#[test]
fn dropping_the_engine_ends_all_answers_at_once() {
    let engine = smollm2(2, 1);
    let mut working = endless(&engine, 1);
    let waiting = endless(&engine, 2);
    assert!(matches!(working.blocking_recv(), Some(EngineUpdate::Text(_))));
    let started = Instant::now();
    drop(engine);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    while let Some(update) = working.blocking_recv() {
        assert!(!matches!(update, EngineUpdate::Done(_)));
    }
    assert!(matches!(end(waiting), Err(ModelError::EngineGone)));
}

#[test]
fn qwen_writes_a_function() {
    let Some(path) = model_file(QWEN) else {
        return skip(&format!("needs `rune models pull {QWEN}`"));
    };
    let options = EngineOptions { n_threads: 2, ..EngineOptions::default() };
    let engine = Engine::start(&path, &options).unwrap();
    let question = "Write a Python function `add(a, b)` that returns the sum of two numbers.";
    let sampling = Sampling { max_tokens: 60, ..Sampling::default() };
    let answer = end(ask(&engine, question, sampling)).unwrap();
    assert!(answer.text.contains("def add(a, b):"), "{answer:?}");
    assert!(answer.text.contains("return a + b"), "{answer:?}");
}
