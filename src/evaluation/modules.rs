//! Python modules that judged code may import although its jail has no files.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::digest::sha256;

/// Maximum bytes of all modules together.
const MAX_BYTES: usize = 4 << 20;

/// Python modules by dotted name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageModules {
    /// Name, whether it is a package, and source.
    sources: Vec<(String, bool, String)>,
}

impl PackageModules {
    /// Creates a package with a single file.
    pub fn single(name: &str, source: &str) -> Self {
        Self { sources: vec![(name.to_owned(), true, source.to_owned())] }
    }

    /// Reads all Python files below `folder`, which Python would have in `sys.path`.
    ///
    /// # Errors
    /// If a file cannot be read or is not UTF-8, or if the total exceeds 4 MiB.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        found.walk(folder, "")?;
        let n_bytes: usize = found.sources.iter().map(|(_, _, source)| source.len()).sum();
        if n_bytes > MAX_BYTES {
            return Err(io::Error::other(format!("the modules have {n_bytes} bytes")));
        }
        found.sources.sort();
        Ok(found)
    }

    /// Returns the sha256 of all modules.
    pub(super) fn digest(&self) -> String {
        sha256(json!(self.sources).to_string().as_bytes())
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            let name = format!("{prefix}{stem}");
            if path.is_dir() {
                self.walk(&path, &format!("{name}."))?;
            } else if path.extension().is_some_and(|extension| extension == "py") {
                let is_package = stem == "__init__";
                let name = if is_package { prefix.trim_end_matches('.').to_owned() } else { name };
                if !name.is_empty() {
                    self.sources.push((name, is_package, fs::read_to_string(&path)?));
                }
            }
        }
        Ok(())
    }

    /// Renders Python code that makes the modules importable in the process that runs it.
    pub(super) fn bootstrap(&self) -> String {
        if self.sources.is_empty() {
            return String::new();
        }
        let all: Map<String, Value> = self
            .sources
            .iter()
            .map(|(name, is_package, source)| {
                (name.clone(), json!([i32::from(*is_package), source]))
            })
            .collect();
        format!("{}\n_rune_install({})", include_str!("modules.py"), Value::Object(all))
    }
}
