//! Loads a suite from disk.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::TestSuite;
use super::collector::FileCollector;
use super::collector::canonical;
use super::collector::not_a_file;
use super::collector::read_file;
use super::data::add_data;
use super::error::SuiteError;
use super::imports::imports;
use super::is_python;
use super::root::CONFIGURATION;
use super::root::UserPlace;
use super::root::candidates;
use super::root::is_project;
use super::root::project_root;

impl TestSuite {
    /// Loads the tests at `path` with everything that they need. Paths in [`Self::files`] are
    /// relative to the project root: the nearest folder upwards with a pytest configuration,
    /// `setup.py` or `.git`; else the current folder if it is above the tests; else their own.
    ///
    /// A folder is loaded whole; a file with the modules beside it that it imports, and the data
    /// files of its folder. Configuration, `conftest.py` and `__init__.py` on the way from the root
    /// are included, and files directly in a project root that the tests mention, such as
    /// `README.md`. Hidden folders, caches, environments and build outputs are not. Python files
    /// are not decoded here.
    /// # Errors
    /// Any variant of [`SuiteError`].
    pub fn load(path: &Path) -> Result<Self, SuiteError> {
        Self::load_for(path, &UserPlace::of_process())
    }

    /// As [`Self::load`], for a user with this home and current folder.
    fn load_for(path: &Path, user: &UserPlace) -> Result<Self, SuiteError> {
        let found = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SuiteError::NotFound(path.to_owned()),
            _ => SuiteError::io(path, error),
        })?;
        // The folder is made canonical but not the file itself: a linked test file keeps its name
        // and its place among its neighbors.
        let loader = if found.is_dir() {
            SuiteLoader::new(canonical(path)?, user)
        } else if found.is_file() {
            let absolute =
                std::path::absolute(path).map_err(|error| SuiteError::io(path, error))?;
            SuiteLoader::new(canonical(absolute.parent().unwrap_or(Path::new("/")))?, user)
        } else {
            return Err(not_a_file(path, found.file_type()));
        };
        if found.is_dir() { loader.load_folder(path) } else { loader.load_file(path) }
    }
}

/// Maximum bytes of a document in the project root.
const MAX_DOCUMENT_BYTES: u64 = 1 << 20;

/// Loads the tests of one folder.
struct SuiteLoader {
    /// Canonical folder of the tests.
    folder: PathBuf,
    /// Canonical path of the project root.
    root: PathBuf,
    /// Folders that links may lead into, in addition to the root.
    reach: Vec<PathBuf>,
    files: FileCollector,
}

impl SuiteLoader {
    fn new(folder: PathBuf, user: &UserPlace) -> Self {
        let root = project_root(&folder, user);
        // Links to a neighbor folder of the tests are common. The parent is not accepted if it is
        // the user's home or writable by everybody, where a neighbor could be anything.
        let parent =
            candidates(&folder, user.home.as_deref()).get(1).map(|path| (*path).to_owned());
        let reach: Vec<PathBuf> = parent.into_iter().collect();
        let files = FileCollector::new(&root, reach.clone());
        Self { folder, root, reach, files }
    }

    fn load_folder(mut self, path: &Path) -> Result<TestSuite, SuiteError> {
        let tree = self.folder.clone();
        self.files.add_tree(&tree)?;
        self.files.check(&tree)?;
        let python = self.python_files();
        if python.is_empty() {
            return Err(SuiteError::NoTests(path.to_owned()));
        }
        // Tests and conftest files may import helpers from outside of the folder.
        let seeds = python.into_iter().chain(self.conftests()).collect();
        self.add_imported(seeds)?;
        self.add_support()?;
        self.add_documents(&self.texts())?;
        let inside = tree.strip_prefix(&self.root).ok().and_then(Path::to_str).unwrap_or("");
        let target = if inside.is_empty() { "." } else { inside }.to_owned();
        self.finish(target)
    }

