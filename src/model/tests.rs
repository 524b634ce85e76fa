//! Compares logits, tokens and prompts with reference implementations
//! (`tests/fixtures/model/README.md`).
//!
//! Needs SmolLM2 (`rune models pull smollm2-135m-instruct`); tests on Qwen are skipped unless it
//! has been pulled.

#[path = "../../tests/it/skip.rs"]
mod skip;

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::unbounded_channel;

use super::ChatEncoder;
use super::EngineUpdate;
use super::GenerationRequest;
use super::Isa;
use super::LoraAdapter;
use super::ModelError;
use super::Precision;
use super::Tokenizer;
use super::chat::ChatTemplate;
use super::gguf::GgufFile;
use super::kv::KvCache;
use super::quant::GgmlType;
use super::sequence::ModelSequence;
use super::transformer::TokenChunk;
use super::transformer::Transformer;
use crate::home::Home;
use crate::hub;
use crate::hub::ModelCatalogue;
use crate::trajectory::Completion;
use crate::trajectory::FinishReason;
use crate::trajectory::Message;
use crate::trajectory::Role;
use crate::trajectory::Sampling;

const SMOLLM2: &str = "smollm2-135m-instruct";
/// Size of the KV cache in tests.
const KV_BYTES: usize = 64 << 20;
const QWEN: &str = "qwen2.5-coder-0.5b-instruct";

/// Path of a model in Rune's home, if it has been pulled.
fn model_file(name: &str) -> Option<PathBuf> {
    let home = match std::env::var_os("RUNE_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir()?.join(".rune"),
    };
    hub::path(&Home::new(home), ModelCatalogue::embedded().get(name).unwrap())
}

/// Path of SmolLM2; panics if it has not been pulled.
pub(crate) fn smollm2_file() -> PathBuf {
    model_file(SMOLLM2).unwrap_or_else(|| {
        panic!("this test needs a model: cargo run --release -- models pull {SMOLLM2}")
    })
}

fn smollm2() -> GgufFile {
    GgufFile::open(&smollm2_file()).unwrap()
}

fn qwen() -> Option<GgufFile> {
    let path = model_file(QWEN);
    if path.is_none() {
        skip::skip(&format!("its part on Qwen needs `rune models pull {QWEN}`"));
    }
    path.map(|path| GgufFile::open(&path).unwrap())
}

fn fixture<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

#[derive(Deserialize)]
struct Logits {
    stride: usize,
    prompts: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
    argmax: Vec<u32>,
    /// One row per position: the logits of every `stride`th token.
    logits: Vec<Vec<f32>>,
}

fn reference() -> Logits {
    fixture(include_str!("../../tests/fixtures/model/logits.json"))
}

fn load(precision: Precision, isa: Isa) -> Transformer {
    Transformer::load(&smollm2(), precision, isa, 2).unwrap()
}

fn argmax(row: &[f32]) -> u32 {
    let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    u32::try_from(best).unwrap()
}

/// Computes the logits of all positions of a prompt.
fn logits_of(transformer: &mut Transformer, tokens: &[u32]) -> Vec<Vec<f32>> {
    logits_with(transformer, tokens, None)
}

/// Computes the logits of all positions of a prompt under an adapter.
fn logits_with(
    transformer: &mut Transformer,
    tokens: &[u32],
    adapter: Option<&LoraAdapter>,
) -> Vec<Vec<f32>> {
    let mut store = transformer.store(KV_BYTES);
    let mut cache = KvCache::default();
    let mut logits = Vec::new();
    store.grow(&mut cache, tokens.len());
    let chunk = TokenChunk { cache: &mut cache, tokens, adapter, all_logits: true };
    transformer.forward(&mut store, &mut [chunk], &mut logits);
    logits.chunks(transformer.vocabulary()).map(<[f32]>::to_vec).collect()
}

fn greedy(
    transformer: &mut Transformer,
    prompt: &[u32],
    adapter: Option<&LoraAdapter>,
    n: usize,
) -> Vec<u32> {
    let mut store = transformer.store(KV_BYTES);
    let mut cache = KvCache::default();
    let mut logits = Vec::new();
    let mut tokens = prompt.to_vec();
    let mut answer = Vec::new();
    for _ in 0..n {
        store.grow(&mut cache, tokens.len());
        let chunk = TokenChunk { cache: &mut cache, tokens: &tokens, adapter, all_logits: false };
        transformer.forward(&mut store, &mut [chunk], &mut logits);
        tokens = vec![argmax(&logits)];
        answer.extend(&tokens);
    }
    answer
}

