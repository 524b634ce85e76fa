//! [`Config`]: the merged, validated and typed settings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use toml::Table;
use toml::Value;

use crate::config::error::ConfigError;
use crate::config::keys;
use crate::config::keys::KEYS;
use crate::config::keys::KeyRule;
use crate::config::keys::ProjectRule;
use crate::config::keys::ValueRule;
use crate::config::layer::ConfigLayer;
use crate::config::nearest::nearest;
use crate::config::origin::ValueOrigin;
use crate::config::parts::EngineConfig;
use crate::config::parts::MemoryConfig;
use crate::config::parts::ParkConfig;
use crate::config::parts::RunSettings;
use crate::config::parts::SamplingConfig;
use crate::config::parts::SandboxConfig;
use crate::config::parts::ServerConfig;
use crate::config::parts::TokensConfig;

/// The settings in force, all of them valid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Model, adapter and budgets of a session.
    pub run: RunSettings,
    /// What a session remembers of earlier ones.
    pub memory: MemoryConfig,
    /// Temperatures and other sampling settings.
    pub sampling: SamplingConfig,
    /// Resources of the in-process engine.
    pub engine: EngineConfig,
    /// The model server, for providers that use one.
    pub server: ServerConfig,
    /// How that server gives its GPU to a training.
    pub park: ParkConfig,
    /// Maximum tokens per answer of each phase.
    pub tokens: TokensConfig,
    /// Limits of generated code.
    pub sandbox: SandboxConfig,
    #[serde(skip)]
    values: BTreeMap<&'static str, (Value, ValueOrigin)>,
}

/// A setting with its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigEntry<'a> {
    /// Dotted name of the key.
    pub key: &'static str,
    /// Value in force, of the type that the default has.
    pub value: &'a Value,
    /// Origin of the value.
    pub origin: &'a ValueOrigin,
}

impl Config {
    /// `configs/default.toml`: every key with its meaning and default.
    pub const DEFAULTS: &str = include_str!("../../configs/default.toml");

    /// Merges `layers`, weakest first, over the embedded defaults.
    ///
    /// # Errors
    /// [`ConfigError`] for the first key that is unknown, of the wrong type, out of range, or that
    /// a project file must not set.
    ///
    /// # Panics
    /// When the embedded defaults violate the rules, which a test rules out.
    pub fn load(layers: &[ConfigLayer]) -> Result<Self, ConfigError> {
        let defaults = ConfigLayer::parse(ValueOrigin::Default, Self::DEFAULTS)
            .expect("the defaults are TOML");
        let mut values = BTreeMap::new();
        merge(&mut values, &defaults)?;
        for layer in layers {
            merge(&mut values, layer)?;
        }
        let mut table = Table::new();
        for (key, (value, _)) in &values {
            let (section, name) = key.split_once('.').expect("every key stands in a section");
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            section.as_table_mut().map(|section| section.insert(name.to_owned(), value.clone()));
        }
        let config: Self = table.try_into().expect("every key has been checked");
        Ok(Self { values, ..config })
    }

    /// Returns all settings in the order of `configs/default.toml`.
    pub fn entries(&self) -> impl Iterator<Item = ConfigEntry<'_>> {
        KEYS.iter().filter_map(|key| {
            let (value, origin) = self.values.get(key.name)?;
            Some(ConfigEntry { key: key.name, value, origin })
        })
    }
}

/// Merges a layer over `values`.
fn merge(
    values: &mut BTreeMap<&'static str, (Value, ValueOrigin)>,
    layer: &ConfigLayer,
) -> Result<(), ConfigError> {
    for (name, value) in flatten(&layer.table) {
        let Some(key) = keys::find(&name) else {
            let nearest = nearest(&name, keys::names()).map(str::to_owned);
            return Err(ConfigError::UnknownKey {
                key: name,
                origin: layer.origin.clone(),
                nearest,
            });
        };
        // Layers are merged from the weakest up, so this is the value without the current layer:
        // the default gives the type, and for a project file the limit.
        let below = values.get(key.name).map(|(value, _)| value);
        let value = fit(key, value, below, &layer.origin)?;
        check_range(key, &value, &layer.origin)?;
        check_project(key, &value, below, &layer.origin)?;
        values.insert(key.name, (value, layer.origin.clone()));
    }
    Ok(())
}

