//! [`ConfigLayer`]: the settings of one origin, which is a file, the environment or the command
//! line.

use toml::Table;
use toml::Value;

use crate::config::error::ConfigError;
use crate::config::keys;
use crate::config::nearest::nearest;
use crate::config::origin::ValueOrigin;

/// Variables with the prefix `RUNE_` that are not settings.
const OTHER_VARIABLES: &[&str] = &["RUNE_HOME", "RUNE_LOG", "RUNE_FAILPOINT"];

/// The settings of one origin.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigLayer {
    /// Origin of the settings.
    pub origin: ValueOrigin,
    /// Values by section and key.
    pub table: Table,
}

impl ConfigLayer {
    /// Parses TOML.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] when `text` is not valid TOML. Keys and values are checked later, by
    /// [`Config::load`](crate::config::Config::load).
    pub fn parse(origin: ValueOrigin, text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self { origin, table }),
            Err(source) => Err(ConfigError::Syntax { origin, source: Box::new(source) }),
        }
    }

    /// Collects settings from the variables `RUNE_<SECTION>_<KEY>`. Variables with another prefix
    /// are ignored.
    ///
    /// # Errors
    /// [`ConfigError::UnknownVariable`] for a `RUNE_` variable that matches no key.
    pub fn from_env(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = Table::new();
        for (variable, value) in variables {
            let is_ours = variable.starts_with("RUNE_");
            if !is_ours || OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let Some(key) = keys::names().find(|key| variable_of(key) == variable) else {
                return Err(unknown_variable(variable));
            };
            set(&mut table, key, typed(&value));
        }
        Ok(Self { origin: ValueOrigin::Env, table })
    }

    /// Collects settings from the command line: dotted keys and their values.
    pub fn from_flags(values: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let mut table = Table::new();
        for (key, value) in values {
            set(&mut table, key, value);
        }
        Self { origin: ValueOrigin::Flag, table }
    }
}

/// Returns the name of the environment variable that sets `key`.
pub(super) fn variable_of(key: &str) -> String {
    format!("RUNE_{}", key.replace('.', "_").to_uppercase())
}

fn unknown_variable(variable: String) -> ConfigError {
    let variables: Vec<String> = keys::names().map(variable_of).collect();
    let known = variables.iter().map(String::as_str).chain(OTHER_VARIABLES.iter().copied());
    let nearest = nearest(&variable, known).map(str::to_owned);
    ConfigError::UnknownVariable { variable, nearest }
}

/// Parses the text of a variable as an integer or float if possible.
fn typed(text: &str) -> Value {
    let integer = text.parse().map(Value::Integer);
    integer
        .or_else(|_| text.parse().map(Value::Float))
        .unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn set(table: &mut Table, key: &str, value: Value) {
    let (section, name) = key.split_once('.').expect("every key stands in a section");
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(name.to_owned(), value);
    }
}
