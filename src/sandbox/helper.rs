//! The helper: a small process of one thread, started before anything else, that forks a supervisor a job.
//!
//! It is there so that starting a jail costs the same however much memory `rune` holds. Who dies takes
//! the rest along: each process here asks to be killed with its parent, and pid 1 of a jail takes its
//! whole namespace with it.

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
use super::facilities::Facilities;
use super::facilities::MemoryCap;
use super::fault::Fault;
use super::fault::Step;
use super::identity;
use super::job::Tier;
use super::supervisor;
use super::sys;
use super::syscalls::Bare;
use super::syscalls::Filters;
use super::usage;
use super::wire;
use super::workplace;

/// The hidden subcommand that makes the `rune` binary a helper.
pub const SUBCOMMAND: &str = "jail-helper";

/// The first version of Landlock that holds all that changes a file; one before it would not.
const LEAST_LANDLOCK: u32 = 3;

/// What every supervisor inherits.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) tier: Tier,
    /// Why there are no namespaces, where they were wanted.
    refused: Option<Fault>,
    /// Where runs get control groups of their own.
    pub(super) groups: Option<cgroup::Parent>,
    pub(super) filters: Vec<BpfProgram>,
}

/// What the helper says first on its socket.
pub(super) type Greeting = Result<Facilities, Fault>;

/// Runs the helper until its `rune` is gone; gives the exit status. `args` follow [`SUBCOMMAND`].
///
/// Must be called first thing in `main`, while the process has a single thread. Standard input is the
/// socket to `rune`: started by hand, this ends at once with status 2.
pub fn helper_main(args: impl Iterator<Item = OsString>) -> u8 {
    let Some((parent, tier)) = parse(args) else { return 2 };
    let Ok(control) = take_control() else { return 2 };
    let prepared = bind_to(parent).and_then(|()| Context::prepare(tier));
    if prepared.as_ref().is_ok_and(|context| context.tier != Tier::Namespaces)
        && let Some(status) = sweeper()
    {
        return status;
    }
    let greeting: Greeting = prepared.as_ref().map(Context::facilities).map_err(Clone::clone);
    if wire::greet(control.as_fd(), &greeting).is_err() {
        return 2;
    }
    let served = prepared.and_then(|context| serve(control, &context));
    served.is_err().into()
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<(u32, Option<Tier>)> {
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
fn bind_to(parent: u32) -> Result<(), Fault> {
    child::bind_to(parent, Signal::SIGKILL).step("bind the helper to its parent")
}

/// Where no namespace takes the program with it: splits this process into the helper, which goes on with `None`, and
/// its parent, which outlives it and whatever it served, kills what is left, and gives the status to end with.
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
    workplace::sweep(&HashSet::new());
    workplace::remove_left(child, None);
    let is_fine = matches!(status, Ok(WaitStatus::Exited(_, 0)));
    Some((!is_fine || outlived.is_err() || closed.is_err()).into())
}

impl Context {
    /// Prepares for `tier`, or for the best one that this machine allows.
    fn prepare(tier: Option<Tier>) -> Result<Self, Fault> {
        let wanted = Self::of(tier.unwrap_or(Tier::Namespaces))?;
        if tier.is_some() {
            return Ok(wanted);
        }
        match supervisor::try_out(&wanted) {
            Err(fault) if fault.hint().is_some() => match Self::of(Tier::Landlock) {
                Ok(fallback) => Ok(Self { refused: Some(fault), ..fallback }),
                Err(_) => Err(fault), // the better of the two is the one to mend
            },
            _ => Ok(wanted), // what else is wrong will be said of the first program
        }
    }

    fn of(tier: Tier) -> Result<Self, Fault> {
        let landlock = sys::landlock_version();
        if tier == Tier::Landlock && (landlock < LEAST_LANDLOCK || !usage::is_known()) {
            return Err(Fault::new("hold programs without namespaces", Errno::ENOTSUP));
        }
        let groups = if tier == Tier::None { None } else { cgroup::Parent::find() };
        let filters = match tier {
            Tier::None => Vec::new(),
            Tier::Namespaces | Tier::Landlock => {
                let bare = (tier == Tier::Landlock).then(|| Bare::with(landlock, true));
                Filters { memory_is_counted: groups.is_some(), bare }.compile()?
            }
        };
        Ok(Self { tier, refused: None, groups, filters })
    }

    fn facilities(&self) -> Facilities {
        let memory_cap = match self.groups.as_ref().map(|groups| groups.version) {
            Some(cgroup::Version::V2) => MemoryCap::CgroupV2,
            Some(cgroup::Version::V1) => MemoryCap::CgroupV1,
            None if usage::is_known() => MemoryCap::Watchdog,
            None => MemoryCap::Process,
        };
        let is_held = self.tier != Tier::None;
        Facilities {
            tier: self.tier,
            refused: self.refused.as_ref().map(ToString::to_string),
            hint: self.refused.as_ref().and_then(Fault::hint).map(str::to_owned),
            programs_have_own_user: self.tier == Tier::Landlock
                && identity::stranger(nix::unistd::getpid()).is_some(),
            memory_cap,
            landlock_version: if is_held { sys::landlock_version() } else { 0 },
            seccomp: is_held,
        }
    }
}

/// Forks a supervisor for every socket that comes over `control`, until that ends.
fn serve(control: OwnedFd, context: &Context) -> Result<(), Fault> {
    let ended_child = SigSet::from(Signal::SIGCHLD);
    ended_child.thread_block().step("block SIGCHLD")?;
    if context.tier != Tier::Namespaces {
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
            Err(errno) => return Err(Fault::new("wait for jobs", errno)),
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

fn supervise(socket: OwnedFd, helper: u32, context: &Context) -> ! {
    if bind_to(helper).is_ok() {
        supervisor::serve(UnixStream::from(socket), context);
    }
    sys::exit(0)
}

/// Waits for supervisors that have ended, and clears up after those that were killed; `alive` are all of them.
fn reap(context: &Context, alive: &mut HashSet<i32>) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let Some(pid) = status.pid() else { return }; // the others live
        if !alive.remove(&pid.as_raw()) {
            continue;
        }
        let WaitStatus::Signaled(..) = status else { continue };
        if context.tier != Tier::Namespaces {
            workplace::sweep(alive);
            workplace::remove_left(nix::unistd::getpid(), Some(pid));
        }
        if let Some(groups) = &context.groups {
            groups.of(pid).remove();
        }
    }
}
