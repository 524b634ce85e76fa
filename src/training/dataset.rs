//! Datasets: tokenized records, split by family into training and validation examples.

use std::collections::BTreeSet;
use std::path::Path;

use crate::digest::sha256;
use crate::model::ChatEncoder;
use crate::synthetic;

use super::TrainingError;
use super::dedupe;
use super::example::Example;
use super::example::ExampleSets;
use super::options::TrainingOptions;
use super::record::TrainingRecord;
use super::scrub;
use super::steps::StepPlan;
use super::steps::StepStatistics;

impl Example {
    /// Returns the sum of all token weights.
    pub fn weight(&self) -> f32 {
        // The first token has no predecessor that could predict it.
        self.weights.iter().skip(1).sum()
    }

    /// Returns the number of tokens that contribute to the loss.
    pub fn n_labeled(&self) -> usize {
        self.weights.iter().skip(1).filter(|weight| **weight > 0.0).count()
    }
}

/// A dataset with statistics of its construction.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// sha256 of examples and training families.
    pub digest: String,
    /// Tokenized examples, split into training and validation.
    pub examples: ExampleSets,
    /// What the steps of the run consist of.
    pub steps: StepStatistics,
    /// The records behind the examples, without rehearsal, in their original order.
    pub records: Vec<TrainingRecord>,
    /// Digests of the families in the training split, sorted.
    pub train_families: Vec<String>,
    /// Number of families in both splits, without rehearsal.
    pub n_families: usize,
    /// Number of dropped near-duplicates.
    pub n_duplicates: usize,
    /// Number of redacted secrets.
    pub n_secrets: usize,
    /// Number of dropped records that were too long or had no tokens to learn.
    pub n_too_long: usize,
}

/// Returns the digest that identifies a family in the registry and in adapters.
pub fn family_digest(family: &str) -> String {
    sha256(family.as_bytes())
}

impl Dataset {
    /// Scrubs and deduplicates `records`, tokenizes them for the model at `model`, and splits them
    /// by family. Unless the options turn rehearsal off, it consists of the base model's `answers`
    /// and of invented questions. Occurrences of the path `home` are redacted. `known` are the
    /// sorted digests of families that were trained on before; these are never held out.
    ///
    /// # Errors
    /// [`TrainingError::NoData`] when no training example is left; [`TrainingError::Model`] when
    /// the model's file cannot be read.
    pub fn build(
        (mut records, answers): (Vec<TrainingRecord>, &[TrainingRecord]),
        model: &Path,
        home: &str,
        known: &[String],
        options: &TrainingOptions,
    ) -> Result<Self, TrainingError> {
        if records.is_empty() {
            return Err(TrainingError::NoData("the sources contain no records".to_owned()));
        }
        let n_secrets = records.iter_mut().map(|record| scrub::scrub(record, home)).sum();
        for message in records.iter_mut().flat_map(|record| &mut record.messages) {
            // Some chat templates trim trailing whitespace from prompts. Training on untrimmed
            // messages would teach a prefix that never occurs at inference.
            message.content.truncate(message.content.trim_end().len());
        }
        let n_records = records.len();
        let records = dedupe::distinct(records);
        let n_duplicates = n_records - records.len();
        let encoder = ChatEncoder::load(model)?;
        // Before the length check: the split must not depend on the tokenizer or `max_length`.
        let shown = records.iter().flat_map(TrainingRecord::shown_families).map(family_digest);
        let known_or_shown: BTreeSet<String> = shown.chain(known.iter().cloned()).collect();
        let held_out = held_out(&records, &known_or_shown, options.validation_share);
        let mut examples = ExampleSets::default();
        let (mut encoded, mut n_too_long) = (Vec::new(), 0);
        for record in records {
            let Some(example) = fitting(&encoder, &record, options.max_length)? else {
                n_too_long += 1;
                continue;
            };
            let is_held_out = held_out.contains(&record.family);
            let part = if is_held_out { &mut examples.validation } else { &mut examples.train };
            part.push(example);
            encoded.push(record);
        }
        if examples.train.is_empty() {
            let reason =
                format!("all {n_too_long} records are longer than {} tokens", options.max_length);
            return Err(TrainingError::NoData(reason));
        }
        let families: BTreeSet<&str> =
            encoded.iter().map(|record| record.family.as_str()).collect();
        let trained = encoded.iter().filter(|record| !held_out.contains(&record.family));
        let trained: BTreeSet<&str> = trained
            .flat_map(|record| record.shown_families().chain([record.family.as_str()]))
            .collect();
        let mut train_families: Vec<String> = trained.into_iter().map(family_digest).collect();
        let n_families = families.len();
        if options.rehearsal_share > 0.0 {
            // Rehearsal families are training families too: evaluating on them would be
            // contaminated.
            train_families.extend(rehearse(&encoder, (answers, known), &mut examples, options)?);
        }
        train_families.sort();
        train_families.dedup();
        let digest = sha256(&serde_json::to_vec(&(&examples, &train_families)).unwrap_or_default());
        let steps = StepPlan::new(&examples, options).statistics(&examples);
        Ok(Self {
            digest,
            examples,
            steps,
            records: encoded,
            train_families,
            n_families,
            n_duplicates,
            n_secrets,
            n_too_long,
        })
    }

