//! Tests that cannot run on this machine: each says why, and is counted.

use std::fs::OpenOptions;
use std::io::Write;

/// The file that gets a line for each skipped test; `.ci/run` sets it and reads the lines.
const SKIPS: &str = "SKIPPED_TESTS";

/// Records that the running test is skipped.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    if let Some(path) = std::env::var_os(SKIPS) {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}
