//! The schedule of steps and micro-batches. It is a function of the seed alone, so that a resumed
//! run continues with the same examples.

use crate::model::TrainBatch;
use crate::rng::SplitMix64;

use super::example::Example;
use super::options::TrainingOptions;

/// The micro-batches of one optimizer step, as indices of examples.
pub(super) type StepBatch = Vec<Vec<usize>>;

/// Returns the steps of epoch `epoch` over `examples`.
pub(super) fn of_epoch(
    examples: &[Example],
    options: &TrainingOptions,
    epoch: u32,
) -> Vec<StepBatch> {
    let order = shuffled(examples.len(), options.seed ^ (u64::from(epoch) + 1) << 32);
    let mut steps: Vec<StepBatch> = Vec::new();
    // `MAX` opens the first step.
    let (mut n_sequences, mut n_tokens) = (usize::MAX, 0);
    for index in order {
        let length = examples[index].input_ids.len();
        if n_sequences >= options.batch_sequences || n_tokens >= options.batch_tokens {
            steps.push(Vec::new());
            (n_sequences, n_tokens) = (0, 0);
        }
        n_sequences += 1;
        n_tokens += length;
        let Some(step) = steps.last_mut() else { continue };
        let size = |part: &Vec<usize>| -> usize {
            part.iter().map(|index| examples[*index].input_ids.len()).sum()
        };
        // Only the last micro-batch is considered: a better packing would change the order of
        // examples and save little.
        match step.last_mut() {
            Some(part) if size(part) + length <= options.micro_tokens => part.push(index),
            _ => step.push(vec![index]),
        }
    }
    steps
}

/// Packs examples, in their order, into batches of at most `micro_tokens` tokens. A longer example
/// becomes a batch of its own.
pub(super) fn in_order(examples: &[Example], micro_tokens: usize) -> Vec<TrainBatch> {
    let mut batches: Vec<TrainBatch> = Vec::new();
    for example in examples {
        let length = example.input_ids.len();
        if batches.last().is_none_or(|batch| batch.tokens.len() + length > micro_tokens) {
            batches.push(TrainBatch::default());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(&example.input_ids, &example.weights);
        }
    }
    batches
}

/// Builds the batch of a micro-batch's examples.
pub(super) fn batch(examples: &[Example], part: &[usize]) -> TrainBatch {
    let mut batch = TrainBatch::default();
    for index in part {
        batch.push(&examples[*index].input_ids, &examples[*index].weights);
    }
    batch
}

/// Returns `0..n` in random order.
pub(super) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    SplitMix64::new(seed).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::Preset;

    #[test]
    fn each_epoch_takes_every_example_once_within_the_limits() {
        let examples: Vec<Example> = (0..100)
            .map(|i| Example { input_ids: vec![1; 10 + i % 50], weights: vec![1.0; 10 + i % 50] })
            .collect();
        let mut options = TrainingOptions::preset(Preset::Standard);
        (options.batch_sequences, options.batch_tokens, options.micro_tokens) = (8, 200, 90);
        let steps = of_epoch(&examples, &options, 0);
        assert_eq!(steps, of_epoch(&examples, &options, 0));
        assert_ne!(steps, of_epoch(&examples, &options, 1));
        let mut indices: Vec<usize> = steps.iter().flatten().flatten().copied().collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..100).collect::<Vec<_>>());
        for step in &steps {
            assert!(step.iter().map(Vec::len).sum::<usize>() <= 8);
            for part in step {
                assert!(part.len() == 1 || batch(&examples, part).tokens.len() <= 90);
            }
        }
        let batches = in_order(&examples, 90);
        assert_eq!(batches.iter().map(|batch| batch.lengths.len()).sum::<usize>(), 100);
    }
}
