//! The user's git repository.

use std::path::Path;
use std::process::Command;

/// The key of the project that `folder` is in: the digest of the repository's root commit, which
/// all clones share; `None` outside of one.
pub fn project_key(folder: &Path) -> Option<String> {
    // Nothing of the repository's own configuration is run: hooks and helpers have no part in
    // rev-list.
    let output = Command::new("git")
        .args(["-c", "core.fsmonitor=", "rev-list", "--max-parents=0", "--max-count=1", "HEAD"])
        .current_dir(folder)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!digest.is_empty()).then_some(digest)
}
