//! The words for adapters: [`AdapterId`].

use serde::Deserialize;
use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::AdapterId;

    #[test]
    fn an_id_is_lower_case_and_has_no_path_in_it() {
        for good in ["a", "0", "oracle_code_humaneval", "a.b-c_d", &"x".repeat(128)] {
            assert!(AdapterId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "a\\b", "a\0", "ä", &"x".repeat(129)] {
            assert!(AdapterId::parse(bad).is_err(), "{bad}");
        }
    }
}
