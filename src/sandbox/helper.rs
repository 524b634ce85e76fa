//! The helper: a small single-threaded process, started before anything else, that forks one
//! supervisor per job.
//!
//! Because of it, starting a jail costs the same however much memory `rune` holds, and no process
//! with threads is ever forked. Every process here asks to be killed with its parent, and when pid
//! 1 of a jail dies, the kernel kills its whole namespace.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use seccompiler::BpfProgram;

use crate::child;

use super::cgroup;
use super::facilities::JailCapabilities;
use super::facilities::MemoryCap;
use super::fallback;
use super::fault::JailFault;
use super::fault::NamedStep;
use super::identity;
use super::job::JailTier;
use super::supervisor;
use super::sys;
use super::syscalls::BareProgram;
use super::syscalls::FilterOptions;
use super::usage;
use super::wire;

/// Hidden subcommand that turns the `rune` binary into a helper.
pub const SUBCOMMAND: &str = "jail-helper";

/// Minimum Landlock version: the first that also controls truncation, so that nothing can change a
/// file unnoticed.
const MIN_LANDLOCK: u32 = 3;

/// State that every supervisor inherits by fork.
#[derive(Debug)]
pub(super) struct HelperContext {
    pub(super) tier: JailTier,
    /// Why namespaces are not used although they were requested.
    refused: Option<JailFault>,
    /// Parent of the control groups of runs.
    pub(super) groups: Option<cgroup::ParentCgroup>,
    pub(super) filters: Vec<BpfProgram>,
}

/// The first message of the helper on its socket.
pub(super) type HelperGreeting = Result<JailCapabilities, JailFault>;

/// Runs the helper until its `rune` exits; returns the exit status. `args` are the arguments after
/// [`SUBCOMMAND`].
///
/// Must be called first in `main`, while the process has a single thread. Standard input is the
/// socket to `rune`: started manually, it exits at once with status 2.
pub fn helper_main(args: impl Iterator<Item = OsString>) -> u8 {
    let Some((parent, tier)) = parse(args) else { return 2 };
    let Ok(control) = take_control() else { return 2 };
    // In the session of `rune`, its death would orphan our process group, and the kernel sends
    // SIGHUP to all of an orphaned group in which a process is stopped, as `stop_strays` may just
    // have done: helper and reaper would die together, and the program would outlive them.
    let is_apart = nix::unistd::setsid().step("make a session of the helper");
    // Bound first: if `rune` dies while this prepares, nobody would be left to end the helper.
    let prepared =
        is_apart.and_then(|_| bind_to(parent)).and_then(|()| HelperContext::prepare(tier));
    if prepared.as_ref().is_ok_and(|context| context.tier != JailTier::Namespaces)
        && let Some(status) = fork_reaper()
    {
        return status;
    }
    let greeting: HelperGreeting =
        prepared.as_ref().map(HelperContext::facilities).map_err(Clone::clone);
    if wire::greet(control.as_fd(), &greeting).is_err() {
        return 2;
    }
    let served = prepared.and_then(|context| serve(control, &context));
    served.is_err().into()
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<(u32, Option<JailTier>)> {
    let parent = args.next()?.to_str()?.parse().ok()?;
    let tier = serde_json::from_str(args.next()?.to_str()?).ok()?;
    Some((parent, tier))
}

/// Moves the socket away from standard input, which jails inherit.
fn take_control() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    sys::duplicate_to(null.as_fd(), 0)?;
    Ok(control)
}

/// Makes this process die with `parent`. Fails if the parent is a different process, which means
/// that `parent` is already dead.
fn bind_to(parent: u32) -> Result<(), JailFault> {
    child::bind_to(parent, Signal::SIGKILL).step("bind the helper to its parent")
}

/// Splits this process in two when no namespace takes the program with it: the helper, which gets
/// `None` and continues, and its parent, the reaper. The reaper outlives the helper and its
/// supervisors, kills what is left, and gets the status to exit with.
fn fork_reaper() -> Option<u8> {
    let own = nix::unistd::getpid().as_raw().cast_unsigned();
    // Set before the fork: an orphan of the helper has nowhere else to go than up to us.
    let adopted = prctl::set_child_subreaper(true);
    let Ok(fork) = adopted.and_then(|()| sys::fork()) else { return Some(2) };
    let ForkResult::Parent { child } = fork else {
        return bind_to(own).err().map(|_| 2);
    };
    // The reaper must survive `rune`. The helper notices that its socket is closed and exits, which
    // ends the wait below.
    let outlived = prctl::set_pdeathsig(None);
    // A copy of the control socket here would keep that socket open for ever.
    let closed = sys::close_range(0, u32::MAX, 0);
    let status = waitpid(child, None);
    fallback::kill_strays(&HashSet::new());
    fallback::remove_left(child, None);
    let is_fine = matches!(status, Ok(WaitStatus::Exited(_, 0)));
    Some((!is_fine || outlived.is_err() || closed.is_err()).into())
}