    /// Returns a summary in one line: sizes of the splits, share of rehearsal, dropped records.
    pub fn summary(&self) -> String {
        let (tokens, labeled) = self.n_tokens();
        let ExampleSets { train, validation, rehearsal, .. } = &self.examples;
        format!(
            "training on {} records ({tokens} tokens, {labeled} of them in answers); {} records of other families \
             held out, of {} families in all; {} rehearsal examples, with {:.0}% of a step's loss weight on average and \
             {:.0}% at least; {} steps of {:.0} tokens; dropped {} duplicates and {} over-long records; redacted {} \
             secrets",
            train.len(),
            validation.len(),
            self.n_families,
            rehearsal.len(),
            100.0 * self.steps.mean_share,
            100.0 * self.steps.min_share,
            self.steps.n_steps,
            self.steps.tokens_per_step(),
            self.n_duplicates,
            self.n_too_long,
            self.n_secrets,
        )
    }

    /// Returns the number of tokens of the records to train on, and how many of them contribute to
    /// the loss.
    pub fn n_tokens(&self) -> (usize, usize) {
        let train = &self.examples.train;
        (
            train.iter().map(|example| example.input_ids.len()).sum(),
            train.iter().map(Example::n_labeled).sum(),
        )
    }
}

/// Selects the families to hold out: the share `share` of those whose digest is not in `known`, at
/// least one if there are several, and never all.
fn held_out(records: &[TrainingRecord], known: &BTreeSet<String>, share: f32) -> BTreeSet<String> {
    // In the order of digests, which is as good as random but needs no seed. A family keeps its
    // place in this order when records are added, so splits of growing datasets stay similar.
    let families: BTreeSet<(String, &str)> = records
        .iter()
        .map(|record| (family_digest(&record.family), record.family.as_str()))
        .collect();
    let new: Vec<_> = families.iter().filter(|(digest, _)| !known.contains(digest)).collect();
    if share <= 0.0 || families.len() < 2 || new.is_empty() {
        return BTreeSet::new();
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let n = ((new.len() as f32 * share).round() as usize).clamp(1, (new.len() - 1).max(1));
    new.into_iter().take(n).map(|(_, family)| (*family).to_owned()).collect()
}

/// Adds rehearsal to `examples`: the base model's `answers`, questions about the standard library,
/// and as many questions with a document in front as there are of the other two. Returns the
/// digests of the families to train on.
///
/// Only families of `answers` are held out, and only where records are: what the base does by
/// itself is what training can lose. The other questions teach something new, so their loss falls
/// and would hide a rise.
fn rehearse(
    encoder: &ChatEncoder,
    (answers, known): (&[TrainingRecord], &[String]),
    examples: &mut ExampleSets,
    options: &TrainingOptions,
) -> Result<Vec<String>, TrainingError> {
    let share = if examples.validation.is_empty() { 0.0 } else { options.validation_share };
    // The same families in every run of a chain, of which none was trained on.
    let mut held_out = held_out(answers, &BTreeSet::new(), share);
    held_out.retain(|family| known.binary_search(&family_digest(family)).is_err());
    let standard = synthetic::standard_questions();
    let documents = synthetic::document_questions(answers.len() + standard.len());
    let invented = standard.into_iter().chain(documents).map(TrainingRecord::from);
    let mut families = Vec::new();
    // Longer than a micro-batch, an example would raise the memory of the run.
    let max_length = options.max_length.min(options.micro_tokens);
    for record in answers.iter().cloned().chain(invented) {
        let Some(example) = fitting(encoder, &record, max_length)? else { continue };
        if held_out.contains(&record.family) {
            examples.rehearsal_validation.push(example);
        } else {
            families.push(family_digest(&record.family));
            examples.rehearsal.push(example);
        }
    }
    Ok(families)
}

/// Tokenizes a record; `None` if it is too long or has no tokens to learn.
fn fitting(
    encoder: &ChatEncoder,
    record: &TrainingRecord,
    max_length: usize,
) -> Result<Option<Example>, TrainingError> {
    let example = encode(encoder, record)?;
    let fits = example.input_ids.len() <= max_length && example.n_labeled() > 0;
    Ok(fits.then_some(example))
}

/// Tokenizes a record. Tokens outside answers have weight 0.
fn encode(encoder: &ChatEncoder, record: &TrainingRecord) -> Result<Example, TrainingError> {
    let chat = encoder.encode(&record.messages)?;
    let parts = record.weighted();
    // For each token, the encoder gives its answer and its first byte in it. A token that spans
    // two parts gets the weight of the first one.
    let weight = |answer: &Option<(usize, usize)>| {
        let Some((answer, byte)) = answer else { return 0.0 };
        let parts = parts.get(*answer).into_iter().flatten();
        let part = parts.clone().find(|part| (part.start..part.end).contains(byte));
        part.map_or(1.0, |part| part.weight)
    };
    let weights = chat.answers.iter().map(weight).collect();
    Ok(Example { input_ids: chat.input_ids, weights })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_families_are_not_held_out() {
        let record = |n: u32| TrainingRecord::new(format!("family {n}"), Vec::new());
        let records: Vec<TrainingRecord> = (0..20).map(record).collect();
        let first = held_out(&records, &BTreeSet::new(), 0.2);
        assert_eq!(first.len(), 4);
        let known: BTreeSet<String> = first.iter().map(|family| family_digest(family)).collect();
        let second = held_out(&records, &known, 0.2);
        assert!(!second.is_empty() && second.is_disjoint(&first), "{second:?}");
        let all: BTreeSet<String> = records.iter().map(|one| family_digest(&one.family)).collect();
        assert!(held_out(&records, &all, 0.2).is_empty());
    }
}
