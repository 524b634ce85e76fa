//! What a process tree uses, read from `/proc` of the host: nothing in the jail can hide from it
//! there.
//!
//! Processor time is a lower bound: of a child whose parent ignores `SIGCHLD` the kernel keeps no
//! account once it has ended. The limit on wall time holds such a tree.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::unistd::Pid;

/// Length of a clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on every architecture we build for.
const TICK: Duration = Duration::from_millis(10);

/// Whether this kernel tells the children of a process (`CONFIG_PROC_CHILDREN`).
pub(super) fn is_known() -> bool {
    fs::exists("/proc/thread-self/children").is_ok_and(|exists| exists)
}

/// Every process of the tree below and with `root`.
pub(crate) fn tree(root: Pid) -> Vec<i32> {
    let mut found = vec![root.as_raw()];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// The processes that `pid` or one of its threads has started or adopted.
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

/// Processor time of `processes` and of the children they have waited for.
pub(crate) fn cpu(processes: &[i32]) -> Duration {
    let stats = processes.iter().filter_map(|pid| read(&format!("/proc/{pid}"), "stat"));
    TICK * stats.filter_map(|stat| ticks(&stat)).sum::<u32>()
}

/// A file about a process, in which its name may be anything.
fn read(folder: &str, file: &str) -> Option<String> {
    let bytes = fs::read(format!("{folder}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds up utime, stime, cutime and cstime of a line of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?; // the name before it may hold anything
    Some(
        fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum(),
    )
}

/// Processes and threads of the user that this process runs as.
pub(super) fn tasks_of_this_user() -> u64 {
    let own = nix::unistd::geteuid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let theirs = entries.filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == own));
    let tasks = theirs.filter_map(|entry| fs::read_dir(entry.path().join("task")).ok());
    tasks.map(|tasks| tasks.count() as u64).sum()
}

/// Processes and threads of `processes`.
pub(super) fn tasks(processes: &[i32]) -> u64 {
    let folders = processes.iter().filter_map(|pid| fs::metadata(format!("/proc/{pid}/task")).ok());
    folders.map(|folder| folder.nlink().saturating_sub(2)).sum() // but for `.` and `..`
}

/// Memory of `processes`, that in swap included: shared pages count in parts where the kernel
/// tells, else in full.
pub(crate) fn memory_bytes(processes: &[i32]) -> u64 {
    let parts = |folder: &str| kilobytes(folder, "smaps_rollup", &["Pss:", "SwapPss:"]);
    let in_full = |folder: &str| kilobytes(folder, "status", &["VmRSS:", "VmSwap:"]);
    let folders = processes.iter().filter_map(|pid| memory_folder(*pid));
    folders.filter_map(|folder| parts(&folder).or_else(|| in_full(&folder))).sum::<u64>() << 10
}

/// The folder of `/proc` that shows the memory of `pid`: its own or, when its main thread has ended
/// before the others, that of one of them. `None` when it has no memory any more.
pub(super) fn memory_folder(pid: i32) -> Option<String> {
    let has_memory = |folder: &String| kilobytes(folder, "status", &["VmRSS:"]).is_some();
    let own = format!("/proc/{pid}");
    if has_memory(&own) {
        return Some(own);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    threads.map(|thread| thread.path().display().to_string()).find(has_memory)
}

/// What the page tables take of the process that has this folder.
pub(super) fn page_table_bytes(folder: &str) -> u64 {
    kilobytes(folder, "status", &["VmPTE:"]).unwrap_or(0) << 10
}

/// Adds up what a file of this folder has in these fields; `None` without the first.
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
    fn times_are_read_behind_a_hostile_name() {
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
    fn this_process_uses_memory() {
        assert!(page_table_bytes("/proc/self") > 0);
        assert!(memory_bytes(&[std::process::id().cast_signed()]) > 0);
    }
}
