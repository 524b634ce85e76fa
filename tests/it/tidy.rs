//! The layers of the house hold.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Top-level modules from the ground up; a module may import those of earlier rows only.
const LAYERS: &[&[&str]] = &[
    &["child", "task", "config", "digest", "durable", "failpoint", "home", "rng", "shutdown"],
    &["adapter", "error_class", "minhash"],
    &["trajectory"],
    &["event"],
    &["template", "sandbox", "registry", "model", "hub", "hardware", "repository"],
    &["provider", "judge", "merge", "hypernetwork"],
    &["selection"],
    &["pipeline", "training"],
    &["evaluation"],
    &["evolution"],
    &["swarm"],
    &["doctor", "bench"],
    &["serve"],
    &["cli"],
];

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("module `{module}` is in no layer"))
}

/// Every .rs file below `folder`, sorted; files of unit tests, `tests.rs`, may import anything.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The top-level module a file belongs to; `None` for lib.rs and main.rs.
fn module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

#[test]
fn modules_import_downwards_only() {
    let mut wrong = Vec::new();
    for path in sources(Path::new("src")) {
        let Some(module) = module(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let Some((_, rest)) = line.split_once("crate::") else { continue };
            assert!(!rest.starts_with('{'), "{}: one `use crate::...` a module", path.display());
            let import = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            if import != module && layer(&module) <= layer(import) {
                wrong.push(format!("{}:{} {module} -> {import}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the layers:\n{}", wrong.join("\n"));
}
