//! The last steps before the program starts: resource limits, Landlock, seccomp.

use std::path::PathBuf;

use landlock::ABI;
use landlock::Access as _;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::BitFlags;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreatedAttr;
use landlock::RulesetError;
use landlock::Scope;
use landlock::path_beneath_rules;
use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use seccompiler::BpfProgram;
use serde::Serialize;

use super::fallback::FallbackRoot;
use super::fault::JailFault;
use super::fault::NamedStep;
use super::filesystem::DEVICES;
use super::filesystem::SETTINGS;
use super::filesystem::SYSTEM;
use super::filesystem::WRITABLE;
use super::filesystem::ZERO;
use super::job::Limits;
use super::job::Mount;
use super::memory::MemoryCount;
use super::sys;

/// The newest Landlock version whose rights are requested; an older kernel enforces those that it
/// knows.
const LANDLOCK: ABI = ABI::V6;

/// Stack size of the main thread and of every other thread: room for 100,000 frames of C, eight
/// times the usual size.
const STACK: u64 = 64 << 20;
/// Address space that glibc reserves for the heap (arena) of a thread.
const ARENA: u64 = 64 << 20;

/// Limits of a single process, in addition to those of the whole tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessCeilings {
    address_bytes: u64,
    stack_bytes: u64,
    /// Limits the processes of the user: in a user namespace only the program's, otherwise
    /// everything that the user runs.
    processes: Option<u64>,
}

impl ProcessCeilings {
    /// Limits for a tree whose memory nothing else caps, and for a trusted program that forks
    /// others.
    pub(super) fn tight(limits: &Limits, processes: Option<u64>) -> Self {
        Self { address_bytes: limits.address_bytes, stack_bytes: 16 << 20, processes }
    }

    /// Limits for a tree whose memory is capped: address space costs nothing then, and every thread
    /// reserves some.
    pub(super) fn wide(limits: &Limits, processes: Option<u64>) -> Self {
        let of_threads = u64::from(limits.processes) * (STACK + ARENA);
        let address_bytes = limits.address_bytes.saturating_add(of_threads);
        Self { address_bytes, stack_bytes: STACK, processes }
    }
}

/// Sets the resource limits of every single process. From then on they can only be lowered.
pub(super) fn limit_resources(limits: &Limits, ceilings: ProcessCeilings) -> Result<(), JailFault> {
    // At least one second more than the limit of the tree: only a backstop for a late supervisor.
    let cpu = limits.cpu.as_secs() + 2;
    let table = [
        (Resource::RLIMIT_AS, ceilings.address_bytes),
        (Resource::RLIMIT_CPU, cpu),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, 1024),
        (Resource::RLIMIT_STACK, ceilings.stack_bytes),
        (Resource::RLIMIT_SIGPENDING, 256),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    let processes = ceilings.processes.map(|max| (Resource::RLIMIT_NPROC, max));
    table.into_iter().chain(processes).try_for_each(|(resource, limit)| {
        let set = getrlimit(resource).and_then(|(_, highest)| {
            // A plain user cannot raise a limit that `rune` itself was started with.
            let limit = limit.min(highest);
            setrlimit(resource, limit, limit)
        });
        set.step(format!("set {resource:?}"))
    })
}

/// The files, devices and network that a program may use.
#[derive(Debug)]
pub(super) struct FileAccess {
    /// Folders and files that it may read and execute.
    pub(super) readable: Vec<PathBuf>,
    /// Folders that it may also write to.
    pub(super) writable: Vec<PathBuf>,
    /// Devices that it may read and write.
    pub(super) devices: Vec<&'static str>,
    /// The network that it is connected to.
    pub(super) network: NetworkAccess,
}

/// The network that a program is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkAccess {
    /// A network namespace with only a loopback interface: servers and clients in the jail reach
    /// each other, and nothing else.
    Own,
    /// The host's network: TCP is denied.
    Host,
}

impl FileAccess {
    /// Access rules for a jail with its own file system, in which everything may be read.
    pub(super) fn to_jail() -> Self {
        let writable = WRITABLE.iter().map(PathBuf::from).collect();
        let devices = DEVICES.to_vec();
        Self { readable: vec!["/".into()], writable, devices, network: NetworkAccess::Own }
    }

