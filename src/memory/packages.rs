//! What the packages that a task names say about themselves: READMEs, signatures and docstrings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::documents;
use crate::documents::Passage;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::task::SourceFile;
use crate::task::Task;

/// Maximum number of source files that are read of a package.
const MAX_FILES: usize = 64;
/// Maximum bytes of all of these files.
const MAX_BYTES: usize = 1 << 20;

/// Finds the passages about the packages that `task` names: those below `libs` whose name is a word
/// of the task or of its tests, and installed ones that the tests import. Files that cannot be
/// read are left out.
///
/// # Errors
/// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
pub async fn package_passages(
    judge: &Judge,
    libs: &[PathBuf],
    task: &Task,
) -> Result<Vec<Passage>, JudgeError> {
    let mut passages = Vec::new();
    for NamedPackage { readme, files } in named_packages(judge, libs, task) {
        passages.extend(readme);
        passages.extend(passages_of(judge, &files).await?);
    }
    Ok(passages)
}

/// Package that a task names.
struct NamedPackage {
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
        (!files.is_empty()).then(|| NamedPackage { readme: readme(root, name), files })
    };
    of_libs.chain(of_python).filter_map(package).collect()
}

/// Splits documents into passages: Python files into what they say about their public functions and
/// classes, others as [`documents::split`] does.
///
/// # Errors
/// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
pub async fn passages_of(
    judge: &Judge,
    documents: &[SourceFile],
) -> Result<Vec<Passage>, JudgeError> {
    let split = |file: &SourceFile| documents::split(&file.path, &file.text);
    let texts = documents.iter().filter(|file| file.module().is_none());
    let mut passages: Vec<Passage> = texts.flat_map(split).collect();
    if documents.iter().any(|file| file.module().is_some()) {
        for file in judge.inspect(documents).await? {
            let source = module_name(&file.path);
            let entry = |text: String| Passage {
                source: source.clone(),
                text: format!("```python\n{text}\n```"),
            };
            passages.extend(file.documented.into_iter().map(entry));
        }
    }
    Ok(passages)
}

/// Returns the words of a task and its tests that may name a package.
fn words(task: &Task) -> BTreeSet<String> {
    let texts = task.tests.iter().map(|file| file.text.as_str()).chain([task.text.as_str()]);
    let is_other = |c: char| !c.is_alphanumeric() && c != '_';
    let words = texts.flat_map(|text| text.split(is_other));
    words.filter(|word| word.len() > 1).map(str::to_owned).collect()
}

/// Returns the top-level modules that the tests of a task import.
fn imported(task: &Task) -> BTreeSet<String> {
    let lines = task.tests.iter().flat_map(|file| file.text.lines());
    let module = |line: &str| {
        let mut words = line.split_whitespace();
        let is_import = matches!(words.next(), Some("import" | "from"));
        let name = words.next()?.split(['.', ',']).next()?;
        (is_import && !name.is_empty()).then(|| name.to_owned())
    };
    lines.filter_map(module).collect()
}

/// Reads the source files of the package or module `name` in `root`, without its tests.
fn sources(root: &Path, name: &str) -> Vec<SourceFile> {
    let mut paths = vec![PathBuf::from(format!("{name}.py"))];
    walk(root, Path::new(name), &mut paths);
    paths.sort();
    let (mut files, mut n_bytes) = (Vec::new(), 0);
    for path in paths.into_iter().take(MAX_FILES) {
        let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
        n_bytes += text.len();
        if n_bytes > MAX_BYTES {
            break;
        }
        files.push(SourceFile::new(path.to_string_lossy(), text));
    }
    files
}

/// Adds the Python files below `root/folder`, relative to `root`.
fn walk(root: &Path, folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries.flatten() {
        let path = folder.join(entry.file_name());
        let is_test = path.file_name().is_some_and(|name| name == "tests" || name == "test");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !is_test => walk(root, &path, paths),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|end| end == "py") => {
                paths.push(path);
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

/// Whether `path` is the folder of metadata of the installed package `name`.
fn is_metadata_of(path: &Path, name: &str) -> bool {
    let folder = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let project = folder.strip_suffix(".dist-info").and_then(|stem| stem.split('-').next());
    project.is_some_and(|project| project.replace('-', "_").eq_ignore_ascii_case(name))
}

/// Returns the dotted name of the module in a file.
fn module_name(path: &str) -> String {
    let module = path.trim_end_matches(".py").replace('/', ".");
    module.trim_end_matches(".__init__").to_owned()
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
        let task =
            task("Use `zorb.nusib`.", "import a.b, c\nfrom d.e import f\n  import g\nx = 1\n");
        assert!(words(&task).contains("zorb"));
        assert_eq!(imported(&task).into_iter().collect::<Vec<_>>(), ["a", "d", "g"]);
    }

    #[test]
    fn sources_and_readme_of_a_package_are_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("zorb/__init__.py", "");
        write("zorb/deep/more.py", "");
        write("zorb/tests/test_more.py", "");
        write("zorb-1.2.dist-info/METADATA", "Name: zorb\n\n# Zorb\n\nLists.\n");
        write("kelp.py", "");
        let found = |name| {
            let files = sources(root.path(), name).into_iter();
            files.map(|file| module_name(&file.path)).collect::<Vec<_>>()
        };
        assert_eq!(found("zorb"), ["zorb", "zorb.deep.more"]);
        assert_eq!(found("kelp"), ["kelp"]);
        assert_eq!(found("other"), [""; 0]);
        assert_eq!(readme(root.path(), "zorb")[0].text, "# Zorb\n\nLists.");
        assert_eq!(readme(root.path(), "kelp"), []);
    }
}
