//! What documents and the packages that a task names say: READMEs, signatures and docstrings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::documents;
use crate::documents::Document;
use crate::documents::Passage;
use crate::judge::DocumentedName;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::task::SourceFile;
use crate::task::Task;

/// Maximum number of source files that are read of a package, and their bytes together.
const MAX_FILES: usize = 64;
const MAX_BYTES: u64 = 512 << 10;
/// Maximum depth of folders, and entries of all of them, in which a package's files are looked for.
const MAX_DEPTH: usize = 4;
const MAX_ENTRIES: usize = 2_000;
/// Folders and files of a package that are not read.
const LEFT_OUT: [&str; 5] = ["__main__", "__pycache__", "tests", "test", "testing"];
/// Modules of tests, which no task is about.
const TEST_TOOLS: [&str; 5] = ["pytest", "unittest", "hypothesis", "doctest", "solution"];

/// Passages, and what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundPassages {
    /// Passages in the order of the documents.
    pub passages: Vec<Passage>,
    /// Documents and packages that gave none, with the reason.
    pub left_out: Vec<String>,
}

impl FoundPassages {
    /// Adds what was found after this.
    pub fn extend(&mut self, other: Self) {
        self.passages.extend(other.passages);
        self.left_out.extend(other.left_out);
    }

    fn add(&mut self, source: &str, passages: Vec<Passage>) {
        if passages.is_empty() {
            self.left_out.push(format!("`{source}`: it documents nothing"));
        }
        self.passages.extend(passages);
    }
}

/// Splits documents into passages: a Python file into what it says about its public functions and
/// classes, any other as [`documents::split`] does.
///
/// # Errors
/// [`JudgeError::Sandbox`].
pub async fn passages_of(
    judge: &Judge,
    documents: &[Document],
) -> Result<FoundPassages, JudgeError> {
    let mut found = FoundPassages::default();
    for Document { source, text } in documents {
        if Path::new(source).extension().is_none_or(|end| end != "py") {
            found.add(source, documents::split(source, text));
            continue;
        }
        match documentation(judge, &[SourceFile::new("document.py", text)]).await? {
            Ok(entries) => {
                let passages = entries.iter().map(|entry| passage(source, &entry.text));
                found.add(source, passages.collect());
            }
            Err(reason) => found.left_out.push(format!("`{source}`: {reason}")),
        }
    }
    Ok(found)
}

/// Finds the passages about the packages that `task` names: those below `libs` whose name is a word
/// of the task or of its tests, and installed ones that the tests import. A package that cannot be
/// read is left out.
///
/// # Errors
/// [`JudgeError::Sandbox`].
pub async fn package_passages(
    judge: &Judge,
    libs: &[PathBuf],
    task: &Task,
) -> Result<FoundPassages, JudgeError> {
    let mut found = FoundPassages::default();
    for NamedPackage { name, readme, files } in named_packages(judge, libs, task) {
        found.passages.extend(readme);
        match documentation(judge, &files).await? {
            Ok(entries) => {
                let passages = entries.iter().map(|entry| passage(&entry.module, &entry.text));
                found.passages.extend(passages);
            }
            Err(reason) => found.left_out.push(format!("package `{name}`: {reason}")),
        }
    }
    Ok(found)
}

/// Lists what Python files document. A failure that is the fault of the files is the inner error.
async fn documentation(
    judge: &Judge,
    files: &[SourceFile],
) -> Result<Result<Vec<DocumentedName>, String>, JudgeError> {
    match judge.documentation(files).await {
        Err(error @ JudgeError::Harness { .. }) => Ok(Err(error.to_string())),
        documented => documented.map(Ok),
    }
}

fn passage(source: &str, code: &str) -> Passage {
    Passage { source: source.to_owned(), text: format!("```python\n{code}\n```") }
}

/// Package that a task names.
#[derive(Debug, PartialEq, Eq)]
struct NamedPackage {
    name: String,
    /// Passages of its README.
    readme: Vec<Passage>,
    /// Its source files, at least one.
    files: Vec<SourceFile>,
}

fn named_packages(judge: &Judge, libs: &[PathBuf], task: &Task) -> Vec<NamedPackage> {
    let (words, imported) = (words(task), imported(task));
    let of_libs = libs.iter().flat_map(|root| words.iter().map(move |name| (root, name)));
    let installed = judge.interpreter.site_packages();
    let of_python = installed.iter().flat_map(|root| imported.iter().map(move |name| (root, name)));
    let package = |(root, name): (&PathBuf, &String)| {
        let files = sources(root, name);
        let name = name.clone();
        (!files.is_empty()).then(|| NamedPackage { readme: readme(root, &name), name, files })
    };
    of_libs.chain(of_python).filter_map(package).collect()
}

/// Returns the words of a task and its tests that may name a package.
fn words(task: &Task) -> BTreeSet<String> {
    let texts = task.tests.iter().map(|file| file.text.as_str()).chain([task.text.as_str()]);
    let is_other = |c: char| !c.is_alphanumeric() && c != '_';
    let words = texts.flat_map(|text| text.split(is_other)).filter(|word| is_package_name(word));
    words.map(str::to_owned).collect()
}

/// Returns the top-level modules that the tests of a task import.
fn imported(task: &Task) -> BTreeSet<String> {
    let lines = task.tests.iter().flat_map(|file| file.text.lines());
    lines.flat_map(modules_of).filter(|name| is_package_name(name)).map(str::to_owned).collect()
}

