//! Memory for keys and values is bounded, and what is remembered changes no answer.

use rune::model::Engine;
use rune::model::EngineOptions;
use rune::model::GenerationRequest;
use rune::model::ModelError;
use rune::trajectory::Sampling;

use super::end;
use super::said;
use super::smollm2_file;

/// Bytes of the keys and values of one token of SmolLM2: 30 layers, 3 heads of 64, in `f16`.
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

/// Prompts of some 100 tokens; every other one goes on from the beginning of the one before it.
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
fn answers_are_the_same_with_room_for_one_sequence_as_with_room_for_all() {
    let roomy = start(8192, 8);
    let needed: Vec<_> = prompts().iter().map(|p| generation(&roomy, p, 40)).collect();
    let longest = needed.iter().map(|generation| generation.prompt.len()).max().unwrap() + 40;
    let answers = |engine: &Engine| -> Vec<_> {
        let receivers: Vec<_> =
            prompts().iter().map(|p| engine.submit(generation(engine, p, 40)).unwrap()).collect();
        receivers.into_iter().map(|receiver| said(&end(receiver).unwrap())).collect()
    };
    let expected = answers(&roomy);
    assert_eq!(answers(&roomy), expected, "all remembered");
    drop(roomy);
    // Room for one, for two, and for some: the others wait, and what is remembered has to go.
    for kv_tokens in [longest + 96, 2 * longest + 96, 3 * longest] {
        let narrow = start(kv_tokens, 8);
        for round in 0..2 {
            assert_eq!(answers(&narrow), expected, "{kv_tokens} tokens, round {round}");
        }
    }
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let engine = start(160, 4);
    let context = engine.facts().context;
    assert!(context <= 160, "{context}");
    let long = "word ".repeat(200);
    let refused = engine.submit(generation(&engine, &long, 8)).unwrap_err();
    assert!(matches!(refused, ModelError::ContextOverflow { limit, .. } if limit == context));
    // An answer that would outgrow the memory ends with it.
    let done = end(engine.submit(generation(&engine, "Once", 4000)).unwrap()).unwrap();
    assert_eq!((done.tokens_in + done.tokens_out) as usize, context);
}

#[test]
fn an_abandoned_sequence_gives_its_memory_back() {
    let engine = start(600, 8);
    for _ in 0..20 {
        drop(engine.submit(generation(&engine, &prompts()[0], 400)).unwrap());
    }
    let done = end(engine.submit(generation(&engine, "Once", 400)).unwrap()).unwrap();
    assert_eq!(done.tokens_out, 400);
}
