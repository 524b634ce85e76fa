//! The seccomp filters: system calls that a program in the jail may not make.
//!
//! This is a deny list, everything else is allowed. It covers calls that could widen the jail, and
//! calls that kernel exploits use far more often than ordinary programs.

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen as Width;
use seccompiler::SeccompCmpOp as Op;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;
use seccompiler::TargetArch;
use seccompiler::sock_filter;

use super::fault::JailFault;
use super::memory::SHARED_BYTES;

/// Calls that fail with EPERM.
const DENIED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Large attack surface in the kernel.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    // Administration of the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_adjtimex,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_vhangup,
    libc::SYS_personality,
];

/// Calls for mounts and namespaces that also fail with EPERM, except for a trusted program that
/// builds jails.
const BUILDING: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
];

/// Calls that exist only on this architecture and fail with EPERM.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[];

/// Calls that allocate memory which neither `RLIMIT_AS` nor the watchdog counts: denied unless a
/// control group counts it.
const UNCOUNTED: &[i64] = &[
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // These keep pages of unmapped memory or of deleted files alive.
    libc::SYS_vmsplice,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_sendfile,
];

/// Calls denied to a process without its own namespaces: they reach things that Landlock does not
/// control.
const BARE: &[i64] = &[
    // Sockets: Landlock only controls TCP, and no socket with a path.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    // Shared objects of other processes of this user.
    libc::SYS_shmctl,
    libc::SYS_msgctl,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_semctl,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_mq_unlink,
    // Metadata of this user's files outside of the writable folders: owner, attributes, events.
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_mark,
];

/// The same, for calls that exist only on this architecture.
#[cfg(target_arch = "x86_64")]
const BARE_HERE: &[i64] = &[libc::SYS_chown, libc::SYS_lchown];
#[cfg(not(target_arch = "x86_64"))]
const BARE_HERE: &[i64] = &[];

/// Calls by which a process without namespaces could change files that it may only read. They do
/// nothing but report success, because they are the last step of copying a file.
const VAIN: &[i64] = &[libc::SYS_fchmod, libc::SYS_fchmodat, SYS_FCHMODAT2, libc::SYS_utimensat];
#[cfg(target_arch = "x86_64")]
const VAIN_HERE: &[i64] =
    &[libc::SYS_chmod, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const VAIN_HERE: &[i64] = &[];
/// The same number on every architecture.
const SYS_FCHMODAT2: i64 = 452;

/// Calls that send signals.
const SIGNALS: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];
/// Calls that start a process, in addition to `clone`.
#[cfg(target_arch = "x86_64")]
const FORKS: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[i64] = &[];

/// Calls that change a process, with the index of the argument that names it; 0 is the caller.
const OF_PROCESSES: &[(i64, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 0), // the kind: 0 is a process
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_move_pages, 0),
    (libc::SYS_migrate_pages, 0),
];

/// Types of socket pairs whose ends can be reconnected: `SOCK_DGRAM`, `SOCK_RAW`, `SOCK_SEQPACKET`.
const CONNECTABLE: &[u64] = &[2, 3, 5];

/// `ioctl` that sets the flags of a file, for which opening it for reading is enough.
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;

/// Flags of `clone` that create a namespace; `CLONE_NEWTIME` exists only in `unshare` and `clone3`.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Socket families that a program may use; in its network namespace they only reach the jail
/// itself.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Terminal controls that inject input into a terminal, or draw on it.
const TYPING: &[u64] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// Conditions that decide which calls are denied.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilterOptions {
    /// Whether a control group counts all memory. If not, calls that allocate memory in ways that
    /// only a control group counts are denied.
    pub(super) memory_is_counted: bool,
    /// Set if the program does not have its own namespaces.
    pub(super) bare: Option<BareProgram>,
}

/// Options for a program without its own namespaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct BareProgram {
    /// Whether Landlock keeps signals inside the program's domain. If not, it may send none.
    pub(super) signals_are_scoped: bool,
    /// Whether it may start processes.
    pub(super) may_fork: bool,
}

