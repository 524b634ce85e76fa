//! Counts the memory of a process tree from outside, if no control group does.
//!
//! Page tables do not show everything. Shared memory survives after its pages were dropped from
//! them, and after all but one page of a mapping were unmapped. So the filters keep every piece of
//! it below [`SHARED_BYTES`], and each piece counts in full. Sockets and pipes, which hold unread
//! data, count as if they were full. Other ways to hold memory are denied: see `syscalls`. Files in
//! `/box`, `/tmp` and `/dev/shm` are not counted; they have limits of their own.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::io::ErrorKind::PermissionDenied;

use super::restrict::NetworkAccess;
use super::usage;

/// The counter of a program's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryCount {
    /// A control group, which counts everything.
    Group,
    /// This module, if the kernel lists the children of a process.
    Watchdog,
}

/// Maximum size of a piece of anonymous shared memory, in bytes.
pub(super) const SHARED_BYTES: u64 = 1 << 20;
/// Maximum bytes buffered by a socket: twice the default of `net.core.wmem_max`.
const SOCKET_BYTES: u64 = 416 << 10;
/// Default capacity of a pipe. All pipes of a user together can be enlarged by 64 MiB
/// (`fs.pipe-user-pages-soft`).
const PIPE_BYTES: u64 = 64 << 10;

/// The memory of a process tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TreeMemory {
    pub(super) bytes: u64,
    /// Whether access to a process was denied, so that its memory is not included.
    pub(super) is_hidden: bool,
}

/// The memory found so far, while processes are visited one by one.
#[derive(Debug, Default)]
struct SeenMemory {
    /// Device and inode of mapped shared memory; processes may share a piece, which counts once.
    shared: HashSet<String>,
    sockets: HashSet<String>,
    pipes: HashSet<String>,
    bytes: u64,
    is_hidden: bool,
}

/// Counts the memory of `processes`. The first of them is pid 1 of a jail, which is ours and not
/// dumpable, so its maps and descriptors are skipped.
///
/// The maps of a process that forks can be read only between two forks, and thus may take long:
/// `is_over` is asked after every process, and ends the count with `None`.
pub(super) fn held(
    processes: &[i32],
    network: NetworkAccess,
    mut is_over: impl FnMut() -> bool,
) -> Option<TreeMemory> {
    let (init, programs) = processes.split_at(processes.len().min(1));
    let mut seen = SeenMemory { bytes: usage::memory_bytes(init), ..SeenMemory::default() };
    for pid in programs {
        seen.add(*pid);
        if is_over() {
            return None;
        }
    }
    let n_sockets = match network {
        // The kernel's own count includes sockets that no descriptor refers to.
        NetworkAccess::Own => init.iter().map(|pid| sockets_of_network(*pid)).sum(),
        NetworkAccess::Host => seen.sockets.len() as u64,
    };
    let shared = seen.shared.len() as u64 * SHARED_BYTES;
    let buffered = n_sockets * SOCKET_BYTES + seen.pipes.len() as u64 * PIPE_BYTES;
    Some(TreeMemory { bytes: seen.bytes + shared + buffered, is_hidden: seen.is_hidden })
}

impl SeenMemory {
    fn add(&mut self, pid: i32) {
        let Some(folder) = usage::memory_folder(pid) else { return };
        self.bytes += usage::memory_bytes(&[pid]) + usage::page_table_bytes(&folder);
        match fs::read(format!("{folder}/maps")) {
            Ok(maps) => {
                let maps = String::from_utf8_lossy(&maps); // the program chooses names of files
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

/// Parses device and inode of anonymous shared memory from a line of `/proc/PID/maps`; `None` for
/// other lines.
fn shared(line: &str) -> Option<String> {
    let fields = line.strip_suffix(" /dev/zero (deleted)")?;
    let mut fields = fields.split_whitespace().skip(3);
    Some(format!("{} {}", fields.next()?, fields.next()?))
}

/// Lists the targets of the descriptors of the process with this folder of `/proc`.
fn links(folder: &str) -> io::Result<impl Iterator<Item = String>> {
    let entries = fs::read_dir(format!("{folder}/fd"))?.flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links.map(|link| link.to_string_lossy().into_owned()))
}

/// Counts the sockets in the network namespace of `pid`, including those without a descriptor, such
/// as connections that have not been accepted yet.
fn sockets_of_network(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/sockstat")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("sockets: used "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_shared_memory_is_distinguished_from_files() {
        let check = |line: &str| shared(line).unwrap_or_default();
        let memory = "7f10-7f20 rw-s 00000000 00:01 1047                       /dev/zero (deleted)";
        assert_eq!(check(memory), "00:01 1047");
        assert_eq!(check("7f10-7f20 rw-p 00000000 08:01 77   /usr/lib/libc.so"), "");
        assert_eq!(check("7f10-7f20 rw-p 00000000 00:00 0 "), "");
    }

    #[test]
    fn pipes_and_sockets_of_a_process_are_counted() {
        let (_reader, _writer) = io::pipe().unwrap();
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let mut seen = SeenMemory::default();
        seen.add(std::process::id().cast_signed());
        assert!(!seen.pipes.is_empty() && seen.sockets.len() >= 2 && !seen.is_hidden);
    }
}
