//! The schedule of steps and micro-batches. It is a function of the seed alone, so that a resumed
//! run continues with the same examples.
//!
//! A step takes its records first. Rehearsal comes on top, until it has its share of the step's
//! loss weight:
//!
//! ```text
//!   records, shuffled every epoch      r r r r r r r r | r r r r r r r r | ...
//!   rehearsal, one shuffled cycle      h h h           | h               | ...
//! ```

use crate::model::TrainBatch;
use crate::rng::SplitMix64;

use super::example::Example;
use super::example::ExampleSets;
use super::options::TrainingOptions;

/// Target shares stay below this, or one step would have to make up for too many others.
const MAX_SHARE: f64 = 0.95;

/// The micro-batches of one optimizer step, as indices of examples: first those of the records,
/// then, counted on, those of rehearsal.
pub(super) type StepBatch = Vec<Vec<usize>>;

/// The steps of a run, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StepPlan {
    pub(super) steps: Vec<StepBatch>,
    /// Number of steps in the first epoch. The others have about as many.
    pub(super) per_epoch: usize,
}

/// What the steps of a plan consist of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepStatistics {
    /// Number of steps of the plan.
    pub n_steps: usize,
    /// Number of tokens in all steps.
    pub n_tokens: usize,
    /// Mean share of rehearsal in the loss weight of a step, `0.0..=1.0`.
    pub mean_share: f64,
    /// Minimum share of rehearsal in the loss weight of a step, `0.0..=1.0`.
    pub min_share: f64,
}

impl StepStatistics {
    /// Returns the mean number of tokens in a step.
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    pub fn tokens_per_step(&self) -> f64 {
        self.n_tokens as f64 / self.n_steps.max(1) as f64
    }
}

impl StepPlan {
    /// Plans all epochs, up to the maximum number of steps.
    pub(super) fn new(examples: &ExampleSets, options: &TrainingOptions) -> Self {
        let mut draw = RehearsalDraw::new(examples, options);
        let mut plan = Self { steps: Vec::new(), per_epoch: 0 };
        for epoch in 0..options.epochs {
            let records = of_epoch(examples, options, epoch);
            if epoch == 0 {
                plan.per_epoch = records.len();
            }
            plan.steps.extend(records.into_iter().map(|step| draw.complete(step)));
        }
        if options.max_steps > 0 {
            plan.steps.truncate(options.max_steps as usize);
        }
        plan
    }

    /// Measures shares and tokens of all steps.
    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn statistics(&self, examples: &ExampleSets) -> StepStatistics {
        let n_steps = self.steps.len();
        let indices = self.steps.iter().flatten().flatten();
        let n_tokens = indices.map(|index| length(examples, *index)).sum();
        let shares = self.steps.iter().map(|step| rehearsal_share(examples, step));
        let mean_share = shares.clone().sum::<f64>() / n_steps.max(1) as f64;
        let min_share = shares.fold(1.0, f64::min);
        StepStatistics { n_steps, n_tokens, mean_share, min_share }
    }
}

/// Draws rehearsal examples, one cycle after another in the same shuffled order.
struct RehearsalDraw<'a> {
    examples: &'a ExampleSets,
    options: &'a TrainingOptions,
    /// Indices of rehearsal examples.
    order: Vec<usize>,
    /// Number of examples drawn so far.
    n_drawn: usize,
    /// Sum of what earlier steps lack to the target share; negative if they have too much.
    missing: f64,
}

impl<'a> RehearsalDraw<'a> {
    fn new(examples: &'a ExampleSets, options: &'a TrainingOptions) -> Self {
        let n = if options.rehearsal_share > 0.0 { examples.rehearsal.len() } else { 0 };
        Self { examples, options, order: shuffled(n, options.seed), n_drawn: 0, missing: 0.0 }
    }

