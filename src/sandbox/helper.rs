//! The helper: a small process of one thread, started before anything else, that forks a supervisor a job.
//!
//! It is there so that starting a jail costs the same however much memory `rune` holds. Who dies takes
//! the rest along: each process here asks to be killed with its parent, and pid 1 of a jail takes its
//! whole namespace with it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;

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

use super::cgroup;
use super::facilities::Facilities;
use super::facilities::MemoryCap;
use super::fault::Fault;
use super::fault::Step;
use super::job::Tier;
use super::supervisor;
use super::sys;
use super::syscalls;
use super::usage;
use super::wire;

/// The hidden subcommand that makes the `rune` binary a helper.
pub const SUBCOMMAND: &str = "jail-helper";

/// What every supervisor inherits.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) tier: Tier,
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
    let greeting: Greeting = prepared.as_ref().map(Context::facilities).map_err(Clone::clone);
    if wire::greet(control.as_fd(), &greeting).is_err() {
        return 2;
    }
    let served = prepared.and_then(|context| serve(control, &context));
    served.is_err().into()
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<(u32, Tier)> {
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
    prctl::set_pdeathsig(Signal::SIGKILL).step("bind the helper to its parent")?;
    if parent_id() == parent { Ok(()) } else { Err(Fault::new("find the parent", Errno::ESRCH)) }
}

impl Context {
    fn prepare(tier: Tier) -> Result<Self, Fault> {
        let Tier::Namespaces = tier else {
            return Ok(Self { tier, groups: None, filters: Vec::new() });
        };
        let groups = cgroup::Parent::find();
        let filters = syscalls::compile(groups.is_some())?;
        Ok(Self { tier, groups, filters })
    }

    fn facilities(&self) -> Facilities {
        let memory_cap = match self.groups.as_ref().map(|groups| groups.version) {
            Some(cgroup::Version::V2) => MemoryCap::CgroupV2,
            Some(cgroup::Version::V1) => MemoryCap::CgroupV1,
            None if usage::is_known() => MemoryCap::Watchdog,
            None => MemoryCap::Process,
        };
        let confined = self.tier == Tier::Namespaces;
        let landlock_version = if confined { sys::landlock_version() } else { 0 };
        Facilities { tier: self.tier, memory_cap, landlock_version, seccomp: confined }
    }
}

/// Forks a supervisor for every socket that comes over `control`, until that ends.
fn serve(control: OwnedFd, context: &Context) -> Result<(), Fault> {
    let ended_child = SigSet::from(Signal::SIGCHLD);
    ended_child.thread_block().step("block SIGCHLD")?;
    let ended = SignalFd::with_flags(&ended_child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step("listen to SIGCHLD")?;
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
            reap(context);
        }
        if !job {
            continue;
        }
        let Some(socket) = wire::receive_fd(control.as_fd()).step("receive a job")? else {
            return Ok(());
        };
        let helper = nix::unistd::getpid();
        // Without a supervisor the socket closes, by which the caller knows.
        if let Ok(ForkResult::Child) = sys::fork() {
            drop((control, ended));
            supervise(socket, helper.as_raw().cast_unsigned(), context);
        }
    }
}

fn supervise(socket: OwnedFd, helper: u32, context: &Context) -> ! {
    if bind_to(helper).is_ok() {
        supervisor::serve(UnixStream::from(socket), context);
    }
    sys::exit(0)
}

/// Waits for supervisors that have ended, and clears up after those that were killed.
fn reap(context: &Context) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let Some(pid) = status.pid() else { return }; // the others live
        if let (WaitStatus::Signaled(..), Some(groups)) = (status, &context.groups) {
            groups.of(pid).remove();
        }
    }
}
