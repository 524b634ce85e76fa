//! Inside the jail: init (pid 1), which builds the jail and then only waits, and the program (pid
//! 2).
//!
//! Both are forked and never return to the code of the helper: they end in `exit` or `exec`.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use nix::unistd::pipe2;
use seccompiler::BpfProgram;
use serde::Deserialize;
use serde::Serialize;

use super::fault::JailFault;
use super::fault::NamedStep;
use super::filesystem;
use super::identity;
use super::job::ExecRequest;
use super::job::Mount;
use super::memory::MemoryCount;
use super::restrict;
use super::restrict::FileAccess;
use super::restrict::ProcessCeilings;
use super::sys;
use super::wire;

/// Size of the gap that the kernel keeps free below a stack: 256 pages (`stack_guard_gap`).
const STACK_GAP: u64 = 1 << 20;

/// Everything that pid 1 needs to build the jail and to start the program.
#[derive(Debug)]
pub(super) struct InitPlan<'a> {
    pub(super) job: &'a ExecRequest,
    /// Initial working directory and `HOME` of the program.
    pub(super) home: &'a Path,
    /// The place that the program runs in: its own namespaces, or the host.
    pub(super) place: ProgramPlace,
    /// Limits of every single process.
    pub(super) ceilings: ProcessCeilings,
    /// The counter of the program's memory.
    pub(super) memory: MemoryCount,
    /// Access rules of the program. `None` on the user's explicit request, and for a trusted
    /// program that builds jails and needs the calls that the rules deny.
    pub(super) rules: Option<ProgramRules<'a>>,
    /// Whether the program is a trusted one that builds jails for others.
    pub(super) is_zygote: bool,
}

/// The place that a program runs in.
#[derive(Debug)]
pub(super) enum ProgramPlace {
    /// Its own namespaces, in which these folders of the host are mounted; their paths are
    /// canonical.
    Namespaces(Vec<Mount>),
    /// The host's namespaces, as this user; `None` for the user of this process.
    Host(Option<u32>),
}

impl ProgramPlace {
    pub(super) fn has_namespaces(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }
}

/// Access rules of a program.
#[derive(Debug)]
pub(super) struct ProgramRules<'a> {
    /// Files and network that it may use.
    pub(super) access: FileAccess,
    /// Compiled seccomp filters, in the order of their installation.
    pub(super) filters: &'a [BpfProgram],
}

/// The inner ends of pipes. All have numbers above those that the program gets.
#[derive(Debug)]
pub(super) struct PipeEnds {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) channel: Option<OwnedFd>,
    /// A descriptor from the caller for the program.
    pub(super) passed: Option<OwnedFd>,
    pub(super) report: OwnedFd,
    /// Receives the signal to continue; end of file means that the supervisor is dead.
    pub(super) supervisor: OwnedFd,
}

/// The report of pid 1 to the supervisor, on a pipe that the program does not have. Only the first
/// one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum InitReport {
    /// The jail could not be built; the program has not run.
    Failed(JailFault),
    /// The program exited with this status.
    Exited(i32),
    /// This signal killed the program.
    Killed(i32),
    /// A stack overflow of the main thread killed the program.
    Overflowed,
}

/// Main function of pid 1.
pub(super) fn run(plan: &InitPlan<'_>, ends: PipeEnds) -> ! {
    let pipe = ends.report.try_clone();
    let report = live(plan, ends).unwrap_or_else(InitReport::Failed);
    if let Ok(pipe) = pipe {
        send(&pipe, &report);
    }
    sys::exit(0)
}

fn send(pipe: &OwnedFd, report: &InitReport) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let _supervisor_is_dead = nix::unistd::write(pipe, &line);
}

