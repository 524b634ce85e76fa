//! Memory use of processes.

use std::fs;
use std::io;

/// Returns the peak resident memory of a process in bytes; `None` is this process.
///
/// # Errors
/// If there is no such process.
pub fn peak_rss(pid: Option<u32>) -> io::Result<u64> {
    memory(pid, "VmHWM:")
}

/// Returns the resident memory of this process in bytes.
///
/// # Errors
/// Those of reading `/proc`.
pub fn rss() -> io::Result<u64> {
    memory(None, "VmRSS:")
}

fn memory(pid: Option<u32>, field: &str) -> io::Result<u64> {
    let who = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let status = fs::read_to_string(format!("/proc/{who}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.ok_or(io::ErrorKind::InvalidData)? * 1024)
}
