//! Where models lie on this machine, and that they are what they should be.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::statvfs::statvfs;

use crate::digest::sha256_of_file;
use crate::home::Home;
use crate::hub::catalogue::CataloguedModel;
use crate::hub::error::HubError;

/// The file of a model that is here, by its name and size; `None` when it is to be pulled.
pub fn path(home: &Home, model: &CataloguedModel) -> Option<PathBuf> {
    let path = place(home, model);
    let metadata = fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.len() == model.bytes).then_some(path)
}

/// Hashes the model's file. About a second for 500 MB where the CPU has SHA instructions.
///
/// # Errors
/// [`HubError::WrongDigest`] when it is not the catalogue's file, [`HubError::File`] when it is not
/// there.
pub fn verify(home: &Home, model: &CataloguedModel) -> Result<PathBuf, HubError> {
    let path = place(home, model);
    check(&path, &path.display().to_string(), model)?;
    Ok(path)
}

/// Where a model's file belongs.
pub(super) fn place(home: &Home, model: &CataloguedModel) -> PathBuf {
    home.models().join(format!("{}.gguf", model.name))
}

/// Checks size and digest of `path`, which came from `origin`.
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

/// Refuses when `folder` has less than `needed` bytes free.
pub(super) fn check_space(folder: &Path, needed: u64) -> Result<(), HubError> {
    let found = statvfs(folder).map_err(|errno| HubError::file(folder)(errno.into()))?;
    let free = found.blocks_available() * found.fragment_size();
    if free < needed {
        return Err(HubError::DiskFull { path: folder.to_owned(), needed, free });
    }
    Ok(())
}

/// The length of a file that may not be there.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
