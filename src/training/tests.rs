//! Comparison of training steps with PyTorch and PEFT.

use std::path::Path;

use safetensors::SafeTensors;

use super::adamw::AdamW;
use super::adamw::AdamWOptions;
use super::adapter;
use super::options::Preset;
use super::options::TrainingOptions;
use crate::model::Engine;
use crate::model::EngineOptions;
use crate::model::EngineUpdate;
use crate::model::GenerationRequest;
use crate::model::Isa;
use crate::model::LoraModel;
use crate::model::Precision;
use crate::model::TrainBatch;
use crate::model::TunedModules;
use crate::model::TunerOptions;
use crate::model::smollm2_file;
use crate::rng::mixed;
use crate::trajectory::Message;
use crate::trajectory::Sampling;

fn options(precision: Precision, checkpointing: bool) -> TunerOptions {
    TunerOptions {
        n_threads: 2,
        precision,
        isa: Isa::detect(),
        rank: 8,
        scaling: 2.0,
        dropout: 0.0,
        neftune_alpha: 0.0,
        targets: TunedModules::all(),
        checkpointing,
        seed: 1,
    }
}

/// Reference gradients of PEFT and losses of torch's `AdamW`; `make_gradients.py` in the same
/// folder generates them.
const REFERENCE: &[u8] = include_bytes!("../../tests/fixtures/training/gradients.safetensors");