/// Compiled filters, in the two parts in which a zygote installs them.
#[derive(Debug)]
pub(super) struct CompiledFilters {
    /// Filters for every process, including one that builds jails.
    pub(super) for_all: Vec<BpfProgram>,
    /// Filters that deny the calls by which jails are built.
    pub(super) for_held: Vec<BpfProgram>,
}

type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

impl FilterOptions {
    /// Compiles the filters, in the order in which they must be installed.
    pub(super) fn compile(self) -> Result<Vec<BpfProgram>, JailFault> {
        let CompiledFilters { for_all, for_held } = self.compile_parts()?;
        Ok(for_all.into_iter().chain(for_held).collect())
    }

    /// Compiles the filters in two parts; a process that builds jails installs only the first.
    pub(super) fn compile_parts(self) -> Result<CompiledFilters, JailFault> {
        let failed =
            |error| JailFault::new(format!("compile the seccomp filter: {error}"), Errno::EINVAL);
        self.parts().map_err(failed)
    }

    fn parts(self) -> Result<CompiledFilters, seccompiler::BackendError> {
        // The flags of clone3 are in memory, where no filter can see them. glibc falls back to
        // clone on ENOSYS.
        let absent = whole(&[libc::SYS_clone3]).collect();
        let mut denied: SyscallRules = whole(DENIED).chain(whole(DENIED_HERE)).collect();
        denied.insert(libc::SYS_socket, families()?);
        denied.insert(libc::SYS_ioctl, requests(TYPING)?);
        let mut too_large = huge_pages()?;
        if !self.memory_is_counted || self.bare.is_some() {
            denied.extend(whole(UNCOUNTED));
            // A process that is not dumpable could not be inspected to count its memory.
            let hiding = u64::from(libc::PR_SET_DUMPABLE.cast_unsigned());
            denied.insert(libc::SYS_prctl, vec![rule(0, Width::Dword, Op::Eq, hiding)?]);
            too_large.entry(libc::SYS_mmap).or_default().push(large_shared_memory()?);
        }
        let mut for_all = vec![
            compiled(absent, Errno::ENOSYS as i32)?,
            compiled(denied, Errno::EPERM as i32)?,
            compiled(too_large, Errno::ENOMEM as i32)?,
        ];
        if cfg!(target_arch = "x86_64") {
            for_all.push(no_x32());
        }
        let mut denied: SyscallRules = whole(BUILDING).collect();
        denied.insert(libc::SYS_clone, namespaces()?);
        if let Some(bare) = self.bare {
            bare.deny(&mut denied)?;
        }
        let mut for_held = vec![compiled(denied, Errno::EPERM as i32)?];
        if self.bare.is_some() {
            for_held.push(compiled(whole(VAIN).chain(whole(VAIN_HERE)).collect(), 0)?);
        }
        Ok(CompiledFilters { for_all, for_held })
    }
}

impl BareProgram {
    /// Options for this version of Landlock: what it does not enforce is left to the filters.
    pub(super) fn with(landlock_version: u32, may_fork: bool) -> Self {
        Self { signals_are_scoped: landlock_version >= 6, may_fork }
    }