    /// Adds rehearsal to a step of records: at least one example, then more as long as they bring
    /// the mean share of all steps so far closer to the target.
    ///
    /// The loss is a mean over the step, so what counts is the share within each step, and not the
    /// total weight.
    fn complete(&mut self, mut step: StepBatch) -> StepBatch {
        if self.order.is_empty() {
            return step;
        }
        let wanted = f64::from(self.options.rehearsal_share);
        let target = (wanted + self.missing).min(MAX_SHARE);
        let of_records: f64 =
            step.iter().flatten().map(|index| weight(self.examples, *index)).sum();
        let (mut of_rehearsal, mut reached) = (0.0, None);
        loop {
            let index = self.examples.train.len() + self.order[self.n_drawn % self.order.len()];
            let after = of_rehearsal + weight(self.examples, index);
            let share = after / (after + of_records).max(f64::MIN_POSITIVE);
            // Not `<`: a share that no example changes has to end the loop.
            if reached
                .is_some_and(|reached: f64| (target - reached).abs() <= (target - share).abs())
            {
                break;
            }
            push(self.examples, &mut step, index, self.options.micro_tokens);
            self.n_drawn += 1;
            (of_rehearsal, reached) = (after, Some(share));
        }
        self.missing += wanted - reached.unwrap_or_default();
        step
    }
}

/// Returns the steps of epoch `epoch` over the records.
fn of_epoch(examples: &ExampleSets, options: &TrainingOptions, epoch: u32) -> Vec<StepBatch> {
    let order = shuffled(examples.train.len(), options.seed ^ (u64::from(epoch) + 1) << 32);
    let mut steps: Vec<StepBatch> = Vec::new();
    // `MAX` opens the first step.
    let (mut n_sequences, mut n_tokens) = (usize::MAX, 0);
    for index in order {
        if n_sequences >= options.batch_sequences || n_tokens >= options.batch_tokens {
            steps.push(Vec::new());
            (n_sequences, n_tokens) = (0, 0);
        }
        n_sequences += 1;
        n_tokens += length(examples, index);
        if let Some(step) = steps.last_mut() {
            push(examples, step, index, options.micro_tokens);
        }
    }
    steps
}

/// Adds an example to the last micro-batch of a step, or to a new one if it does not fit.
fn push(examples: &ExampleSets, step: &mut StepBatch, index: usize, micro_tokens: usize) {
    // Only the last micro-batch is considered: a better packing would change the order of examples
    // and save little.
    let size = |part: &[usize]| part.iter().map(|index| length(examples, *index)).sum::<usize>();
    match step.last_mut() {
        Some(part) if size(part) + length(examples, index) <= micro_tokens => part.push(index),
        _ => step.push(vec![index]),
    }
}

fn length(examples: &ExampleSets, index: usize) -> usize {
    examples.trained(index).input_ids.len()
}

fn weight(examples: &ExampleSets, index: usize) -> f64 {
    f64::from(examples.trained(index).weight())
}

