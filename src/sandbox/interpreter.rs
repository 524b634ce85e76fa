//! Finds the Python that runs programs: the real binary, never a shim.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use super::error::SandboxError;
use super::job::Mount;

/// Where Debian, Fedora and the others keep theirs: readable by everyone.
const SYSTEM: &str = "/usr/bin/python3";

/// Whether every user may read what is at `path`, and enter every folder on the way.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    let allows = |path: &Path, bits| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    let own = if path.is_dir() { 0o5 } else { 0o4 };
    allows(path, own) && path.ancestors().skip(1).all(|folder| allows(folder, 0o1))
}

/// Makes Python tell what it is. Bound to one line, for what a shim may print before it.
const QUESTION: &str = "import json, os, sys; print(json.dumps({\
    'executable': os.path.realpath(sys.executable), \
    'prefix': os.path.realpath(sys.base_prefix), \
    'version': '.'.join(map(str, sys.version_info[:3]))}))";

/// A Python interpreter and what it needs of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Interpreter {
    executable: PathBuf,
    prefix: PathBuf,
    version: String,
}

impl Interpreter {
    /// Finds the interpreter: `configured`, else the `python3` of the search path, else the system's.
    ///
    /// Starts it once (20 ms, through a pyenv shim 600 ms): to be called once and kept.
    /// # Errors
    /// [`SandboxError::NoInterpreter`] when none of them runs; a configured one is not replaced by another
    /// unless this user may not read it.
    pub fn find(configured: Option<&Path>) -> Result<Self, SandboxError> {
        Self::find_where(configured, |_| Ok(()))
    }

    /// As [`Self::find`], but only one that every user may run.
    pub(super) fn find_for_all(configured: Option<&Path>) -> Result<Self, SandboxError> {
        Self::find_where(configured, |found| {
            let paths = [&found.executable, &found.prefix];
            match paths.into_iter().find(|path| !is_open_to_all(path)) {
                None => Ok(()),
                Some(path) => Err(SandboxError::NoInterpreter(format!(
                    "without namespaces programs of root run as another user, who may not read `{}`",
                    path.display()
                ))),
            }
        })
    }

    fn find_where(
        configured: Option<&Path>,
        allow: impl Fn(&Self) -> Result<(), SandboxError>,
    ) -> Result<Self, SandboxError> {
        let first = configured.map_or(OsStr::new("python3"), Path::as_os_str);
        let found = Self::ask(first).and_then(|found| allow(&found).map(|()| found));
        found.or_else(|reason| match configured {
            Some(path) if fs::metadata(path).is_ok() => Err(reason),
            _ => Self::ask(OsStr::new(SYSTEM)),
        })
    }

    fn ask(program: &OsStr) -> Result<Self, SandboxError> {
        let failed = |reason: &dyn std::fmt::Display| {
            SandboxError::NoInterpreter(format!("`{}`: {reason}", program.display()))
        };
        let mut command = Command::new(program);
        let output = command.args(["-I", "-S", "-c", QUESTION]).output();
        let output = output.map_err(|error| failed(&error))?;
        if !output.status.success() {
            return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let found: Self = serde_json::from_str(text.lines().last().unwrap_or_default())
            .map_err(|error| failed(&error))?;
        fs::File::open(&found.executable).map_err(|error| failed(&error))?;
        Ok(found)
    }

    /// The real binary: [`super::Job::program`].
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Such as `3.11.7`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the jail must show beside the system's own folders: nothing for an interpreter in `/usr`.
    ///
    /// The packages of a virtual environment are not among it.
    pub fn mounts(&self) -> Vec<Mount> {
        let folders = [Some(self.prefix.as_path()), self.executable.parent()].into_iter().flatten();
        let mut mounts: Vec<Mount> = Vec::new();
        for folder in folders.filter(|folder| !folder.starts_with("/usr")) {
            if !mounts.iter().any(|mount| folder.starts_with(&mount.jail)) {
                mounts.push(Mount { host: folder.to_owned(), jail: folder.to_owned() });
            }
        }
        mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(executable: &str, prefix: &str) -> Vec<PathBuf> {
        let (executable, prefix) = (executable.into(), prefix.into());
        let found = Interpreter { executable, prefix, version: "3.11.7".to_owned() };
        found.mounts().into_iter().map(|mount| mount.jail).collect()
    }

    #[test]
    fn only_what_lies_outside_of_usr_is_mounted_and_only_once() {
        assert!(check("/usr/bin/python3.11", "/usr").is_empty());
        assert_eq!(check("/o/py/bin/python3", "/o/py"), [Path::new("/o/py")]);
        assert_eq!(check("/o/bin/python3", "/p"), [Path::new("/p"), Path::new("/o/bin")]);
    }
}
