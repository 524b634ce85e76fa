//! What the jail can enforce on this machine.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use super::job::JailTier;

/// What the jail can enforce on this machine, for the user to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailCapabilities {
    /// How programs are held.
    pub tier: JailTier,
    /// Why not by namespaces, where they were wanted and the machine refused.
    pub refused: Option<String>,
    /// What the user can do about that.
    pub hint: Option<String>,
    /// Whether programs run as a user of their own, who may only read what all may.
    pub programs_have_own_user: bool,
    /// What holds the memory of the whole process tree; each single process is always held by
    /// `RLIMIT_AS`.
    pub memory_cap: MemoryCap,
    /// The kernel's Landlock version (ABI); 0 where there is none. From 4 on it denies TCP
    /// where the network is the host's, from 6 on signals.
    pub landlock_version: u32,
    /// Whether system calls are filtered.
    pub seccomp: bool,
}

/// Something that programs can do, or can't do, where there are no namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingCapability {
    /// A short name.
    pub name: &'static str,
    /// What it means.
    pub detail: &'static str,
}

/// What a program can reach although it should not.
const OPEN: &[MissingCapability] = &[
    MissingCapability {
        name: "names",
        detail: "whether a path or a process exists, and the size, times and owner of a file, can be asked for",
    },
    MissingCapability {
        name: "machine",
        detail: "the name of the host and its kernel, and how busy it is, can be read",
    },
    MissingCapability {
        name: "disk",
        detail: "space and files are counted every 50 ms, so a fast writer exceeds its limit before it is stopped",
    },
    MissingCapability {
        name: "sweeper",
        detail: "who kills rune's helper and the process above it, both at once and by number, leaves what the \
                 program has forked",
    },
];
/// Where programs run as the user who runs `rune`.
const OF_PLAIN_USERS: &[MissingCapability] = &[MissingCapability {
    name: "processes",
    detail: "the limit counts all processes of this user, also those started meanwhile by others",
}];
/// Where programs of root run as a user of their own.
const OF_OWN_USERS: &[MissingCapability] = &[MissingCapability {
    name: "permissions",
    detail: "Python and libraries must lie where every user may read them",
}];
/// What a program can't do although it could in namespaces.
const CLOSED: &[MissingCapability] = &[
    MissingCapability {
        name: "sockets",
        detail: "there are none, but for pairs: a program can't even talk to itself over loopback",
    },
    MissingCapability {
        name: "folders",
        detail: "only /in, /box, TMPDIR and the own part of /proc are there; /tmp, /dev/shm and /etc/passwd are not, \
                 nor /dev/zero without a control group",
    },
    MissingCapability {
        name: "modes",
        detail: "changes of file modes and times do nothing; those of owners and attributes are refused",
    },
    MissingCapability {
        name: "forks",
        detail: "judged functions can't start processes or write files; their threads are counted together",
    },
];
/// Only below version 6 of Landlock.
const WITHOUT_SCOPES: &[MissingCapability] =
    &[MissingCapability { name: "signals", detail: "a program can send none, not even to itself" }];

impl JailCapabilities {
    /// What differs from a jail of namespaces: first what stays open, then what programs have to do
    /// without.
    pub fn gaps(&self) -> Vec<MissingCapability> {
        if self.tier != JailTier::Landlock {
            return Vec::new();
        }
        let of_users = if self.programs_have_own_user { OF_OWN_USERS } else { OF_PLAIN_USERS };
        let signals = if self.landlock_version < 6 { WITHOUT_SCOPES } else { &[] };
        [OPEN, of_users, CLOSED, signals].concat()
    }
}

/// What holds the memory of a whole process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryCap {
    /// A control group of version 2, a delegated one.
    CgroupV2,
    /// A control group of version 1.
    CgroupV1,
    /// The supervisor, which looks every 50 ms. `/box`, `/tmp` and `/dev/shm` come on top, up to
    /// their own limit. Shared memory comes in pieces of 1 MiB at most there.
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
