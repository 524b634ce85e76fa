//! Names of the files in a PEFT folder, and reading them within size limits.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::PeftError;

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of the weights file in PEFT's old format, a Python pickle.
const PICKLED_FILE: &str = "adapter_model.bin";

/// Maximum sizes of the configuration and weights files, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_WEIGHTS_BYTES: u64 = 4 << 30;

/// Reads the configuration file in `folder`.
pub(super) fn read_config(folder: &Path) -> Result<Vec<u8>, PeftError> {
    read_at_most(folder, CONFIG_FILE, MAX_CONFIG_BYTES)
}

/// Reads the weights file in `folder`. Pickled weights are never opened.
pub(super) fn read_weights(folder: &Path) -> Result<Vec<u8>, PeftError> {
    if !folder.join(WEIGHTS_FILE).exists() && folder.join(PICKLED_FILE).exists() {
        return Err(PeftError::unusable(folder)(format!(
            "its weights are pickled ({PICKLED_FILE}) and could execute arbitrary code: save it with safe_serialization=True"
        )));
    }
    read_at_most(folder, WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
}

fn read_at_most(folder: &Path, name: &str, max_bytes: u64) -> Result<Vec<u8>, PeftError> {
    let path = folder.join(name);
    let failed = PeftError::read(&path);
    let n_bytes = fs::metadata(&path).map_err(&failed)?.len();
    if n_bytes > max_bytes {
        let reason = format!("{name} has {n_bytes} bytes, more than {max_bytes}");
        return Err(PeftError::unusable(folder)(reason));
    }
    // `take`, because the file may grow between the two calls, or be a device.
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(max_bytes).read_to_end(&mut bytes));
    read.map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickled_missing_and_oversized_files_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let output = |result: Result<Vec<u8>, PeftError>| {
            let shown = folder.path().display().to_string();
            result.unwrap_err().to_string().replace(&shown, "FOLDER")
        };
        let mut lines =
            vec![output(read_config(folder.path())), output(read_weights(folder.path()))];
        fs::write(folder.path().join(PICKLED_FILE), "").unwrap();
        lines.push(output(read_weights(folder.path())));
        let config = File::create(folder.path().join(CONFIG_FILE)).unwrap();
        config.set_len(MAX_CONFIG_BYTES + 1).unwrap();
        lines.push(output(read_config(folder.path())));
        insta::assert_snapshot!(lines.join("\n"), @"
        cannot read `FOLDER/adapter_config.json`
        cannot read `FOLDER/adapter_model.safetensors`
        the adapter `FOLDER` cannot be used: its weights are pickled (adapter_model.bin) and could execute arbitrary code: save it with safe_serialization=True
        the adapter `FOLDER` cannot be used: adapter_config.json has 1048577 bytes, more than 1048576
        ");
    }
}
