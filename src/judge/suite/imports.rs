//! Finds the modules that a Python file imports, line by line: cheap, and independent of whether
//! the file parses.

use std::path::Path;
use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;

/// `import a.b, c as d`.
static IMPORT: LazyLock<Regex> = LazyLock::new(|| expression(r"^\s*import\s+(.+)$"));
/// `from ..a.b import (c, d as e`, to the end of the line.
static FROM: LazyLock<Regex> =
    LazyLock::new(|| expression(r"^\s*from\s+(\.*)\s*([\w.]*)\s+import\s+(.+)$"));
/// Modules named in strings: `import_module("a.b")`, `pytest_plugins = ["a.b"]`.
static NAMED: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?:import_module\(|pytest_plugins\s*=)\s*([^\n]+)"));
static QUOTED: LazyLock<Regex> = LazyLock::new(|| expression(r#"["']([\w.]+)["']"#));
static TRY: LazyLock<Regex> =
    LazyLock::new(|| expression(r"^\s*(?:try\s*:|if\s+.*TYPE_CHECKING\s*:)"));

fn expression(text: &str) -> Regex {
    Regex::new(text).expect("the expression is well formed")
}

/// A module that a file imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportedModule {
    /// Number of leading dots; 0 for an absolute import.
    level: usize,
    /// Dotted name; empty in `from . import a`.
    module: String,
    /// Names imported from it, which may be modules themselves.
    names: Vec<String>,
    /// Whether the file works without it: imported below `try:` or `if TYPE_CHECKING:`.
    is_optional: bool,
}

/// Lists the modules imported by `text`, in order. Text inside strings may be taken for code.
pub(super) fn imports(text: &str) -> Vec<ImportedModule> {
    let text = text.trim_start_matches('\u{feff}');
    let mut found = Vec::new();
    // Indentation of the `try:` and `if TYPE_CHECKING:` blocks around the line.
    let mut guards: Vec<usize> = Vec::new();
    for line in logical_lines(text) {
        let indent = line.len() - line.trim_start().len();
        // A line that is not indented further than a guard ends its block.
        if !line.trim().is_empty() {
            guards.retain(|guard| indent > *guard);
        }
        let is_optional = !guards.is_empty();
        if TRY.is_match(&line) {
            guards.push(indent);
        } else if let Some(import) = FROM.captures(&line) {
            let (level, module) = (import[1].len(), import[2].to_owned());
            found.push(ImportedModule { level, module, names: names(&import[3]), is_optional });
        } else if let Some(import) = IMPORT.captures(&line) {
            let module = |module| ImportedModule { level: 0, module, names: vec![], is_optional };
            found.extend(names(&import[1]).into_iter().map(module));
        }
    }
    for named in NAMED.captures_iter(text) {
        let module = |name: regex::Captures<'_>| {
            let module = name[1].to_owned();
            ImportedModule { level: 0, module, names: Vec::new(), is_optional: true }
        };
        found.extend(QUOTED.captures_iter(&named[1]).map(module));
    }
    found
}

/// Splits `text` into logical lines: joins lines that are continued by a backslash or by an open
/// parenthesis of an import.
fn logical_lines(text: &str) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        let (line, continues) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match joined.last_mut().filter(|_| is_open) {
            Some(last) => *last = format!("{last} {}", line.trim_start()),
            None => joined.push(line.to_owned()),
        }
        let last = joined.last().map_or("", String::as_str);
        let is_import = last.trim_start().starts_with("from ");
        is_open = continues || (is_import && last.contains('(') && !last.contains(')'));
    }
    joined
}

/// Parses the imported names of a statement: `a.b` and `c` in `(a.b, c as d)`.
fn names(text: &str) -> Vec<String> {
    let text = text.split(';').next().unwrap_or_default().trim_matches(['(', ')', ' ']);
    let name = |part: &str| part.split_whitespace().next().map(str::to_owned);
    text.split(',').filter_map(name).filter(|name| name != "*").collect()
}

impl ImportedModule {
    /// Lists the files that the import in the file `importer` may refer to, with the `__init__.py`
    /// of the packages on the way. An absolute import is resolved below each of `bases`.
    pub(super) fn candidates(&self, importer: &Path, bases: &[PathBuf]) -> Vec<PathBuf> {
        let folder = importer.parent().unwrap_or(Path::new(""));
        // One dot is the folder of the importer, each further dot the folder above.
        let of_level = folder.ancestors().nth(self.level.saturating_sub(1));
        let bases = match (self.level, of_level) {
            (0, _) => bases,
            (_, Some(base)) => &[base.to_owned()],
            (_, None) => &[],
        };
        bases.iter().flat_map(|base| self.below(base)).collect()
    }

    fn below(&self, base: &Path) -> Vec<PathBuf> {
        let parts: Vec<&str> = self.module.split('.').filter(|part| !part.is_empty()).collect();
        let mut paths = Vec::new();
        let mut folder = base.to_owned();
        for (index, part) in parts.iter().enumerate() {
            if index + 1 == parts.len() {
                paths.push(folder.join(format!("{part}.py")));
            }
            folder.push(part);
            paths.push(folder.join("__init__.py"));
        }
        // `from package import name` may import a module or a name of the package.
        for name in &self.names {
            paths.push(folder.join(format!("{name}.py")));
            paths.push(folder.join(name).join("__init__.py"));
        }
        paths
    }
}

/// Lists the top-level names of modules that a Python source requires: not those imported below
/// `try:`, which may be missing.
pub fn needed_modules(text: &str) -> Vec<String> {
    let is_needed = |import: &&ImportedModule| import.level == 0 && !import.is_optional;
    let top =
        |import: &ImportedModule| import.module.split('.').next().unwrap_or_default().to_owned();
    imports(text).iter().filter(is_needed).map(top).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        let show = |import: ImportedModule| {
            let ImportedModule { level, module, names, is_optional } = import;
            let dots = ".".repeat(level);
            format!("{dots}{module} {names:?}{}", if is_optional { " optional" } else { "" })
        };
        imports(text).into_iter().map(show).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_form_of_import_is_found() {
        let text = "\u{feff}import a.b as c, d  # not e\nfrom f import (g,\n    h as i,\n)\n\
                    from . import j\nfrom ..k import *\nif x:\n    import l\nimportant = 1\n\
                    from m \\\n    import n\n";
        insta::assert_snapshot!(check(text), @r#"
        a.b []
        d []
        f ["g", "h"]
        . ["j"]
        ..k []
        l []
        m ["n"]
        "#);
    }

    #[test]
    fn imports_that_may_fail_are_optional() {
        let text = "try:\n    import a\nexcept ImportError:\n    a = None\nimport b\n\
                    if TYPE_CHECKING:\n    import c\n\ndef f():\n    import d\n\
                    pytest_plugins = ['e.f', \"g\"]\nimportlib.import_module('h')\n";
        insta::assert_snapshot!(check(text), @"
        a [] optional
        b []
        c [] optional
        d []
        e.f [] optional
        g [] optional
        h [] optional
        ");
        assert_eq!(needed_modules(text), ["b", "d"]);
    }

    #[test]
    fn relative_imports_are_resolved_from_the_file() {
        let import = &imports("from ..lib.x import y")[0];
        let paths = import.candidates(Path::new("/p/t/u/test_a.py"), &[]);
        let expected = ["lib/__init__.py", "lib/x.py", "lib/x/__init__.py", "lib/x/y.py"];
        assert!(expected.iter().all(|path| paths.contains(&Path::new("/p/t").join(path))));
    }
}
