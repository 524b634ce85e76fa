//! [`ConfigError`]: why a configuration is rejected.

use crate::config::origin::ValueOrigin;

/// A rejected configuration. The message names the key and its origin.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not valid TOML.
    #[error("cannot read {origin}")]
    Syntax {
        /// Origin of the setting.
        origin: ValueOrigin,
        /// Error of the parser, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The key does not exist.
    #[error("unknown key `{key}` in {origin}{}", meant(nearest.as_deref()))]
    UnknownKey {
        /// Dotted key as written.
        key: String,
        /// Origin of the setting.
        origin: ValueOrigin,
        /// Most similar existing key, if one is close.
        nearest: Option<String>,
    },
    /// The environment variable does not correspond to a key.
    #[error("unknown environment variable `{variable}`{}", meant(nearest.as_deref()))]
    UnknownVariable {
        /// Name of the variable.
        variable: String,
        /// Most similar existing variable, if one is close.
        nearest: Option<String>,
    },
    /// The value has the wrong type.
    #[error("`{key}` must be {expected}, found {found}; set in {origin}")]
    WrongType {
        /// Dotted name of the key.
        key: String,
        /// Origin of the setting.
        origin: ValueOrigin,
        /// Expected type with its article, such as `an integer`.
        expected: &'static str,
        /// The value that was found.
        found: String,
    },
    /// The value violates the rule of the key, such as a range.
    #[error("`{key}` must be {expected}, found {found}; set in {origin}")]
    Invalid {
        /// Dotted name of the key.
        key: String,
        /// Origin of the setting.
        origin: ValueOrigin,
        /// Description of valid values.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// A project file sets a key that only the user may set.
    #[error("a project file may not set `{key}`; found in {origin}")]
    NotForProjects {
        /// Dotted name of the key.
        key: String,
        /// Path of the project file.
        origin: ValueOrigin,
    },
    /// A project file raises a limit that it may only lower.
    #[error("a project file may only lower `{key}` (it is {limit}), found {found} in {origin}")]
    RaisedByProject {
        /// Dotted name of the key.
        key: String,
        /// Path of the project file.
        origin: ValueOrigin,
        /// Limit that applies without the project file.
        limit: String,
        /// The value that was found.
        found: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
