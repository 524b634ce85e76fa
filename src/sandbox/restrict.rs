//! What the program may do: resource limits, Landlock, seccomp. The last steps before it starts.

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

/// The newest version whose rights we ask for; an older kernel enforces those that it knows.
const LANDLOCK: ABI = ABI::V6;

/// A main thread's stack, and what a thread reserves for its own: 100,000 frames of C, eight times
/// as much as usual.
const STACK: u64 = 64 << 20;
/// What a thread of the C library reserves for its heap.
const ARENA: u64 = 64 << 20;

/// What a single process may have of what the limits of the whole tree don't tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessCeilings {
    address_bytes: u64,
    stack_bytes: u64,
    /// Bounds the processes of the user: in a user namespace they are the program's, else
    /// everything the user runs.
    processes: Option<u64>,
}

impl ProcessCeilings {
    /// Where nothing but these holds the memory of the tree; also for a program of ours that forks
    /// others.
    pub(super) fn tight(limits: &Limits, processes: Option<u64>) -> Self {
        Self { address_bytes: limits.address_bytes, stack_bytes: 16 << 20, processes }
    }

    /// Where the memory of the tree is capped: addresses cost nothing then, and every thread
    /// reserves some.
    pub(super) fn wide(limits: &Limits, processes: Option<u64>) -> Self {
        let of_threads = u64::from(limits.processes) * (STACK + ARENA);
        let address_bytes = limits.address_bytes.saturating_add(of_threads);
        Self { address_bytes, stack_bytes: STACK, processes }
    }
}

/// Sets the resource limits of every single process; they can only be lowered from now on.
pub(super) fn limit_resources(limits: &Limits, ceilings: ProcessCeilings) -> Result<(), JailFault> {
    // One second more than the tree may use: a backstop should the supervisor be late.
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
    let processes = ceilings.processes.map(|most| (Resource::RLIMIT_NPROC, most));
    table.into_iter().chain(processes).try_for_each(|(resource, limit)| {
        let set = getrlimit(resource).and_then(|(_, highest)| {
            let limit = limit.min(highest); // it may be lower already
            setrlimit(resource, limit, limit)
        });
        set.step(format!("set {resource:?}"))
    })
}

/// Which files a program may use.
#[derive(Debug)]
pub(super) struct FileAccess {
    /// Folders and files that it may read and execute.
    pub(super) readable: Vec<PathBuf>,
    /// Folders that it may write, too.
    pub(super) writable: Vec<PathBuf>,
    /// Devices that it may use.
    pub(super) devices: Vec<&'static str>,
    /// Which network it has.
    pub(super) network: NetworkAccess,
}

/// Which network a program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkAccess {
    /// One of its own, with a loopback interface and nothing else: servers and clients in the jail
    /// reach each other.
    Own,
    /// That of the host: TCP is denied.
    Host,
}

impl FileAccess {
    /// What a jail with a file system of its own allows: there is nothing in it that may not be
    /// read.
    pub(super) fn to_jail() -> Self {
        let writable = WRITABLE.iter().map(PathBuf::from).collect();
        let devices = DEVICES.to_vec();
        Self { readable: vec!["/".into()], writable, devices, network: NetworkAccess::Own }
    }

    /// What is allowed without one: what [`filesystem::build`](super::filesystem::build) would
    /// show. Where no control group counts memory, `/dev/zero` is missing: what is mapped of it
    /// nobody could count.
    pub(super) fn to_host(workplace: &FallbackRoot, mounts: &[Mount], memory: MemoryCount) -> Self {
        let system = SYSTEM.iter().chain(SETTINGS).map(PathBuf::from);
        let mounts = mounts.iter().map(|mount| mount.host.clone());
        let own = [PathBuf::from("/proc/self"), workplace.path().to_owned()];
        let writable = ["box", "tmp"].map(|name| workplace.folder(name)).into();
        let readable = system.chain(mounts).chain(own).collect();
        let is_allowed = |device: &&str| memory == MemoryCount::Group || *device != ZERO;
        let devices = DEVICES.iter().copied().filter(is_allowed).collect();
        Self { readable, writable, devices, network: NetworkAccess::Host }
    }
}

/// Gives up all rights on files but those the jail is for, TCP on the host's network, and what lies
/// outside of the jail's scope.
pub(super) fn restrict_access(access: &FileAccess) -> Result<(), JailFault> {
    let restricted = landlock(access);
    restricted
        .map_err(|error| JailFault::new(format!("restrict by Landlock: {error}"), Errno::EPERM))
}

/// What is allowed everywhere, in writable folders, on devices.
fn rights(abi: ABI) -> [BitFlags<AccessFs>; 3] {
    let write = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    [AccessFs::from_read(abi), write, write & (AccessFs::ReadFile | AccessFs::WriteFile)]
}

fn landlock(access: &FileAccess) -> Result<(), RulesetError> {
    let [read, write, device] = rights(LANDLOCK);
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

/// The numbers of Landlock's rights as this kernel knows them, for who has to ask for them by hand.
#[derive(Debug, Serialize)]
pub(super) struct LandlockNumbers {
    /// Handled rights on files, on the network, and scopes; 0 for files means that there is no
    /// Landlock. A process with a network of its own handles none of the network's.
    fs: u64,
    net: u64,
    scope: u64,
    /// Bytes of these three that the kernel knows.
    size: usize,
    /// What is allowed everywhere, in writable folders, on devices.
    read: u64,
    write: u64,
    device: u64,
}

/// [`LandlockNumbers`] of this kernel.
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

/// Installs the compiled filters.
pub(super) fn filter_calls(filters: &[BpfProgram]) -> Result<(), JailFault> {
    for filter in filters {
        seccompiler::apply_filter(filter).map_err(|error| {
            JailFault::new(format!("install the seccomp filter: {error}"), Errno::EPERM)
        })?;
    }
    Ok(())
}
