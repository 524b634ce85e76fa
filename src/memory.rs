//! Memory: which records of earlier solved sessions a session shows to the model.
//!
//! A record is a task and the code that solved it. It is shown as an earlier turn of the chat, so
//! it helps from the first solved session on, without any training. Only records that are near the
//! task are shown, those of its project first, within a budget of tokens.

use std::collections::BTreeSet;
use std::slice;

use crate::config::MemoryConfig;
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

/// Number of records to choose from.
const MAX_NEAR: usize = 32;
/// Resemblance of two answers from which on only one of them is shown.
const DUPLICATE: f64 = 0.8;
/// Words per shingle when answers are compared.
const SHINGLE: usize = 3;

/// Task to recall records for.
#[derive(Debug, Clone, Copy)]
pub struct RecallRequest<'a> {
    /// Text of the task.
    pub text: &'a str,
    /// Key of the project whose records come first.
    pub project: &'a str,
    /// Families whose records are never shown.
    pub excluded_families: &'a BTreeSet<String>,
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

/// Finds the records to show for a task, nearest first. Of records with nearly the same answer, the
/// first one is shown; a record that does not fit into the rest of the budget is left out.
///
/// # Errors
/// [`MemoryError::Registry`], [`MemoryError::Provider`].
pub fn recall(
    registry: &Registry,
    provider: &Provider,
    settings: &MemoryConfig,
    request: RecallRequest<'_>,
) -> Result<Vec<NearRecord>, MemoryError> {
    if !settings.kind.shows_records() {
        return Ok(Vec::new());
    }
    registry.index_backlog()?;
    let near = registry.nearest_records(&ExperienceQuery {
        text: request.text,
        project: request.project,
        excluded_families: request.excluded_families,
        min_similarity: settings.min_similarity,
        limit: MAX_NEAR,
    })?;
    let mut n_left = settings.max_tokens;
    let mut shown: Vec<NearRecord> = Vec::new();
    let mut answers: Vec<MinHashSignature> = Vec::new();
    for candidate in near {
        if shown.len() == settings.max_records {
            break;
        }
        // A session of an excluded task may have been given another family.
        if request.excluded_families.contains(&family_of(&candidate.record.question)) {
            continue;
        }
        let answer = MinHashSignature::new(&candidate.record.answer, SHINGLE);
        if answers.iter().any(|known| known.resemblance(&answer) >= DUPLICATE) {
            continue;
        }
        let n_tokens = provider.encode(turns(slice::from_ref(&candidate.record)))?.n_tokens();
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
        let excluded_families = &BTreeSet::new();
        let request = RecallRequest { text: TASK, project: "own", excluded_families };
        let shown = recall(registry, &provider, &settings, request).unwrap();
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
