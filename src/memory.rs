//! Memory: which records of earlier solved sessions, and which passages of documents, a session
//! shows to the model.
//!
//! A record is a task and the code that solved it. It is shown as an earlier turn of the chat, so
//! it helps from the first solved session on, without any training. Only records that are near the
//! task are shown, those of its project first. Passages are of documents that the user gives, and
//! of what the packages that the task names say about themselves. Both share a budget of tokens.

mod packages;

use std::collections::BTreeSet;
use std::slice;

use crate::config::MemoryConfig;
use crate::documents;
use crate::documents::Passage;
use crate::error_class::ErrorClass;
use crate::minhash::MinHashSignature;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::registry::ExperienceQuery;
use crate::registry::ExperienceRecord;
use crate::registry::NearRecord;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::trajectory::Message;
use crate::trajectory::RecalledRecord;
use crate::trajectory::family_of;

pub use packages::FoundPassages;
pub use packages::package_passages;
pub use packages::passages_of;

/// Number of records to choose from: many may have nearly the same answer.
const MAX_NEAR: usize = 128;
/// Resemblance of two answers from which on only one of them is shown.
const DUPLICATE: f64 = 0.8;
/// Words per shingle when answers are compared.
const SHINGLE: usize = 3;

/// What the prompts of a session show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownMemory {
    /// Records of earlier sessions, nearest first.
    pub records: Vec<ExperienceRecord>,
    /// Passages of documents, in their order.
    pub passages: Vec<Passage>,
}

/// Tasks whose records are never shown.
#[derive(Debug, Default)]
pub struct ExcludedTasks {
    families: BTreeSet<String>,
    questions: Vec<MinHashSignature>,
}

impl ExcludedTasks {
    /// Excludes records of these families, and those whose question is one of `texts` or a
    /// near-copy of it: a session of such a task may have been given another family.
    pub fn new<'a>(families: impl Iterator<Item = &'a str>, texts: &[&str]) -> Self {
        let of_texts = texts.iter().map(|text| family_of(text));
        Self {
            families: families.map(str::to_owned).chain(of_texts).collect(),
            questions: texts.iter().map(|text| MinHashSignature::of_question(text)).collect(),
        }
    }

    fn covers(&self, record: &ExperienceRecord) -> bool {
        let question = MinHashSignature::of_question(&record.question);
        self.families.contains(&family_of(&record.question))
            || self.questions.iter().any(|asked| asked.is_near_duplicate(&question))
    }
}

/// Task to recall records for.
#[derive(Debug, Clone, Copy)]
pub struct RecallRequest<'a> {
    /// Text of the task.
    pub text: &'a str,
    /// Key of the project whose records come first.
    pub project: &'a str,
    /// Tasks whose records are never shown.
    pub excluded: &'a ExcludedTasks,
}

/// Errors of recalling records.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The registry could not be searched.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The tokens of a record could not be counted.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl MemoryError {
    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Registry(error) => error.class(),
            Self::Provider(error) => error.class(),
        }
    }
}

