//! Finds the project root of tests, which their paths are relative to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Configuration files that pytest reads.
pub(super) const CONFIGURATION: &[&str] = &[
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
];
/// Other entries that mark a project root.
const MARKERS: &[&str] = &["setup.py", ".git"];
/// Permission bit of a folder that everyone may write to, such as `/tmp`.
const WRITABLE_BY_ALL: u32 = 0o002;

/// Lists the folders that may be the root of tests in the canonical `folder`, from there upward. A
/// folder above it is not accepted if it is `/` or the user's home, on another file system, or
/// writable by all; nor are those above such a folder.
pub(super) fn candidates<'a>(folder: &'a Path, home: Option<&Path>) -> Vec<&'a Path> {
    let device = fs::metadata(folder).map(|found| found.dev()).ok();
    let is_open = |candidate: &&Path| {
        let found = fs::metadata(candidate);
        let fits = found
            .is_ok_and(|found| Some(found.dev()) == device && found.mode() & WRITABLE_BY_ALL == 0);
        fits && candidate.parent().is_some() && Some(*candidate) != home
    };
    let above = folder.ancestors().skip(1).take_while(is_open);
    let above = above.take_while(|_| Some(folder) != home);
    std::iter::once(folder).chain(above).collect()
}

/// Folders of the user that influence the choice of a root; canonical.
#[derive(Debug, Clone, Default)]
pub(super) struct UserPlace {
    /// The user's home, which is never the root of tests below it.
    pub(super) home: Option<PathBuf>,
    /// The current folder, which pytest uses as the root of tests below it if no other folder is
    /// marked as one.
    pub(super) current: Option<PathBuf>,
}

impl UserPlace {
    /// Returns the folders of this process's user.
    pub(super) fn of_process() -> Self {
        let real = |path: PathBuf| fs::canonicalize(path).ok();
        Self {
            home: std::env::home_dir().and_then(real),
            current: std::env::current_dir().ok().and_then(real),
        }
    }
}

/// Finds the project root of tests in `folder`: the nearest folder that is marked as one; else the
/// current folder, or the topmost of an unbroken chain of folders with a `conftest.py`, whichever
/// is higher; else `folder` itself. Never inside a package, whose tests are imported by the
/// package's name.
pub(super) fn project_root(folder: &Path, user: &UserPlace) -> PathBuf {
    let candidates = candidates(folder, user.home.as_deref());
    let has = |index: usize, name: &str| {
        candidates.get(index).is_some_and(|folder| folder.join(name).exists())
    };
    let last = candidates.len() - 1;
    let outermost_package = (0..last).take_while(|index| has(*index, "__init__.py")).count();
    let is_marked = |index: &usize| {
        let mut names = CONFIGURATION.iter().chain(MARKERS);
        names.any(|name| has(*index, name))
    };
    // The nearest mark wins over all other rules.
    let marked = (0..=last).find(is_marked);
    // Indices grow upward: a larger one is a folder nearer to `/`.
    let root = marked.unwrap_or_else(|| {
        let above = outermost_package + 1..=last;
        let chain = above.take_while(|index| has(*index, "conftest.py")).count();
        let current = user.current.as_deref();
        let current = candidates.iter().position(|folder| Some(*folder) == current);
        (outermost_package + chain).max(current.unwrap_or(0))
    });
    candidates[root.max(outermost_package)].to_owned()
}

/// Whether `folder` is marked as a project root.
pub(super) fn is_project(folder: &Path) -> bool {
    CONFIGURATION.iter().chain(MARKERS).any(|name| folder.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root of tests in `tests` of a tree with these files, relative to the tree.
    fn check(files: &[&str], tests: &str) -> String {
        check_from("elsewhere", files, tests)
    }

    /// The same for a user in the folder `current`.
    fn check_from(current: &str, files: &[&str], tests: &str) -> String {
        let tree = tempfile::tempdir().unwrap();
        let outer = fs::canonicalize(tree.path()).unwrap();
        let home = outer.join("home");
        for file in files {
            let path = home.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir_all(home.join(tests)).unwrap();
        let folder = home.join(tests);
        let current = Some(home.join(current.trim_end_matches('/')));
        let root = project_root(&folder, &UserPlace { home: Some(home), current });
        root.strip_prefix(outer).unwrap().display().to_string()
    }

    #[test]
    fn nearest_marked_folder_is_the_root() {
        assert_eq!(check(&["p/pyproject.toml", "p/.git"], "p/tests/unit"), "home/p");
        assert_eq!(check(&["p/.git", "p/sub/setup.cfg"], "p/sub/tests"), "home/p/sub");
        assert_eq!(check(&["p/pyproject.toml", "p/tests/conftest.py"], "p/tests"), "home/p");
    }

    #[test]
    fn tests_without_a_project_are_their_own_root() {
        assert_eq!(check(&["p/readme.md"], "p/tests"), "home/p/tests");
        assert_eq!(check(&["p/conftest.py"], "p/tests"), "home/p");
        assert_eq!(check(&["conftest.py", "p/x"], "p/tests"), "home/p/tests");
    }

    #[test]
    fn current_folder_is_the_root_of_unmarked_tests() {
        assert_eq!(check_from("p", &["p/adder.py"], "p/tests/unit"), "home/p");
        assert_eq!(check_from("p", &["p/tests/tox.ini"], "p/tests/unit"), "home/p/tests");
        assert_eq!(check_from("p", &["q/adder.py"], "q/tests"), "home/q/tests");
        assert_eq!(check_from("", &["p/adder.py"], "p/tests"), "home/p/tests");
    }

    #[test]
    fn root_of_packages_is_outside_of_them() {
        assert_eq!(check(&["p/tests/__init__.py"], "p/tests"), "home/p");
        assert_eq!(check(&["p/t/__init__.py", "p/t/u/__init__.py"], "p/t/u"), "home/p");
        assert_eq!(check(&["p/t/__init__.py", "p/t/pytest.ini"], "p/t"), "home/p");
    }

    #[test]
    fn home_is_never_the_root_of_tests_below_it() {
        assert_eq!(check(&[".git", "setup.cfg"], "p"), "home/p");
        assert_eq!(check(&[".git"], ""), "home");
    }
}
