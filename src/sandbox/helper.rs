//! The helper: a small process of one thread, started before anything else, that forks a supervisor
//! a job.
//!
//! It is there so that starting a jail costs the same however much memory `rune` holds. Who dies
//! takes the rest along: each process here asks to be killed with its parent, and pid 1 of a jail
//! takes its whole namespace with it.

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

/// The hidden subcommand that makes the `rune` binary a helper.
pub const SUBCOMMAND: &str = "jail-helper";

/// The first version of Landlock that holds all that changes a file; one before it would not.
const LEAST_LANDLOCK: u32 = 3;

/// What every supervisor inherits.
#[derive(Debug)]
pub(super) struct HelperContext {
    pub(super) tier: JailTier,
    /// Why there are no namespaces, where they were wanted.
    refused: Option<JailFault>,
    /// Where runs get control groups of their own.
    pub(super) groups: Option<cgroup::ParentCgroup>,
    pub(super) filters: Vec<BpfProgram>,
}

/// What the helper says first on its socket.
pub(super) type HelperGreeting = Result<JailCapabilities, JailFault>;

/// Runs the helper until its `rune` is gone; gives the exit status. `args` follow [`SUBCOMMAND`].
///
/// Must be called first thing in `main`, while the process has a single thread. Standard input is
/// the socket to `rune`: started by hand, this ends at once with status 2.
pub fn helper_main(args: impl Iterator<Item = OsString>) -> u8 {
    let Some((parent, tier)) = parse(args) else { return 2 };
    let Ok(control) = take_control() else { return 2 };
    let prepared = bind_to(parent).and_then(|()| HelperContext::prepare(tier));
    if prepared.as_ref().is_ok_and(|context| context.tier != JailTier::Namespaces)
        && let Some(status) = sweeper()
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

/// Moves the socket away from standard input, which no jail shall ever inherit.
fn take_control() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    sys::duplicate_to(null.as_fd(), 0)?;
    Ok(control)
}

/// Makes this process die with its parent, which is dead already if it is not `parent`.
fn bind_to(parent: u32) -> Result<(), JailFault> {
    child::bind_to(parent, Signal::SIGKILL).step("bind the helper to its parent")
}

/// Where no namespace takes the program with it: splits this process into the helper, which goes on
/// with `None`, and its parent, which outlives it and whatever it served, kills what is left, and
/// gives the status to end with.
fn sweeper() -> Option<u8> {
    let own = nix::unistd::getpid().as_raw().cast_unsigned();
    let adopted = prctl::set_child_subreaper(true);
    let Ok(fork) = adopted.and_then(|()| sys::fork()) else { return Some(2) };
    let ForkResult::Parent { child } = fork else {
        return bind_to(own).err().map(|_| 2);
    };
    let outlived = prctl::set_pdeathsig(None); // that of `rune`: the helper sees its end, and ends
    let closed = sys::close_range(0, u32::MAX, 0);
    let status = waitpid(child, None);
    fallback::sweep(&HashSet::new());
    fallback::remove_left(child, None);
    let is_fine = matches!(status, Ok(WaitStatus::Exited(_, 0)));
    Some((!is_fine || outlived.is_err() || closed.is_err()).into())
}

impl HelperContext {
    /// Prepares for `tier`, or for the best one that this machine allows.
    fn prepare(tier: Option<JailTier>) -> Result<Self, JailFault> {
        let wanted = Self::of(tier.unwrap_or(JailTier::Namespaces))?;
        if tier.is_some() {
            return Ok(wanted);
        }
        match supervisor::try_out(&wanted) {
            Err(fault) if fault.hint().is_some() => match Self::of(JailTier::Landlock) {
                Ok(fallback) => Ok(Self { refused: Some(fault), ..fallback }),
                Err(_) => Err(fault), // the better of the two is the one to mend
            },
            _ => Ok(wanted), // what else is wrong will be said of the first program
        }
    }

    fn of(tier: JailTier) -> Result<Self, JailFault> {
        let landlock = sys::landlock_version();
        if tier == JailTier::Landlock && (landlock < LEAST_LANDLOCK || !usage::is_known()) {
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

/// Forks a supervisor for every socket that comes over `control`, until that ends.
fn serve(control: OwnedFd, context: &HelperContext) -> Result<(), JailFault> {
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
                drop((control, ended));
                supervise(socket, helper.as_raw().cast_unsigned(), context);
            }
            Ok(ForkResult::Parent { child }) => drop(alive.insert(child.as_raw())),
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

/// Waits for supervisors that have ended, and clears up after those that were killed; `alive` are
/// all of them.
fn reap(context: &HelperContext, alive: &mut HashSet<i32>) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let Some(pid) = status.pid() else { return }; // the others live
        if !alive.remove(&pid.as_raw()) {
            continue;
        }
        let WaitStatus::Signaled(..) = status else { continue };
        if context.tier != JailTier::Namespaces {
            fallback::sweep(alive);
            fallback::remove_left(nix::unistd::getpid(), Some(pid));
        }
        if let Some(groups) = &context.groups {
            groups.of(pid).remove();
        }
    }
}
