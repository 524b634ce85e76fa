//! Where settings come from: one [`ConfigLayer`] for each file, the environment and the command
//! line.

use toml::Table;
use toml::Value;

use crate::config::error::ConfigError;
use crate::config::keys;
use crate::config::nearest::nearest;
use crate::config::origin::ValueOrigin;

/// Variables that are no settings.
const OTHER_VARIABLES: &[&str] = &["RUNE_HOME", "RUNE_LOG", "RUNE_FAILPOINT"];

/// Some settings and where they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigLayer {
    /// Where they stand.
    pub origin: ValueOrigin,
    /// The settings, by section.
    pub table: Table,
}

impl ConfigLayer {
    /// Reads TOML.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] when `text` is no TOML. Keys and values are checked by
    /// [`Config::load`](crate::config::Config::load).
    pub fn parse(origin: ValueOrigin, text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self { origin, table }),
            Err(source) => Err(ConfigError::Syntax { origin, source: Box::new(source) }),
        }
    }

    /// Takes settings from `RUNE_<SECTION>_<KEY>` among `variables`; others are left alone.
    ///
    /// # Errors
    /// [`ConfigError::UnknownVariable`] for a `RUNE_` variable without a key.
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

    /// Takes settings from the command line: dotted keys and their values.
    pub fn from_flags(values: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let mut table = Table::new();
        for (key, value) in values {
            set(&mut table, key, value);
        }
        Self { origin: ValueOrigin::Flag, table }
    }
}

/// The variable that sets `key`.
pub(super) fn variable_of(key: &str) -> String {
    format!("RUNE_{}", key.replace('.', "_").to_uppercase())
}

fn unknown_variable(variable: String) -> ConfigError {
    let variables: Vec<String> = keys::names().map(variable_of).collect();
    let known = variables.iter().map(String::as_str).chain(OTHER_VARIABLES.iter().copied());
    let nearest = nearest(&variable, known).map(str::to_owned);
    ConfigError::UnknownVariable { variable, nearest }
}

/// A variable's text as the number or the text that it is.
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
