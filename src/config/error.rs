//! What can be wrong with a configuration.

use crate::config::origin::ValueOrigin;

/// A configuration that is refused. The text names the key and where it stands.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no TOML.
    #[error("cannot read {origin}")]
    Syntax {
        /// Where it stands.
        origin: ValueOrigin,
        /// The parser's words, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// There is no such key.
    #[error("unknown key `{key}` in {origin}{}", meant(nearest.as_deref()))]
    UnknownKey {
        /// The key as written, dotted.
        key: String,
        /// Where it stands.
        origin: ValueOrigin,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// There is no such variable.
    #[error("unknown environment variable `{variable}`{}", meant(nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The variable that was probably meant.
        nearest: Option<String>,
    },
    /// The value is of the wrong type.
    #[error("`{key}` must be {expected}, found {found}; set in {origin}")]
    WrongType {
        /// The key.
        key: String,
        /// Where it stands.
        origin: ValueOrigin,
        /// The type it has to have, with its article.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The value is refused by the key's rule, such as a range.
    #[error("`{key}` must be {expected}, found {found}; set in {origin}")]
    Invalid {
        /// The key.
        key: String,
        /// Where it stands.
        origin: ValueOrigin,
        /// What it has to be.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A project file sets what only the user may set.
    #[error("a project file may not set `{key}`; found in {origin}")]
    NotForProjects {
        /// The key.
        key: String,
        /// The project file.
        origin: ValueOrigin,
    },
    /// A project file raises a limit.
    #[error("a project file may only lower `{key}` (it is {limit}), found {found} in {origin}")]
    RaisedByProject {
        /// The key.
        key: String,
        /// The project file.
        origin: ValueOrigin,
        /// What holds without the project file.
        limit: String,
        /// What was found.
        found: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
