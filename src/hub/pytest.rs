//! A pinned pytest in its own folder, which the judge mounts read-only in the sandbox.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use crate::home::Home;
use crate::hub::error::HubError;
use crate::hub::pip;

/// Name of the folder: the version of pytest and the oldest supported Python.
const FOLDER: &str = "pytest-8.4.2-py39";

/// Pure-Python wheels, so that one folder works with every Python from 3.9 on. Before Python 3.11,
/// pytest needs the last two packages; these are their last versions that are pure on every
/// platform and have no further dependencies.
const PACKAGES: &[&str] = &[
    "pytest==8.4.2",
    "pluggy==1.6.0",
    "iniconfig==2.1.0",
    "packaging==25.0",
    "pygments==2.19.2",
    "exceptiongroup==1.2.2",
    "tomli==2.0.2",
];

/// Returns the folder for `PYTHONPATH`, if pytest is installed.
pub fn pytest_path(home: &Home) -> Option<PathBuf> {
    let folder = home.python().join(FOLDER);
    folder.is_dir().then_some(folder)
}

/// Installs pytest to `<home>/python/` atomically, unless it is installed, and returns its folder.
/// Blocking; takes some seconds the first time.
///
/// # Errors
/// [`HubError::Pip`] when `python` has no pip, or a package cannot be downloaded.
pub fn ensure_pytest(home: &Home, python: &Path) -> Result<PathBuf, HubError> {
    let parent = home.python();
    let place = parent.join(FOLDER);
    fs::create_dir_all(&parent).map_err(HubError::file(&parent))?;
    let lock = parent.join(".lock");
    let held = File::options().create(true).truncate(false).write(true).open(&lock);
    let _held = held.and_then(|file| file.lock().map(|()| file)).map_err(HubError::file(&lock))?;
    // Checked under the lock: another process may have installed it in the meantime.
    if let Some(folder) = pytest_path(home) {
        return Ok(folder);
    }
    let staging = parent.join(format!("{FOLDER}.staging"));
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(HubError::file(&staging))?;
    }
    let target = [std::ffi::OsStr::new("--target"), staging.as_os_str()];
    pip::run(python, "install", &target, PACKAGES)?;
    fs::rename(&staging, &place).map_err(HubError::file(&place))?;
    Ok(place)
}
