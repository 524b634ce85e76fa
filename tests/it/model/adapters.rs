//! PEFT adapters: they act like merged weights, next to other adapters, and leave the base
//! unchanged.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rune::model::Engine;
use rune::model::EngineOptions;
use rune::model::GenerationRequest;
use rune::model::LoraAdapter;
use rune::model::ModelError;
use rune::model::Precision;
use rune::peft::PeftError;
use rune::trajectory::Completion;
use rune::trajectory::Sampling;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use serde_json::json;

use super::end;
use super::short;
use super::smollm2;
use super::tiny;
use super::tiny::F32;
use super::transcript;

/// Hidden size of the tiny model.
pub(crate) const HIDDEN: usize = 24;
pub(crate) const FFN: usize = 40;
const HEAD_DIM: usize = HIDDEN / 2;
pub(crate) const RANK: usize = 3;

/// A module of the model: its name in PEFT, its tensor in GGUF, and its `(rows, columns)`.
pub(crate) const MODULES: [(&str, &str, (usize, usize)); 7] = [
    ("self_attn.q_proj", "attn_q", (HIDDEN, HIDDEN)),
    ("self_attn.k_proj", "attn_k", (HIDDEN / 2, HIDDEN)),
    ("self_attn.v_proj", "attn_v", (HIDDEN / 2, HIDDEN)),
    ("self_attn.o_proj", "attn_output", (HIDDEN, HIDDEN)),
    ("mlp.gate_proj", "ffn_gate", (FFN, HIDDEN)),
    ("mlp.up_proj", "ffn_up", (FFN, HIDDEN)),
    ("mlp.down_proj", "ffn_down", (HIDDEN, FFN)),
];

/// The rank and the scaling of a module.
type RankAndScaling<'a> = &'a dyn Fn(&str) -> (usize, f32);

/// Tensors of an adapter to write: name, `[rows, columns]`, values.
pub(crate) type Tensors = Vec<(String, [usize; 2], Vec<f32>)>;

fn numbers(seed: usize, n: usize) -> Vec<f32> {
    let residue = |i: usize| u16::try_from((i * 7919 + seed * 104_729) % 2003).unwrap();
    let number = |i: usize| f32::from(residue(i)) / 2003.0 - 0.5;
    (1..=n).map(number).collect()
}

fn name(module: &str, half: &str) -> String {
    format!("base_model.model.{module}.lora_{half}.weight")
}

/// Both factors of a module's LoRA branch.
pub(crate) fn halves(
    module: &str,
    (rows, columns): (usize, usize),
    rank: usize,
    seed: usize,
) -> Tensors {
    vec![
        (name(module, "A"), [rank, columns], numbers(seed, rank * columns)),
        (name(module, "B"), [rows, rank], numbers(seed + 1, rows * rank)),
    ]
}

pub(crate) fn save(folder: &Path, config: &Value, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., numbers)| numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let views: HashMap<String, TensorView<'_>> = views.collect();
    let file = safetensors::serialize(&views, None).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), file).unwrap();
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

pub(crate) fn config(others: &Value) -> Value {
    let mut config = json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 6, "bias": "none", "use_dora": false,
    });
    config.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
    config
}

/// The row of the GGUF file that holds row `row` of PEFT's matrix: llama files interleave the
/// halves of each head.
fn file_row(arch: &str, tensor: &str, row: usize) -> usize {
    if arch != "llama" || !matches!(tensor, "attn_q" | "attn_k") {
        return row;
    }
    let (head, at) = (row / HEAD_DIM, row % HEAD_DIM);
    head * HEAD_DIM + at % (HEAD_DIM / 2) * 2 + at / (HEAD_DIM / 2)
}

/// Merges `scaling * B A` into a weight tensor of the model.
fn merge(
    model: &mut tiny::Gguf,
    arch: &str,
    tensor: &str,
    prefix: &str,
    sides: &Tensors,
    scaling: f32,
) {
    let [(_, [rank, columns], a), (_, [rows, _], b)] = sides.as_slice() else { panic!("halves") };
    let mut delta = vec![0.0; rows * columns];
    for row in 0..*rows {
        for column in 0..*columns {
            let sum: f32 = (0..*rank).map(|i| b[row * rank + i] * a[i * columns + column]).sum();
            delta[file_row(arch, tensor, row) * columns + column] = scaling * sum;
        }
    }
    model.add(&format!("{prefix}{tensor}.weight"), &delta);
}

fn start(model: &tiny::Gguf) -> Engine {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, model.encode().1).unwrap();
    let options = EngineOptions {
        n_threads: 2,
        max_sequences: 4,
        precision: Precision::Exact,
        ..EngineOptions::default()
    };
    Engine::start(&path, &options).unwrap()
}