/// Initial values of the `place`th factor A by name, as in `make_gradients.py`.
fn start_of(place: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "24 bits")]
    let number = |i: usize| {
        let drawn = mixed((place as u64) << 32 | i as u64) >> 40;
        ((drawn as f64 / f64::from(1 << 23) - 1.0) / (columns as f64).sqrt()) as f32
    };
    (0..rows * columns).map(number).collect()
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let data = file.tensor(name).ok()?;
    Some(data.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Lays out a tensor as in the trainable parameters.
fn as_placed(numbers: &[f32], [rows, columns]: [usize; 2], is_transposed: bool) -> Vec<f32> {
    if !is_transposed {
        return numbers.to_vec();
    }
    (0..rows * columns).map(|i| numbers[i % rows * columns + i / rows]).collect()
}

fn reference_batch(file: &SafeTensors<'_>) -> TrainBatch {
    let tensor = file.tensor("batch").unwrap();
    let length = tensor.shape()[1];
    let ids = tensor.data().as_chunks::<8>().0.iter().map(|id| i64::from_le_bytes(*id));
    let ids: Vec<u32> = ids.map(|id| u32::try_from(id).unwrap()).collect();
    let mut batch = TrainBatch::default();
    for tokens in ids.chunks(length) {
        batch.push(tokens, &vec![1.0; length]);
    }
    batch
}

/// Computes the first gradients and 20 losses of `AdamW`, and reads those of the reference.
fn check(precision: Precision) -> (f64, Vec<f64>, Vec<f64>) {
    let train = SafeTensors::deserialize(REFERENCE).unwrap();
    let mut tuner = LoraModel::load(&smollm2_file(), options(precision, false)).unwrap();
    let tensors = tuner.tensors();
    let mut names: Vec<&str> = tensors.iter().map(|place| place.name.as_str()).collect();
    names.retain(|name| name.contains("lora_A"));
    names.sort_unstable();
    for place in tensors.iter().filter(|place| place.name.contains("lora_A")) {
        let number = names.binary_search(&place.name.as_str()).unwrap();
        let placed = as_placed(&start_of(number, place.shape), place.shape, place.is_transposed);
        tuner.parameters_mut().0[place.range.clone()].copy_from_slice(&placed);
    }
    let batch = reference_batch(&train);
    #[expect(clippy::cast_possible_truncation, reason = "a sum of ones")]
    let scale = 1.0 / batch.weight() as f32;
    let mut optimizer = AdamW::new(tuner.parameters().len());
    let adamw = AdamWOptions::default();
    let (mut losses, mut apart, mut n_compared) = (Vec::new(), 0.0_f64, 0);
    for step in 0..20 {
        losses.push(tuner.accumulate(&batch, scale, 0) * f64::from(scale));
        if step == 0 {
            let gradients = tuner.parameters_mut().1.to_vec();
            for place in &tensors {
                let name = format!("grad_step0.{}", place.name);
                let Some(theirs) = numbers(&train, &name) else { continue };
                let theirs = as_placed(&theirs, place.shape, place.is_transposed);
                n_compared += 1;
                let pairs = || gradients[place.range.clone()].iter().zip(&theirs);
                let distance: f64 = pairs().map(|(a, b)| f64::from(a - b).powi(2)).sum();
                let size: f64 = pairs().map(|(_, b)| f64::from(*b).powi(2)).sum();
                if size > 0.0 {
                    apart = apart.max((distance / size).sqrt());
                } else {
                    assert!(distance == 0.0, "{name} has to be zero");
                }
            }
        }
        optimizer.step(&mut tuner, &adamw, 1e-3, 1.0);
    }
    let theirs = train.tensor("losses").unwrap();
    let theirs = theirs.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    assert!(n_compared >= 14, "{n_compared} gradients are in the reference");
    (apart, losses, theirs.collect())
}

fn most_apart(ours: &[f64], theirs: &[f64]) -> f64 {
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn gradients_and_losses_in_f32_match_peft() {
    let (apart, losses, theirs) = check(Precision::Exact);
    eprintln!("gradients {apart:.2e}, losses {:.2e} apart", most_apart(&losses, &theirs));
    assert!(apart < 1e-4, "gradients are {apart} apart");
    assert!(most_apart(&losses, &theirs) < 1e-4, "{losses:?}");
}

#[test]
fn gradients_and_losses_of_the_packed_base_are_close_to_peft() {
    let (apart, losses, theirs) = check(Precision::Packed);
    eprintln!("gradients {apart:.2e}, losses {:.2e} apart", most_apart(&losses, &theirs));
    assert!(apart < 0.25, "gradients are {apart} apart");
    assert!(most_apart(&losses, &theirs) < 0.02, "{losses:?}");
}

/// Returns the log probability of a greedy answer by the engine, and that of the trainable model
/// for same tokens.
fn engine_and_tuner(folder: &Path, tuner: &mut LoraModel) -> (f64, f64) {
    let options =
        EngineOptions { precision: Precision::Exact, n_threads: 2, ..EngineOptions::default() };
    let engine = Engine::start(&smollm2_file(), &options).unwrap();
    let prompt = engine.prompt(&[Message::user("Name a color.")]).unwrap();
    let sampling = Sampling { max_tokens: 8, ..Sampling::default() };
    let generation = GenerationRequest {
        adapter: Some(engine.load_adapter(folder).unwrap()),
        logprobs: true,
        ..GenerationRequest::new(prompt.clone(), sampling)
    };
    let mut updates = engine.submit(generation).unwrap();
    let completion =
        std::iter::from_fn(|| updates.blocking_recv()).find_map(|update| match update {
            EngineUpdate::Done(completion) => Some(completion),
            _ => None,
        });
    let completion = completion.unwrap();
    let answer = engine.tokenizer().encode(&completion.text).unwrap();
    let logprobs = completion.logprobs.unwrap();
    let sum: f64 = logprobs[..answer.len()].iter().map(|logprob| f64::from(*logprob)).sum();
    let tokens = [&prompt[..], &answer].concat();
    let weights: Vec<f32> =
        (0..tokens.len()).map(|i| if i < prompt.len() { 0.0 } else { 1.0 }).collect();
    let mut batch = TrainBatch::default();
    batch.push(&tokens, &weights);
    (sum, -tuner.loss(&batch))
}

#[test]
fn engine_with_saved_adapter_matches_the_trained_model() {
    let mut training = TrainingOptions::preset(Preset::Quick);
    training.rank = 8;
    training.alpha = 16.0;
    let mut tuner = LoraModel::load(&smollm2_file(), options(Precision::Exact, false)).unwrap();
    for (i, value) in (0_u32..).zip(tuner.parameters_mut().0) {
        *value += f32::from(u8::try_from(i * 37 % 101).unwrap()) / 2e4 - 0.0025;
    }
    let folder = tempfile::tempdir().unwrap();
    let places = tuner.tensors();
    adapter::save(folder.path(), tuner.parameters(), &places, &training, "x").unwrap();
    assert_eq!(adapter::values(folder.path(), &places).unwrap(), tuner.parameters());
    let (engine, live) = engine_and_tuner(folder.path(), &mut tuner);
    assert!((engine - live).abs() < 2e-3 * live.abs(), "{engine} {live}");
}
