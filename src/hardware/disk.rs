//! Free space and fsync latency of a disk.

use std::io;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use nix::sys::statvfs::statvfs;

/// Returns the free bytes that an unprivileged user may write below `folder`.
///
/// # Errors
/// If the folder does not exist.
pub fn disk_free(folder: &Path) -> io::Result<u64> {
    let found = statvfs(folder)?;
    Ok(found.blocks_available() * found.fragment_size())
}

/// Measures the time to make a page durable in `folder`, as the median of five writes.
///
/// # Errors
/// If the folder is not writable.
pub fn fsync_latency(folder: &Path) -> io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[2])
}
