//! Runs model-written programs in a jail.
//!
//! [`Sandbox::run`] takes an [`ExecRequest`] and returns an [`ExecOutcome`]. A jail has its own
//! user, mount, pid, network, ipc, uts and cgroup namespaces, a root of read-only system folders
//! and small writable ones, a loopback interface, limits on every resource, no capabilities,
//! Landlock and seccomp. It fails closed: if a step of the setup fails, nothing is executed.
//!
//! ```text
//!  with namespaces                          without namespaces (`JailTier::Landlock`)
//!
//!  rune                                     rune
//!   | one socket per run                     | one socket per run
//!   v                                        v
//!  helper       single-threaded, small      reaper       subreaper; outlives the helper and
//!   | fork per run                           | fork      kills what is left
//!   v                                        v
//!  supervisor   streams, clock, limits      helper       subreaper; cleans up after a killed
//!   | clone3 into new namespaces             | fork      supervisor
//!   v                                        v
//!  init         pid 1: builds the jail,     supervisor   subreaper; also counts memory and
//!   | fork      then only waits              | fork      files, and kills strays
//!   v                                        v
//!  program      pid 2: no capabilities,     init         subreaper; only waits
//!               Landlock, seccomp, rlimits   | fork
//!                                            v
//!                                           program      Landlock, seccomp, rlimits
//! ```
//!
//! Each process dies with its parent (`PR_SET_PDEATHSIG`, and a socket whose end is closed), and
//! the death of pid 1 takes the whole pid namespace with it. A [`Zygote`] is a program of ours that
//! forks further processes, each into a jail inside its own.
//!
//! Not covered: side channels and exploits of the kernel itself. Without user namespaces the jail
//! is weaker; [`JailCapabilities::gaps`] lists the differences.

mod capture;
mod cgroup;
mod collect;
mod error;
mod facilities;
mod fallback;
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
