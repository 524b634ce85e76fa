//! [`PeftConfig`]: the contents of `adapter_config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::error::PeftError;
use super::folder::CONFIG_FILE;
use super::folder::read_config;

/// Maximum rank that Rune accepts.
pub const MAX_RANK: u32 = 256;

/// Options of PEFT that change the computation and that Rune does not support, each with the JSON
/// value that disables it.
const UNSUPPORTED: [(&str, &str); 12] = [
    ("use_dora", "false"),
    ("use_qalora", "false"),
    ("use_bdlora", "null"),
    ("lora_bias", "false"),
    ("fan_in_fan_out", "false"),
    ("bias", "\"none\""),
    ("modules_to_save", "null"),
    ("layer_replication", "null"),
    ("trainable_token_indices", "null"),
    ("target_parameters", "null"),
    ("alora_invocation_tokens", "null"),
    ("arrow_config", "null"),
];

/// Configuration of a LoRA adapter, with PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    peft_type: String,
    /// Name of the base model, or its path on the machine where the adapter was trained.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Default rank; `rank_pattern` may override it per module.
    pub r: u32,
    /// Default alpha; `alpha_pattern` may override it per module.
    pub lora_alpha: f64,
    /// Dropout probability during training.
    #[serde(default)]
    pub lora_dropout: f32,
    /// Whether rank-stabilized LoRA is used; see [`scaling`].
    #[serde(default)]
    pub use_rslora: bool,
    /// The linear layers to adapt.
    #[serde(default)]
    pub target_modules: Option<TargetModules>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rank_pattern: BTreeMap<String, u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    alpha_pattern: BTreeMap<String, f64>,
    /// All other options. Those in `UNSUPPORTED` must be absent or disabled.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Selection of the linear layers to adapt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`target_modules` must be a list of names or a pattern")]
pub enum TargetModules {
    /// Last components of the layers' names.
    Named(Vec<String>),
    /// Regular expression for complete names, or `all-linear`.
    Pattern(String),
}

/// Returns the scaling of a LoRA branch: `alpha / rank`, or `alpha / sqrt(rank)` for
/// rank-stabilized LoRA (Kalajdzievski 2023, arXiv:2312.03732).
#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
pub fn scaling(alpha: f32, rank: u32, use_rslora: bool) -> f32 {
    let rank = rank as f32;
    alpha / if use_rslora { rank.sqrt() } else { rank }
}

impl PeftConfig {
    /// Creates the configuration of an adapter for a causal language model, with one rank and alpha
    /// for all modules.
    pub fn new(rank: u32, alpha: f64, target_modules: Vec<String>) -> Self {
        let others = json!({
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "modules_to_save": null,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
        });
        Self {
            peft_type: "LORA".to_owned(),
            base_model_name_or_path: None,
            r: rank,
            lora_alpha: alpha,
            lora_dropout: 0.0,
            use_rslora: false,
            target_modules: Some(TargetModules::Named(target_modules)),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            others: others.as_object().cloned().unwrap_or_default(),
        }
    }

    /// Creates the configuration of an adapter whose modules differ in rank, each with a scaling
    /// of 1. `ranks` are at least one module's complete name and rank.
    pub fn with_ranks(ranks: BTreeMap<String, u32>, target_modules: Vec<String>) -> Self {
        let largest = ranks.values().copied().max().unwrap_or(1);
        let mut config = Self::new(largest, largest.into(), target_modules);
        let other = ranks.into_iter().filter(|(_, rank)| *rank != largest);
        let pattern =
            |(module, rank): (String, u32)| (format!("^{}", regex::escape(&module)), rank);
        config.rank_pattern = other.map(pattern).collect();
        let alphas =
            config.rank_pattern.iter().map(|(module, rank)| (module.clone(), (*rank).into()));
        config.alpha_pattern = alphas.collect();
        config
    }