    fn deny(self, denied: &mut SyscallRules) -> Result<(), seccompiler::BackendError> {
        denied.extend(whole(BARE).chain(whole(BARE_HERE)));
        denied.insert(libc::SYS_ioctl, requests(&[TYPING, &[FS_IOC_SETFLAGS]].concat())?);
        for (call, argument) in OF_PROCESSES {
            let other = rule(*argument, Width::Dword, Op::Ne, 0)?;
            denied.entry(*call).or_default().push(other);
        }
        let connectable = CONNECTABLE.iter();
        let pairs = connectable.map(|kind| rule(1, Width::Dword, Op::MaskedEq(0xf), *kind));
        denied.insert(libc::SYS_socketpair, pairs.collect::<Result<_, _>>()?);
        // Without the parent death signal it would outlive the process that started it.
        let letting_go = u64::from(libc::PR_SET_PDEATHSIG.cast_unsigned());
        denied.insert(libc::SYS_prctl, vec![rule(0, Width::Dword, Op::Eq, letting_go)?]);
        if !self.signals_are_scoped {
            denied.extend(whole(SIGNALS));
        }
        if !self.may_fork {
            denied.extend(whole(FORKS));
            // Threads are allowed, so `clone` is denied only without CLONE_THREAD.
            let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
            let process = rule(0, Width::Qword, Op::MaskedEq(thread), 0)?;
            denied.entry(libc::SYS_clone).or_default().push(process);
        }
        Ok(())
    }
}

/// Rules that match for any arguments.
fn whole(calls: &[i64]) -> impl Iterator<Item = (i64, Vec<SeccompRule>)> {
    calls.iter().map(|call| (*call, Vec::new()))
}

fn compiled(rules: SyscallRules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let action = SeccompAction::Errno(errno.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
}

fn namespaces() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let flags = NAMESPACES.iter().map(|flag| u64::from(flag.cast_unsigned()));
    flags.map(|flag| rule(0, Width::Qword, Op::MaskedEq(flag), flag)).collect()
}

/// Rules against huge pages, which come from a reserve of the machine and are not limited.
fn huge_pages() -> Result<SyscallRules, seccompiler::BackendError> {
    let mapped = u64::from(libc::MAP_HUGETLB.cast_unsigned());
    let mapped = rule(3, Width::Dword, Op::MaskedEq(mapped), mapped)?;
    let file = u64::from(libc::MFD_HUGETLB);
    let file = rule(1, Width::Dword, Op::MaskedEq(file), file)?;
    Ok([(libc::SYS_mmap, vec![mapped]), (libc::SYS_memfd_create, vec![file])].into())
}

/// A rule against pieces of anonymous shared memory larger than [`SHARED_BYTES`], as which each
/// piece is counted.
fn large_shared_memory() -> Result<SeccompRule, seccompiler::BackendError> {
    let flags = |flags: i32| u64::from(flags.cast_unsigned());
    let mask = Op::MaskedEq(flags(libc::MAP_TYPE | libc::MAP_ANONYMOUS));
    let shared = flags(libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    SeccompRule::new(vec![
        SeccompCondition::new(3, Width::Dword, mask, shared)?,
        SeccompCondition::new(1, Width::Qword, Op::Gt, SHARED_BYTES)?,
    ])
}

fn families() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let families = FAMILIES.iter().map(|family| u64::from(family.cast_unsigned()));
    // The conditions of one rule are joined by "and": denied is what is none of these families.
    let others = families.map(|family| SeccompCondition::new(0, Width::Dword, Op::Ne, family));
    Ok(vec![SeccompRule::new(others.collect::<Result<_, _>>()?)?])
}

fn requests(denied: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    denied.iter().map(|request| rule(1, Width::Dword, Op::Eq, *request)).collect()
}

fn rule(
    argument: u8,
    width: Width,
    op: Op,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, width, op, value)?])
}

/// A filter that kills the process at a call of the x32 ABI, which shares its architecture with
/// x86-64 but has different call numbers.
fn no_x32() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 }, // the number of the call
        sock_filter { code: IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile_for_every_kind_of_jail() {
        for memory_is_counted in [true, false] {
            let compile = |bare| FilterOptions { memory_is_counted, bare }.compile().unwrap().len();
            let n_filters = 4 + usize::from(cfg!(target_arch = "x86_64"));
            assert_eq!(compile(None), n_filters);
            for (signals_are_scoped, may_fork) in [(true, true), (true, false), (false, true)] {
                let bare = BareProgram { signals_are_scoped, may_fork };
                assert_eq!(compile(Some(bare)), n_filters + 1);
            }
        }
    }
}
