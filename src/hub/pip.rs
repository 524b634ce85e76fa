//! Runs the user's own `pip`, with the user's index, proxy and certificates.

use std::path::Path;
use std::process::Command;

use crate::hub::error::HubError;

/// Only wheels, and only the requested ones: installing a source package would execute its code.
const SAFE: &[&str] = &["--no-deps", "--only-binary=:all:", "--no-cache-dir"];

/// Runs `python -m pip COMMAND ... packages`.
pub(super) fn run(
    python: &Path,
    command: &str,
    arguments: &[&std::ffi::OsStr],
    packages: &[&str],
) -> Result<(), HubError> {
    let error = |detail| HubError::Pip { package: packages.join(" "), detail };
    let output = Command::new(python)
        .args(["-m", "pip", command, "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(SAFE)
        .args(arguments)
        .args(packages)
        .output()
        .map_err(|failure| error(format!("cannot run `{}`: {failure}", python.display())))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(error(last_words(&String::from_utf8_lossy(&output.stderr))))
    }
}

/// Returns the version of `pip` for `python`; `None` if it has none.
pub fn version(python: &Path) -> Option<String> {
    let output = Command::new(python).args(["-m", "pip", "--version"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1).filter(|_| output.status.success()).map(str::to_owned)
}

/// Returns the last line that is not empty.
fn last_words(stderr: &str) -> String {
    let line = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.unwrap_or("pip failed without an error message").to_owned()
}