    fn load_file(mut self, path: &Path) -> Result<TestSuite, SuiteError> {
        let Some(name) = path.file_name().filter(|_| is_python(path)) else {
            return Err(SuiteError::NoTests(path.to_owned()));
        };
        let file = self.folder.join(name);
        self.files.add_named_file(&file)?;
        let seeds: Vec<PathBuf> = [file.clone()].into_iter().chain(self.conftests()).collect();
        self.add_imported(seeds)?;
        self.add_support()?;
        let texts = self.texts();
        self.add_documents(&texts)?;
        let walk = FileCollector::new(&self.root, self.reach.clone());
        add_data(&mut self.files, &self.folder, &texts, walk)?;
        let target = file.strip_prefix(&self.root).ok().and_then(Path::to_str).map(str::to_owned);
        self.finish(target.unwrap_or_default())
    }

    fn finish(self, target: String) -> Result<TestSuite, SuiteError> {
        let (files, left_out) = self.files.read()?;
        let folder = Some(self.root);
        Ok(TestSuite { left_out, folder, ..TestSuite::with_targets(files, vec![target]) })
    }

    /// Paths at which pytest looks for a `conftest.py`: in the tests' folder and in those around
    /// it, up to the root.
    fn conftests(&self) -> Vec<PathBuf> {
        let folders = self.folder.ancestors().take_while(|folder| folder.starts_with(&self.root));
        folders.map(|folder| folder.join("conftest.py")).collect()
    }

    fn python_files(&self) -> Vec<PathBuf> {
        let found = self.files.found.values();
        found.filter(|file| is_python(&file.path)).map(|file| file.path.clone()).collect()
    }

    /// Sources of the Python files found so far.
    fn texts(&self) -> Vec<String> {
        self.python_files().iter().filter_map(|path| text_of(path).ok()).collect()
    }

    /// Adds files directly in a project root that the tests mention, such as `README.md`. Modules
    /// there do not belong to the tests.
    fn add_documents(&mut self, texts: &[String]) -> Result<(), SuiteError> {
        if !is_project(&self.root) {
            return Ok(());
        }
        let failed = |error| SuiteError::io(&self.root, error);
        let mut documents = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let found = entry.metadata().map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_document = found.is_file() && found.len() <= MAX_DOCUMENT_BYTES;
            let is_private = name.starts_with('.') || is_python(entry.path());
            if is_document && !is_private && texts.iter().any(|text| text.contains(&name)) {
                documents.push(entry.path());
            }
        }
        documents.sort();
        documents.iter().try_for_each(|path| self.files.add_file(path))
    }

    /// Adds the files that `seeds` import, directly or indirectly, if they belong to the tests.
    fn add_imported(&mut self, seeds: Vec<PathBuf>) -> Result<(), SuiteError> {
        let region = self.region();
        let is_ours = |path: &Path| path.starts_with(&self.folder) || path.starts_with(&region);
        let mut seen: HashSet<PathBuf> = seeds.iter().cloned().collect();
        let mut queue = VecDeque::from(seeds);
        while let Some(path) = queue.pop_front() {
            // Most candidates do not exist: an import may be resolved in several places.
            if !path.is_file() {
                continue;
            }
            let bases = self.bases(&path);
            for import in imports(&text_of(&path)?) {
                let candidates = import.candidates(&path, &bases);
                let ours = candidates.into_iter().filter(|path| is_ours(path));
                queue.extend(ours.filter(|path| seen.insert(path.clone())));
            }
            if !self.files.has(&path) {
                self.files.add_file(&path)?;
            }
        }
        Ok(())
    }

    /// The folder whose modules belong to the tests: the topmost folder below the root with a name
    /// such as `tests`, else the tests' own folder.
    fn region(&self) -> PathBuf {
        let is_tests = |folder: &&Path| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            matches!(&*name, "test" | "tests" | "testing") || name.starts_with("test_")
        };
        let inside = self.folder.ancestors().take_while(|folder| *folder != self.root);
        inside.filter(is_tests).last().unwrap_or(&self.folder).to_owned()
    }

    /// Folders in which Python looks for modules that the file at `path` imports: its own, the one
    /// around its packages, and the root.
    fn bases(&self, path: &Path) -> Vec<PathBuf> {
        let folder = path.parent().unwrap_or(&self.root);
        let outside = folder.ancestors().find(|folder| !folder.join("__init__.py").exists());
        let mut bases = vec![folder.to_owned()];
        bases.extend(outside.filter(|outside| *outside != folder).map(Path::to_owned));
        bases.push(self.root.clone());
        bases
    }

    /// Adds the configuration of the root, and the `conftest.py` and `__init__.py` of all folders
    /// between the root and the files found so far.
    fn add_support(&mut self) -> Result<(), SuiteError> {
        let mut paths: Vec<PathBuf> =
            CONFIGURATION.iter().map(|name| self.root.join(name)).collect();
        paths.extend(self.conftests());
        let below_root = |folder: &&Path| folder.starts_with(&self.root);
        for file in self.python_files() {
            let folders = file.ancestors().skip(1).take_while(below_root);
            paths.extend(folders.map(|folder| folder.join("__init__.py")));
        }
        paths.sort();
        paths.dedup();
        // Not `exists`, which follows links: a link that leads nowhere is to be reported.
        paths.retain(|path| fs::symlink_metadata(path).is_ok());
        paths.iter().try_for_each(|path| self.files.add_file(path))
    }
}