fn answer(engine: &Engine, adapter: Option<&Arc<LoraAdapter>>) -> Completion {
    let sampling = Sampling { max_tokens: 12, ..Sampling::default() };
    let prompt = engine.tokenizer().encode("ab and so on").unwrap();
    let adapter = adapter.cloned();
    let generation = GenerationRequest {
        adapter,
        logprobs: true,
        ignore_end: true,
        ..GenerationRequest::new(prompt, sampling)
    };
    end(engine.submit(generation).unwrap()).unwrap()
}

fn check_alike(with: &Completion, merged: &Completion, what: &str) {
    assert_eq!(with.text, merged.text, "{what}");
    let pairs = with.logprobs.iter().flatten().zip(merged.logprobs.iter().flatten());
    for (ours, theirs) in pairs {
        assert!((ours - theirs).abs() < 2e-3, "{what}: {ours} {theirs}");
    }
}

#[test]
fn adapter_output_equals_merged_weights() {
    let root = 3.0_f32.sqrt();
    let cases: [(&str, Value, RankAndScaling<'_>); 4] = [
        ("plain", json!({}), &|_| (3, 2.0)),
        ("rank-stabilized", json!({ "use_rslora": true }), &|_| (3, 6.0 / root)),
        (
            "ranks by pattern",
            json!({ "rank_pattern": { "q_proj": 5, "layers.1.mlp.up_proj": 1 } }),
            &|module| match module {
                "model.layers.1.mlp.up_proj" => (1, 6.0),
                module if module.ends_with("q_proj") => (5, 6.0 / 5.0),
                _ => (3, 2.0),
            },
        ),
        (
            "alphas by pattern",
            json!({ "alpha_pattern": { "^model.layers.0.self_attn.k_proj": 12, "down_proj": 3 } }),
            &|module| match module {
                "model.layers.0.self_attn.k_proj" => (3, 4.0),
                module if module.ends_with("down_proj") => (3, 1.0),
                _ => (3, 2.0),
            },
        ),
    ];
    for arch in ["llama", "qwen2"] {
        let base = tiny::model(arch, F32, HIDDEN, FFN);
        let engine = start(&base);
        let plain = answer(&engine, None);
        for (what, others, of) in &cases {
            let (mut tensors, mut merged) = (Vec::new(), base.clone());
            for layer in 0..2 {
                for (at, (module, tensor, size)) in MODULES.into_iter().enumerate() {
                    let module = format!("model.layers.{layer}.{module}");
                    let (rank, scaling) = of(&module);
                    let sides = halves(&module, size, rank, layer * 100 + at * 10);
                    merge(&mut merged, arch, tensor, &format!("blk.{layer}."), &sides, scaling);
                    tensors.extend(sides);
                }
            }
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), &config(others), &tensors);
            let adapter = engine.load_adapter(folder.path()).unwrap();
            let with = answer(&engine, Some(&adapter));
            check_alike(&with, &answer(&start(&merged), None), &format!("{arch}, {what}"));
            assert_ne!(
                transcript(&with),
                transcript(&plain),
                "{arch}, {what}: the adapter has an effect"
            );
        }
        assert_eq!(transcript(&answer(&engine, None)), transcript(&plain), "the base is unchanged");
    }
}

#[test]
fn single_layers_and_the_head_can_be_adapted() {
    let mut base = tiny::model("qwen2", F32, HIDDEN, FFN);
    let mut head = base.tensor("token_embd.weight").clone();
    "output.weight".clone_into(&mut head.name);
    base.tensors.push(head);
    let n_tokens = usize::try_from(base.tensor("output.weight").dims[1]).unwrap();
    let mut merged = base.clone();
    let up = halves("model.layers.1.mlp.up_proj", (FFN, HIDDEN), RANK, 5);
    merge(&mut merged, "qwen2", "ffn_up", "blk.1.", &up, 2.0);
    let output = halves("lm_head", (n_tokens, HIDDEN), RANK, 9);
    merge(&mut merged, "qwen2", "output", "", &output, 2.0);
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &config(&json!({})), &[up, output].concat());
    let engine = start(&base);
    let adapter = engine.load_adapter(folder.path()).unwrap();
    check_alike(&answer(&engine, Some(&adapter)), &answer(&start(&merged), None), "subset");
}

/// Whether an adapter was read and rejected.
fn is_refused(error: &ModelError) -> bool {
    matches!(error, ModelError::Adapter { .. } | ModelError::Peft(PeftError::Unusable { .. }))
}

