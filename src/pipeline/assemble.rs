//! Assembles parts into files: imports first and once, each name from the part responsible for it.

use super::requirements::TargetFile;
use crate::judge::FileInspection;
use crate::judge::StatementKind;
use crate::task::SourceFile;

/// Code of a finished subtask.
#[derive(Debug, Clone)]
pub(super) struct FinishedPart {
    /// Path of the file that the part belongs to.
    pub(super) path: String,
    /// Required names that the part is responsible for.
    pub(super) names: Vec<String>,
    /// Statements of the part's code.
    pub(super) inspection: FileInspection,
}

/// Exception message of stubs for names that are not written yet.
pub(super) const NOT_WRITTEN: &str = "rune: not written yet";

/// Assembles the parts in order. With `stubs`, required names that no part defines raise
/// [`NOT_WRITTEN`], so that the tests of finished parts can already run.
pub(super) fn assemble(
    targets: &[TargetFile],
    parts: &[FinishedPart],
    stubs: bool,
) -> Vec<SourceFile> {
    targets
        .iter()
        .filter_map(|target| {
            let own: Vec<&FinishedPart> =
                parts.iter().filter(|part| part.path == target.path).collect();
            let mut text = merged(&own);
            if stubs {
                text.push_str(&missing(target, &own));
            }
            (!text.trim().is_empty()).then(|| SourceFile::new(target.path.as_str(), text))
        })
        .collect()
}

fn merged(parts: &[&FinishedPart]) -> String {
    let mut futures: Vec<&str> = Vec::new();
    let mut imports: Vec<&str> = Vec::new();
    let mut body: Vec<&str> = Vec::new();
    let mut main: Option<&str> = None;
    let mut taken: Vec<&str> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let elsewhere = |name: &String| {
            parts
                .iter()
                .enumerate()
                .any(|(other, part)| other != index && part.names.contains(name))
        };
        for statement in &part.inspection.statements {
            let text = statement.text.as_str();
            match statement.kind {
                StatementKind::Import if text.starts_with("from __future__") => futures.push(text),
                // A part that imports its own file, or another part of it, has it at hand already.
                StatementKind::Import if imports_own(text, &part.path) => {}
                StatementKind::Import => imports.push(text),
                StatementKind::Main => main = Some(text),
                StatementKind::Other if parts.len() > 1 => {}
                StatementKind::Other => body.push(text),
                StatementKind::Definition => {
                    let is_foreign = statement
                        .names
                        .iter()
                        .any(|name| !part.names.contains(name) && elsewhere(name));
                    let is_double =
                        statement.names.iter().any(|name| taken.contains(&name.as_str()));
                    if !is_foreign && !is_double {
                        taken.extend(statement.names.iter().map(String::as_str));
                        body.push(text);
                    }
                }
            }
        }
    }
    body.extend(main);
    let mut head: Vec<&str> = Vec::new();
    for import in futures.into_iter().chain(imports) {
        if !head.contains(&import) {
            head.push(import);
        }
    }
    let head = head.join("\n");
    let chunks = (!head.is_empty()).then_some(head.as_str()).into_iter().chain(body);
    let text = chunks.collect::<Vec<_>>().join("\n\n\n");
    if text.is_empty() { text } else { text + "\n" }
}

fn imports_own(import: &str, path: &str) -> bool {
    let module = SourceFile::new(path, "").module().unwrap_or_default();
    import.starts_with(&format!("from {module} import")) || import == format!("import {module}")
}

fn missing(target: &TargetFile, parts: &[&FinishedPart]) -> String {
    let is_defined =
        |name: &&String| parts.iter().any(|part| part.inspection.defines.contains(name));
    let stub = |name: &String| {
        format!(
            "\n\ndef {name}(*args, **kwargs):\n    raise NotImplementedError({NOT_WRITTEN:?})\n"
        )
    };
    let stubs: Vec<String> =
        target.names.iter().filter(|name| !is_defined(name)).map(stub).collect();
    stubs.concat()
}

/// Extracts from a file each required name with its definition, and the imports and helpers that it
/// uses.
pub(super) fn parts_of(targets: &[TargetFile], inspection: &FileInspection) -> Vec<FinishedPart> {
    let Some(target) = targets.iter().find(|target| target.path == inspection.path) else {
        return Vec::new();
    };
    let part = |name: &String| {
        let is_foreign = |other: &String| other != name && target.names.contains(other);
        let mut own = inspection.clone();
        own.statements.retain(|statement| {
            let kept = matches!(statement.kind, StatementKind::Import | StatementKind::Definition);
            kept && !statement.names.iter().any(is_foreign)
        });
        FinishedPart { path: target.path.clone(), names: vec![name.clone()], inspection: own }
    };
    target.names.iter().filter(|name| inspection.defines.contains(name)).map(part).collect()
}