/// Reads the source of a Python file, with invalid UTF-8 replaced.
fn text_of(path: &Path) -> Result<String, SuiteError> {
    Ok(String::from_utf8_lossy(&read_file(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    /// A home with a project in it.
    struct Bench {
        outer: TempDir,
    }

    impl Bench {
        fn new(files: &[&str]) -> Self {
            let bench = Self { outer: tempfile::tempdir().unwrap() };
            for file in files {
                bench.write(file, "");
            }
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.outer.path().join(name)
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn link(&self, name: &str, target: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        fn load(&self, tests: &str) -> Result<TestSuite, SuiteError> {
            let home = Some(fs::canonicalize(self.outer.path()).unwrap());
            TestSuite::load_for(&self.path(tests), &UserPlace { home, current: None })
        }

        /// Names of files and targets, and what was left out.
        fn check(&self, tests: &str) -> String {
            let outer = fs::canonicalize(self.outer.path()).unwrap();
            let text = match self.load(tests) {
                Ok(suite) => {
                    let names = suite.files().iter().map(|file| file.path.as_str());
                    let left_out = suite.left_out().iter().map(|file| format!("\nno {file}"));
                    let names = names.collect::<Vec<_>>().join(" ");
                    format!(
                        "{names}\nto {}{}",
                        suite.targets().join(" "),
                        left_out.collect::<String>()
                    )
                }
                Err(error) => error.to_string(),
            };
            text.replace(outer.to_str().unwrap(), "")
        }
    }

    #[test]
    fn project_documents_are_included_if_tests_mention_them() {
        let bench = Bench::new(&["p/setup.py", "p/.env", "p/README.md", "p/NOTES.md", "p/shop.py"]);
        bench.write("p/tests/test_a.py", "open('README.md'), open('.env'), 'shop.py'");
        assert_eq!(bench.check("p/tests"), "README.md tests/test_a.py\nto tests");
        assert_eq!(
            bench.check("p/tests/test_a.py"),
            "README.md tests/test_a.py\nto tests/test_a.py"
        );
    }

    #[test]
    fn folder_is_loaded_whole_with_its_configuration() {
        let bench = Bench::new(&[
            "p/pyproject.toml",
            "p/conftest.py",
            "p/setup.py",
            "p/src/shop.py",
            "p/qa/__init__.py",
            "p/qa/unit/conftest.py",
            "p/qa/unit/test_a.py",
            "p/qa/unit/deep/names.csv",
            "p/qa/unit/.hidden",
            "p/qa/unit/.secret/key",
            "p/qa/unit/.mypy_cache/x",
            "p/qa/unit/__pycache__/a.pyc",
            "p/qa/unit/env/pyvenv.cfg",
            "p/qa/unit/build/plan.txt",
            "p/qa/other/test_b.py",
        ]);
        insta::assert_snapshot!(bench.check("p/qa/unit"), @"
        conftest.py pyproject.toml qa/__init__.py qa/unit/.hidden qa/unit/build/plan.txt qa/unit/conftest.py qa/unit/deep/names.csv qa/unit/test_a.py
        to qa/unit
        no `/p/qa/unit/.secret`: a hidden folder
        ");
        insta::assert_snapshot!(bench.check("p/qa"), @"
        conftest.py pyproject.toml qa/__init__.py qa/other/test_b.py qa/unit/.hidden qa/unit/build/plan.txt qa/unit/conftest.py qa/unit/deep/names.csv qa/unit/test_a.py
        to qa
        no `/p/qa/unit/.secret`: a hidden folder
        ");
    }

    #[test]
    fn file_is_loaded_with_only_its_helpers_and_data() {
        let bench = Bench::new(&["p/tests/test_b.py", "p/tests/unused.py", "p/tests/cases.json"]);
        bench.write("p/tests/test_a.py", "import os, adder\nfrom helpers import CASES\n");
        bench.write("p/tests/helpers.py", "import test_base\nfrom pack import deep\n");
        bench.write("p/tests/test_base.py", "");
        bench.write("p/tests/pack/__init__.py", "");
        bench.write("p/tests/pack/deep.py", "from . import sub\n");
        bench.write("p/tests/pack/sub.py", "");
        bench.write("p/tests/pack/other.py", "");
        bench.write("p/adder.py", "");
        insta::assert_snapshot!(bench.check("p/tests/test_a.py"), @"
        cases.json helpers.py pack/__init__.py pack/deep.py pack/sub.py test_a.py test_base.py
        to test_a.py
        ");
    }

    #[test]
    fn helpers_of_a_test_package_are_found_above_the_file() {
        let bench = Bench::new(&["p/setup.cfg", "p/tests/__init__.py", "p/tests/unit/__init__.py"]);
        bench.write("p/tests/unit/test_a.py", "from ..helpers import x\nfrom tests import more\n");
        bench.write("p/tests/helpers.py", "");
        bench.write("p/tests/more.py", "");
        bench.write("p/conftest.py", "import tests.plugin\nimport shop\n");
        bench.write("p/tests/plugin.py", "");
        bench.write("p/shop.py", "");
        insta::assert_snapshot!(bench.check("p/tests/unit/test_a.py"), @"
        conftest.py setup.cfg tests/__init__.py tests/helpers.py tests/more.py tests/plugin.py tests/unit/__init__.py tests/unit/test_a.py
        to tests/unit/test_a.py
        ");
        insta::assert_snapshot!(bench.check("p/tests/unit"), @"
        conftest.py setup.cfg tests/__init__.py tests/helpers.py tests/more.py tests/plugin.py tests/unit/__init__.py tests/unit/test_a.py
        to tests/unit
        ");
    }

    #[test]
    fn content_of_any_encoding_is_preserved() {
        let bench = Bench::new(&[]);
        let files: [(&str, &[u8]); 3] = [
            ("t/names.csv", b"M\xfcller\r\n"),
            ("t/test_a.py", b"\xef\xbb\xbfx = 1\r\n"),
            ("t/test_b.py", b"# -*- coding: latin-1 -*-\nx = '\xfc'\n"),
        ];
        for (name, content) in files {
            bench.write(name, content);
        }
        for tests in ["t", "t/test_b.py"] {
            for file in bench.load(tests).unwrap().files() {
                let expected = files.iter().find(|(name, _)| name.ends_with(&file.path));
                assert_eq!(file.bytes(), expected.unwrap().1, "{}", file.path);
            }
        }
    }

    #[test]
    fn links_are_followed_within_reach_but_not_in_circles() {
        let bench = Bench::new(&["p/shared/test_s.py", "p/shared/more/x.txt", "else/secret.txt"]);
        bench.link("p/tests/test_linked.py", "../shared/test_s.py");
        bench.link("p/tests/linked", "../shared/more");
        bench.link("p/tests/up", "..");
        bench.link("p/tests/linked_self", ".");
        bench.link("p/tests/gone", "nowhere");
        bench.link("p/tests/out.txt", "../../else/secret.txt");
        insta::assert_snapshot!(bench.check("p/tests"), @"
        linked/x.txt test_linked.py
        to .
        no `/p/tests/gone`: a link that leads nowhere
        no `/p/tests/linked_self`: a link to a folder around it
        no `/p/tests/out.txt`: a link to `/else/secret.txt`, outside of the project
        no `/p/tests/up`: a link to a folder around it
        ");
        insta::assert_snapshot!(bench.check("p/tests/test_linked.py"), @"
        linked/x.txt test_linked.py
        to test_linked.py
        no `/p/tests/gone`: a link that leads nowhere
        no `/p/tests/linked_self`: a link to a folder around it
        no `/p/tests/out.txt`: a link to `/else/secret.txt`, outside of the project
        no `/p/tests/up`: a link to a folder around it
        ");
    }

    #[test]
    fn pipes_are_errors_and_never_block() {
        let bench = Bench::new(&["t/test_a.py", "u/test_a.py"]);
        let pipe = |name: &str| mkfifo(&bench.path(name), Mode::S_IRWXU).unwrap();
        pipe("t/data");
        pipe("u/conftest.py");
        assert_eq!(bench.check("t"), "`/t/data` is a named pipe, not a file or a folder");
        assert_eq!(
            bench.check("u/test_a.py"),
            "`/u/conftest.py` is a named pipe, not a file or a folder"
        );
        assert!(
            bench.check("t/data").ends_with("/t/data` is a named pipe, not a file or a folder")
        );
        // Beside a single test file it is only data that nobody may want.
        insta::assert_snapshot!(bench.check("t/test_a.py"), @"
        test_a.py
        to test_a.py
        no `/t/data`: a named pipe
        ");
    }

    #[test]
    fn exceeded_limits_name_the_largest_parts() {
        let bench = Bench::new(&["t/test_a.py"]);
        for name in ["t/big/a.bin", "t/big/b.bin", "t/c.bin"] {
            bench.write(name, "");
            let file = fs::File::options().write(true).open(bench.path(name)).unwrap();
            file.set_len(30 << 20).unwrap();
        }
        insta::assert_snapshot!(bench.check("t"), @"`/t` holds 4 files of 90.0 MiB, more than the 5000 files of 64.0 MiB that fit in the sandbox; its largest parts: `big` (60.0 MiB in 2 files), `c.bin` (30.0 MiB in 1 file), `test_a.py` (0 bytes in 1 file)");
        // Beside a single file as much comes as fits, first of all what it speaks of.
        bench.write("t/test_a.py", "open('small.txt')");
        bench.write("t/big/small.txt", "x");
        insta::assert_snapshot!(bench.check("t/test_a.py"), @"
        big/small.txt test_a.py
        to test_a.py
        no `/t/c.bin`: 30.0 MiB of data do not fit beside the test file
        no `/t/big/a.bin`: 30.0 MiB of data do not fit beside the test file
        no `/t/big/b.bin`: 30.0 MiB of data do not fit beside the test file
        ");
    }

    #[test]
    fn project_folders_are_test_data_only_if_mentioned() {
        let bench =
            Bench::new(&["p/.git/config", "p/docs/a.md", "p/data/a.json", "p/b.txt", "p/.env"]);
        bench.write("p/test_a.py", "open('data/a.json')");
        insta::assert_snapshot!(bench.check("p/test_a.py"), @"
        b.txt data/a.json test_a.py
        to test_a.py
        ");
    }

    #[test]
    fn suites_without_python_files_are_errors() {
        let bench = Bench::new(&["t/readme.md"]);
        assert_eq!(
            bench.check("t").replace(bench.outer.path().to_str().unwrap(), ""),
            "no Python test file in `/t`"
        );
        assert!(matches!(bench.load("t/readme.md"), Err(SuiteError::NoTests(_))));
        assert!(matches!(bench.load("nowhere"), Err(SuiteError::NotFound(_))));
        bench.write("t/test_a.py", "");
        fs::set_permissions(bench.path("t"), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(bench.load("t").unwrap().test_paths(), ["test_a.py"]);
    }
}
