//! Damaged, forged and foreign files give errors that name the defect: never a panic, a hang or a
//! wrong answer.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::Index;
use rune::model::Engine;
use rune::model::EngineOptions;
use rune::model::GenerationRequest;
use rune::model::Isa;
use rune::model::ModelError;
use rune::model::Precision;
use rune::trajectory::Completion;
use rune::trajectory::Message;
use rune::trajectory::Role;
use rune::trajectory::Sampling;

use super::tiny;
use super::tiny::F32;
use super::tiny::Gguf;
use super::tiny::Q8_0;
use super::tiny::Value;

fn options() -> EngineOptions {
    EngineOptions { n_threads: 1, max_sequences: 2, ..EngineOptions::default() }
}

/// Loads `file` and generates a few tokens.
fn answer(file: &[u8], options: &EngineOptions) -> Result<Completion, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, file).unwrap();
    answer_of(&path, options)
}

fn answer_of(path: &Path, options: &EngineOptions) -> Result<Completion, ModelError> {
    let engine = Engine::start(path, options)?;
    let message = Message { role: Role::User, content: "ab?".to_owned() };
    let prompt = engine.prompt(&[message])?;
    let sampling = Sampling { max_tokens: 6, ..Sampling::default() };
    super::end(
        engine.submit(GenerationRequest {
            logprobs: true,
            ..GenerationRequest::new(prompt, sampling)
        })?,
    )
}

/// The error message for a file, without its path.
fn fault(file: &[u8]) -> String {
    let error = answer(file, &options()).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::Malformed { .. } | ModelError::Unsupported { .. } | ModelError::NotFinite
        ),
        "{error:?}"
    );
    let message = error.to_string();
    let end = message.find(".gguf`").map_or(0, |at| at + 6);
    message[end..].trim_start_matches(": ").to_owned()
}

/// The error message for the tiny llama model after a `change`.
fn changed(change: impl FnOnce(&mut Gguf)) -> String {
    let mut model = tiny::model("llama", F32, 24, 40);
    change(&mut model);
    fault(&model.encode().1)
}

fn tokens(completion: &Completion) -> (String, Vec<u32>) {
    super::transcript(completion)
}

#[test]
fn odd_sized_model_answers_alike_in_every_mode() {
    for arch in ["llama", "qwen2"] {
        let (_, file) = tiny::model(arch, F32, 24, 40).encode();
        let expected = answer(&file, &options()).unwrap();
        assert!(expected.logprobs.as_ref().unwrap().iter().all(|logprob| *logprob < 0.0));
        let exact = EngineOptions { precision: Precision::Exact, ..options() };
        let two_threads = EngineOptions { n_threads: 2, ..exact.clone() };
        let exactly = answer(&file, &exact).unwrap();
        assert_eq!(tokens(&answer(&file, &two_threads).unwrap()), tokens(&exactly));
        // `F32` weights are not packed; the precisions differ in keys and values alone, which are
        // half precision in one of them.
        let pairs = expected.logprobs.iter().flatten().zip(exactly.logprobs.iter().flatten());
        assert!(pairs.clone().all(|(half, full)| (half - full).abs() < 1e-3), "{pairs:?}");
        assert_eq!(exactly.text, expected.text);
        let portable = EngineOptions { isa: Isa::Portable, ..options() };
        assert_eq!(answer(&file, &portable).unwrap().text, expected.text);

        let (_, file) = tiny::model(arch, Q8_0, 64, 96).encode();
        let packed = answer(&file, &options()).unwrap().logprobs.unwrap();
        let exact = answer(&file, &exact).unwrap().logprobs.unwrap();
        assert!((packed[0] - exact[0]).abs() < 0.2, "{packed:?} {exact:?}");
    }
}

#[test]
fn unavailable_instruction_sets_are_not_used() {
    let (_, file) = tiny::model("llama", Q8_0, 64, 96).encode();
    let forced = EngineOptions { isa: Isa::Avx512Vnni, ..options() };
    assert!(answer(&file, &forced).is_ok());
}