/// Returns the dotted names and values of all keys in a table of sections.
fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                let inner = section.iter().map(|(key, value)| (format!("{name}.{key}"), value));
                flat.extend(inner.map(|(key, value)| (key, value.clone())));
            }
            value => flat.push((name.clone(), value.clone())),
        }
    }
    flat
}

/// Converts `value` to the type that the key has in the defaults.
fn fit(
    key: &KeyRule,
    value: Value,
    default: Option<&Value>,
    origin: &ValueOrigin,
) -> Result<Value, ConfigError> {
    let Some(default) = default else { return Ok(value) };
    match (default, &value) {
        #[expect(clippy::cast_precision_loss, reason = "numbers of settings are small")]
        (Value::Float(_), Value::Integer(integer)) => Ok(Value::Float(*integer as f64)),
        // Environment variables are untyped: the name of a model may look like a number.
        (Value::String(_), Value::Integer(_) | Value::Float(_)) if *origin == ValueOrigin::Env => {
            Ok(Value::String(value.to_string()))
        }
        _ if default.same_type(&value) => Ok(value),
        _ => Err(ConfigError::WrongType {
            key: key.name.to_owned(),
            origin: origin.clone(),
            expected: article(default),
            found: value.to_string(),
        }),
    }
}

fn article(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        _ => "a value of another type",
    }
}

fn check_range(key: &KeyRule, value: &Value, origin: &ValueOrigin) -> Result<(), ConfigError> {
    let text = value.as_str().unwrap_or_default();
    let expected = match key.check {
        ValueRule::Text | ValueRule::Flag => return Ok(()),
        ValueRule::Filled if !text.is_empty() => return Ok(()),
        ValueRule::Filled => "a name".to_owned(),
        ValueRule::OneOf(words) if words.contains(&text) => return Ok(()),
        ValueRule::OneOf(words) => format!("one of `{}`", words.join("`, `")),
        ValueRule::Range(min, max) => match number(value) {
            Some(number) if number < min => format!("at least {min}"),
            Some(number) if number > max => format!("at most {max}"),
            Some(number) if !number.is_nan() => return Ok(()),
            _ => "a number".to_owned(),
        },
    };
    Err(ConfigError::Invalid {
        key: key.name.to_owned(),
        origin: origin.clone(),
        expected,
        found: value.to_string(),
    })
}

