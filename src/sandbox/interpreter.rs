//! Finds the Python that runs programs: the real binary or that of a virtual environment, never a
//! shim.

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

/// Where Debian, Fedora and the others keep theirs: readable by everyone.
const FALLBACK: &str = "/usr/bin/python3";

/// Makes Python tell what it is, on its last line: a shim, or what an environment runs at its
/// start, may print before it.
const QUESTION: &str = include_str!("interpreter.py");

/// How many links the kernel follows to a program.
const MOST_LINKS: usize = 40;

/// Whether every user may read what is at `path`, and enter every folder on the way.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    let allows = |path: &Path, bits| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    let own = if path.is_dir() { 0o5 } else { 0o4 };
    allows(path, own) && path.ancestors().skip(1).all(|folder| allows(folder, 0o1))
}

/// A Python interpreter and what it needs of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Interpreter {
    /// The real binary, or the link to it in a virtual environment, by which Python finds that.
    executable: PathBuf,
    /// The folder of the virtual environment.
    environment: Option<PathBuf>,
    /// Folders of the standard library and what belongs to it.
    prefixes: Vec<PathBuf>,
    version: String,
    site_packages: Vec<PathBuf>,
    /// Packages and modules that lie in none of these folders, as those installed as links to their
    /// sources.
    elsewhere: Vec<PathBuf>,
    /// Likewise, but more than can be shown.
    left_out: Vec<PathBuf>,
    modules: BTreeSet<String>,
    n_packages: usize,
}

/// The first Python, major and minor number, that the judge's programs run on.
const OLDEST: (u32, u32) = (3, 9);

impl Interpreter {
    /// Finds the interpreter: `configured`, else the `python3` of the search path, else the
    /// system's. Either may be that of a virtual environment.
    ///
    /// Starts it once (30 ms, through a pyenv shim 600 ms): to be called once and kept.
    /// # Errors
    /// [`SandboxError::NoInterpreter`] when none of them runs; a configured one is not replaced by
    /// another unless this user may not read it.
    pub fn find(configured: Option<&Path>) -> Result<Self, SandboxError> {
        Self::find_where(configured, Ok)
    }

    /// As [`Self::find`], but only one that every user may run.
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
                    "without namespaces programs of root run as another user, who may not read `{}`",
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
                "Python {} is too old; {major}.{minor} or newer is needed",
                found.version
            )));
        }
        fs::File::open(&found.executable).map_err(|error| failed(&error))?;
        Ok(found)
    }

    fn is_older_than(&self, (major, minor): (u32, u32)) -> bool {
        let mut numbers = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) < (Some(major), Some(minor))
    }

    /// The binary to start: [`super::ExecRequest::program`].
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// The folder of the virtual environment that this is the Python of.
    pub fn environment(&self) -> Option<&Path> {
        self.environment.as_deref()
    }

    /// Such as `3.11.7`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Folders in which packages are looked for, in that order. Python searches them by itself
    /// unless it is started with `-S`.
    pub fn site_packages(&self) -> &[PathBuf] {
        &self.site_packages
    }

    /// How many distributions are installed in [`Self::site_packages`].
    pub fn n_packages(&self) -> usize {
        self.n_packages
    }

    /// Whether `name`, which may be dotted, is in a module of the standard library or an installed
    /// one. Only its first part is looked at.
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.contains(name.split('.').next().unwrap_or(name))
    }

    /// What is installed but can't be shown in a jail.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// What the jail must show beside the system's own folders, everything at its own path: nothing
    /// for an interpreter in `/usr`.
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
        for link in links(&self.executable) {
            show(&real, &link);
        }
        for path in &self.elsewhere {
            show(path, path);
        }
        mounts
    }
}

/// The paths on the way to the program at `path`, that first: each but the last is a link to the
/// next.
fn links(path: &Path) -> Vec<PathBuf> {
    let next = |path: &PathBuf| {
        let target = fs::read_link(path).ok()?;
        Some(plain(&path.parent()?.join(target)))
    };
    std::iter::successors(Some(path.to_owned()), next).take(MOST_LINKS).collect()
}

/// `path` without `.` and `..`.
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

/// Whether this user may not look at a path.
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
    fn only_what_lies_outside_of_usr_is_mounted_and_only_once() {
        assert!(check("/usr/bin/python3.11", "/usr", None).is_empty());
        assert_eq!(check("/o/py/bin/python3", "/o/py", None), ["/o/py"]);
        assert_eq!(check("/o/bin/python3", "/p", None), ["/p", "/o/bin"]);
        assert_eq!(check("/v/bin/python3", "/usr", Some("/v")), ["/v"]);
        assert_eq!(check("/o/py/v/bin/python3", "/o/py", Some("/o/py/v")), ["/o/py"]);
    }

    #[test]
    fn every_link_on_the_way_to_the_binary_is_shown() {
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
    fn of_a_dotted_name_the_first_part_is_looked_up() {
        let found = interpreter("/usr/bin/python3", "/usr", None);
        assert!(found.has_module("json.decoder") && !found.has_module("decoder"));
    }
}