/// Returns the share of rehearsal in the loss weight of a step.
fn rehearsal_share(examples: &ExampleSets, step: &StepBatch) -> f64 {
    let is_rehearsal = |index: &&usize| **index >= examples.train.len();
    let indices = step.iter().flatten();
    let all: f64 = indices.clone().map(|index| weight(examples, *index)).sum();
    let own: f64 = indices.filter(is_rehearsal).map(|index| weight(examples, *index)).sum();
    // The sum of no numbers is -0.
    own.abs() / all.max(f64::MIN_POSITIVE)
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
pub(super) fn batch(examples: &ExampleSets, part: &[usize]) -> TrainBatch {
    let mut batch = TrainBatch::default();
    for example in part.iter().map(|index| examples.trained(*index)) {
        batch.push(&example.input_ids, &example.weights);
    }
    batch
}

/// Returns `0..n` in random order.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    SplitMix64::new(seed).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::Preset;

    /// Examples of 10 to 59 tokens, of which `n_labeled(i)` are labeled.
    fn examples(n: usize, n_labeled: impl Fn(usize) -> usize) -> Vec<Example> {
        let example = |i: usize| {
            let n_tokens = 10 + i % 50;
            let is_labeled = |at: usize| at >= n_tokens.saturating_sub(n_labeled(i));
            let weights = (0..n_tokens).map(|at| f32::from(u8::from(is_labeled(at)))).collect();
            Example { input_ids: vec![1; n_tokens], weights }
        };
        (0..n).map(example).collect()
    }

    fn options() -> TrainingOptions {
        let mut options = TrainingOptions::preset(Preset::Standard);
        (options.batch_sequences, options.batch_tokens, options.micro_tokens) = (8, 200, 90);
        options.epochs = 3;
        options
    }

    #[test]
    fn each_epoch_takes_every_record_once_within_the_limits() {
        let sets = ExampleSets { train: examples(100, |_| 99), ..ExampleSets::default() };
        let options = options();
        let steps = of_epoch(&sets, &options, 0);
        assert_eq!(steps, of_epoch(&sets, &options, 0));
        assert_ne!(steps, of_epoch(&sets, &options, 1));
        let mut indices: Vec<usize> = steps.iter().flatten().flatten().copied().collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..100).collect::<Vec<_>>());
        for step in &steps {
            assert!(step.iter().map(Vec::len).sum::<usize>() <= 8);
            for part in step {
                assert!(part.len() == 1 || batch(&sets, part).tokens.len() <= 90);
            }
        }
        let batches = in_order(&sets.train, 90);
        assert_eq!(batches.iter().map(|batch| batch.lengths.len()).sum::<usize>(), 100);
    }

    /// Records with short answers; rehearsal with short answers and some long ones.
    fn rehearsed() -> ExampleSets {
        let rehearsal = examples(70, |i| if i % 9 == 8 { 50 } else { 4 });
        ExampleSets { train: examples(100, |_| 5), rehearsal, ..ExampleSets::default() }
    }

    #[test]
    fn every_step_holds_rehearsal_up_to_its_share() {
        let sets = rehearsed();
        for share in [0.2, 0.5, 0.7] {
            let options = TrainingOptions { rehearsal_share: share, ..options() };
            let plan = StepPlan::new(&sets, &options);
            let statistics = plan.statistics(&sets);
            assert!(statistics.min_share > 0.0, "{statistics:?}");
            // The difference is what the last steps could not make up for yet.
            for (n, tolerance) in [(plan.per_epoch, 0.04), (plan.steps.len(), 0.02)] {
                let of_part = StepPlan { steps: plan.steps[..n].to_vec(), ..plan };
                let mean = of_part.statistics(&sets).mean_share;
                assert!((mean - f64::from(share)).abs() < tolerance, "{share}, {n}: {mean}");
            }
        }
    }

    #[test]
    fn rehearsal_changes_neither_the_order_of_records_nor_their_number() {
        let sets = rehearsed();
        let without = StepPlan::new(&sets, &TrainingOptions { rehearsal_share: 0.0, ..options() });
        let with = StepPlan::new(&sets, &options());
        let records = |plan: &StepPlan| -> Vec<Vec<usize>> {
            let of_step = |step: &StepBatch| {
                step.iter().flatten().copied().filter(|index| *index < sets.train.len()).collect()
            };
            plan.steps.iter().map(of_step).collect()
        };
        assert_eq!(records(&with), records(&without));
        let share = without.statistics(&sets).mean_share;
        assert!(share == 0.0 && share.is_sign_positive());
        assert!(with.steps.iter().flatten().flatten().any(|index| *index >= sets.train.len()));
    }

    #[test]
    fn rehearsal_is_drawn_in_cycles() {
        let sets = rehearsed();
        let plan = StepPlan::new(&sets, &options());
        let drawn: Vec<usize> = plan.steps.iter().flatten().flatten().copied().collect();
        let drawn: Vec<usize> = drawn.into_iter().filter(|index| *index >= 100).collect();
        let mut cycle = drawn[..70].to_vec();
        assert!(drawn.iter().enumerate().all(|(at, index)| *index == cycle[at % 70]));
        cycle.sort_unstable();
        assert_eq!(cycle, (100..170).collect::<Vec<_>>());
    }

    #[test]
    fn plan_is_a_function_of_the_seed() {
        let sets = rehearsed();
        let plan = |seed| StepPlan::new(&sets, &TrainingOptions { seed, ..options() });
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        // A shorter run takes the first steps of the longer one.
        let short = TrainingOptions { seed: 1, max_steps: 7, ..options() };
        assert_eq!(StepPlan::new(&sets, &short).steps, plan(1).steps[..7]);
    }
}
