//! System calls that no crate wraps safely: the only file of the sandbox with `unsafe` blocks.

use std::ffi::CStr;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::socket;
use nix::unistd::ForkResult;
use nix::unistd::Pid;

/// A child created by [`clone`]: its process id, and a descriptor that always refers to exactly
/// this process.
#[derive(Debug)]
pub(super) struct ClonedChild {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// Forks the calling process, which must have a single thread.
#[expect(unsafe_code, reason = "fork is unsafe in programs with threads")]
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: only the helper and its descendants call this, and they never start a thread. So no
    // lock can be held by a thread that does not exist in the child.
    unsafe { nix::unistd::fork() }
}

/// Forks the calling process, which must have a single thread, into new namespaces. Returns `None`
/// in the child.
#[expect(unsafe_code, reason = "clone3 has no safe wrapper")]
pub(super) fn clone(namespaces: i32) -> nix::Result<Option<ClonedChild>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: the structure is plain numbers, for all of which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned());
    args.pidfd = std::ptr::from_mut(&mut pidfd).addr() as u64;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    // SAFETY: without CLONE_VM and without a stack this is a fork, see `fork`; `args` and `pidfd`
    // outlive the call.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if Errno::result(pid)? == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(i32::try_from(pid).expect("the kernel gives process ids that fit"));
    Ok(Some(ClonedChild { pid, pidfd }))
}

/// Sends SIGKILL to the process behind `pidfd`. Does nothing if the process has already ended.
#[expect(unsafe_code, reason = "pidfd_send_signal has no safe wrapper")]
pub(super) fn kill(pidfd: BorrowedFd<'_>) {
    let no_info = null_mut::<libc::siginfo_t>();
    // SAFETY: takes numbers and a null pointer, which stands for "as kill(2) does".
    let _gone_already = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, no_info, 0)
    };
}

/// Waits for the child `pid`, or for any child. Returns its process id, its raw wait status, and
/// the CPU time of it and of the children that it has waited for. (The parsed status of nix does
/// not support real-time signals.)
#[expect(unsafe_code, reason = "wait4 has no safe wrapper")]
pub(super) fn wait(pid: Option<Pid>) -> nix::Result<(Pid, i32, Duration)> {
    let mut status = 0;
    // SAFETY: the structure is plain numbers, for all of which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals that outlive the call.
        match Errno::result(unsafe {
            libc::wait4(pid.map_or(-1, Pid::as_raw), &raw mut status, 0, &raw mut usage)
        }) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(pid) => {
                let spent = duration(usage.ru_utime) + duration(usage.ru_stime);
                return Ok((Pid::from_raw(pid), status, spent));
            }
        }
    }
}

/// Traces the main thread of the child `pid`: it stops at every signal until [`resume`] is called,
/// and it dies with this process.
#[expect(unsafe_code, reason = "ptrace has no safe wrapper")]
pub(super) fn trace(pid: Pid) -> nix::Result<()> {
    let (nothing, options) = (null_mut::<u8>(), i64::from(libc::PTRACE_O_EXITKILL));
    // SAFETY: takes numbers.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw(), nothing, options) })
        .map(drop)
}

/// Continues `pid`, which has stopped with this raw wait status, and delivers the signal that it
/// has stopped at.
#[expect(unsafe_code, reason = "ptrace has no safe wrapper")]
pub(super) fn resume(pid: Pid, status: i32) {
    let signal = libc::WSTOPSIG(status);
    let (request, signal) = match status >> 16 {
        0 => (libc::PTRACE_CONT, signal),
        // A stopping signal was delivered: the process has to stay stopped (group-stop, ptrace(2)).
        libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => (libc::PTRACE_LISTEN, 0),
        _ => (libc::PTRACE_CONT, 0),
    };
    // SAFETY: takes numbers.
    let _killed_meanwhile =
        unsafe { libc::ptrace(request, pid.as_raw(), null_mut::<u8>(), i64::from(signal)) };
}