/// Mean and maximum of the absolute differences.
fn differences<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> (f32, f32) {
    let (mut n, mut sum, mut largest) = (0, 0.0, 0.0_f32);
    for (ours, theirs) in pairs {
        let off = (ours - theirs).abs();
        assert!(off.is_finite(), "{ours} {theirs}");
        (n, sum, largest) = (n + 1, sum + f64::from(off), largest.max(off));
    }
    #[expect(clippy::cast_possible_truncation, reason = "small")]
    ((sum / f64::from(n)) as f32, largest)
}

/// Mean and maximum differences from the reference over all positions of a prompt.
fn differences_from(reference: &Reference, stride: usize, rows: &[Vec<f32>]) -> (f32, f32) {
    assert_eq!(rows.len(), reference.logits.len());
    let pairs = rows.iter().zip(&reference.logits);
    differences(pairs.flat_map(|(ours, theirs)| ours.iter().step_by(stride).zip(theirs)))
}

#[test]
fn exact_logits_match_transformers_on_any_instruction_set() {
    let Logits { stride, prompts } = reference();
    for isa in [Isa::detect(), Isa::Portable] {
        let mut transformer = load(Precision::Exact, isa);
        for reference in &prompts {
            let rows = logits_of(&mut transformer, &reference.input_ids);
            let (mean, largest) = differences_from(reference, stride, &rows);
            eprintln!("exact, {}: mean {mean:.2e}, max {largest:.2e}", isa.name());
            assert!(largest < 1e-3, "mean {mean}, max {largest}");
            assert_eq!(rows.iter().map(|row| argmax(row)).collect::<Vec<_>>(), reference.argmax);
            if isa == Isa::Portable {
                // Decoding in portable code is slow, and prefill has covered the same kernels.
                continue;
            }
            let tokens =
                greedy(&mut transformer, &reference.input_ids, None, reference.greedy.len());
            assert_eq!(tokens, reference.greedy);
        }
    }
}

#[test]
fn adapter_logits_match_peft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training/peft_all");
    let Logits { stride, prompts } =
        fixture(include_str!("../../tests/fixtures/training/adapter_logits.json"));
    for precision in [Precision::Exact, Precision::Packed] {
        let mut transformer = load(precision, Isa::detect());
        let (shape, vocabulary) = (transformer.shape.clone(), transformer.vocabulary());
        let exact = precision == Precision::Exact;
        let adapter = LoraAdapter::load(&folder, &shape, vocabulary, exact).unwrap();
        for reference in &prompts {
            let rows = logits_with(&mut transformer, &reference.input_ids, Some(&adapter));
            let (mean, largest) = differences_from(reference, stride, &rows);
            eprintln!("{precision:?}, with an adapter: mean {mean:.2e}, max {largest:.2e}");
            if exact {
                assert!(largest < 2e-3, "mean {mean}, max {largest}");
                let (prompt, n) = (&reference.input_ids, reference.greedy.len());
                assert_eq!(greedy(&mut transformer, prompt, Some(&adapter), n), reference.greedy);
            } else {
                assert!(mean < 0.5 && largest < 5.0, "mean {mean}, max {largest}");
            }
        }
    }
}

#[test]
fn adapter_trained_by_rune_gives_the_same_logits_in_peft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training");
    let Logits { stride, prompts } =
        fixture(include_str!("../../tests/fixtures/training/logits.json"));
    for (precision, bound) in [(Precision::Exact, 2e-3), (Precision::Packed, 3.0)] {
        let mut transformer = load(precision, Isa::detect());
        let (shape, vocabulary) = (transformer.shape.clone(), transformer.vocabulary());
        let exact = precision == Precision::Exact;
        let adapter = LoraAdapter::load(&folder.join("peft"), &shape, vocabulary, exact).unwrap();
        let rows = logits_with(&mut transformer, &prompts[0].input_ids, Some(&adapter));
        let (mean, largest) = differences_from(&prompts[0], stride, &rows);
        assert!(largest < bound, "{precision:?}: mean {mean}, max {largest}");
    }
}

// Instruction sets add in different orders. The slightest difference moves some activation to
// another code, and over 30 layers that grows to the size of the quantization error itself. So each
// one is compared with the reference; that the kernels agree is tested beside them.
#[test]
fn packed_logits_stay_close_to_transformers_on_any_isa() {
    let Logits { stride, prompts } = reference();
    for isa in [Isa::detect(), Isa::Portable] {
        let mut transformer = load(Precision::Packed, isa);
        for reference in &prompts {
            let rows = logits_of(&mut transformer, &reference.input_ids);
            let (mean, largest) = differences_from(reference, stride, &rows);
            let agreed = rows.iter().zip(&reference.argmax).filter(|(row, id)| argmax(row) == **id);
            let (agreed, n) = (agreed.count(), rows.len());
            eprintln!(
                "packed, {}: mean {mean:.3}, max {largest:.3}, best token {agreed}/{n}",
                isa.name()
            );
            assert!(mean < 0.4 && largest < 3.0, "mean {mean}, max {largest}");
            assert!(agreed * 10 >= n * 8, "{agreed} of {n}");
        }
    }
}

