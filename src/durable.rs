//! Files that are written whole or not at all, and are still there after a power cut.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces the file at `path`, and makes the folders on the way to it. Readers see the old content
/// or the new.
///
/// # Errors
/// Those of the file system; what was at `path` is still there then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write()`], with content that `fill` puts into the file, or into another of its name.
///
/// # Errors
/// Those of `fill`, and of the file system.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    stage(path, fill)?.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// As [`write()`], for a file that must not be there yet.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when it is; those of the file system.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = stage(path, |file| file.write_all(bytes))?;
    staged.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// Moves a file that is complete to its place in the same file system.
///
/// # Errors
/// Those of the file system.
pub fn publish(file: &Path, place: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    fs::rename(file, place)?;
    sync_folder(folder_of(place))
}

/// Makes the names in a folder durable, which are content of it.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn stage(
    path: &Path,
    fill: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut staged = NamedTempFile::new_in(folder)?;
    fill(&mut staged)?;
    // By its name: `fill` may have replaced the file that was opened.
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
