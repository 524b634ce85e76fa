//! What the jail can enforce on this machine.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use super::job::JailTier;

/// What the jail can enforce on this machine, in a form to show to the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailCapabilities {
    /// The kind of jail that programs run in.
    pub tier: JailTier,
    /// Why the machine refused namespaces, if they were requested.
    pub refused: Option<String>,
    /// How the user can make namespaces available again.
    pub hint: Option<String>,
    /// Whether programs run as a dedicated user, who can only read world-readable files.
    pub programs_have_own_user: bool,
    /// What caps the memory of the whole process tree. Each single process is always capped by
    /// `RLIMIT_AS`.
    pub memory_cap: MemoryCap,
    /// The kernel's Landlock ABI version; 0 if there is no Landlock. From version 4 it denies TCP
    /// on the host's network, from version 6 signals to processes outside.
    pub landlock_version: u32,
    /// Whether system calls are filtered.
    pub seccomp: bool,
}

/// A difference between a jail without namespaces and one with them: something that programs can
/// do, or can no longer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingCapability {
    /// Short name, such as `sockets`: stable, for programs and documentation.
    pub name: &'static str,
    /// One line that describes the difference to the user.
    pub detail: &'static str,
}

/// Things that a program can reach although it should not.
const OPEN: &[MissingCapability] = &[
    MissingCapability {
        name: "names",
        detail: "programs can query whether paths and processes exist, and the size, times and owner of files",
    },
    MissingCapability {
        name: "machine",
        detail: "programs can read the host name, the kernel version and the system load",
    },
    MissingCapability {
        name: "disk",
        detail: "space and files are measured every 50 ms, so a fast writer can exceed its limit before it is stopped",
    },
    MissingCapability {
        name: "sweeper",
        detail: "if rune's helper and its parent process are both killed at the same moment, processes that a \
                 program forked keep running",
    },
];
/// The gap when programs run as the user who runs `rune`.
const OF_PLAIN_USERS: &[MissingCapability] = &[MissingCapability {
    name: "processes",
    detail: "the process limit counts all processes of this user: beside a fork bomb, another program may be \
             refused a process",
}];
/// The gap when root's programs run as a dedicated user.
const OF_OWN_USERS: &[MissingCapability] = &[MissingCapability {
    name: "permissions",
    detail: "Python and libraries must be readable by every user",
}];
/// Things that a program cannot do although it could in namespaces.
const CLOSED: &[MissingCapability] = &[
    MissingCapability {
        name: "sockets",
        detail: "only socket pairs are available: a program cannot connect to itself over loopback",
    },
    MissingCapability {
        name: "folders",
        detail: "only /in, /box, TMPDIR and the process's own part of /proc exist; /tmp, /dev/shm and /etc/passwd \
                 do not, nor does /dev/zero without a control group",
    },
    MissingCapability {
        name: "modes",
        detail: "changing file modes and times has no effect; changing owners and attributes is refused",
    },
    MissingCapability {
        name: "forks",
        detail: "judged functions cannot start processes or write files; their threads are counted together",
    },
];
/// The gap below Landlock version 6, which has no scopes.
const WITHOUT_SCOPES: &[MissingCapability] = &[MissingCapability {
    name: "signals",
    detail: "programs cannot send signals, not even to themselves",
}];

impl JailCapabilities {
    /// Differences from a jail with namespaces: first what stays open, then what programs have to
    /// do without. Empty for every other tier.
    pub fn gaps(&self) -> Vec<MissingCapability> {
        if self.tier != JailTier::Landlock {
            return Vec::new();
        }
        let of_users = if self.programs_have_own_user { OF_OWN_USERS } else { OF_PLAIN_USERS };
        let signals = if self.landlock_version < 6 { WITHOUT_SCOPES } else { &[] };
        [OPEN, of_users, CLOSED, signals].concat()
    }
}

/// The mechanism that caps the memory of a whole process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryCap {
    /// A delegated control group (cgroup v2).
    CgroupV2,
    /// A control group (cgroup v1).
    CgroupV1,
    /// The supervisor, which samples every 50 ms. Files in `/box`, `/tmp` and `/dev/shm` have
    /// limits of their own and are not counted. A piece of anonymous shared memory is limited to
    /// 1 MiB.
    Watchdog,
    /// Nothing but `RLIMIT_AS`: this kernel does not list the children of a process.
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