    /// Reads the configuration in the PEFT folder at `folder`, without the weights.
    ///
    /// # Errors
    /// [`PeftError::Read`]; [`PeftError::Unusable`] for an invalid configuration or unsupported
    /// options.
    pub fn read(folder: &Path) -> Result<Self, PeftError> {
        let text = read_config(folder)?;
        Self::parse(&text).map_err(PeftError::unusable(folder))
    }

    /// Parses and validates the text of `adapter_config.json`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let config: Self =
            serde_json::from_slice(text).map_err(|error| format!("{CONFIG_FILE}: {error}"))?;
        config.check().map(|()| config)
    }

    /// Returns the text of `adapter_config.json`, with sorted keys as PEFT writes it.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(self).expect("plain words and numbers");
        value.sort_all_objects();
        serde_json::to_vec_pretty(&value).expect("a JSON value")
    }

    fn check(&self) -> Result<(), String> {
        if self.peft_type != "LORA" {
            return Err(format!("the adapter type is `{}`, expected LORA", self.peft_type));
        }
        if let Some(name) = self.unsupported() {
            return Err(format!("unsupported option `{name}`"));
        }
        let mut ranks = std::iter::once(&self.r).chain(self.rank_pattern.values());
        if let Some(rank) = ranks.find(|rank| !(1..=MAX_RANK).contains(*rank)) {
            return Err(format!("the rank is {rank}, expected 1 to {MAX_RANK}"));
        }
        let mut alphas = std::iter::once(&self.lora_alpha).chain(self.alpha_pattern.values());
        match alphas.find(|alpha| !(alpha.is_finite() && **alpha > 0.0)) {
            Some(alpha) => Err(format!("alpha is {alpha}, expected a value above 0")),
            None => Ok(()),
        }
    }

    /// Returns the first unsupported option that is enabled.
    fn unsupported(&self) -> Option<&'static str> {
        let is_off = |value: &Value, off: &str| {
            let is_empty = value.as_array().is_some_and(Vec::is_empty);
            let is_default = || serde_json::from_str(off).is_ok_and(|off: Value| *value == off);
            value.is_null() || is_empty || is_default()
        };
        let is_on =
            |name: &str, off: &str| self.others.get(name).is_some_and(|value| !is_off(value, off));
        UNSUPPORTED.into_iter().find(|(name, off)| is_on(name, off)).map(|(name, _)| name)
    }

    /// Returns the rank and scaling that all modules share.
    ///
    /// # Errors
    /// When modules may differ in rank or alpha.
    pub fn uniform(&self) -> Result<(usize, f32), String> {
        if self.rank_pattern.is_empty() && self.alpha_pattern.is_empty() {
            return self.rank_and_scaling("");
        }
        Err("modules differ in rank or alpha".to_owned())
    }

    /// Returns rank and scaling of a module, given its complete name, such as
    /// `model.layers.0.self_attn.q_proj`.
    pub(super) fn rank_and_scaling(&self, module: &str) -> Result<(usize, f32), String> {
        let rank = matching(&self.rank_pattern, module)?.unwrap_or(self.r);
        let alpha = matching(&self.alpha_pattern, module)?.unwrap_or(self.lora_alpha);
        Ok((rank as usize, scaling(to_single(alpha), rank, self.use_rslora)))
    }

    /// Returns the default alpha, in single precision.
    pub fn alpha(&self) -> f32 {
        to_single(self.lora_alpha)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "computed in single precision")]
fn to_single(alpha: f64) -> f32 {
    alpha as f32
}

/// Returns the complete name that a pattern stands for, if it stands for one alone. Merged adapters
/// have such a pattern for nearly every module.
fn whole_name(pattern: &str) -> Option<String> {
    let escaped = pattern.strip_prefix('^')?;
    let name: String = escaped.chars().filter(|c| *c != '\\').collect();
    (regex::escape(&name) == escaped).then_some(name)
}

