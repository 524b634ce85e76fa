//! Facts about the user's git repository.

use std::path::Path;
use std::process::Command;

/// Returns the key of the project that `folder` belongs to: the hash of the repository's root
/// commit, which all clones share. `None` outside of a repository.
pub fn project_key(folder: &Path) -> Option<String> {
    // `rev-list` runs no hooks or helpers, and fsmonitor is disabled, so nothing that the
    // repository configures is executed.
    let output = Command::new("git")
        .args(["-c", "core.fsmonitor=", "rev-list", "--max-parents=0", "--max-count=1", "HEAD"])
        .current_dir(folder)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!digest.is_empty()).then_some(digest)
}
