//! Room and speed of a folder's disk.

use std::io;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use nix::sys::statvfs::statvfs;

/// Bytes that an ordinary user may still write below `folder`.
///
/// # Errors
/// When there is no such folder.
pub fn disk_free(folder: &Path) -> io::Result<u64> {
    let found = statvfs(folder)?;
    Ok(found.blocks_available() * found.fragment_size())
}

/// The time to make a page durable in `folder`: the median of five.
///
/// # Errors
/// When `folder` can't be written to.
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