#[test]
fn chunked_prefill_beside_another_sequence_gives_equal_logits() {
    let mut transformer = load(Precision::Packed, Isa::detect());
    let Logits { prompts, .. } = reference();
    let whole = logits_of(&mut transformer, &prompts[0].input_ids);
    let mut store = transformer.store(KV_BYTES);
    let mut caches = [(); 2].map(|()| KvCache::default());
    let mut logits = Vec::new();
    let mut rows = Vec::new();
    for (ours, theirs) in prompts[0].input_ids.chunks(7).zip(prompts[1].input_ids.chunks(5)) {
        let [first, second] = &mut caches;
        store.grow(first, theirs.len());
        store.grow(second, ours.len());
        let mut chunks = [
            TokenChunk { cache: first, tokens: theirs, adapter: None, all_logits: false },
            TokenChunk { cache: second, tokens: ours, adapter: None, all_logits: true },
        ];
        transformer.forward(&mut store, &mut chunks, &mut logits);
        let vocabulary = transformer.vocabulary();
        rows.extend(logits.chunks(vocabulary).skip(1).map(<[f32]>::to_vec));
    }
    assert!(rows == whole, "bit for bit");

    // A sequence that starts from a cached prefix continues like one that computed it.
    store.remember(0, &caches[1]);
    for at in [1, 9, whole.len() - 1] {
        let mut cache = store.begin(0, &prompts[0].input_ids[..at]);
        assert_eq!(cache.len(), at);
        let tokens = &prompts[0].input_ids[at..];
        store.grow(&mut cache, tokens.len());
        let chunk = TokenChunk { cache: &mut cache, tokens, adapter: None, all_logits: true };
        transformer.forward(&mut store, &mut [chunk], &mut logits);
        assert!(logits.chunks(transformer.vocabulary()).eq(whole[at..].iter()), "bit for bit");
        store.release(cache);
    }
}

#[derive(Deserialize)]
struct Blocks {
    kind: u32,
    name: String,
    bytes: String,
    /// Bit patterns of the `f32` numbers.
    bits: Vec<u32>,
}