/// Returns the top-level modules that a line imports.
fn modules_of(line: &str) -> Vec<&str> {
    let line = line.trim_start();
    let top = |module: &'_ str| module.trim().split([' ', '.']).next().unwrap_or_default().len();
    if let Some(module) = line.strip_prefix("from ") {
        let module = module.trim_start();
        return vec![&module[..top(module)]];
    }
    let modules = line.strip_prefix("import ").into_iter().flat_map(|list| list.split(','));
    modules.map(str::trim).map(|module| &module[..top(module)]).collect()
}

/// Whether a word can be the name of a package that a task is about.
fn is_package_name(word: &str) -> bool {
    let is_identifier = word.chars().all(|c| c.is_alphanumeric() || c == '_');
    word.len() > 1 && is_identifier && !TEST_TOOLS.contains(&word)
}

/// Reads the source files of the package or module `name` in `root`: those nearest to its top
/// first, without tests. Private modules are read, because a package may offer what they define.
fn sources(root: &Path, name: &str) -> Vec<SourceFile> {
    let mut paths = vec![PathBuf::from(format!("{name}.py"))];
    walk(root, Path::new(name), &mut (MAX_ENTRIES, &mut paths));
    paths.sort_by_key(|path| (path.components().count(), path.clone()));
    let (mut files, mut n_bytes) = (Vec::new(), 0);
    for path in paths {
        let Ok(metadata) = fs::metadata(root.join(&path)) else { continue };
        if files.len() == MAX_FILES || n_bytes + metadata.len() > MAX_BYTES {
            continue;
        }
        if let Ok(text) = fs::read_to_string(root.join(&path)) {
            n_bytes += metadata.len();
            files.push(SourceFile::new(path.to_string_lossy(), text));
        }
    }
    files
}

/// Adds the Python files below `root/folder`, relative to `root`, to the second of `found`;
/// the first is how many more entries may be looked at. Links to folders are not followed.
fn walk(root: &Path, folder: &Path, found: &mut (usize, &mut Vec<PathBuf>)) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries.flatten() {
        if found.0 == 0 {
            return;
        }
        found.0 -= 1;
        let path = folder.join(entry.file_name());
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("_");
        if stem.starts_with('.') || LEFT_OUT.contains(&stem) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && path.components().count() < MAX_DEPTH => {
                walk(root, &path, found);
            }
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|end| end == "py") => {
                found.1.push(path);
            }
            _ => {}
        }
    }
}

/// Splits the README of a package: a file in it, or the description of an installed one.
fn readme(root: &Path, name: &str) -> Vec<Passage> {
    let own = ["README.md", "README.rst", "README.txt"].map(|file| root.join(name).join(file));
    let described = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut described = described.filter(|path| is_metadata_of(path, name));
    let description = |path: PathBuf| {
        let text = fs::read_to_string(path.join("METADATA")).ok()?;
        // Headers end at the first blank line, as in a mail.
        text.split_once("\n\n").map(|(_, body)| body.to_owned())
    };
    let mut texts = own.iter().filter_map(|path| fs::read_to_string(path).ok());
    let text = texts.next().or_else(|| described.find_map(description));
    text.map_or(Vec::new(), |text| documents::split(name, &text))
}

/// Whether `path` is the folder of metadata of the installed package `name`. The project may have
/// another name than its package: then a list of top-level names says so.
fn is_metadata_of(path: &Path, name: &str) -> bool {
    let folder = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(stem) = folder.strip_suffix(".dist-info") else { return false };
    let project = stem.split('-').next().unwrap_or_default();
    let names = || fs::read_to_string(path.join("top_level.txt")).unwrap_or_default();
    project.eq_ignore_ascii_case(name) || names().lines().any(|line| line.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskId;
    use crate::task::TaskType;

    fn task(text: &str, tests: &str) -> Task {
        Task {
            id: TaskId("task".to_owned()),
            text: text.to_owned(),
            task_type: TaskType::Function,
            family: None,
            tests: vec![SourceFile::new("test_a.py", tests)],
            test_targets: Vec::new(),
        }
    }

    #[test]
    fn packages_are_named_by_words_and_imported_by_tests() {
        let tests = "import a1.b, c1 as d\nfrom d1.e import f\n  import g1\nimport pytest\nfrom / to\nx = 1\n";
        let task = task("Use `zorb.nusib`.", tests);
        assert!(words(&task).contains("zorb") && !words(&task).contains("pytest"));
        assert_eq!(imported(&task).into_iter().collect::<Vec<_>>(), ["a1", "c1", "d1", "g1"]);
    }

    #[test]
    fn sources_and_readme_of_a_package_are_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let too_long = usize::try_from(MAX_BYTES).unwrap() + 1;
        write("zorb/__init__.py", "");
        write("zorb/a_table.py", &"#".repeat(too_long));
        write("zorb/_private.py", "");
        write("zorb/__main__.py", "");
        write("zorb/deep/more.py", "");
        write("zorb/tests/test_more.py", "");
        write("zorb-1.2.dist-info/METADATA", "Name: zorb\n\n# Zorb\n\nLists.\n");
        write("py_kelp-1.2.dist-info/METADATA", "Name: py-kelp\n\n# Kelp\n");
        write("py_kelp-1.2.dist-info/top_level.txt", "kelp\n");
        write("kelp.py", "");
        std::os::unix::fs::symlink(root.path(), root.path().join("zorb/loop")).unwrap();
        let found = |name| {
            let files = sources(root.path(), name).into_iter();
            files.map(|file| file.module().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found("zorb"), ["zorb", "zorb._private", "zorb.deep.more"]);
        assert_eq!(found("kelp"), ["kelp"]);
        assert_eq!(found("other"), [""; 0]);
        assert_eq!(readme(root.path(), "zorb")[0].text, "# Zorb\n\nLists.");
        assert_eq!(readme(root.path(), "kelp")[0].text, "# Kelp");
        assert_eq!(readme(root.path(), "other"), []);
    }
}