#[test]
fn malformed_files_are_rejected_with_the_reason() {
    let table = [
        ("no tokenizer", changed(|m| m.metadata.retain(|(key, _)| !key.starts_with("tokenizer.")))),
        ("no chat template", changed(|m| m.metadata.retain(|(k, _)| !k.contains("template")))),
        ("no size", changed(|m| m.metadata.retain(|(key, _)| key != "llama.block_count"))),
        ("size of a wrong type", changed(|m| *m.value("block_count") = Value::F32(2.0))),
        ("no layers", changed(|m| *m.value("block_count") = Value::U32(0))),
        ("too many layers", changed(|m| *m.value("block_count") = Value::U32(3))),
        ("a million layers", changed(|m| *m.value("block_count") = Value::U32(1_000_000))),
        ("heads that do not fit", changed(|m| *m.value("head_count") = Value::U32(5))),
        ("no epsilon", changed(|m| *m.value("rms_epsilon") = Value::F32(f32::NAN))),
        ("rope base", changed(|m| *m.value("freq_base") = Value::U32(7))),
        ("architecture", changed(|m| *m.value("architecture") = Value::Text("mamba".to_owned()))),
        ("pre-tokenizer", changed(|m| *m.value("ggml.pre") = Value::Text("gpt-2".to_owned()))),
        ("template", changed(|m| *m.value("template") = Value::Text("{% if %}".to_owned()))),
        (
            "a merge of nothing",
            changed(|m| *m.value("merges") = Value::Texts(vec!["zz".to_owned()])),
        ),
        ("unknown merge", changed(|m| *m.value("merges") = Value::Texts(vec!["zz y".to_owned()]))),
        ("few token types", changed(|m| *m.value("token_type") = Value::Numbers(vec![1; 5]))),
        (
            "no end",
            changed(|m| {
                m.metadata.retain(|(key, _)| !key.ends_with("eos_token_id"));
                *m.value("token_type") = Value::Numbers(vec![1; 260]);
            }),
        ),
        ("missing tensor", changed(|m| m.tensors.retain(|t| t.name != "blk.1.ffn_up.weight"))),
        ("missing embedding", changed(|m| m.tensors.retain(|t| t.name != "token_embd.weight"))),
        ("turned shape", changed(|m| m.tensor("blk.0.ffn_up.weight").dims.reverse())),
        ("small embedding", changed(|m| m.tensor("token_embd.weight").dims[1] = 100)),
        ("no rows", changed(|m| m.tensor("token_embd.weight").dims[1] = 0)),
        ("huge", changed(|m| m.tensor("token_embd.weight").dims = vec![24, 1 << 62])),
        ("overflow", changed(|m| m.tensor("token_embd.weight").dims = vec![1 << 40; 4])),
        ("five dimensions", changed(|m| m.tensor("token_embd.weight").dims = vec![1; 5])),
        ("unknown type", changed(|m| m.tensor("token_embd.weight").kind = 39)),
        ("broken blocks", changed(|m| m.tensor("token_embd.weight").kind = Q8_0)),
        ("twice", changed(|m| m.tensors[1].name = "token_embd.weight".to_owned())),
        ("experts", changed(|m| m.metadata.push(("llama.expert_count".to_owned(), Value::U32(8))))),
        (
            "scaled",
            changed(|m| {
                let linear = Value::Text("linear".to_owned());
                m.metadata.push(("llama.rope.scaling.type".to_owned(), linear));
            }),
        ),
        (
            "alignment",
            changed(|m| {
                m.metadata.push(("general.alignment".to_owned(), Value::U32(0)));
            }),
        ),
        ("shared bytes", {
            let (_, mut file) = tiny::model("llama", F32, 24, 40).encode();
            // Let every tensor start at the offset of the first.
            let names: Vec<_> = tiny::model("llama", F32, 24, 40).tensors;
            for tensor in names {
                let mut entry = (tensor.name.len() as u64).to_le_bytes().to_vec();
                entry.extend(tensor.name.bytes());
                let at = file.windows(entry.len()).position(|w| w == entry).unwrap();
                let offset = at + entry.len() + 4 + 8 * tensor.dims.len() + 4;
                file[offset..offset + 8].fill(0);
            }
            file.truncate(file.len() - 4096);
            fault(&file)
        }),
    ];
    let lines: Vec<_> = table.iter().map(|(what, fault)| format!("{what}: {fault}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    no tokenizer: metadata `tokenizer.ggml.model` is missing or not a string
    no chat template: metadata `tokenizer.chat_template` is missing or not a string
    no size: metadata `llama.block_count` is missing or not a positive integer
    size of a wrong type: metadata `llama.block_count` is missing or not a positive integer
    no layers: metadata `llama.block_count` is missing or not a positive integer
    too many layers: tensor `blk.2.attn_q.weight` is missing
    a million layers: inconsistent dimensions: hidden size 24, 2 heads of 12, 1 KV heads, 1000000 layers
    heads that do not fit: inconsistent dimensions: hidden size 24, 5 heads of 4, 1 KV heads, 2 layers
    no epsilon: metadata `llama.attention.layer_norm_rms_epsilon` is missing or not a finite number
    rope base: metadata `llama.rope.freq_base` is missing or not a finite number
    architecture: architecture `mamba`
    pre-tokenizer: tokenizer `gpt2`/`gpt-2`
    template: the chat template does not compile: syntax error: unexpected end of block (in chat:1)
    a merge of nothing: cannot build the tokenizer: a merge without a space
    unknown merge: cannot build the tokenizer: Token `zz` out of vocabulary
    few token types: the numbers of tokens and token types differ
    no end: no end-of-turn token
    missing tensor: tensor `blk.1.ffn_up.weight` is missing
    missing embedding: tensor `token_embd.weight` is missing
    turned shape: tensor `blk.0.ffn_up.weight` has shape 24 x 40, expected 40 x 24
    small embedding: fewer embeddings than tokens
    no rows: fewer embeddings than tokens
    huge: tensor `token_embd.weight` extends past the end of the file
    overflow: tensor `token_embd.weight` extends past the end of the file
    five dimensions: tensor `token_embd.weight` has 5 dimensions
    unknown type: tensor `token_embd.weight` has ggml type 39
    broken blocks: tensor `token_embd.weight` has rows of 24 values, not a multiple of its block size
    twice: duplicate tensor `token_embd.weight`
    experts: mixture of experts
    scaled: RoPE scaling
    alignment: invalid `general.alignment`
    shared bytes: tensor `blk.1.ffn_up.weight` overlaps another tensor
    ");
}

#[test]
fn non_finite_weights_are_an_error_in_either_precision() {
    let damage = [f32::NAN, f32::INFINITY];
    for (kind, sizes) in [(F32, (24, 40)), (F32, (64, 96)), (Q8_0, (64, 96))] {
        for name in [
            "output_norm.weight",
            "blk.0.attn_norm.weight",
            "blk.1.ffn_down.weight",
            "blk.0.attn_k.weight",
        ] {
            for damage in damage {
                let mut model = tiny::model("qwen2", kind, sizes.0, sizes.1);
                let tensor = model.tensor(name);
                match tensor.kind {
                    F32 => tensor.bytes[..4].copy_from_slice(&damage.to_le_bytes()),
                    _ => tensor.bytes[..2]
                        .copy_from_slice(&half::f16::from_f32(damage).to_le_bytes()),
                }
                let (_, file) = model.encode();
                for precision in [Precision::Packed, Precision::Exact] {
                    let result = answer(&file, &EngineOptions { precision, ..options() });
                    assert!(
                        matches!(result, Err(ModelError::NotFinite)),
                        "{kind} {name} {damage} {precision:?}: {result:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn truncated_files_are_rejected() {
    let (head, file) = tiny::model("llama", F32, 24, 40).encode();
    let steps = (0..head).step_by(7).chain((head..file.len()).step_by(997)).chain([file.len() - 1]);
    for length in steps {
        assert!(!fault(&file[..length]).is_empty(), "{length}");
    }

    let whole = super::smollm2_file();
    let size = fs::metadata(&whole).unwrap().len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::copy(&whole, &path).unwrap();
    for length in [size - 1, size / 2, 2_000_000, 100_000, 64, 5] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        let error = answer_of(&path, &options()).unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }), "{length}: {error:?}");
    }
}

#[test]
fn non_model_files_are_rejected() {
    insta::assert_snapshot!(fault(b""), @"the file ends inside its header or metadata");
    insta::assert_snapshot!(fault(b"PK\x03\x04 some zip archive"), @"missing `GGUF` magic bytes");
    insta::assert_snapshot!(fault(&[0; 4096]), @"missing `GGUF` magic bytes");
    insta::assert_snapshot!(fault(b"GGUF\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01"), @"big-endian byte order");
    insta::assert_snapshot!(fault(b"GGUF\x03\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff"), @"a list of 18446744073709551615 entries exceeds the file size");

    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [folder.path(), &pipe, &folder.path().join("absent.gguf")] {
        let error = answer_of(path, &options()).unwrap_err();
        assert!(matches!(error, ModelError::Io { .. }), "{error:?}");
    }
}

/// Checks that a mutated file gives an error or an answer in bounded time.
fn check_no_hang(file: &[u8]) -> Result<(), TestCaseError> {
    let started = Instant::now();
    let _answer_or_error = answer(file, &options());
    prop_assert!(started.elapsed() < Duration::from_secs(20));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_headers_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let (head, mut file) = tiny::model("llama", F32, 24, 40).encode();
        for (at, byte) in changes {
            file[at.index(head)] = byte;
        }
        check_no_hang(&file)?;
    }

    #[test]
    fn huge_header_values_never_panic(
        at in any::<Index>(),
        n in prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 32), Just(1 << 20), Just(0), any::<u64>()],
    ) {
        let (head, mut file) = tiny::model("qwen2", Q8_0, 64, 96).encode();
        let at = at.index(head - 8);
        file[at..at + 8].copy_from_slice(&n.to_le_bytes());
        check_no_hang(&file)?;
    }

    #[test]
    fn damaged_weights_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..200),
    ) {
        let (head, mut file) = tiny::model("llama", Q8_0, 64, 96).encode();
        for (at, byte) in changes {
            let at = head + at.index(file.len() - head);
            file[at] = byte;
        }
        check_no_hang(&file)?;
    }
}