#[test]
fn dequantized_blocks_match_ggml() {
    let cases: Vec<Blocks> = fixture(include_str!("../../tests/fixtures/model/blocks.json"));
    assert_eq!(cases.len(), 10);
    for Blocks { kind, name, bytes, bits } in cases {
        let bytes: Vec<u8> = (0..bytes.len() / 2)
            .map(|i| u8::from_str_radix(&bytes[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let kind = GgmlType::from_code(kind).unwrap();
        assert_eq!(kind.row_bytes(bits.len()), Some(bytes.len()), "{name}");
        let mut values = vec![f32::NAN; bits.len()];
        kind.dequantize(&bytes, &mut values);
        for (ours, bits) in values.iter().zip(bits) {
            let theirs = f32::from_bits(bits);
            // Rune computes `scale * code + min`, ggml `scale * (code - zero)`: one more rounding.
            let fine = (ours - theirs).abs() <= 4.0 * f32::EPSILON * theirs.abs().max(0.5);
            assert!(fine, "{name}: {ours} {theirs}");
        }
    }
}

#[derive(Deserialize)]
struct Tokens {
    text: String,
    ids: Vec<u32>,
}

fn check_tokens(gguf: &GgufFile, json: &str) {
    let tokenizer = Tokenizer::load(gguf).unwrap();
    let cases: Vec<Tokens> = fixture(json);
    assert!(cases.len() > 70);
    for Tokens { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        if !text.contains("<|") && !text.contains("<fim") && !text.contains("<repo") {
            let decoded = tokenizer.decode(&ids);
            // Qwen's tokenizer normalizes to NFC first.
            assert!(decoded == text || !text.is_ascii(), "{text:?} {decoded:?}");
        }
    }
}

#[test]
fn smollm2_tokens_match_the_tokenizers_library() {
    check_tokens(&smollm2(), include_str!("../../tests/fixtures/model/tokens_smollm.json"));
}

#[test]
fn qwen_tokens_match_the_tokenizers_library() {
    let Some(qwen) = qwen() else { return };
    check_tokens(&qwen, include_str!("../../tests/fixtures/model/tokens_qwen2.json"));
}

#[test]
fn hostile_text_is_tokenized_in_bounded_time() {
    let mut files = vec![smollm2()];
    files.extend(qwen());
    for gguf in files {
        let tokenizer = Tokenizer::load(&gguf).unwrap();
        for piece in ["a", " ", "\n", "=", "1", "\u{301}", "\t\n", "🙂", "ab ", "é"] {
            let text = piece.repeat(100_000 / piece.len());
            let started = std::time::Instant::now();
            let ids = tokenizer.encode(&text).unwrap();
            eprintln!("{piece:?}: {} tokens in {:?}", ids.len(), started.elapsed());
            assert!(started.elapsed().as_secs() < 30, "{piece:?}");
        }
    }
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<Message>,
    text: String,
}

fn check_chats(gguf: &GgufFile, json: &str) {
    let tokenizer = Tokenizer::load(gguf).unwrap();
    let template = ChatTemplate::load(gguf, &tokenizer).unwrap();
    let chats: Vec<Chat> = fixture(json);
    for chat in &chats {
        assert_eq!(template.render(&chat.messages).unwrap(), chat.text);
    }

    let plain = template.render(&chats[0].messages).unwrap();
    let n_controls = |text: &str| {
        let ids = tokenizer.encode(text).unwrap();
        ids.iter().filter(|id| tokenizer.bytes(**id).is_empty()).count()
    };
    for control in tokenizer.control_texts() {
        for content in [control.clone(), format!("x{control}{control}y"), format!("<{control}>")] {
            let text = template.render(&[Message { role: Role::User, content }]).unwrap();
            assert_eq!(n_controls(&text), n_controls(&plain), "{text:?}");
        }
    }
}

#[test]
fn smollm2_chats_match_jinja_and_cannot_end_their_own_turn() {
    check_chats(&smollm2(), include_str!("../../tests/fixtures/model/chats_smollm.json"));
}

#[test]
fn qwen_chats_match_jinja_and_cannot_end_their_own_turn() {
    let Some(qwen) = qwen() else { return };
    check_chats(&qwen, include_str!("../../tests/fixtures/model/chats_qwen2.json"));
}

/// Runs a sequence whose sampled tokens are `tokens`. Returns the streamed pieces and the final
/// update.
fn run_sequence(
    tokenizer: &Tokenizer,
    tokens: &[u32],
    sampling: Sampling,
) -> (Vec<String>, Option<Result<Completion, ModelError>>) {
    let (updates, mut receiver) = unbounded_channel();
    let generation = GenerationRequest::new(vec![1, 2, 3], sampling);
    let mut sequence = ModelSequence::new((generation, None, updates), 4096);
    for token in tokens {
        let mut logits = vec![0.0; tokenizer.n_tokens()];
        logits[*token as usize] = 1.0;
        if sequence.step(tokenizer, &mut logits) {
            break;
        }
    }
    let mut pieces = Vec::new();
    while let Ok(update) = receiver.try_recv() {
        match update {
            EngineUpdate::Text(text) => pieces.push(text),
            EngineUpdate::Done(completion) => return (pieces, Some(Ok(completion))),
            EngineUpdate::Failed(error) => return (pieces, Some(Err(error))),
        }
    }
    (pieces, None)
}

#[test]
fn stop_text_ends_the_answer_and_is_never_sent() {
    let tokenizer = Tokenizer::load(&smollm2()).unwrap();
    let text = "naïve 你好🙂 and then: ```\nEND of it 🙂🙂 the rest";
    let tokens = tokenizer.encode(text).unwrap();
    let cases: [&[&str]; 10] = [
        &["END"],
        &["\nEND of"],
        &["🙂 and"],
        &["🙂🙂"],
        &["好"],
        &["naïve"],
        &["rest"],
        &["it", "END"],
        &["absent", "", "the rest of"],
        &["🙂🙂🙂"],
    ];
    for stop in cases {
        let stop: Vec<String> = stop.iter().map(|stop| (*stop).to_owned()).collect();
        let found = stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop));
        let expected = found.min();
        let mut tokens = tokens.clone();
        tokens.push(2);
        let sampling = Sampling { stop: stop.clone(), ..Sampling::default() };
        let (pieces, end) = run_sequence(&tokenizer, &tokens, sampling);
        let completion = end.unwrap().unwrap();
        assert_eq!(completion.text, text[..expected.unwrap_or(text.len())], "{stop:?}");
        assert_eq!(pieces.concat(), completion.text, "{stop:?}");
        assert_eq!(completion.finish_reason, FinishReason::Stop);
        assert!(pieces.iter().all(|piece| !piece.is_empty() && !piece.contains('\u{FFFD}')));
    }
}

#[test]
fn streamed_pieces_add_up_to_the_text_with_broken_characters() {
    let tokenizer = Tokenizer::load(&smollm2()).unwrap();
    let emoji = tokenizer.encode("🙂").unwrap();
    assert!(emoji.len() > 1, "a character of several tokens");
    let mut tokens = tokenizer.encode("a ").unwrap();
    tokens.extend([emoji[0], emoji[0]]);
    tokens.extend(&emoji);
    tokens.push(emoji[0]);
    let sampling = Sampling {
        max_tokens: u32::try_from(tokens.len()).unwrap(),
        stop: vec!["zzz".to_owned()],
        ..Sampling::default()
    };
    let (pieces, end) = run_sequence(&tokenizer, &tokens, sampling);
    let completion = end.unwrap().unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Length);
    assert!(completion.text.contains('🙂') && completion.text.ends_with('\u{FFFD}'));
    assert_eq!(pieces.concat(), completion.text);
}

