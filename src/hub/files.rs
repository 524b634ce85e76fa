//! Where models lie on this machine, and that they are what they should be.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::statvfs::statvfs;
use sha2::Digest;
use sha2::Sha256;

use crate::hub::catalogue::Model;
use crate::hub::error::HubError;

/// The file of a model that is here, by its name and size; `None` when it is to be pulled.
pub fn path(home: &Path, model: &Model) -> Option<PathBuf> {
    let path = place(home, model);
    let metadata = fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.len() == model.bytes).then_some(path)
}

/// Hashes the model's file. About a second for 500 MB where the CPU has SHA instructions.
///
/// # Errors
/// [`HubError::WrongDigest`] when it is not the catalogue's file, [`HubError::File`] when it is not
/// there.
pub fn verify(home: &Path, model: &Model) -> Result<PathBuf, HubError> {
    let path = place(home, model);
    check(&path, &path.display().to_string(), model)?;
    Ok(path)
}

/// Where a model's file belongs.
pub(super) fn place(home: &Path, model: &Model) -> PathBuf {
    home.join("models").join(format!("{}.gguf", model.name))
}

/// Checks size and digest of `path`, which came from `origin`.
pub(super) fn check(path: &Path, origin: &str, model: &Model) -> Result<(), HubError> {
    let origin = origin.to_owned();
    let found = fs::metadata(path).map_err(HubError::file(path))?.len();
    if found != model.bytes {
        return Err(HubError::WrongSize { origin, found, expected: model.bytes });
    }
    let found = digest(path).map_err(HubError::file(path))?;
    if found != model.sha256 {
        return Err(HubError::WrongDigest { origin, found, expected: model.sha256.clone() });
    }
    Ok(())
}

/// Makes `partial` durable and moves it to its place, all or nothing.
pub(super) fn publish(partial: &Path, place: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    fs::rename(partial, place)?;
    match place.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
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

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", sha256.finalize())),
            n => sha256.update(&buffer[..n]),
        }
    }
}