/// Returns the value of the first pattern that matches a module's name: the complete name, or a
/// suffix after a dot. Follows `get_pattern_key` in PEFT's `utils/other`.
fn matching<T: Copy>(patterns: &BTreeMap<String, T>, module: &str) -> Result<Option<T>, String> {
    // PEFT uses the first match in file order, and saves patterns sorted: the order of a
    // `BTreeMap`.
    for (pattern, value) in patterns {
        if let Some(name) = whole_name(pattern) {
            if name == module {
                return Ok(Some(*value));
            }
            continue;
        }
        let whole = match pattern.strip_prefix('^') {
            Some(rest) => format!("^(?:{rest})$"),
            None => format!(r"^(?:.*\.)?(?:{pattern})$"),
        };
        let regex = regex::Regex::new(&whole);
        let regex =
            regex.map_err(|_| format!("`{pattern}` is not a valid pattern for module names"))?;
        if regex.is_match(module) {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip_in_peft_s_format() {
        let mut config = PeftConfig::new(8, 16.0, vec!["q_proj".to_owned()]);
        config.base_model_name_or_path = Some("m".to_owned());
        config.lora_dropout = 0.5;
        let text = String::from_utf8(config.to_json()).unwrap();
        insta::assert_snapshot!(text, @r#"
        {
          "base_model_name_or_path": "m",
          "bias": "none",
          "fan_in_fan_out": false,
          "inference_mode": true,
          "init_lora_weights": true,
          "lora_alpha": 16.0,
          "lora_dropout": 0.5,
          "modules_to_save": null,
          "peft_type": "LORA",
          "r": 8,
          "target_modules": [
            "q_proj"
          ],
          "task_type": "CAUSAL_LM",
          "use_dora": false,
          "use_rslora": false
        }
        "#);
        assert_eq!(PeftConfig::parse(text.as_bytes()).unwrap(), config);
    }

    fn check(others: &Value) -> String {
        let mut config = json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8 });
        config.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        let config = PeftConfig::parse(config.to_string().as_bytes());
        match config.and_then(|config| config.rank_and_scaling("model.layers.1.mlp.up_proj")) {
            Ok((rank, scaling)) => format!("rank {rank}, scaling {scaling}"),
            Err(reason) => reason,
        }
    }

    #[test]
    fn patterns_match_whole_names_or_suffixes() {
        let cases = [
            json!({}),
            json!({ "use_rslora": true }),
            json!({ "rank_pattern": { "up_proj": 2 } }),
            json!({ "rank_pattern": { "p_proj": 2, "layers.1": 2, "^mlp.up_proj": 2 } }),
            json!({ "alpha_pattern": { r"^model.layers.\d.mlp.up_proj": 2 } }),
            json!({ "rank_pattern": { "up_proj": 3, "layers.1.mlp.up_proj": 1 } }),
            json!({ "rank_pattern": { "(": 2 } }),
        ];
        insta::assert_snapshot!(cases.each_ref().map(check).join("\n"), @"
        rank 4, scaling 2
        rank 4, scaling 4
        rank 2, scaling 4
        rank 4, scaling 2
        rank 4, scaling 0.5
        rank 1, scaling 8
        `(` is not a valid pattern for module names
        ");
    }

    #[test]
    fn unsupported_peft_features_are_rejected() {
        let cases = [
            json!({ "peft_type": "LOHA" }),
            json!({ "use_dora": true }),
            json!({ "use_dora": false, "bias": "none", "modules_to_save": [] }),
            json!({ "bias": "all" }),
            json!({ "r": 0 }),
            json!({ "rank_pattern": { "up_proj": 257 } }),
            json!({ "lora_alpha": -1 }),
            json!({ "target_modules": [1] }),
        ];
        insta::assert_snapshot!(cases.each_ref().map(check).join("\n"), @"
        the adapter type is `LOHA`, expected LORA
        unsupported option `use_dora`
        rank 4, scaling 2
        unsupported option `bias`
        the rank is 0, expected 1 to 256
        the rank is 257, expected 1 to 256
        alpha is -1, expected a value above 0
        adapter_config.json: `target_modules` must be a list of names or a pattern at line 1 column 62
        ");
    }
}