/// Returns the address of the memory fault that has just stopped the traced process `pid`.
#[expect(unsafe_code, reason = "ptrace has no safe wrapper")]
pub(super) fn fault_address(pid: Pid) -> nix::Result<u64> {
    // SAFETY: the structure is plain numbers and a union of such, for all of which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let nothing = null_mut::<u8>();
    // SAFETY: the kernel fills in the structure, which outlives the call.
    Errno::result(unsafe {
        libc::ptrace(libc::PTRACE_GETSIGINFO, pid.as_raw(), nothing, &raw mut info)
    })?;
    if info.si_code <= 0 {
        return Err(Errno::EFAULT); // sent by a process, which chose the contents as it liked
    }
    // SAFETY: what the kernel sends for a failed access has an address.
    Ok(unsafe { info.si_addr() }.addr() as u64)
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    seconds + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// Sets mount attributes (`MOUNT_ATTR_*`) on the mount at `path`, and with `recursive` on all below
/// it.
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
pub(super) fn set_mount_attributes(
    path: &str,
    attributes: u64,
    recursive: bool,
) -> nix::Result<()> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` and `attr` outlive the call, and the size is that of `attr`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done).map(drop)
}

/// Closes the descriptors `first..=last`: now, or at the next exec if `flags` contain
/// `CLOSE_RANGE_CLOEXEC`.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(super) fn close_range(first: u32, last: u32, flags: u32) -> nix::Result<()> {
    // SAFETY: takes numbers. The callers never again use, or drop, an owner of what is closed: they
    // end in `exec` or `exit`.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Makes `target` a copy of `fd` that survives exec.
#[expect(unsafe_code, reason = "nix wants an owner for the target")]
pub(super) fn duplicate_to(fd: BorrowedFd<'_>, target: RawFd) -> nix::Result<()> {
    // SAFETY: the callers are about to exec and own the whole descriptor table.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), target) }).map(drop)
}

/// Takes ownership of a descriptor that the kernel has just created for this process.
#[expect(unsafe_code, reason = "a new descriptor gets an owner")]
pub(super) fn own(made: RawFd) -> OwnedFd {
    // SAFETY: the callers have it from recvmsg or fcntl, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(made) }
}

/// Brings up the loopback interface of this network namespace; needs `CAP_NET_ADMIN` in it.
#[expect(unsafe_code, reason = "nix does not wrap SIOCSIFFLAGS")]
pub(super) fn raise_loopback() -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // SAFETY: the structure is plain numbers and a union of such, for all of which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = flags.try_into().expect("both are below 1 << 7");
    // SAFETY: the call reads a request of this layout, which outlives it.
    let raised =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(raised).map(drop)
}

/// Drops every capability from the bounding set, so that no program can ever regain one.
#[expect(unsafe_code, reason = "nix does not wrap PR_CAPBSET_DROP")]
pub(super) fn drop_bounding_set() -> nix::Result<()> {
    for capability in 0..64_u64 {
        // SAFETY: takes numbers.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Err(Errno::EINVAL) => return Ok(()), // past the last capability of this kernel
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Drops every effective, permitted and inheritable capability; the kernel then drops the ambient
/// ones, too.
#[expect(unsafe_code, reason = "capset has no safe wrapper")]
pub(super) fn drop_capabilities() -> nix::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: both arrays have the layout of version 3 and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
        .map(drop)
}

/// Whether the file behind `fd` has an extended attribute of this name.
#[expect(unsafe_code, reason = "fgetxattr has no safe wrapper")]
pub(super) fn has_attribute(fd: BorrowedFd<'_>, name: &CStr) -> bool {
    // SAFETY: the name ends with a NUL, and with a size of 0 nothing is written.
    let size = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), null_mut(), 0) };
    size >= 0
}

/// Lowers the scheduling priority of this process.
#[expect(unsafe_code, reason = "nix does not wrap nice")]
pub(super) fn lower_priority() {
    // SAFETY: takes a number.
    let _unchanged_is_fine = unsafe { libc::nice(10) };
}

/// Returns the Landlock ABI version of this kernel, 0 if there is no Landlock.
#[expect(unsafe_code, reason = "the landlock crate keeps the version to itself")]
pub(super) fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    let no_ruleset = null_mut::<u8>();
    // SAFETY: with this flag the call takes no ruleset and only gives a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_ruleset, 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Exits at once, without running exit handlers.
#[expect(unsafe_code, reason = "a forked child must not run the exit handlers of its parent")]
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: never returns, and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Gives `signal` its default action.
#[expect(unsafe_code, reason = "signal handlers are unsafe; the default action is none of ours")]
pub(super) fn default_signal(signal: nix::sys::signal::Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }.map(drop)
}
