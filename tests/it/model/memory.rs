//! The KV cache stays within its limit, and cached prefixes change no answer.

use rune::model::Engine;
use rune::model::EngineOptions;
use rune::model::GenerationRequest;
use rune::model::ModelError;
use rune::trajectory::Sampling;

use super::end;
use super::smollm2_file;
use super::transcript;

/// KV bytes per token of SmolLM2: 30 layers, 3 heads of 64, keys and values, in `f16`.
const TOKEN_BYTES: usize = 30 * 3 * 64 * 2 * 2;

fn start(kv_tokens: usize, max_sequences: usize) -> Engine {
    let options = EngineOptions {
        n_threads: 2,
        max_sequences,
        context: 1024,
        kv_bytes: kv_tokens * TOKEN_BYTES,
        ..EngineOptions::default()
    };
    Engine::start(&smollm2_file(), &options).unwrap()
}

fn generation(engine: &Engine, text: &str, max_tokens: u32) -> GenerationRequest {
    let prompt = engine.tokenizer().encode(text).unwrap();
    let sampling = Sampling { max_tokens, ..Sampling::default() };
    GenerationRequest {
        logprobs: true,
        ignore_end: true,
        ..GenerationRequest::new(prompt, sampling)
    }
}

/// Prompts of some 100 tokens; every second one shares a prefix with the one before it.
fn prompts() -> Vec<String> {
    let sentence = |n: usize, i: usize| format!("In year {n} there were {i} ships. ");
    let text = |n: usize| (0..20).map(|i| sentence(n, i)).collect::<Vec<_>>().concat();
    let prompt = |i: usize| {
        let text = text(1500 + i / 2);
        if i.is_multiple_of(2) { text } else { format!("{} But then", &text[..text.len() * 2 / 3]) }
    };
    (0..8).map(prompt).collect()
}

#[test]
fn answers_are_independent_of_kv_cache_size() {
    let roomy = start(8192, 8);
    let needed: Vec<_> = prompts().iter().map(|p| generation(&roomy, p, 40)).collect();
    let longest = needed.iter().map(|generation| generation.prompt.len()).max().unwrap() + 40;
    let answers = |engine: &Engine| -> Vec<_> {
        let receivers: Vec<_> =
            prompts().iter().map(|p| engine.submit(generation(engine, p, 40)).unwrap()).collect();
        receivers.into_iter().map(|receiver| transcript(&end(receiver).unwrap())).collect()
    };
    let expected = answers(&roomy);
    assert_eq!(answers(&roomy), expected, "all cached");
    drop(roomy);
    // Memory for one, two, or a few sequences: the others wait, and cached prefixes are evicted.
    for kv_tokens in [longest + 96, 2 * longest + 96, 3 * longest] {
        let narrow = start(kv_tokens, 8);
        for round in 0..2 {
            assert_eq!(answers(&narrow), expected, "{kv_tokens} tokens, round {round}");
        }
    }
}

#[test]
fn oversized_prompts_are_rejected_at_once() {
    let engine = start(160, 4);
    let context = engine.facts().context;
    assert!(context <= 160, "{context}");
    let long = "word ".repeat(200);
    let refused = engine.submit(generation(&engine, &long, 8)).unwrap_err();
    assert!(matches!(refused, ModelError::ContextOverflow { limit, .. } if limit == context));
    // An answer longer than the memory allows ends at the context limit.
    let done = end(engine.submit(generation(&engine, "Once", 4000)).unwrap()).unwrap();
    assert_eq!((done.tokens_in + done.tokens_out) as usize, context);
}

#[test]
fn abandoned_sequences_free_their_memory() {
    let engine = start(600, 8);
    for _ in 0..20 {
        drop(engine.submit(generation(&engine, &prompts()[0], 400)).unwrap());
    }
    let done = end(engine.submit(generation(&engine, "Once", 400)).unwrap()).unwrap();
    assert_eq!(done.tokens_out, 400);
}
