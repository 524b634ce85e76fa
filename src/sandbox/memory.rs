//! What a process tree holds in memory, counted from outside where no control group does it.
//!
//! What page tables show is not all. Shared memory stays after its pages were dropped from them,
//! and after all of a mapping but one page is gone, so the filters keep every piece of it below
//! [`SHARED_BYTES`] and each counts in full; sockets and pipes, which hold what nobody has read
//! yet, count as if they were full. Other ways to hold memory are denied: see `syscalls`. Not
//! counted are `/box`, `/tmp` and `/dev/shm`, which have limits of their own.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::io::ErrorKind::PermissionDenied;

use super::restrict::NetworkAccess;
use super::usage;

/// Who counts the memory of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryCount {
    /// A control group, which counts all.
    Group,
    /// This module, if anybody.
    Watchdog,
}

/// The largest piece of shared memory without a file.
pub(super) const SHARED_BYTES: u64 = 1 << 20;
/// What a socket buffers at most: twice `net.core.wmem_max` as it is everywhere.
const SOCKET_BYTES: u64 = 416 << 10;
/// What a pipe buffers unless it was made larger, which all pipes of a user can be by 64 MiB
/// together.
const PIPE_BYTES: u64 = 64 << 10;

/// What a process tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TreeMemory {
    pub(super) bytes: u64,
    /// Whether a process could not be looked into.
    pub(super) is_hidden: bool,
}

/// What is seen in the processes one after the other.
#[derive(Debug, Default)]
struct SeenMemory {
    /// Device and inode of what is mapped.
    shared: HashSet<String>,
    sockets: HashSet<String>,
    pipes: HashSet<String>,
    bytes: u64,
    is_hidden: bool,
}

/// Counts what `processes` hold, the first of which is pid 1 of a jail: it is ours, and nobody may
/// look into it.
pub(super) fn held(processes: &[i32], network: NetworkAccess) -> TreeMemory {
    let mut seen = SeenMemory { bytes: usage::memory_bytes(processes), ..SeenMemory::default() };
    let (init, programs) = processes.split_at(processes.len().min(1));
    for pid in programs {
        seen.add(*pid);
    }
    let n_sockets = match network {
        NetworkAccess::Own => init.iter().map(|pid| sockets_of_network(*pid)).sum(),
        NetworkAccess::Host => seen.sockets.len() as u64,
    };
    let shared = seen.shared.len() as u64 * SHARED_BYTES;
    let buffered = n_sockets * SOCKET_BYTES + seen.pipes.len() as u64 * PIPE_BYTES;
    TreeMemory { bytes: seen.bytes + shared + buffered, is_hidden: seen.is_hidden }
}

impl SeenMemory {
    fn add(&mut self, pid: i32) {
        let Some(folder) = usage::memory_folder(pid) else { return };
        self.bytes += usage::page_table_bytes(&folder);
        match fs::read(format!("{folder}/maps")) {
            Ok(maps) => {
                let maps = String::from_utf8_lossy(&maps); // names of files may be anything
                self.shared.extend(maps.lines().filter_map(shared));
            }
            Err(error) => self.is_hidden |= error.kind() == PermissionDenied,
        }
        match links(&folder) {
            Ok(links) => {
                let (sockets, pipes) = links.partition::<Vec<_>, _>(|to| to.starts_with("socket:"));
                self.sockets.extend(sockets);
                self.pipes.extend(pipes.into_iter().filter(|to| to.starts_with("pipe:")));
            }
            Err(error) => self.is_hidden |= error.kind() == PermissionDenied,
        }
    }
}

/// Device and inode of shared memory without a file, if this line of `/proc/PID/maps` is about
/// some.
fn shared(line: &str) -> Option<String> {
    let fields = line.strip_suffix(" /dev/zero (deleted)")?;
    let mut fields = fields.split_whitespace().skip(3);
    Some(format!("{} {}", fields.next()?, fields.next()?))
}

/// What the descriptors of the process that has this folder of `/proc` stand for.
fn links(folder: &str) -> io::Result<impl Iterator<Item = String>> {
    let entries = fs::read_dir(format!("{folder}/fd"))?.flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links.map(|link| link.to_string_lossy().into_owned()))
}

/// The sockets in the network namespace of `pid`, also those that no descriptor stands for, as of
/// connections that nobody has accepted yet.
fn sockets_of_network(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/sockstat")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("sockets: used "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_told_from_files() {
        let check = |line: &str| shared(line).unwrap_or_default();
        let memory = "7f10-7f20 rw-s 00000000 00:01 1047                       /dev/zero (deleted)";
        assert_eq!(check(memory), "00:01 1047");
        assert_eq!(check("7f10-7f20 rw-p 00000000 08:01 77   /usr/lib/libc.so"), "");
        assert_eq!(check("7f10-7f20 rw-p 00000000 00:00 0 "), "");
    }

    #[test]
    fn pipes_and_sockets_of_this_process_are_seen() {
        let (_reader, _writer) = io::pipe().unwrap();
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let mut seen = SeenMemory::default();
        seen.add(std::process::id().cast_signed());
        assert!(!seen.pipes.is_empty() && seen.sockets.len() >= 2 && !seen.is_hidden);
    }
}
