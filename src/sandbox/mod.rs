//! Runs model-written programs in a jail.
//!
//! [`Sandbox::run`] takes an [`ExecRequest`] and gives an [`ExecOutcome`]. A jail has user, mount,
//! pid, network, ipc, uts and control group namespaces of its own, a root of read-only system
//! folders and small writable ones, a loopback interface of its own, limits on every resource, no
//! capabilities, Landlock and seccomp; it fails closed. Four kinds of process: `rune` -> helper ->
//! a supervisor a run -> pid 1 of the jail and the program; each dies with the one before it.
//!
//! Not covered: side channels, and exploits of the kernel itself. Without user namespaces programs
//! are held by less, which [`JailCapabilities`] names.

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

mod fallback;
pub(crate) mod usage;
mod wire;
mod zygote;

pub use error::SandboxError;
pub use facilities::JailCapabilities;
pub use facilities::MemoryCap;
pub use facilities::MissingCapability;
pub use helper::SUBCOMMAND as HELPER_SUBCOMMAND;
pub use helper::helper_main;
pub use interpreter::Interpreter;
pub use job::CapturedStream;
pub use job::ExecOutcome;
pub use job::ExecRequest;
pub use job::ExitKind;
pub use job::JailTier;
pub use job::Limits;
pub use job::Mount;
pub use launcher::Sandbox;
pub(crate) use nested::NESTED_JAIL;
pub(crate) use nested::NestedJail;
pub use probe::CanaryResult;
pub use probe::probe;
pub use snapshot::RepositorySnapshot;
pub use zygote::ForkEnd;
pub use zygote::ForkedProcess;
pub use zygote::Zygote;
