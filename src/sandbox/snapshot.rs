//! A copy of a repository's files, shared by any number of jails as
//! [`ExecRequest::tree`](super::ExecRequest::tree).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::lchown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::error::SandboxError;
use super::identity;

/// A copy of a repository's files, without `.git`. Dropping it removes the copy.
#[derive(Debug)]
pub struct RepositorySnapshot {
    folder: TempDir,
}

impl RepositorySnapshot {
    /// Copies the files below `repository`: those that git tracks or would add, or all files if it
    /// is not a git repository.
    ///
    /// Copies regular files and symbolic links; links are not followed.
    /// # Errors
    /// [`SandboxError::Snapshot`] when a file cannot be read or the disk is full.
    pub fn take(repository: &Path) -> Result<Self, SandboxError> {
        let failed = |error| SandboxError::Snapshot(repository.to_owned(), error);
        let folder = tempfile::Builder::new().prefix("rune-tree-").tempdir().map_err(failed)?;
        let paths = match known_to_git(repository) {
            Some(paths) => paths,
            None => walk(repository).map_err(failed)?,
        };
        let files = paths.iter().filter(|path| !path.iter().any(belongs_to_git));
        files
            .into_iter()
            .try_for_each(|path| copy(repository, folder.path(), path))
            .and_then(|()| open_to_programs(folder.path()))
            .map_err(failed)?;
        Ok(Self { folder })
    }

    /// The folder of the copy.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Whether a file of this name is git's own.
pub(super) fn belongs_to_git(name: &std::ffi::OsStr) -> bool {
    // On file systems that ignore case git would read `.GIT` as well (CVE-2014-9390).
    name.eq_ignore_ascii_case(".git")
}

/// Lists the files below `repository` that git tracks or would add; `None` if it lists none.
fn known_to_git(repository: &Path) -> Option<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new("git");
    // `core.fsmonitor` of the repository's own configuration names a program that git would run.
    command.arg("-C").arg(repository).args(["-c", "core.fsmonitor=false", "ls-files", "-z"]);
    let output = command.args(["--cached", "--others", "--exclude-standard"]).output().ok()?;
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let paths: Vec<PathBuf> =
        names.map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name))).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// Lists the relative paths of all files and links below `folder`.
pub(super) fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

/// Copies one file or link. Does nothing if it was removed since it was listed.
fn copy(from: &Path, to: &Path, path: &Path) -> io::Result<()> {
    let (source, target) = (from.join(path), to.join(path));
    let Ok(metadata) = fs::symlink_metadata(&source) else { return Ok(()) };
    fs::create_dir_all(target.parent().unwrap_or(to))?;
    if metadata.is_symlink() {
        symlink(fs::read_link(&source)?, target)
    } else if metadata.is_file() {
        fs::copy(&source, target).map(drop)
    } else {
        Ok(()) // the folder of a submodule, or a socket
    }
}

/// Copies all files and links below `from`.
pub(super) fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    walk(from)?.iter().try_for_each(|path| copy(from, to, path))
}

/// Makes the copy readable to programs; if we are root, gives it to the user that they run as.
fn open_to_programs(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    identity::user_of_jails().map_or(Ok(()), |user| give(folder, user))
}

/// Makes `user` the owner of `folder` and everything below it.
pub(super) fn give(folder: &Path, user: u32) -> io::Result<()> {
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        lchown(&path, Some(user), Some(user))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            let entries = fs::read_dir(&path)?.map(|entry| Ok(entry?.path()));
            paths.extend(entries.collect::<io::Result<Vec<_>>>()?);
        }
    }
    Ok(())
}
