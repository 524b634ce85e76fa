//! Files of a suite that its tests reach by imports.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

use super::TestSuite;
use super::imports::imports;
use super::is_python;
use crate::task::SourceFile;

/// The files of a suite by their paths.
type ByPath<'a> = HashMap<&'a Path, &'a SourceFile>;

impl TestSuite {
    /// Lists the test files, every `conftest.py`, and the files of the suite that these import,
    /// directly or indirectly.
    pub fn imported_files(&self) -> Vec<&SourceFile> {
        let tests = self.test_paths();
        let is_start = |file: &&SourceFile| {
            tests.contains(&file.path.as_str()) || file.path.ends_with("conftest.py")
        };
        let by_path: ByPath<'_> =
            self.files.iter().map(|file| (Path::new(file.path.as_str()), file)).collect();
        let mut reached: Vec<&SourceFile> = self.files.iter().filter(is_start).collect();
        let mut known: HashSet<&str> = reached.iter().map(|file| file.path.as_str()).collect();
        let mut next = 0;
        while let Some(file) = reached.get(next).copied() {
            next += 1;
            let imported = imports_of(file, &by_path);
            let found = imported.iter().filter_map(|path| by_path.get(path.as_path()).copied());
            reached.extend(found.filter(|found| known.insert(found.path.as_str())));
        }
        reached
    }

    /// Whether the suite contains the module `name`, which may be dotted, in any folder.
    pub fn has_module(&self, name: &str) -> bool {
        self.files_of_module(name).next().is_some()
    }

    /// Lists the files of the module `name`; for a package everything below it. A folder around
    /// tests is not a package in this sense.
    pub fn files_of_module<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a SourceFile> {
        // Dots on both sides make a substring match whole parts of a name only.
        let inside = format!(".{name}.");
        let tests = self.test_paths();
        let is_of = move |path: &str| {
            let module = SourceFile::new(path, "").module();
            module.is_some_and(|module| format!(".{module}.").contains(&inside))
        };
        let is_around_tests = tests.iter().any(|test| is_of(test));
        let is_exact = {
            let end = format!(".{name}");
            move |path: &str| {
                let module = SourceFile::new(path, "").module();
                module.is_some_and(|module| format!(".{module}").ends_with(&end))
            }
        };
        self.files
            .iter()
            .filter(move |file| is_exact(&file.path) || (!is_around_tests && is_of(&file.path)))
    }
}

/// Lists the paths in the suite that `file` may import.
fn imports_of(file: &SourceFile, by_path: &ByPath<'_>) -> Vec<PathBuf> {
    if !is_python(&file.path) {
        return Vec::new();
    }
    let path = Path::new(&file.path);
    let folder = path.parent().unwrap_or(Path::new(""));
    let is_package = |folder: &&Path| by_path.contains_key(folder.join("__init__.py").as_path());
    // The folder around the outermost package is on the import path of pytest.
    let outside = folder.ancestors().find(|folder| !is_package(folder));
    let mut bases = vec![folder.to_owned(), PathBuf::new()];
    bases.extend(outside.map(Path::to_owned));
    let text = String::from_utf8_lossy(file.bytes());
    imports(&text).iter().flat_map(|import| import.candidates(path, &bases)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> TestSuite {
        let files = [
            ("conftest.py", "import fixtures"),
            ("fixtures.py", ""),
            ("shop/__init__.py", ""),
            ("shop/tests/__init__.py", ""),
            ("shop/tests/test_a.py", "from .helpers import x\nfrom pack import y"),
            ("shop/tests/helpers.py", "from . import more"),
            ("shop/tests/more.py", ""),
            ("shop/tests/pack/y.py", ""),
            ("shop/tests/unused.py", ""),
        ];
        let files = files.map(|(path, text)| SourceFile::new(path, text));
        TestSuite::with_targets(files.into(), vec!["shop/tests/test_a.py".to_owned()])
    }

    #[test]
    fn imports_are_followed_through_helpers() {
        let suite = suite();
        let paths: Vec<&str> =
            suite.imported_files().iter().map(|file| file.path.as_str()).collect();
        insta::assert_snapshot!(paths.join(" "), @"conftest.py shop/tests/test_a.py fixtures.py shop/tests/helpers.py shop/tests/pack/y.py shop/tests/more.py");
    }

    #[test]
    fn modules_of_tests_are_found_in_any_folder() {
        let suite = suite();
        let own = ["helpers", "fixtures", "pack", "pack.y", "shop.tests.more", "shop"];
        assert_eq!(own.map(|name| suite.has_module(name)), [true; 6]);
        let foreign = ["help", "shop.cart", "x", "pack.z"];
        assert_eq!(foreign.map(|name| suite.has_module(name)), [false; 4]);
        let of_shop = suite.files_of_module("shop").map(|file| file.path.as_str());
        assert_eq!(of_shop.collect::<Vec<_>>(), ["shop/__init__.py"]);
    }
}