/// Finds the records to show for a task within a budget, nearest first. Of records with nearly the
/// same answer, the first one is shown; a record that does not fit into the rest of the budget is
/// left out.
fn recall_records(
    registry: &Registry,
    provider: &Provider,
    settings: &MemoryConfig,
    (request, max_tokens): (RecallRequest<'_>, usize),
) -> Result<Vec<NearRecord>, MemoryError> {
    if !settings.kind.shows_records() {
        return Ok(Vec::new());
    }
    registry.index_backlog()?;
    let near = registry.nearest_records(&ExperienceQuery {
        text: request.text,
        project: request.project,
        excluded_families: &request.excluded.families,
        min_similarity: settings.min_similarity,
        limit: MAX_NEAR,
    })?;
    let mut n_left = max_tokens;
    let mut shown: Vec<NearRecord> = Vec::new();
    let mut answers: Vec<MinHashSignature> = Vec::new();
    for candidate in near {
        if shown.len() == settings.max_records {
            break;
        }
        if request.excluded.covers(&candidate.record) {
            continue;
        }
        let answer = MinHashSignature::new(&candidate.record.answer, SHINGLE);
        if answers.iter().any(|known| known.resemblance(&answer) >= DUPLICATE) {
            continue;
        }
        let n_tokens = n_tokens_of(provider, slice::from_ref(&candidate.record))?;
        if n_tokens <= n_left {
            n_left -= n_tokens;
            answers.push(answer);
            shown.push(candidate);
        }
    }
    // Records of the project were preferred; what is shown stands in the order of nearness.
    shown.sort_by(|one, other| other.similarity.total_cmp(&one.similarity));
    Ok(shown)
}

/// Counts the tokens of records as they are shown.
fn n_tokens_of(provider: &Provider, records: &[ExperienceRecord]) -> Result<usize, ProviderError> {
    Ok(provider.encode(turns(records))?.n_tokens())
}

/// Finds records and passages to show for a task. If any passage is relevant, records get half of
/// the budget, and passages what is left of all of it.
///
/// # Errors
/// [`MemoryError::Registry`], [`MemoryError::Provider`].
pub fn recall(
    registry: &Registry,
    provider: &Provider,
    settings: &MemoryConfig,
    (request, passages): (RecallRequest<'_>, &[Passage]),
) -> Result<(Vec<NearRecord>, Vec<Passage>), MemoryError> {
    let relevant = documents::relevant(passages, request.text);
    let max_tokens = settings.max_tokens;
    let share = if relevant.is_empty() { max_tokens } else { max_tokens / 2 };
    let near = recall_records(registry, provider, settings, (request, share))?;
    let records: Vec<ExperienceRecord> = near.iter().map(|near| near.record.clone()).collect();
    let n_used = if records.is_empty() { 0 } else { n_tokens_of(provider, &records)? };
    let n_tokens = |passage: &Passage| {
        let message = Message::user(passage.to_string());
        provider.encode(vec![message]).map(|prompt| prompt.n_tokens())
    };
    let limits = (settings.max_passages, max_tokens.saturating_sub(n_used));
    Ok((near, documents::select(relevant, limits, n_tokens)?))
}

/// Loads the records that a session has shown, nearest first, to show them again.
///
/// # Errors
/// [`RegistryError::Database`].
pub fn shown_again(
    registry: &Registry,
    memory: &[RecalledRecord],
) -> Result<Vec<ExperienceRecord>, RegistryError> {
    let records = memory.iter().map(|recalled| registry.experience(&recalled.session_id));
    Ok(records.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Returns what a session stores about the records that it shows.
pub fn recalled(shown: &[NearRecord]) -> Vec<RecalledRecord> {
    let stored = |near: &NearRecord| RecalledRecord {
        session_id: near.record.session_id.clone(),
        similarity: near.similarity,
    };
    shown.iter().map(stored).collect()
}

/// Renders records, nearest first, as earlier turns of a chat. The nearest one comes last, next to
/// the task.
pub fn turns(records: &[ExperienceRecord]) -> Vec<Message> {
    let turn = |record: &ExperienceRecord| {
        [Message::user(&record.question), Message::assistant(&record.answer)]
    };
    records.iter().rev().flat_map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::MemoryKind;
    use crate::provider::Scripted;
    use crate::registry::solve;
    use crate::trajectory::Role;

    const TASK: &str = "Write primes.py with is_prime(n) and primes_below(n)";

    /// Ids of the records that are shown for [`TASK`].
    fn shown(registry: &Registry, change: impl FnOnce(&mut MemoryConfig)) -> Vec<String> {
        let provider = Provider::Scripted(Scripted::parse("", 8192).unwrap());
        let mut settings = Config::load(&[]).unwrap().memory;
        change(&mut settings);
        let excluded = &ExcludedTasks::default();
        let request = RecallRequest { text: TASK, project: "own", excluded };
        let (shown, _) = recall(registry, &provider, &settings, (request, &[])).unwrap();
        recalled(&shown).into_iter().map(|record| record.session_id).collect()
    }

    #[test]
    fn distinct_answers_within_the_budget_are_shown() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let code = |body: &str| format!("def is_prime(n):\n    return {body}\n");
        let loop_over = "all(n % i for i in range(2, n))";
        solve(&registry, "a", "own", TASK, &code(loop_over));
        solve(&registry, "b", "own", TASK, &code(loop_over));
        solve(&registry, "c", "own", TASK, &code("n > 1 and not any(n % d == 0 for d in ds)"));
        solve(&registry, "d", "own", TASK, &code(&"1 + ".repeat(1000)));
        assert_eq!(shown(&registry, |_| {}), ["c", "b"], "no duplicate, none above the budget");
        assert_eq!(shown(&registry, |settings| settings.max_records = 1), ["c"]);
        assert_eq!(shown(&registry, |settings| settings.max_tokens = 0), [""; 0]);
        assert_eq!(shown(&registry, |settings| settings.max_tokens = 9000), ["d", "c", "b"]);
        for kind in [MemoryKind::None, MemoryKind::Adapter] {
            assert_eq!(shown(&registry, |settings| settings.kind = kind), [""; 0]);
        }
    }

    #[test]
    fn copies_of_excluded_tasks_take_no_place() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(&home.path().join("rune.db")).unwrap();
        let task = "Write primes.py with is_prime(n), which tells whether n is a prime number, \
                    and primes_below(n), which lists all prime numbers below n in order.";
        let other = "Write sieve.py with is_prime(n) and primes_between(low, high).";
        solve(&registry, "a", "own", other, "def is_prime(n): ...\n");
        solve(&registry, "b", "own", &format!("{task} Use a loop."), "def primes_below(n): ...\n");
        solve(&registry, "c", "own", &task.replace("Write", "Make"), "def is_prime(n): pass\n");
        let provider = Provider::Scripted(Scripted::parse("", 8192).unwrap());
        let defaults = Config::load(&[]).unwrap().memory;
        let settings =
            MemoryConfig { max_records: 1, min_similarity: 0.0, max_tokens: 4096, ..defaults };
        let shown = |excluded: &ExcludedTasks| {
            let request = RecallRequest { text: task, project: "own", excluded };
            let (shown, _) = recall(&registry, &provider, &settings, (request, &[])).unwrap();
            shown.into_iter().map(|near| near.record.session_id).collect::<Vec<_>>()
        };
        assert_ne!(shown(&ExcludedTasks::default()), ["a"]);
        assert_eq!(shown(&ExcludedTasks::new([].into_iter(), &[task])), ["a"]);
    }

    #[test]
    fn nearest_record_is_the_last_turn() {
        let record = |question: &str| ExperienceRecord {
            session_id: String::new(),
            project: String::new(),
            family: String::new(),
            question: question.to_owned(),
            answer: "```python\n```".to_owned(),
        };
        let turns = turns(&[record("near"), record("far")]);
        let questions: Vec<&str> = turns
            .iter()
            .filter(|message| message.role == Role::User)
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(questions, ["far", "near"]);
    }
}
