//! Paths of model files in Rune's home, and their verification.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::statvfs::statvfs;

use crate::digest::sha256_of_file;
use crate::home::Home;
use crate::hub::catalogue::CataloguedModel;
use crate::hub::error::HubError;

/// Returns the path of a downloaded model, recognized by name and size; `None` if it must be
/// pulled.
pub fn path(home: &Home, model: &CataloguedModel) -> Option<PathBuf> {
    let path = place(home, model);
    let metadata = fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.len() == model.bytes).then_some(path)
}

/// Verifies the digest of the model's file. Takes about a second for 500 MB on a CPU with SHA
/// instructions.
///
/// # Errors
/// [`HubError::WrongSize`] or [`HubError::WrongDigest`] when it is not the file of the catalog;
/// [`HubError::File`] when it does not exist.
pub fn verify(home: &Home, model: &CataloguedModel) -> Result<PathBuf, HubError> {
    let path = place(home, model);
    check(&path, &path.display().to_string(), model)?;
    Ok(path)
}

/// Returns the path of a model's file, whether or not it exists.
pub(super) fn place(home: &Home, model: &CataloguedModel) -> PathBuf {
    home.models().join(format!("{}.gguf", model.name))
}

/// Checks size and digest of the file at `path`, which was obtained from `origin`.
pub(super) fn check(path: &Path, origin: &str, model: &CataloguedModel) -> Result<(), HubError> {
    let origin = origin.to_owned();
    let found = fs::metadata(path).map_err(HubError::file(path))?.len();
    if found != model.bytes {
        return Err(HubError::WrongSize { origin, found, expected: model.bytes });
    }
    let found = sha256_of_file(path).map_err(HubError::file(path))?;
    if found != model.sha256 {
        return Err(HubError::WrongDigest { origin, found, expected: model.sha256.clone() });
    }
    Ok(())
}

/// Checks that the file system of `folder` has at least `needed` bytes available.
pub(super) fn check_space(folder: &Path, needed: u64) -> Result<(), HubError> {
    let found = statvfs(folder).map_err(|errno| HubError::file(folder)(errno.into()))?;
    let free = found.blocks_available() * found.fragment_size();
    if free < needed {
        return Err(HubError::DiskFull { path: folder.to_owned(), needed, free });
    }
    Ok(())
}

/// Returns the length of a file; 0 if it does not exist.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
