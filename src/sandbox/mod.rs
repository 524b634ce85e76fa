//! Runs model-written programs in a jail.
//!
//! [`Sandbox::run`] takes a [`Job`] and gives an [`Outcome`]. A jail has user, mount, pid, network, ipc, uts
//! and control group namespaces of its own, a root of read-only system folders and small writable
//! ones, a loopback interface of its own, limits on every resource, no capabilities, Landlock and seccomp; it fails
//! closed. Four kinds of process: `rune` -> helper -> a supervisor a run -> pid 1 of the jail and the program; each dies with the
//! one before it.
//!
//! Not covered: side channels, and exploits of the kernel itself. Without user namespaces programs are held by less, which
//! [`Facilities`] names.

mod capture;
mod cgroup;
mod collect;
mod error;
mod facilities;
mod fault;
mod filesystem;
mod helper;
mod identity;
mod init;
mod interpreter;
mod jail;
mod job;
mod launcher;
mod memory;
mod nested;
mod probe;
mod restrict;
mod snapshot;
mod supervisor;
mod sys;
mod syscalls;

pub(crate) mod usage;
mod wire;
mod workplace;
mod zygote;

pub use error::SandboxError;
pub use facilities::Facilities;
pub use facilities::Gap;
pub use facilities::MemoryCap;
pub use helper::SUBCOMMAND as HELPER_SUBCOMMAND;
pub use helper::helper_main;
pub use interpreter::Interpreter;
pub use job::Captured;
pub use job::Exit;
pub use job::Job;
pub use job::Limits;
pub use job::Mount;
pub use job::Outcome;
pub use job::Tier;
pub use launcher::Sandbox;
pub(crate) use nested::NESTED_JAIL;
pub(crate) use nested::NestedJail;
pub use probe::Canary;
pub use probe::probe;
pub use snapshot::Snapshot;
pub use zygote::Ended;
pub use zygote::Forked;
pub use zygote::Zygote;