fn check_project(
    key: &KeyRule,
    value: &Value,
    below: Option<&Value>,
    origin: &ValueOrigin,
) -> Result<(), ConfigError> {
    if !matches!(origin, ValueOrigin::Project(_)) || key.project == ProjectRule::Free {
        return Ok(());
    }
    if key.project == ProjectRule::Never {
        let key = key.name.to_owned();
        return Err(ConfigError::NotForProjects { key, origin: origin.clone() });
    }
    match below {
        Some(limit) if number(value) > number(limit) => Err(ConfigError::RaisedByProject {
            key: key.name.to_owned(),
            origin: origin.clone(),
            limit: limit.to_string(),
            found: value.to_string(),
        }),
        _ => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "ranges are far coarser than an f64")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(integer) => Some(*integer as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads one text with the given origin and shows the values or the error.
    fn check(origin: &ValueOrigin, text: &str) -> String {
        let layer = ConfigLayer::parse(origin.clone(), text);
        match layer.and_then(|layer| Config::load(&[layer])) {
            Ok(config) => {
                let set = config.entries().filter(|entry| *entry.origin != ValueOrigin::Default);
                let shown = set.map(|entry| format!("{}={}", entry.key, entry.value));
                shown.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    fn user() -> ValueOrigin {
        ValueOrigin::User("config.toml".into())
    }

    fn project() -> ValueOrigin {
        ValueOrigin::Project("rune.toml".into())
    }

    #[test]
    fn defaults_and_rules_cover_the_same_keys() {
        let config = Config::load(&[]).unwrap();
        assert_eq!(config.entries().count(), KEYS.len());
        assert_eq!(flatten(&Config::DEFAULTS.parse().unwrap()).len(), KEYS.len());
        assert_eq!(config.run.model, "qwen2.5-coder-0.5b-instruct");
    }

    #[test]
    fn invalid_keys_and_values_are_reported_with_their_origin() {
        insta::assert_snapshot!(check(&user(), "[rnu]\nattempts = 2"),
            @"unknown key `rnu.attempts` in `config.toml`; did you mean `run.attempts`?");
        insta::assert_snapshot!(check(&user(), "attempts = 2"),
            @"unknown key `attempts` in `config.toml`; did you mean `run.attempts`?");
        insta::assert_snapshot!(check(&user(), "[run]\nattempts = 0"),
            @"`run.attempts` must be at least 1, found 0; set in `config.toml`");
        insta::assert_snapshot!(check(&user(), "[run]\nattempts = 'x'"),
            @r#"`run.attempts` must be an integer, found "x"; set in `config.toml`"#);
        insta::assert_snapshot!(check(&user(), "[sampling]\ntop_p = 2"),
            @"`sampling.top_p` must be at most 1, found 2.0; set in `config.toml`");
        insta::assert_snapshot!(check(&user(), "[run]\nprovider = 'cloud'"),
            @r#"`run.provider` must be one of `in-process`, `llama-cpp`, `vllm`, `ollama`, `openai`, `scripted`, found "cloud"; set in `config.toml`"#);
        insta::assert_snapshot!(check(&user(), "[sampling]\ntemperature = nan"),
            @"`sampling.temperature` must be a number, found nan; set in `config.toml`");
        insta::assert_snapshot!(check(&user(), "run = 1"), @"unknown key `run` in `config.toml`");
        insta::assert_snapshot!(check(&user(), "run"), @"cannot read `config.toml`");
    }

    #[test]
    fn project_files_can_only_lower_limits() {
        insta::assert_snapshot!(check(&project(), "[sandbox]\nmemory_mb = 256"),
            @"sandbox.memory_mb=256");
        insta::assert_snapshot!(check(&project(), "[sandbox]\nmemory_mb = 4096"),
            @"a project file may only lower `sandbox.memory_mb` (it is 512), found 4096 in `rune.toml`");
        insta::assert_snapshot!(check(&project(), "[sandbox]\npython = '/tmp/evil'"),
            @"a project file may not set `sandbox.python`; found in `rune.toml`");
        insta::assert_snapshot!(check(&user(), "[sandbox]\nmemory_mb = 4096"),
            @"sandbox.memory_mb=4096");
    }

    #[test]
    fn higher_priority_layers_win_and_are_named() {
        let layers = [
            ConfigLayer::parse(user(), "[run]\nattempts = 7\nseed = 1").unwrap(),
            ConfigLayer::parse(project(), "[run]\nattempts = 6").unwrap(),
            ConfigLayer::from_env([("RUNE_RUN_ATTEMPTS".into(), "5".into())]).unwrap(),
            ConfigLayer::from_flags([("run.attempts", Value::Integer(4))]),
        ];
        let origin_at = |n: usize| {
            let config = Config::load(&layers[..n]).unwrap();
            let entry = config.entries().find(|entry| entry.key == "run.attempts").unwrap();
            format!("{} {}", config.run.attempts, entry.origin)
        };
        let found: Vec<_> = (0..=4).map(origin_at).collect();
        insta::assert_snapshot!(found.join("\n"), @r"
        3 the defaults
        7 `config.toml`
        6 `rune.toml`
        5 the environment
        4 the command line
        ");
        assert_eq!(Config::load(&layers).unwrap().run.seed, 1);
    }

    #[test]
    fn environment_variables_are_checked_like_files() {
        let check = |variable: &str, value: &str| {
            let layer = ConfigLayer::from_env([(variable.to_owned(), value.to_owned())]);
            match layer.and_then(|layer| Config::load(&[layer])) {
                Ok(config) => format!("model {} seed {}", config.run.model, config.run.seed),
                Err(error) => error.to_string(),
            }
        };
        insta::assert_snapshot!(check("RUNE_RUN_ATEMPTS", "2"),
            @"unknown environment variable `RUNE_RUN_ATEMPTS`; did you mean `RUNE_RUN_ATTEMPTS`?");
        insta::assert_snapshot!(check("RUNE_RUN_SEED", "many"),
            @r#"`run.seed` must be an integer, found "many"; set in the environment"#);
        insta::assert_snapshot!(check("RUNE_RUN_MODEL", "7"), @"model 7 seed 0");
        insta::assert_snapshot!(check("RUNE_HOME", "x"), @"model qwen2.5-coder-0.5b-instruct seed 0");
        insta::assert_snapshot!(check("PATH", "x"), @"model qwen2.5-coder-0.5b-instruct seed 0");
    }
}