fn live(plan: &InitPlan<'_>, ends: PipeEnds) -> Result<InitReport, JailFault> {
    wait_for_supervisor(&ends)?;
    // Not earlier: a plain user's supervisor can write the id maps of a dumpable process only.
    prctl::set_dumpable(false).step("hide pid 1")?;
    let written = match &plan.place {
        ProgramPlace::Namespaces(mounts) => {
            // Now that the supervisor has moved us into our group, it becomes the root that the
            // program sees.
            unshare(CloneFlags::CLONE_NEWCGROUP).step("make the control group namespace")?;
            nix::unistd::sethostname("jail").step("name the host")?;
            bound_buffers();
            sys::raise_loopback().step("bring up the loopback interface")?;
            let written = filesystem::build(plan.job, mounts, plan.memory)?;
            identity::assume()?;
            filesystem::write_files(Path::new("/box"), &plan.job.work).step("write /box")?;
            written
        }
        ProgramPlace::Host(_) => {
            prctl::set_child_subreaper(true).step("adopt the program's orphans")?;
            File::open(plan.home).step("open the work directory")?
        }
    };
    if plan.job.collect {
        // The supervisor collects files after everything here is dead, and the mounts with it; an
        // open descriptor keeps the folder alive.
        wire::send_fd(ends.supervisor.as_fd(), written.as_fd()).step("pass the work directory")?;
    }
    drop(written);
    // Again: `identity::assume` has changed the user, which clears the parent death signal.
    die_with_supervisor(&ends)?;
    let (reader, is_visible) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
    let program = match sys::fork().step("fork the program")? {
        ForkResult::Child => {
            drop(reader);
            start(plan, &ends, is_visible)
        }
        ForkResult::Parent { child } => child,
    };
    // Copies of these ends here would keep the readers from ever seeing the end of the pipes.
    drop((ends, is_visible));
    File::from(reader).read(&mut [0]).step("wait for the program to begin")?;
    // Refused where tracing is forbidden: a stack overflow is then an ordinary segmentation fault.
    let _is_watched = sys::trace(program);
    reap(program)
}

/// Limits the kernel's buffers of a TCP connection to those of other sockets, so that all sockets
/// count the same. If these settings cannot be changed, the kernel's limit on all connections of
/// the machine remains.
fn bound_buffers() {
    for (file, sizes) in [("tcp_rmem", "4096 131072 212992"), ("tcp_wmem", "4096 16384 212992")] {
        let _bounded_by_tcp_mem = std::fs::write(format!("/proc/sys/net/ipv4/{file}"), sizes);
    }
}

/// Waits until the supervisor has set up our id maps and control group.
fn wait_for_supervisor(ends: &PipeEnds) -> Result<(), JailFault> {
    die_with_supervisor(ends)?;
    let socket = ends.supervisor.try_clone().step("copy the socket")?;
    File::from(socket).read_exact(&mut [0]).step("wait for the supervisor")
}

/// Makes this process die with the supervisor; fails if that is already dead. A change of user
/// clears the setting.
fn die_with_supervisor(ends: &PipeEnds) -> Result<(), JailFault> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("bind pid 1 to the supervisor")?;
    // `getppid` is useless here: in a new pid namespace it is 0 whether or not the parent lives.
    let mut socket = [PollFd::new(ends.supervisor.as_fd(), PollFlags::empty())];
    poll(&mut socket, PollTimeout::ZERO).step("look for the supervisor")?;
    match socket[0].revents() {
        Some(events) if events.is_empty() => Ok(()),
        _ => Err(JailFault::new("look for the supervisor", Errno::EPIPE)),
    }
}

/// Waits for `program`, and reaps every other process that becomes a child of pid 1 meanwhile.
fn reap(program: Pid) -> Result<InitReport, JailFault> {
    let mut is_full = false;
    loop {
        let (pid, status, _) = sys::wait(None).step("wait for the program")?;
        if pid != program {
            continue;
        }
        if libc::WIFSTOPPED(status) {
            // The program may handle the signal and continue, so this only takes note.
            is_full |= libc::WSTOPSIG(status) == libc::SIGSEGV && stack_is_full(program);
            sys::resume(program, status);
        } else if libc::WIFEXITED(status) {
            return Ok(InitReport::Exited(libc::WEXITSTATUS(status)));
        } else if is_full && libc::WTERMSIG(status) == libc::SIGSEGV {
            return Ok(InitReport::Overflowed);
        } else {
            return Ok(InitReport::Killed(libc::WTERMSIG(status)));
        }
    }
}

