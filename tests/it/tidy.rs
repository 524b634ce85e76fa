//! The layers of the house hold.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Top-level modules from the ground up; a module may import those of earlier rows only.
const LAYERS: &[&[&str]] = &[
    &[
        "bm25",
        "child",
        "task",
        "config",
        "digest",
        "durable",
        "failpoint",
        "home",
        "job",
        "lease",
        "rng",
        "shutdown",
        "terms",
    ],
    &["adapter", "documents", "error_class", "minhash", "similarity"],
    &["families", "trajectory"],
    &["event"],
    &["peft"],
    &["template", "sandbox", "registry", "model", "hub", "hardware", "repository", "synthetic"],
    &["provider", "judge", "merge", "hypernetwork"],
    &["memory", "selection", "services"],
    &["parking", "pipeline", "training"],
    &["evaluation"],
    &["evolution"],
    &["swarm"],
    &["doctor", "bench"],
    &["e2e"],
    &["serve"],
    &["cli"],
    &["fuzzing"],
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

/// What PEFT calls its files, keys and tensors.
const WORDS_OF_PEFT: [&str; 5] =
    ["adapter_config.json", "adapter_model.", "peft_type", "base_model.model.", ".lora_A"];

#[test]
fn the_form_of_adapters_is_known_in_one_module() {
    let mut wrong = Vec::new();
    for path in sources(Path::new("src")) {
        if matches!(module(&path).as_deref(), Some("peft" | "fuzzing")) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if !is_comment && WORDS_OF_PEFT.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "PEFT's form outside of `peft`:\n{}", wrong.join("\n"));
}

/// Files that need each other, whichever of them is read first. The list only gets shorter.
const CIRCLES: &[&[&str]] = &[
    &["model/engine", "model/scheduler", "model/sequence"],
    &[
        "model/kernels/attention",
        "model/kernels/avx2",
        "model/kernels/avx512",
        "model/kernels/pack",
        "model/kernels/portable",
        "model/kernels/prefetch",
        "model/kernels/vector",
    ],
    &["model/tune/head", "model/tune/tuner"],
    &["sandbox/fallback", "sandbox/filesystem", "sandbox/memory", "sandbox/restrict"],
    &["sandbox/helper", "sandbox/init", "sandbox/jail", "sandbox/supervisor", "sandbox/wire"],
];

/// A file's module, such as `model/engine`; that of `mod.rs` is its folder.
fn name_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap().with_extension("");
    let name = inside.to_str().unwrap();
    name.strip_suffix("/mod").unwrap_or(name).to_owned()
}

/// The file that a `use` of the file `name` leads to, such as `crate::model::engine::Engine` or
/// `super::wire`.
fn leads_to(name: &str, import: &str, files: &BTreeMap<String, PathBuf>) -> Option<String> {
    let mut words = import.split("::").peekable();
    let mut place: Vec<&str> = name.split('/').collect();
    match words.next() {
        Some("crate") => place.clear(),
        Some("super") => _ = place.pop(),
        Some("self") => {}
        _ => return None,
    }
    while words.next_if_eq(&"super").is_some() {
        place.pop();
    }
    place.extend(words);
    let prefixes = (1..=place.len()).rev().map(|n| place[..n].join("/"));
    prefixes.into_iter().find(|prefix| files.contains_key(prefix))
}

/// What each file imports of others, faces (`mod.rs`) aside: those name everything below them.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<String, PathBuf> =
        sources(Path::new("src")).into_iter().map(|path| (name_of(&path), path)).collect();
    let is_face = |name: &str| files[name].ends_with("mod.rs") || ["lib", "main"].contains(&name);
    let mut all = BTreeMap::new();
    for (name, path) in files.iter().filter(|(name, _)| !is_face(name)) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let uses = code.lines().filter_map(|line| {
            let (before, import) = line.split_once("use ")?;
            (before.is_empty() || before.starts_with("pub")).then(|| import.trim_end_matches(';'))
        });
        let found = uses.filter_map(|import| leads_to(name, import, &files));
        let found = found.filter(|other| other != name && !is_face(other));
        all.insert(name.clone(), found.collect::<BTreeSet<String>>());
    }
    all
}