impl HelperContext {
    /// Prepares for `tier`, or for the best tier that this machine allows.
    fn prepare(tier: Option<JailTier>) -> Result<Self, JailFault> {
        let requested = Self::of(tier.unwrap_or(JailTier::Namespaces))?;
        if tier.is_some() {
            return Ok(requested);
        }
        // No setting says reliably whether namespaces work (AppArmor, seccomp, sysctls and masked
        // mounts all matter), so a jail is tried.
        match supervisor::try_out(&requested) {
            Err(fault) if fault.hint().is_some() => match Self::of(JailTier::Landlock) {
                Ok(fallback) => Ok(Self { refused: Some(fault), ..fallback }),
                // Of the two faults, namespaces are the one worth fixing.
                Err(_) => Err(fault),
            },
            // Any other fault is reported with the first program that is run.
            _ => Ok(requested),
        }
    }

    fn of(tier: JailTier) -> Result<Self, JailFault> {
        let landlock = sys::landlock_version();
        if tier == JailTier::Landlock && (landlock < MIN_LANDLOCK || !usage::is_known()) {
            return Err(JailFault::new("hold programs without namespaces", Errno::ENOTSUP));
        }
        let groups = if tier == JailTier::None { None } else { cgroup::ParentCgroup::find() };
        let filters = match tier {
            JailTier::None => Vec::new(),
            JailTier::Namespaces | JailTier::Landlock => {
                let bare = (tier == JailTier::Landlock).then(|| BareProgram::with(landlock, true));
                FilterOptions { memory_is_counted: groups.is_some(), bare }.compile()?
            }
        };
        Ok(Self { tier, refused: None, groups, filters })
    }

    fn facilities(&self) -> JailCapabilities {
        let memory_cap = match self.groups.as_ref().map(|groups| groups.version) {
            Some(cgroup::CgroupVersion::V2) => MemoryCap::CgroupV2,
            Some(cgroup::CgroupVersion::V1) => MemoryCap::CgroupV1,
            None if usage::is_known() => MemoryCap::Watchdog,
            None => MemoryCap::Process,
        };
        let is_held = self.tier != JailTier::None;
        JailCapabilities {
            tier: self.tier,
            refused: self.refused.as_ref().map(ToString::to_string),
            hint: self.refused.as_ref().and_then(JailFault::hint).map(str::to_owned),
            programs_have_own_user: self.tier == JailTier::Landlock
                && identity::stranger(nix::unistd::getpid()).is_some(),
            memory_cap,
            landlock_version: if is_held { sys::landlock_version() } else { 0 },
            seccomp: is_held,
        }
    }
}

/// Forks a supervisor for every socket that arrives over `control`, until that is closed.
fn serve(control: OwnedFd, context: &HelperContext) -> Result<(), JailFault> {
    // A signalfd makes ended supervisors an event like any other: no handler runs at any time.
    let ended_child = SigSet::from(Signal::SIGCHLD);
    ended_child.thread_block().step("block SIGCHLD")?;
    if context.tier != JailTier::Namespaces {
        prctl::set_child_subreaper(true).step("adopt the orphans of supervisors")?;
    }
    let ended = SignalFd::with_flags(&ended_child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step("listen to SIGCHLD")?;
    let mut alive = HashSet::new();
    loop {
        let mut events =
            [control.as_fd(), ended.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(JailFault::new("wait for jobs", errno)),
        }
        let [job, child] = events.map(|event| event.any().unwrap_or(true));
        if child {
            // SIGCHLD does not queue: one read stands for any number of children.
            let _only_one_is_pending = ended.read_signal();
            reap(context, &mut alive);
        }
        if !job {
            continue;
        }
        let Some(socket) = wire::receive_fd(control.as_fd()).step("receive a job")? else {
            return Ok(());
        };
        let helper = nix::unistd::getpid();
        match sys::fork() {
            Ok(ForkResult::Child) => {
                // A supervisor that kept the control socket would hide the helper's death.
                drop((control, ended));
                supervise(socket, helper.as_raw().cast_unsigned(), context);
            }
            Ok(ForkResult::Parent { child }) => drop(alive.insert(child.as_raw())),
            // The socket is closed by its drop, which the caller reads as `HelperGone`.
            Err(_closes_the_socket) => {}
        }
    }
}

fn supervise(socket: OwnedFd, helper: u32, context: &HelperContext) -> ! {
    if bind_to(helper).is_ok() {
        supervisor::serve(UnixStream::from(socket), context);
    }
    sys::exit(0)
}

/// Waits for supervisors that have ended and cleans up after those that were killed. `alive` are
/// the running supervisors.
fn reap(context: &HelperContext, alive: &mut HashSet<i32>) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let Some(pid) = status.pid() else { return }; // the remaining ones are running
        if !alive.remove(&pid.as_raw()) {
            continue; // an orphan that this process has adopted
        }
        // A supervisor that exits has cleaned up itself.
        let WaitStatus::Signaled(..) = status else { continue };
        if context.tier != JailTier::Namespaces {
            fallback::kill_strays(alive);
            fallback::remove_left(nix::unistd::getpid(), Some(pid));
        }
        if let Some(groups) = &context.groups {
            groups.of(pid).remove();
        }
    }
}