#[test]
fn unsupported_peft_features_are_rejected() {
    let engine = start(&tiny::model("llama", F32, HIDDEN, FFN));
    let module = "model.layers.0.self_attn.q_proj";
    let good = || halves(module, (HIDDEN, HIDDEN), RANK, 1);
    let refusal = |config: &Value, tensors: &Tensors| -> String {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), config, tensors);
        let error = engine.load_adapter(folder.path()).unwrap_err();
        assert!(is_refused(&error), "{error:?}");
        error.to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    let plain = config(&json!({}));
    let mut not_a_number = good();
    not_a_number[1].2[4] = f32::NAN;
    let mut elsewhere = good();
    elsewhere.extend(halves("model.layers.7.mlp.up_proj", (FFN, HIDDEN), RANK, 1));
    let wrong_size = halves(module, (HIDDEN + 1, HIDDEN), RANK, 1);
    let lines = [
        refusal(&config(&json!({ "use_dora": true })), &good()),
        refusal(&config(&json!({ "modules_to_save": ["embed_tokens"] })), &good()),
        refusal(&config(&json!({ "peft_type": "LOHA" })), &good()),
        refusal(&config(&json!({ "rank_pattern": { "(": 3 } })), &good()),
        refusal(&config(&json!({ "r": 4 })), &good()),
        refusal(&plain, &wrong_size),
        refusal(&plain, &not_a_number),
        refusal(&plain, &good()[..1].to_vec()),
        refusal(&plain, &elsewhere),
        refusal(&plain, &Vec::new()),
        refusal(&json!({ "peft_type": "LORA" }), &good()),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    the adapter `FOLDER` cannot be used: unsupported option `use_dora`
    the adapter `FOLDER` cannot be used: unsupported option `modules_to_save`
    the adapter `FOLDER` cannot be used: the adapter type is `LOHA`, expected LORA
    the adapter `FOLDER` cannot be used: `(` is not a valid pattern for module names
    the adapter `FOLDER` cannot be used: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` has shape [3, 24], expected [4, 24]
    the adapter `FOLDER` cannot be used: `base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight` has shape [25, 3], expected [24, 3]
    the adapter `FOLDER` cannot be used: `base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight` contains values that are not finite
    the adapter `FOLDER` cannot be used: `base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight` is missing
    the adapter `FOLDER` cannot be used: the model has no module for the tensor `base_model.model.model.layers.7.mlp.up_proj.lora_A.weight`
    the adapter `FOLDER` cannot be used: the file has no tensors
    the adapter `FOLDER` cannot be used: adapter_config.json: missing field `r` at line 1 column 20
    "#);
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &plain, &good());
    fs::write(folder.path().join("adapter_model.safetensors"), b"no tensors").unwrap();
    assert!(is_refused(&engine.load_adapter(folder.path()).unwrap_err()));
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    let missing = engine.load_adapter(folder.path());
    assert!(matches!(missing, Err(ModelError::Peft(PeftError::Read { .. }))), "{missing:?}");
}

#[test]
fn concurrent_adapters_answer_as_each_does_alone() {
    let ask = |engine: &Engine, adapter: Option<&Arc<LoraAdapter>>| {
        let prompt = engine.tokenizer().encode("The capital of France is").unwrap();
        let adapter = adapter.cloned();
        let generation = GenerationRequest {
            adapter,
            logprobs: true,
            ..GenerationRequest::new(prompt, short())
        };
        engine.submit(generation).unwrap()
    };
    let alone = smollm2(1, 1);
    let adapters: Vec<_> = (1..4).map(|seed| alone.random_adapter(16, seed)).collect();
    let of = |i: usize| adapters.get(i);
    // The fourth is the base alone. Equal seeds give equal adapters in every engine.
    let expected: Vec<_> = (0..4).map(|i| transcript(&end(ask(&alone, of(i))).unwrap())).collect();
    let n_different =
        expected.iter().map(|transcript| &transcript.1).collect::<std::collections::HashSet<_>>();
    assert_eq!(n_different.len(), 4, "{expected:?}");
    drop(alone);

    let shared = smollm2(2, 8);
    for round in 0..2 {
        let receivers: Vec<_> = (0..8).map(|i| ask(&shared, of(i % 4))).collect();
        for (i, receiver) in receivers.into_iter().enumerate() {
            assert_eq!(transcript(&end(receiver).unwrap()), expected[i % 4], "{i}, round {round}");
        }
    }
    drop(adapters);
    assert_eq!(
        transcript(&end(ask(&shared, None)).unwrap()),
        expected[3],
        "the base, to the last bit"
    );
}