/// All that can be reached from `name`.
fn reached(name: &str, imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(next) = open.pop() {
        for other in imports.get(&next).into_iter().flatten() {
            if found.insert(other.clone()) {
                open.push(other.clone());
            }
        }
    }
    found
}

#[test]
fn files_import_in_circles_only_where_that_is_known() {
    let imports = imports();
    let reached: BTreeMap<&String, BTreeSet<String>> =
        imports.keys().map(|name| (name, reached(name, &imports))).collect();
    let mut circles = BTreeSet::new();
    for (name, others) in &reached {
        let circle: Vec<&str> = others
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*name)))
            .map(String::as_str)
            .collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let known: BTreeSet<Vec<&str>> = CIRCLES.iter().map(|circle| circle.to_vec()).collect();
    assert_eq!(circles, known);
}

#[test]
fn every_dependency_is_explained_and_no_other() {
    let manifest: toml::Table = fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    let needed: BTreeSet<&str> =
        manifest["dependencies"].as_table().unwrap().keys().map(String::as_str).collect();
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let table = text.split("## Dependencies and why").nth(1).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let explained: BTreeSet<&str> = rows
        .skip(1)
        .flat_map(|names| names.split(", "))
        .map(|name| name.split(" (").next().unwrap())
        .collect();
    assert_eq!(explained, needed);
}

/// How paths of users' files begin that comments give as examples.
const EXAMPLES: [&str; 2] = ["tests/test_", "shop/"];

/// Comments and ARCHITECTURE.md name files of the repository as they are, or as the end of their
/// paths.
#[test]
fn files_that_are_named_are_there() {
    let mut repository = Vec::new();
    for folder in ["src", "tests", "benches", "configs", "templates", "docs", "scripts", "examples"]
    {
        all_files(Path::new(folder), &mut repository);
    }
    let root = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "Cargo.toml", ".ci/run"];
    repository.extend(root.map(str::to_owned));
    let is_there = |name: &str| {
        repository.iter().any(|path| path == name || path.ends_with(&format!("/{name}")))
    };
    let mut texts = vec![(PathBuf::from("ARCHITECTURE.md"), String::new())];
    texts[0].1 = fs::read_to_string("ARCHITECTURE.md").unwrap();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
        texts.push((path, comments.collect::<Vec<_>>().join("\n")));
    }
    let mut missing = Vec::new();
    for (path, text) in &texts {
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
            let ends = [".rs", ".md", ".sql", ".toml", ".py"];
            let is_path = is_path && quoted.contains('/');
            let is_file = is_path && ends.iter().any(|end| quoted.ends_with(end));
            let is_example = EXAMPLES.iter().any(|example| quoted.starts_with(example));
            if is_file && !is_example && !is_there(quoted) {
                missing.push(format!("{}: {quoted}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
}

fn all_files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, found);
        } else {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// The name of the type that a line defines; associated types have no name of their own.
fn defined_type(line: &str) -> Option<&str> {
    let is_inner = line.starts_with(' ');
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let (kind, rest) = line.split_once(' ')?;
    let kinds: &[&str] = if is_inner {
        &["struct", "enum", "trait", "union"]
    } else {
        &["struct", "enum", "trait", "union", "type"]
    };
    let name = rest.split(|c: char| !c.is_alphanumeric()).next()?;
    (kinds.contains(&kind) && name.starts_with(char::is_uppercase)).then_some(name)
}

#[test]
fn every_type_name_has_one_meaning() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for name in code.lines().filter_map(defined_type) {
            places.entry(name.to_owned()).or_default().insert(path.display().to_string());
        }
    }
    assert!(places.len() > 500, "types are found");
    places.retain(|_, paths| paths.len() > 1);
    assert!(places.is_empty(), "type names with several meanings: {places:#?}");
}
