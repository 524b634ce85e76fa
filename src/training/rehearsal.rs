//! General questions with the base model's own answers: the rehearsal that prevents forgetting.
//! Trained on one-line answers alone, a model soon answers everything in one line, even when asked
//! for a whole function. [`super::Dataset`] adds the other two kinds of rehearsal.
//!
//! Self-synthesized rehearsal: Huang et al. 2024, arXiv:2403.01244.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream;

use crate::digest::sha256;
use crate::durable;
use crate::event::Event;
use crate::event::Reporter;
use crate::home::Home;
use crate::provider::CompletionRequest;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::trajectory::FinishReason;
use crate::trajectory::Message;
use crate::trajectory::Sampling;
use crate::trajectory::family_of;

use super::TrainingError;
use super::record::TrainingRecord;

/// Questions about Python in many forms, separated by lines of three dashes. None is from a public
/// suite, because those measure how much an adapter forgets.
const QUESTIONS: &str = include_str!("rehearsal.txt");

/// Returns the questions in order.
pub(super) fn rehearsal_questions() -> impl Iterator<Item = &'static str> {
    QUESTIONS.split("\n---\n").map(str::trim)
}

/// Returns the sampling settings of the answers: greedy. Answers cut off at `max_tokens` are
/// dropped.
pub(super) fn rehearsal_sampling() -> Sampling {
    Sampling { max_tokens: 400, ..Sampling::default() }
}

/// The cache file with the answers of one base model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RehearsalFile(PathBuf);

impl RehearsalFile {
    /// Returns the cache file in `home` for the base model with this digest.
    pub(super) fn of(home: &Home, base_digest: &str) -> Self {
        // The questions are part of the key: when they change, all answers are generated anew.
        let digest = sha256(format!("{base_digest}\n{QUESTIONS}").as_bytes());
        Self(home.rehearsal().join(format!("{}.jsonl", &digest[..16])))
    }

    /// Creates the record of a question and its answer.
    pub(super) fn record(question: &str, answer: &str) -> TrainingRecord {
        let messages = vec![Message::user(question), Message::assistant(answer)];
        TrainingRecord::new(family_of(question), messages)
    }

    /// Reads the cached records; `None` if there are none yet.
    ///
    /// # Errors
    /// [`TrainingError::Files`] and [`TrainingError::BadRecord`] when the file cannot be read.
    pub(super) fn read(&self) -> Result<Option<Vec<TrainingRecord>>, TrainingError> {
        if self.0.exists() { TrainingRecord::read_all(&self.0).map(Some) } else { Ok(None) }
    }

    /// Writes the records to the cache.
    ///
    /// # Errors
    /// [`TrainingError::Files`] when the file cannot be written.
    pub(super) fn write(&self, records: &[TrainingRecord]) -> Result<(), TrainingError> {
        let files = |source: io::Error| TrainingError::Files { path: self.0.clone(), source };
        if let Some(folder) = self.0.parent() {
            fs::create_dir_all(folder).map_err(files)?;
        }
        let lines: Result<Vec<String>, _> = records.iter().map(serde_json::to_string).collect();
        let text = lines.map_err(|error| files(error.into()))?.join("\n");
        durable::write(&self.0, text.as_bytes()).map_err(TrainingError::files(&self.0))
    }
}

/// Asks the base model all questions and returns a record for each complete answer.
///
/// # Errors
/// The errors of the provider.
pub(super) async fn ask(
    provider: &Provider,
    reporter: &dyn Reporter,
) -> Result<Vec<TrainingRecord>, ProviderError> {
    let sampling = rehearsal_sampling();
    let questions: Vec<&str> = rehearsal_questions().collect();
    let (n_done, n_total) = (AtomicUsize::new(0), questions.len());
    let answer = async |question: &str| {
        let prompt = provider.encode(vec![Message::user(question)])?;
        let answer =
            provider.generate(&CompletionRequest::new(&prompt, &sampling), &mut |_| {}).await?;
        // A cut-off answer would teach the model to stop in the middle.
        let is_whole = answer.finish_reason == FinishReason::Stop && !answer.text.trim().is_empty();
        let n_done = n_done.fetch_add(1, Relaxed) + 1;
        reporter.report("", &Event::RehearsalAnswered { n_done, n_total });
        Ok::<_, ProviderError>(
            is_whole.then(|| RehearsalFile::record(question, answer.text.trim_end())),
        )
    };
    let parallel = provider.capabilities().parallel.max(1);
    // `buffered` keeps the order of the questions, so that the file, and with it the dataset, does
    // not depend on timing.
    let answers = stream::iter(questions).map(answer).buffered(parallel);
    let records: Vec<Option<TrainingRecord>> = answers.try_collect().await?;
    Ok(records.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rehearsal_cache_is_keyed_by_base_model() {
        let home = tempfile::tempdir().unwrap();
        let rehearsal = RehearsalFile::of(&Home::new(home.path()), "one");
        assert_eq!(rehearsal.read().unwrap(), None);
        let records: Vec<TrainingRecord> = rehearsal_questions()
            .map(|question| RehearsalFile::record(question, "Yes.\nNo."))
            .collect();
        rehearsal.write(&records).unwrap();
        assert_eq!(rehearsal.read().unwrap(), Some(records));
        assert_eq!(RehearsalFile::of(&Home::new(home.path()), "other").read().unwrap(), None);
    }

    #[test]
    fn no_question_is_asked_twice() {
        let families: BTreeSet<String> = rehearsal_questions().map(family_of).collect();
        assert_eq!(families.len(), rehearsal_questions().count());
        assert!(families.len() >= 60);
    }
}
