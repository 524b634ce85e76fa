//! Atomic and durable file writes: a file is written completely or not at all, and survives a power
//! cut.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces the file at `path` atomically, and creates missing parent folders. Readers see either
/// the old content or the new.
///
/// # Errors
/// The errors of the file system. The old file is unchanged then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write()`], with content that `fill` writes to the given file or replaces it with.
///
/// # Errors
/// The errors of `fill` and of the file system.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    stage(path, fill)?.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// As [`write()`], for a file that must not exist yet.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when it does; the errors of the file system.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = stage(path, |file| file.write_all(bytes))?;
    staged.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// Syncs a complete file and moves it to `path`, on the same file system.
///
/// # Errors
/// The errors of the file system.
pub fn publish(file: &Path, path: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    fs::rename(file, path)?;
    sync_folder(folder_of(path))
}

/// Syncs a folder: file names are part of its content, not of the files'.
///
/// # Errors
/// The errors of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Locks the file at `path`, which is created if necessary, until the returned file is dropped or
/// the process dies; `None` if another process has locked it.
///
/// # Errors
/// The errors of the file system.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn stage(
    path: &Path,
    fill: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut staged = NamedTempFile::new_in(folder)?;
    fill(&mut staged)?;
    // Reopened by name, because `fill` may have replaced the file.
    let file = File::open(staged.path())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()?;
    Ok(staged)
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_atomically_and_created_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(create(&path, b"new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
