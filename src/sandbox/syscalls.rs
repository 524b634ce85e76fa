//! The seccomp filters: which system calls a program in the jail may not make.
//!
//! Everything else is allowed: the filters take away what could widen the jail or what is reached by
//! exploits of the kernel far more often than by programs.

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

use super::fault::Fault;

/// Calls that fail with EPERM.
const DENIED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Wide doors into the kernel.
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
    // Mounts and namespaces.
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
    // The machine.
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

/// Calls of this architecture alone that fail with EPERM.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[];

/// Memory outside of `RLIMIT_AS` and of the watchdog's sight: denied where no control group counts it.
const UNCOUNTED: &[i64] = &[
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
];

/// Flags of `clone` that make a namespace; `CLONE_NEWTIME` is one of `unshare` and `clone3` alone.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Socket families a program may use; without a network they reach only the jail itself.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Terminal controls that type into, or draw on, the terminal they are called on.
const TYPING: &[u64] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// Compiles the filters, in the order in which they are to be installed. What is not counted by a control group is
/// denied unless `memory_is_counted`.
pub(super) fn compile(memory_is_counted: bool) -> Result<Vec<BpfProgram>, Fault> {
    let built = filters(memory_is_counted);
    built.map_err(|error| Fault::new(format!("compile the seccomp filter: {error}"), Errno::EINVAL))
}

fn filters(memory_is_counted: bool) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let uncounted = if memory_is_counted { &[] } else { UNCOUNTED };
    let whole = DENIED.iter().chain(DENIED_HERE).chain(uncounted).map(|call| (*call, Vec::new()));
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = whole.collect();
    denied.insert(libc::SYS_clone, namespaces()?);
    denied.insert(libc::SYS_socket, families()?);
    denied.insert(libc::SYS_ioctl, typing()?);
    // The flags of clone3 lie in memory, where no filter can see them: glibc then falls back to clone.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut programs = vec![compiled(absent, Errno::ENOSYS)?, compiled(denied, Errno::EPERM)?];
    if cfg!(target_arch = "x86_64") {
        programs.push(no_x32());
    }
    Ok(programs)
}

fn compiled(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: Errno,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let action = SeccompAction::Errno((errno as i32).cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
}

fn namespaces() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let flags = NAMESPACES.iter().map(|flag| u64::from(flag.cast_unsigned()));
    flags.map(|flag| rule(0, Width::Qword, Op::MaskedEq(flag), flag)).collect()
}

fn families() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let families = FAMILIES.iter().map(|family| u64::from(family.cast_unsigned()));
    let others = families.map(|family| SeccompCondition::new(0, Width::Dword, Op::Ne, family));
    Ok(vec![SeccompRule::new(others.collect::<Result<_, _>>()?)?])
}

fn typing() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    TYPING.iter().map(|request| rule(1, Width::Dword, Op::Eq, *request)).collect()
}

fn rule(
    argument: u8,
    width: Width,
    op: Op,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, width, op, value)?])
}

/// Kills on calls of the x32 interface: it has the architecture of x86-64 but numbers of its own.
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
    fn the_filters_compile_with_and_without_a_control_group() {
        for counted in [true, false] {
            let n_filters = 2 + usize::from(cfg!(target_arch = "x86_64"));
            assert_eq!(compile(counted).unwrap().len(), n_filters);
        }
    }
}
