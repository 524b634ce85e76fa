//! An adapter's two files as PEFT writes them, checked before they are taken in.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use crate::digest::sha256;
use crate::registry::error::RegistryError;

/// The weights.
pub(super) const TENSORS: &str = "adapter_model.safetensors";
/// The settings.
pub(super) const CONFIG: &str = "adapter_config.json";

/// The largest file of weights, head of such a file, notes in that head, and file of settings, in bytes.
const MAX_TENSORS: u64 = 4 << 30;
const MAX_HEAD: u64 = 1 << 20;
const MAX_NOTES: usize = 64 << 10;
const MAX_CONFIG: u64 = 1 << 20;
/// The most tensors.
const MAX_COUNT: usize = 4096;
/// The highest rank.
const MAX_RANK: u32 = 256;

/// The files of an adapter and what they say.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`.
    pub tensors: Vec<u8>,
    /// Rank of the matrices, where it is not set for single modules.
    pub rank: u32,
    /// LoRA's alpha.
    pub alpha: f64,
    /// Names of the linear layers, sorted.
    pub target_modules: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    peft_type: String,
    r: u32,
    lora_alpha: f64,
    #[serde(default)]
    target_modules: Value,
}

impl PeftFiles {
    /// Reads the folder at `folder`.
    ///
    /// # Errors
    /// [`RegistryError::Files`] when a file can't be read; [`RegistryError::BadAdapter`] when one is not of the form that
    /// PEFT gives it, or larger than an adapter can be. Pickled weights are never opened.
    pub fn read(folder: &Path) -> Result<Self, RegistryError> {
        let bad = |reason: String| RegistryError::BadAdapter { path: folder.to_owned(), reason };
        if !folder.join(TENSORS).exists() && folder.join("adapter_model.bin").exists() {
            let reason = "its weights are pickled (adapter_model.bin), which can hold any program: save it with safe_serialization=True";
            return Err(bad(reason.to_owned()));
        }
        let config = read(&folder.join(CONFIG), MAX_CONFIG).map_err(|error| error.or(&bad))?;
        let tensors = read(&folder.join(TENSORS), MAX_TENSORS).map_err(|error| error.or(&bad))?;
        Self::check(config, tensors).map_err(bad)
    }

    /// Checks the contents of both files.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(config: Vec<u8>, tensors: Vec<u8>) -> Result<Self, String> {
        let read: Config = serde_json::from_slice(&config).map_err(|e| format!("{CONFIG}: {e}"))?;
        if read.peft_type != "LORA" {
            return Err(format!("it is of the kind `{}`; Rune keeps LORA", read.peft_type));
        }
        if read.r == 0 || read.r > MAX_RANK {
            return Err(format!("its rank is {}, not of 1 to {MAX_RANK}", read.r));
        }
        if !(read.lora_alpha.is_finite() && read.lora_alpha > 0.0) {
            return Err(format!("its alpha is {}", read.lora_alpha));
        }
        let found = modules(&tensors).map_err(|reason| format!("{TENSORS}: {reason}"))?;
        let named: Vec<String> = match read.target_modules {
            Value::Array(names) => {
                names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
            }
            _ => found, // a pattern: what it came to
        };
        let mut target_modules = named;
        target_modules.sort();
        Ok(Self { config, tensors, rank: read.r, alpha: read.lora_alpha, target_modules })
    }

    /// sha256 of the weights, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        sha256(&self.tensors)
    }
}

enum Unread {
    TooLarge(String),
    Io(RegistryError),
}

impl Unread {
    fn or(self, bad: &impl Fn(String) -> RegistryError) -> RegistryError {
        match self {
            Self::TooLarge(reason) => bad(reason),
            Self::Io(error) => error,
        }
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let io = |source| Unread::Io(RegistryError::Files { path: path.to_owned(), source });
    let length = fs::metadata(path).map_err(io)?.len();
    if length > most {
        return Err(Unread::TooLarge(format!("`{}` has {length} bytes", path.display())));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(io)?;
    Ok(bytes)
}

/// Checks a file of weights and gives the last parts of its modules' names.
fn modules(bytes: &[u8]) -> Result<Vec<String>, String> {
    let head = bytes.first_chunk::<8>().ok_or("it is cut short")?;
    let head = u64::from_le_bytes(*head);
    if head > MAX_HEAD || head > bytes.len() as u64 - 8 {
        return Err(format!("its head claims {head} bytes"));
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let notes = metadata.metadata().iter().flatten();
    if notes.map(|(name, text)| name.len() + text.len()).sum::<usize>() > MAX_NOTES {
        return Err("its notes are too long".to_owned());
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    if tensors.is_empty() || tensors.len() > MAX_COUNT {
        return Err(format!("it has {} tensors", tensors.len()));
    }
    let mut halves: BTreeMap<&str, u32> = BTreeMap::new();
    for name in tensors.names() {
        let module = name.strip_prefix("base_model.model.").and_then(|rest| {
            ["A", "B"].iter().find_map(|half| rest.strip_suffix(&format!(".lora_{half}.weight")))
        });
        *halves
            .entry(module.ok_or_else(|| format!("`{name}` is no half of LoRA"))?)
            .or_default() += 1;
    }
    if let Some((module, _)) = halves.iter().find(|(_, count)| **count != 2) {
        return Err(format!("`{module}` has one half only"));
    }
    let last = |module: &&str| module.rsplit('.').next().unwrap_or(module).to_owned();
    let mut last: Vec<String> = halves.keys().map(last).collect();
    last.sort();
    last.dedup();
    Ok(last)
}
