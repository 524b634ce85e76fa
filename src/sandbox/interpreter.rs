//! Finds the Python interpreter that runs programs: the real binary or that of a virtual
//! environment, never a shim.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use super::error::SandboxError;
use super::filesystem::SYSTEM;
use super::job::Mount;

/// The Python of Debian, Fedora and other distributions, readable by everyone.
const FALLBACK: &str = "/usr/bin/python3";

/// A program that prints a description of the interpreter as its last line of output. A shim, or
/// code that an environment runs at startup, may print before it.
const QUESTION: &str = include_str!("interpreter.py");

/// Maximum links that the kernel follows to a program (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Whether every user may read `path` and enter every folder on the way to it.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    let allows = |path: &Path, bits| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    let own = if path.is_dir() { 0o5 } else { 0o4 };
    allows(path, own) && path.ancestors().skip(1).all(|folder| allows(folder, 0o1))
}

/// A Python interpreter, and the host folders that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Interpreter {
    /// The real binary; in a virtual environment the link to it, by which Python finds the
    /// environment.
    executable: PathBuf,
    /// The folder of the virtual environment.
    environment: Option<PathBuf>,
    /// Folders of the standard library and its native modules.
    prefixes: Vec<PathBuf>,
    version: String,
    site_packages: Vec<PathBuf>,
    /// Packages and modules outside of these folders, such as editable installs.
    elsewhere: Vec<PathBuf>,
    /// More such packages, beyond the number that is mounted.
    left_out: Vec<PathBuf>,
    modules: BTreeSet<String>,
    n_packages: usize,
}

/// Minimum Python version (major, minor) that the judge's programs support.
const OLDEST: (u32, u32) = (3, 9);

impl Interpreter {
    /// Finds the interpreter: `configured`, else `python3` on the search path, else the system's.
    /// Any of them may belong to a virtual environment.
    ///
    /// Starts the interpreter once (30 ms; 600 ms through a pyenv shim), so call it once and keep
    /// the result.
    /// # Errors
    /// [`SandboxError::NoInterpreter`] when none of them works. A configured interpreter that fails
    /// is an error, except that the system's is used if this user may not read it.
    pub fn find(configured: Option<&Path>) -> Result<Self, SandboxError> {
        Self::find_where(configured, Ok)
    }

    /// As [`Self::find`], but accepts only an interpreter that every user may run.
    pub(super) fn find_for_all(configured: Option<&Path>) -> Result<Self, SandboxError> {
        Self::find_where(configured, |mut found| {
            let (open, closed) = found.elsewhere.into_iter().partition(|path| is_open_to_all(path));
            found.elsewhere = open;
            found.left_out.extend::<Vec<_>>(closed);
            let mut paths = vec![found.executable.clone()];
            paths.extend(found.mounts().into_iter().map(|mount| mount.host));
            match paths.iter().find(|path| !is_open_to_all(path)) {
                None => Ok(found),
                Some(path) => Err(SandboxError::NoInterpreter(format!(
                    "`{}` is not readable by all users, but without namespaces root's programs run \
                     as another user",
                    path.display()
                ))),
            }
        })
    }

    fn find_where(
        configured: Option<&Path>,
        allow: impl Fn(Self) -> Result<Self, SandboxError>,
    ) -> Result<Self, SandboxError> {
        let first = configured.map_or(OsStr::new("python3"), Path::as_os_str);
        let found = Self::ask(first).and_then(allow);
        found.or_else(|reason| match configured {
            Some(path) if !is_unreadable(path) => Err(reason),
            _ => Self::ask(OsStr::new(FALLBACK)),
        })
    }

    fn ask(program: &OsStr) -> Result<Self, SandboxError> {
        let failed = |reason: &dyn std::fmt::Display| {
            SandboxError::NoInterpreter(format!("`{}`: {reason}", program.display()))
        };
        let mut command = Command::new(program);
        let output = command.args(["-I", "-B", "-c", QUESTION]).output();
        let output = output.map_err(|error| failed(&error))?;
        if !output.status.success() {
            return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let found: Self = serde_json::from_str(text.lines().last().unwrap_or_default())
            .map_err(|error| failed(&error))?;
        if found.is_older_than(OLDEST) {
            let (major, minor) = OLDEST;
            return Err(failed(&format!(
                "Python {} is too old: {major}.{minor} or newer is required",
                found.version
            )));
        }
        // The answer names the real binary, which may be closed to us although a shim is not.
        fs::File::open(&found.executable).map_err(|error| failed(&error))?;
        Ok(found)
    }

    fn is_older_than(&self, (major, minor): (u32, u32)) -> bool {
        let mut numbers = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) < (Some(major), Some(minor))
    }