    /// Access rules on the host's file system: the same files that
    /// [`filesystem::build`](super::filesystem::build) would show. `/dev/zero` is missing if no
    /// control group counts memory, because memory mapped from it could not be counted.
    pub(super) fn to_host(scratch: &FallbackRoot, mounts: &[Mount], memory: MemoryCount) -> Self {
        let system = SYSTEM.iter().chain(SETTINGS).map(PathBuf::from);
        let mounts = mounts.iter().map(|mount| mount.host.clone());
        let own = [PathBuf::from("/proc/self"), scratch.path().to_owned()];
        let writable = ["box", "tmp"].map(|name| scratch.folder(name)).into();
        let readable = system.chain(mounts).chain(own).collect();
        let is_allowed = |device: &&str| memory == MemoryCount::Group || *device != ZERO;
        let devices = DEVICES.iter().copied().filter(is_allowed).collect();
        Self { readable, writable, devices, network: NetworkAccess::Host }
    }
}

/// Restricts this process by Landlock to the files of `access`, to its own network, and to signals
/// and abstract sockets inside its own domain.
pub(super) fn restrict_access(access: &FileAccess) -> Result<(), JailFault> {
    let restricted = landlock(access);
    restricted
        .map_err(|error| JailFault::new(format!("restrict by Landlock: {error}"), Errno::EPERM))
}

/// Rights in readable folders, in writable folders, and on devices.
fn rights(abi: ABI) -> [BitFlags<AccessFs>; 3] {
    let write = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    [AccessFs::from_read(abi), write, write & (AccessFs::ReadFile | AccessFs::WriteFile)]
}

fn landlock(access: &FileAccess) -> Result<(), RulesetError> {
    let [read, write, device] = rights(LANDLOCK);
    // Rights that are handled but granted by no rule are denied. On an older kernel the crate drops
    // those that it does not know ("best effort"); the helper has checked the minimum version.
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK))?;
    if access.network == NetworkAccess::Host {
        ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK))?;
    }
    ruleset
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(&access.readable, read))?
        .add_rules(path_beneath_rules(&access.writable, write))?
        .add_rules(path_beneath_rules(&access.devices, device))?
        .restrict_self()?;
    Ok(())
}

/// Bit masks of the Landlock rights that this kernel supports, for the Python program that makes
/// the system calls itself (`jail.py`).
#[derive(Debug, Serialize)]
pub(super) struct LandlockNumbers {
    /// Handled rights on files and on the network, and scopes, as in `struct
    /// landlock_ruleset_attr`. 0 for files means that there is no Landlock. A process with its own
    /// network handles no network rights.
    fs: u64,
    net: u64,
    scope: u64,
    /// Size of the structure in bytes, as this kernel knows it.
    size: usize,
    /// Rights in readable folders, in writable folders, and on devices.
    read: u64,
    write: u64,
    device: u64,
}

/// Returns the [`LandlockNumbers`] of this kernel.
pub(super) fn landlock_numbers() -> LandlockNumbers {
    let (abi, size) = match sys::landlock_version() {
        0 => (ABI::Unsupported, 0),
        1 => (ABI::V1, 8),
        2 => (ABI::V2, 8),
        3 => (ABI::V3, 8),
        4 => (ABI::V4, 16),
        5 => (ABI::V5, 16),
        _ => (LANDLOCK, 24),
    };
    let [read, write, device] = rights(abi).map(BitFlags::bits);
    LandlockNumbers {
        fs: AccessFs::from_all(abi).bits(),
        net: AccessNet::from_all(abi).bits(),
        scope: Scope::from_all(abi).bits(),
        size,
        read,
        write,
        device,
    }
}

/// Installs the compiled seccomp filters, which can never be removed.
pub(super) fn filter_calls(filters: &[BpfProgram]) -> Result<(), JailFault> {
    for filter in filters {
        seccompiler::apply_filter(filter).map_err(|error| {
            JailFault::new(format!("install the seccomp filter: {error}"), Errno::EPERM)
        })?;
    }
    Ok(())
}
