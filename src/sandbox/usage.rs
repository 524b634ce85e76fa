//! What a process tree uses, read from `/proc` of the host: nothing in the jail can hide from it there.
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
    let stats =
        processes.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    TICK * stats.filter_map(|stat| ticks(&stat)).sum::<u32>()
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

/// Memory of `processes`: shared pages count in parts where the kernel tells, else in full.
pub(crate) fn memory_bytes(processes: &[i32]) -> u64 {
    processes.iter().filter_map(|pid| kilobytes(*pid)).sum::<u64>() << 10
}

fn kilobytes(pid: i32) -> Option<u64> {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    };
    field("smaps_rollup", "Pss:").or_else(|| field("status", "VmRSS:"))
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
    fn this_process_uses_memory() {
        assert!(memory_bytes(&[std::process::id().cast_signed()]) > 0);
    }
}
