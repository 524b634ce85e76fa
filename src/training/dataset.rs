//! Records as tokens, split into what is trained on and what is held out.

use std::collections::BTreeSet;
use std::path::Path;

use crate::digest::sha256;
use crate::model::ChatEncoder;

use super::TrainingError;
use super::dedupe;
use super::example::Example;
use super::example::ExampleSets;
use super::options::TrainingOptions;
use super::record::TrainingRecord;
use super::scrub;
use super::steps;

impl Example {
    /// What all tokens count together.
    pub fn weight(&self) -> f32 {
        self.weights.iter().skip(1).sum()
    }

    /// Tokens that are learned.
    pub fn n_labelled(&self) -> usize {
        self.weights.iter().skip(1).filter(|weight| **weight > 0.0).count()
    }
}

/// A dataset, and what became of the records it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// sha256 of all that it holds.
    pub digest: String,
    /// The tokens.
    pub examples: ExampleSets,
    /// The records that it was made from, in their order.
    pub records: Vec<TrainingRecord>,
    /// Digests of the families that are trained on, sorted.
    pub train_families: Vec<String>,
    /// Families in all.
    pub n_families: usize,
    /// Records that said the same again.
    pub n_duplicates: usize,
    /// Secrets that were taken out.
    pub n_secrets: usize,
    /// Records that had too many tokens.
    pub n_too_long: usize,
    /// Records of rehearsal beside these.
    pub n_rehearsal: usize,
}

/// The digest by which a family is known, wherever it is named.
pub fn family_digest(family: &str) -> String {
    sha256(family.as_bytes())
}

impl Dataset {
    /// Cleans `records`, turns them into tokens for the model at `model`, and splits them by
    /// family; as many of `rehearsal` come beside what is trained on as the options want. `home` is
    /// the path of the user's home, which is taken out; `known` are digests of families that were
    /// trained on before, of which none is held out.
    ///
    /// # Errors
    /// [`TrainingError::NoData`] when nothing is left; [`TrainingError::Model`] when the model's
    /// file can't be used.
    pub fn build(
        (mut records, rehearsal): (Vec<TrainingRecord>, &[TrainingRecord]),
        model: &Path,
        home: &str,
        known: &[String],
        options: &TrainingOptions,
    ) -> Result<Self, TrainingError> {
        if records.is_empty() {
            return Err(TrainingError::NoData("there are no records".to_owned()));
        }
        let n_secrets = records.iter_mut().map(|record| scrub::scrub(record, home)).sum();
        for message in records.iter_mut().flat_map(|record| &mut record.messages) {
            // Some templates cut off blanks at the end: what was learned with them would never be
            // asked for.
            message.content.truncate(message.content.trim_end().len());
        }
        let n_records = records.len();
        let records = dedupe::distinct(records);
        let n_duplicates = n_records - records.len();
        let encoder = ChatEncoder::load(model)?;
        let held_out = held_out(&records, known, options.validation_share);
        let mut examples = ExampleSets::default();
        let (mut kept, mut n_too_long) = (Vec::new(), 0);
        for record in records {
            let example = encode(&encoder, &record)?;
            if example.input_ids.len() > options.max_length || example.n_labelled() == 0 {
                n_too_long += 1;
                continue;
            }
            let is_held_out = held_out.contains(&record.family);
            let part = if is_held_out { &mut examples.validation } else { &mut examples.train };
            part.push(example);
            kept.push(record);
        }
        if examples.train.is_empty() {
            let reason =
                format!("all {n_too_long} records have more than {} tokens", options.max_length);
            return Err(TrainingError::NoData(reason));
        }
        let families: BTreeSet<&str> = kept.iter().map(|record| record.family.as_str()).collect();
        let trained = families.iter().filter(|family| !held_out.contains(**family));
        let mut train_families: Vec<String> = trained.map(|family| family_digest(family)).collect();
        let n_families = families.len();
        let chosen = rehearsed(&encoder, rehearsal, &examples, options)?;
        let n_rehearsal = chosen.len();
        for (family, example) in chosen {
            train_families.push(family_digest(family));
            examples.train.push(example);
        }
        train_families.sort();
        train_families.dedup();
        let digest = sha256(&serde_json::to_vec(&(&examples, &train_families)).unwrap_or_default());
        let records = kept;
        Ok(Self {
            digest,
            examples,
            records,
            train_families,
            n_families,
            n_duplicates,
            n_secrets,
            n_too_long,
            n_rehearsal,
        })
    }

    /// What it holds and what was left out, in words.
    pub fn summary(&self) -> String {
        let (tokens, labelled) = self.n_tokens();
        format!(
            "{} records of {} families to train on ({tokens} tokens, {labelled} to be learned), {} of them the base's \
             own answers to general questions; {} of other families held out; left out: {} doubles, {} too long; {} \
             secrets taken out",
            self.examples.train.len(),
            self.train_families.len(),
            self.n_rehearsal,
            self.examples.validation.len(),
            self.n_duplicates,
            self.n_too_long,
            self.n_secrets,
        )
    }

    /// Tokens, and tokens that are learned, of what is trained on.
    pub fn n_tokens(&self) -> (usize, usize) {
        let train = &self.examples.train;
        (
            train.iter().map(|example| example.input_ids.len()).sum(),
            train.iter().map(Example::n_labelled).sum(),
        )
    }
}

/// The families whose digests come first and are not `known`: the wanted share, at least one of
/// several, and never all.
fn held_out(records: &[TrainingRecord], known: &[String], share: f32) -> BTreeSet<String> {
    let families: BTreeSet<(String, &str)> = records
        .iter()
        .map(|record| (family_digest(&record.family), record.family.as_str()))
        .collect();
    let new: Vec<_> =
        families.iter().filter(|(digest, _)| known.binary_search(digest).is_err()).collect();
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

/// Records of `rehearsal` by chance, with their families, until they are the wanted share of what
/// is learned.
fn rehearsed<'a>(
    encoder: &ChatEncoder,
    rehearsal: &'a [TrainingRecord],
    examples: &ExampleSets,
    options: &TrainingOptions,
) -> Result<Vec<(&'a str, Example)>, TrainingError> {
    let weight: f32 = examples.train.iter().map(Example::weight).sum();
    let share = options.rehearsal_share;
    let mut missing = weight * share / (1.0 - share);
    let mut chosen = Vec::new();
    for index in steps::shuffled(rehearsal.len(), options.seed) {
        if missing <= 0.0 {
            break;
        }
        let record = &rehearsal[index];
        let example = encode(encoder, record)?;
        if example.input_ids.len() <= options.max_length {
            missing -= example.weight();
            chosen.push((record.family.as_str(), example));
        }
    }
    Ok(chosen)
}

fn encode(encoder: &ChatEncoder, record: &TrainingRecord) -> Result<Example, TrainingError> {
    let chat = encoder.encode(&record.messages)?;
    let parts = record.weighted();
    let weight = |answer: &Option<(usize, usize)>| {
        let Some((answer, byte)) = answer else { return 0.0 };
        let parts = parts.get(*answer).into_iter().flatten();
        let part = parts.clone().find(|part| (part.start..part.end).contains(byte));
        part.map_or(1.0, |part| part.weight)
    };
    let weights = chat.answers.iter().map(weight).collect();
    Ok(Example { input_ids: chat.input_ids, weights })
}