    /// Path of the binary to start, for [`super::ExecRequest::program`].
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Folder of the virtual environment that the interpreter belongs to.
    pub fn environment(&self) -> Option<&Path> {
        self.environment.as_deref()
    }

    /// Full version of the interpreter, such as `3.11.7`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Folders of installed packages, in search order. Python searches them by default, unless it
    /// is started with `-S`.
    pub fn site_packages(&self) -> &[PathBuf] {
        &self.site_packages
    }

    /// Number of distributions installed in [`Self::site_packages`].
    pub fn n_packages(&self) -> usize {
        self.n_packages
    }

    /// Whether `name`, which may be dotted, belongs to the standard library or an installed
    /// package. Only its first part is checked.
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.contains(name.split('.').next().unwrap_or(name))
    }

    /// Installed packages that cannot be mounted in a jail.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Mounts that the jail needs in addition to the system's folders, each at its path on the
    /// host. Empty for an interpreter in `/usr`.
    pub fn mounts(&self) -> Vec<Mount> {
        let real = fs::canonicalize(&self.executable).unwrap_or_else(|_| self.executable.clone());
        let folders = self.prefixes.iter().chain(&self.environment).map(PathBuf::as_path);
        let mut mounts: Vec<Mount> = Vec::new();
        let mut show = |host: &Path, jail: &Path| {
            let system = SYSTEM.iter().map(Path::new);
            let mut shown = system.chain(mounts.iter().map(|mount| mount.jail.as_path()));
            if !shown.any(|folder| jail.starts_with(folder)) {
                mounts.push(Mount { host: host.to_owned(), jail: jail.to_owned() });
            }
        };
        folders.chain(real.parent()).for_each(|folder| show(folder, folder));
        // Python finds its environment and library by the path it is started with, link by link,
        // so every one of them has to exist in the jail.
        for link in links(&self.executable) {
            show(&real, &link);
        }
        for path in &self.elsewhere {
            show(path, path);
        }
        mounts
    }
}

/// Lists the chain of links from `path` to the program: each path but the last is a link to the
/// next.
fn links(path: &Path) -> Vec<PathBuf> {
    let next = |path: &PathBuf| {
        let target = fs::read_link(path).ok()?;
        Some(plain(&path.parent()?.join(target)))
    };
    std::iter::successors(Some(path.to_owned()), next).take(MAX_LINKS).collect()
}

/// Removes `.` and `..` from `path` lexically.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Whether this user lacks the permission to access `path`.
fn is_unreadable(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(executable: &str, prefix: &str, environment: Option<&str>) -> Interpreter {
        Interpreter {
            executable: executable.into(),
            environment: environment.map(PathBuf::from),
            prefixes: vec![prefix.into()],
            version: "3.11.7".to_owned(),
            site_packages: Vec::new(),
            elsewhere: Vec::new(),
            left_out: Vec::new(),
            modules: ["json".to_owned()].into(),
            n_packages: 0,
        }
    }

    fn check(executable: &str, prefix: &str, environment: Option<&str>) -> Vec<String> {
        let mounts = interpreter(executable, prefix, environment).mounts();
        mounts.into_iter().map(|mount| mount.jail.display().to_string()).collect()
    }

    #[test]
    fn mounts_cover_folders_outside_of_usr_once() {
        assert!(check("/usr/bin/python3.11", "/usr", None).is_empty());
        assert_eq!(check("/o/py/bin/python3", "/o/py", None), ["/o/py"]);
        assert_eq!(check("/o/bin/python3", "/p", None), ["/p", "/o/bin"]);
        assert_eq!(check("/v/bin/python3", "/usr", Some("/v")), ["/v"]);
        assert_eq!(check("/o/py/v/bin/python3", "/o/py", Some("/o/py/v")), ["/o/py"]);
    }

    #[test]
    fn every_link_to_the_binary_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["real", "between", "environment"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("real/python3.11"), "").unwrap();
        std::os::unix::fs::symlink("../real/python3.11", path("between/python3")).unwrap();
        std::os::unix::fs::symlink(path("between/python3"), path("environment/python")).unwrap();
        let executable = path("environment/python");
        let environment = path("environment");
        let mounts =
            interpreter(executable.to_str().unwrap(), "/usr", environment.to_str()).mounts();
        let shown: Vec<_> = mounts.iter().map(|mount| mount.jail.clone()).collect();
        assert_eq!(shown, [environment, path("real"), path("between/python3")]);
        assert_eq!(mounts[2].host, fs::canonicalize(path("real/python3.11")).unwrap());
    }

    #[test]
    fn dotted_names_are_looked_up_by_their_first_part() {
        let found = interpreter("/usr/bin/python3", "/usr", None);
        assert!(found.has_module("json.decoder") && !found.has_module("decoder"));
    }
}