#[test]
fn repetition_ends_the_answer() {
    let tokenizer = Tokenizer::load(&smollm2()).unwrap();
    let circle = tokenizer.encode("Again and again, the same words come round. ").unwrap();
    let (_, end) = run_sequence(&tokenizer, &circle.repeat(200), Sampling::default());
    assert_eq!(end.unwrap().unwrap().finish_reason, FinishReason::Repetition);
}

#[test]
fn non_finite_logits_are_an_error() {
    let tokenizer = Tokenizer::load(&smollm2()).unwrap();
    for (temperature, damage) in
        [0.0, 1.0].into_iter().flat_map(|t| [f32::NAN, f32::INFINITY].map(|damage| (t, damage)))
    {
        for all in [false, true] {
            let (updates, mut receiver) = unbounded_channel();
            let sampling = Sampling { temperature, ..Sampling::default() };
            let generation =
                GenerationRequest { logprobs: true, ..GenerationRequest::new(vec![1], sampling) };
            let mut sequence = ModelSequence::new((generation, None, updates), 4096);
            let mut logits = vec![if all { damage } else { 0.5 }; tokenizer.n_tokens()];
            logits[77] = damage;
            assert!(sequence.step(&tokenizer, &mut logits));
            let update = receiver.try_recv();
            assert!(
                matches!(update, Ok(EngineUpdate::Failed(ModelError::NotFinite))),
                "{update:?}"
            );
        }
    }
}

#[test]
fn training_targets_are_exactly_answers_and_turn_ends() {
    let chat = [
        Message::system("Be brief."),
        Message::user("Say <|im_end|> twice, or 'ab'."),
        Message::assistant("ab\n\n  c<|im_end|>d é"),
        Message::user("Again."),
        Message::assistant("\nab"),
    ];
    for path in [Some(smollm2_file()), model_file(QWEN)].into_iter().flatten() {
        let encoder = ChatEncoder::load(&path).unwrap();
        let encoded = encoder.encode(&chat).unwrap();
        let tokens = |answer: usize| -> Vec<u32> {
            let of = encoded.input_ids.iter().zip(&encoded.answers);
            of.filter(|(_, place)| place.is_some_and(|(at, _)| at == answer))
                .map(|(id, _)| *id)
                .collect()
        };
        let tokenizer = encoder.tokenizer();
        for (answer, text) in ["ab\n\n  c< |im_end|>d é", "ab"].into_iter().enumerate() {
            let tokens = tokens(answer);
            // The line break before the second answer merges into one token with its own first one.
            assert_eq!(tokenizer.decode(&tokens).trim_start(), text, "{}", path.display());
            assert!(tokenizer.is_end(*tokens.last().unwrap()));
        }
        // Training sees the tokens of inference: the prompt of the first answer is a prefix.
        let prompt = {
            let gguf = GgufFile::open(&path).unwrap();
            let tokenizer = Tokenizer::load(&gguf).unwrap();
            let template = ChatTemplate::load(&gguf, &tokenizer).unwrap();
            tokenizer.encode(&template.render(&chat[..2]).unwrap()).unwrap()
        };
        assert_eq!(encoded.input_ids[..prompt.len()], prompt);
        let bytes: Vec<usize> =
            encoded.answers.iter().flatten().filter(|a| a.0 == 0).map(|a| a.1).collect();
        assert!(
            bytes.is_sorted()
                && bytes[0] == 0
                && *bytes.last().unwrap() == chat[2].content.len() + 1
        );
    }
}