/// Whether the fault that has just stopped `program` is directly below the stack of its main
/// thread, where the kernel grows the stack up to its limit.
fn stack_is_full(program: Pid) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{program}/maps")).unwrap_or_default();
    let start = maps
        .lines()
        .find(|line| line.ends_with("[stack]"))
        .and_then(|line| u64::from_str_radix(line.split_once('-')?.0, 16).ok());
    match (start, sys::fault_address(program)) {
        (Some(start), Ok(address)) => (start.saturating_sub(STACK_GAP)..start).contains(&address),
        _ => false,
    }
}

/// Becomes the program. Closes `is_visible` once the process is dumpable, so that pid 1 can trace
/// it.
fn start(plan: &InitPlan<'_>, ends: &PipeEnds, is_visible: OwnedFd) -> ! {
    // The fork has inherited the setting of pid 1, which must stay hidden from the program.
    let shown = prctl::set_dumpable(true).step("show the program");
    drop(is_visible);
    let Err(fault) = shown.and_then(|()| exec(plan, ends));
    send(&ends.report, &InitReport::Failed(fault));
    sys::exit(127)
}

fn exec(plan: &InitPlan<'_>, ends: &PipeEnds) -> Result<Infallible, JailFault> {
    let (path, args, env) = command(plan)?;
    nix::unistd::setsid().step("make a session")?;
    default_signals()?;
    redirect(ends).step("redirect the streams")?;
    nix::unistd::chdir(plan.home).step("enter the work directory")?;
    sys::lower_priority();
    if let ProgramPlace::Host(user) = plan.place {
        match user {
            Some(user) => identity::become_user(user)?,
            None if plan.rules.is_some() => identity::give_up_privileges()?,
            None => {}
        }
        // After the change of user, which clears it; the filters deny the program to clear it.
        prctl::set_pdeathsig(Signal::SIGKILL).step("bind the program to its parent")?;
    }
    restrict::limit_resources(&plan.job.limits, plan.ceilings)?;
    if let Some(rules) = &plan.rules {
        // The filters come last, so that every step before them may use any system call.
        restrict::restrict_access(&rules.access)?;
        restrict::filter_calls(rules.filters)?;
    }
    nix::unistd::execve(&path, &args, &env).step(format!("start {}", plan.job.program.display()))
}

/// Undoes the signal settings of the Rust runtime and the helper.
fn default_signals() -> Result<(), JailFault> {
    SigSet::empty().thread_set_mask().step("unblock the signals")?;
    for signal in [Signal::SIGPIPE, Signal::SIGCHLD] {
        sys::default_signal(signal).step("reset the signals")?;
    }
    Ok(())
}

/// Gives the program its streams, and marks every other descriptor to be closed at exec.
fn redirect(ends: &PipeEnds) -> nix::Result<()> {
    for (target, end) in (0..).zip([&ends.stdin, &ends.stdout, &ends.stderr]) {
        sys::duplicate_to(end.as_fd(), target)?;
    }
    let mut free = 3;
    for end in [&ends.channel, &ends.passed].into_iter().flatten() {
        sys::duplicate_to(end.as_fd(), free)?;
        free += 1;
    }
    sys::close_range(free.cast_unsigned(), u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

type ExecCommand = (CString, Vec<CString>, Vec<CString>);

/// Builds path, arguments and environment of the program. Nothing of our own environment is passed
/// on.
fn command(plan: &InitPlan<'_>) -> Result<ExecCommand, JailFault> {
    let text = |bytes: &[u8]| {
        CString::new(bytes)
            .map_err(|_| JailFault::new("pass an argument with a NUL byte", Errno::EINVAL))
    };
    let path = text(plan.job.program.as_os_str().as_bytes())?;
    let args = plan.job.args.iter().map(|arg| text(arg.as_bytes()));
    let args = std::iter::once(Ok(path.clone())).chain(args).collect::<Result<_, _>>()?;
    let home = plan.home.to_string_lossy();
    let built = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", &home),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    let given = plan.job.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let defaults =
        built.into_iter().filter(|(name, _)| given.clone().all(|(given, _)| given != *name));
    let env = defaults
        .chain(given.clone())
        .map(|(name, value)| text(format!("{name}={value}").as_bytes()));
    let env = env.collect::<Result<_, _>>()?;
    Ok((path, args, env))
}
