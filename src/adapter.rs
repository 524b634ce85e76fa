//! The words for adapters: [`AdapterId`], and what is known of an adapter, [`Adapter`].

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::task::TaskType;

/// Names an adapter for ever: `[a-z0-9][a-z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdapterId(String);

/// The text is no adapter id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no adapter id: use 1 to 128 of a-z 0-9 . _ -, the first a letter or digit")]
pub struct InvalidAdapterId(String);

impl AdapterId {
    /// Checks `text` and wraps it.
    ///
    /// # Errors
    /// [`InvalidAdapterId`] when `text` is not of the form above.
    pub fn parse(text: &str) -> Result<Self, InvalidAdapterId> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let starts_well = text.chars().next().is_some_and(plain);
        let goes_on_well = text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
        if starts_well && goes_on_well && text.len() <= 128 {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAdapterId(text.to_owned()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AdapterId {
    type Error = InvalidAdapterId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<AdapterId> for String {
    fn from(id: AdapterId) -> Self {
        id.0
    }
}

impl std::fmt::Display for AdapterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an adapter comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterSource {
    /// Trained on records.
    Qlora,
    /// Written by the hypernetwork.
    Hypernetwork,
    /// Merged from its parents.
    Merge,
    /// Brought in by the user.
    Import,
}

impl AdapterSource {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qlora => "qlora",
            Self::Hypernetwork => "hypernetwork",
            Self::Merge => "merge",
            Self::Import => "import",
        }
    }
}

/// For which tasks an adapter may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of its project and its kind of task.
    Task,
    /// Those of its project.
    Project,
    /// All.
    Global,
}

impl Scope {
    /// The word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Project => "project",
            Self::Global => "global",
        }
    }
}

/// An adapter that this one was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParentAdapter {
    /// Its id.
    pub id: AdapterId,
    /// Its part in the child.
    pub weight: f64,
}

/// What is known of an adapter; all but `name`, `scope` and the archive fields never changes. This
/// is also the content of its `rune.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Names it for ever.
    pub id: AdapterId,
    /// What the user calls it.
    pub name: Option<String>,
    /// Key of the project that it was made for.
    pub project: String,
    /// The kind of tasks that it was made for.
    pub task_type: TaskType,
    /// For which tasks it may be chosen.
    pub scope: Scope,
    /// Canonical hub id and tokenizer digest, `id@digest`: decides whether it fits.
    pub base_model: String,
    /// sha256 of the weights it was made on: decides which evaluations count.
    pub base_digest: String,
    /// sha256 of all that determined its making: made again, it is found.
    pub recipe_digest: String,
    /// Rank of its matrices, `1..=256`.
    pub rank: u32,
    /// LoRA's alpha.
    pub alpha: f64,
    /// Names of the linear layers that it adds to.
    pub target_modules: Vec<String>,
    /// sha256 of `adapter_model.safetensors`.
    pub sha256: String,
    /// Bytes of that file.
    pub size_bytes: u64,
    /// Where it comes from.
    pub source: AdapterSource,
    /// The session that it was distilled from, where it was one.
    pub session_id: Option<String>,
    /// Digest of the records that it was trained on.
    pub dataset_digest: Option<String>,
    /// Digests of the task families that it, or an ancestor, was trained on: evaluating it on these
    /// is refused.
    pub train_families: Vec<String>,
    /// How many merges, mutations or earlier rounds of training lie behind it.
    pub generation: u32,
    /// What it was made from, in order.
    pub parents: Vec<ParentAdapter>,
    /// How it was made: settings, seeds, versions.
    pub recipe: Value,
    /// RFC 3339 UTC.
    pub created_at: String,
    /// RFC 3339 UTC; set once it is no longer to be chosen.
    pub archived_at: Option<String>,
    /// Why it was archived.
    pub archive_reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::AdapterId;

    #[test]
    fn ids_are_lower_case_without_path_separators() {
        for good in ["a", "0", "oracle_code_humaneval", "a.b-c_d", &"x".repeat(128)] {
            assert!(AdapterId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "a\\b", "a\0", "ä", &"x".repeat(129)] {
            assert!(AdapterId::parse(bad).is_err(), "{bad}");
        }
    }
}
