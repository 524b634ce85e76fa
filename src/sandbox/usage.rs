//! Resource usage of a process tree, read from the host's `/proc`, where nothing in the jail can
//! hide.
//!
//! CPU time is a lower bound: the kernel forgets the time of an ended child whose parent ignores
//! `SIGCHLD`. Such a tree is stopped by the limit on wall time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::unistd::Pid;

/// Length of a clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on all supported architectures.
const TICK: Duration = Duration::from_millis(10);

/// Whether this kernel lists the children of a process (`CONFIG_PROC_CHILDREN`).
pub(super) fn is_known() -> bool {
    fs::exists("/proc/thread-self/children").is_ok_and(|exists| exists)
}

/// Lists the processes of the tree with the root `root`, which comes first. Ends at `max` or a few
/// more: a tree that grows as fast as it is read would otherwise never be read.
pub(crate) fn tree(root: Pid, max: usize) -> Vec<i32> {
    let mut found = vec![root.as_raw()];
    let mut next = 0;
    while let Some(&pid) = found.get(next).filter(|_| found.len() < max) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// Lists the processes that `pid` or one of its threads has started or adopted.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| {
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

/// CPU time of `processes` and of the children that they have waited for.
pub(crate) fn cpu(processes: &[i32]) -> Duration {
    let stats = processes.iter().filter_map(|pid| read(&format!("/proc/{pid}"), "stat"));
    TICK * stats.filter_map(|stat| ticks(&stat)).sum::<u32>()
}

/// Reads a file about a process. The process chooses its own name, so it may not be UTF-8.
fn read(folder: &str, file: &str) -> Option<String> {
    let bytes = fs::read(format!("{folder}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds up utime, stime, cutime and cstime of a line of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<u32> {
    // The name before the fields is in parentheses and may itself contain any.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(
        fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum(),
    )
}

/// Counts the processes and threads of the user that this process runs as.
pub(super) fn tasks_of_this_user() -> u64 {
    let own = nix::unistd::geteuid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let theirs = entries.filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == own));
    let tasks = theirs.filter_map(|entry| fs::read_dir(entry.path().join("task")).ok());
    tasks.map(|tasks| tasks.count() as u64).sum()
}

/// Counts `processes` and their threads.
pub(super) fn tasks(processes: &[i32]) -> u64 {
    let folders = processes.iter().filter_map(|pid| fs::metadata(format!("/proc/{pid}/task")).ok());
    // The link count gives the number of threads without listing them; two are `.` and `..`.
    folders.map(|folder| folder.nlink().saturating_sub(2)).sum()
}

/// Memory of `processes` in bytes, including swap. Shared pages are divided among the processes
/// that share them if the kernel reports that, else they count in full.
pub(crate) fn memory_bytes(processes: &[i32]) -> u64 {
    let parts = |folder: &str| kilobytes(folder, "smaps_rollup", &["Pss:", "SwapPss:"]);
    let in_full = |folder: &str| kilobytes(folder, "status", &["VmRSS:", "VmSwap:"]);
    let folders = processes.iter().filter_map(|pid| memory_folder(*pid));
    folders.filter_map(|folder| parts(&folder).or_else(|| in_full(&folder))).sum::<u64>() << 10
}

/// Finds the folder of `/proc` that shows the memory of `pid`: its own or, if its main thread has
/// ended before the others, that of another thread. `None` if it no longer has memory.
pub(super) fn memory_folder(pid: i32) -> Option<String> {
    let has_memory = |folder: &String| kilobytes(folder, "status", &["VmRSS:"]).is_some();
    let own = format!("/proc/{pid}");
    if has_memory(&own) {
        return Some(own);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    threads.map(|thread| thread.path().display().to_string()).find(has_memory)
}

/// Memory taken by the page tables of the process with this folder, in bytes.
pub(super) fn page_table_bytes(folder: &str) -> u64 {
    kilobytes(folder, "status", &["VmPTE:"]).unwrap_or(0) << 10
}

/// Adds up the values of `fields`, in KiB, in a file of this folder; `None` if the first is
/// missing.
fn kilobytes(folder: &str, file: &str, fields: &[&str]) -> Option<u64> {
    let text = read(folder, file)?;
    let field = |name: &&str| {
        let value = text.lines().find_map(|line| line.strip_prefix(*name))?;
        value.split_whitespace().next()?.parse::<u64>().ok()
    };
    let first = field(fields.first()?)?;
    Some(first + fields[1..].iter().filter_map(field).sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_after_a_hostile_process_name() {
        let stat = "7 (a) b) 1 2) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 25 5";
        assert_eq!(ticks(stat), Some(100));
    }

    #[test]
    fn threads_are_counted() {
        let own = [std::process::id().cast_signed()];
        let threads = [(); 3].map(|()| std::thread::spawn(std::thread::park));
        assert!(tasks(&own) > 3);
        for thread in &threads {
            thread.thread().unpark();
        }
    }

    #[test]
    fn memory_of_a_process_is_measured() {
        assert!(page_table_bytes("/proc/self") > 0);
        assert!(memory_bytes(&[std::process::id().cast_signed()]) > 0);
    }
}
