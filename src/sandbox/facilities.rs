//! What the jail can enforce on this machine.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use super::job::Tier;

/// What the jail can enforce on this machine, for the user to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facilities {
    /// How programs are held.
    pub tier: Tier,
    /// What holds the memory of the whole process tree; each single process is always held by `RLIMIT_AS`.
    pub memory_cap: MemoryCap,
    /// The kernel's Landlock version (ABI); 0 where there is none. From 4 on it denies TCP, from 6 on signals.
    pub landlock_version: u32,
    /// Whether system calls are filtered.
    pub seccomp: bool,
}

/// What holds the memory of a whole process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryCap {
    /// A control group of version 2, a delegated one.
    CgroupV2,
    /// A control group of version 1.
    CgroupV1,
    /// The supervisor, which looks every 50 ms. `/box`, `/tmp` and `/dev/shm` come on top, up to their own limit.
    Watchdog,
    /// Nothing: this kernel does not tell the children of a process.
    Process,
}

impl fmt::Display for MemoryCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::Watchdog => "watchdog",
            Self::Process => "rlimit (each process alone)",
        })
    }
}
