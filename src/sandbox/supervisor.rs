//! One run, from the job to the answer, in a process forked from the helper.
//!
//! The supervisor watches the streams, wall time, CPU time and memory of the jail, and the socket
//! to `rune`: when that closes, nobody waits for the answer any more, and the jail is killed.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use super::capture::StreamCapture;
use super::cgroup;
use super::cgroup::RunCgroup;
use super::collect::collect;
use super::fallback::FallbackRoot;
use super::fallback::kill_strays;
use super::fallback::stop_strays;
use super::fault::JailFault;
use super::fault::NamedStep;
use super::helper::HelperContext;
use super::identity;
use super::init::InitPlan;
use super::init::InitReport;
use super::init::ProgramPlace;
use super::init::ProgramRules;
use super::interpreter::is_open_to_all;
use super::jail;
use super::jail::Jail;
use super::job::ExecOutcome;
use super::job::ExecRequest;
use super::job::ExitKind;
use super::job::JailTier;
use super::job::Limits;
use super::job::Mount;
use super::memory;
use super::memory::MemoryCount;
use super::restrict::FileAccess;
use super::restrict::NetworkAccess;
use super::restrict::ProcessCeilings;
use super::sys;
use super::usage;
use super::wire;
use super::wire::SupervisorOrder;

/// Maximum bytes that a program may write to its channel.
const CHANNEL_BYTES: usize = 4 << 20;
/// Interval at which CPU time, memory and files are sampled.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);
/// Interval at which the processes of a program are counted that only a count can stop.
const COUNT_PERIOD: Duration = Duration::from_millis(5);
/// The kernel refuses to start this many times the allowed processes and threads. A program above
/// its limit is noticed and stopped before that: a refusal alone could not be distinguished from
/// an error of the program's own.
const BACKSTOP: u32 = 4;
/// Maximum consecutive samples in which the memory of a program is hidden, as it is during exec.
const MAX_HIDDEN: u32 = 10;
/// Timeout for the kernel to release a killed jail.
const BURIAL: Duration = Duration::from_secs(10);

/// Serves the single order that arrives over `socket`.
pub(super) fn serve(mut socket: UnixStream, context: &HelperContext) {
    let Ok(order) = wire::receive::<SupervisorOrder>(&socket) else { return }; // the caller is gone
    let passed = if order.passes { wire::receive_fd(socket.as_fd()) } else { Ok(None) };
    let answer = passed.step("receive a descriptor");
    let answer =
        answer.and_then(|passed| run(order.job, passed, order.is_zygote, &socket, context));
    if let Ok(frame) = wire::encode(answer) {
        let _caller_is_gone = socket.write_all(&frame);
    }
}

fn run(
    mut job: ExecRequest,
    passed: Option<OwnedFd>,
    is_zygote: bool,
    socket: &UnixStream,
    context: &HelperContext,
) -> wire::SupervisorAnswer {
    let started = Instant::now();
    let mounts = job.mounts.iter().map(real).collect::<Result<Vec<_>, _>>()?;
    let user = own_user(&job, &mounts, context.tier)?;
    if is_zygote {
        // Each child has a limit of its own; all together must not keep the zygote from forking.
        job.limits.processes = job.limits.processes.saturating_mul(BACKSTOP);
    }
    let scratch = match context.tier {
        JailTier::Namespaces => None,
        JailTier::Landlock | JailTier::None => Some(FallbackRoot::prepare(&mut job, user)?),
    };
    let home = scratch.as_ref().map_or("/box".into(), |scratch| scratch.folder("box"));
    let create = |groups: &cgroup::ParentCgroup| groups.create(nix::unistd::getpid(), &job.limits);
    let group = context.groups.as_ref().map(create).transpose()?;
    let memory = if group.is_some() { MemoryCount::Group } else { MemoryCount::Watchdog };
    let access = match &scratch {
        Some(scratch) => FileAccess::to_host(scratch, &mounts, memory),
        None => FileAccess::to_jail(),
    };
    let is_restricted = context.tier != JailTier::None && !is_zygote;
    let rules = is_restricted.then_some(ProgramRules { access, filters: &context.filters });
    // Wide limits on address space are safe only if something else caps the memory of the tree.
    let ceilings = if is_zygote || !(group.is_some() || usage::is_known()) {
        let processes = processes(job.limits.processes, context.tier, user);
        ProcessCeilings::tight(&job.limits, processes)
    } else {
        let many = job.limits.processes.saturating_mul(BACKSTOP);
        ProcessCeilings::wide(&job.limits, processes(many, context.tier, user))
    };
    let place = match context.tier {
        JailTier::Namespaces => ProgramPlace::Namespaces(mounts),
        JailTier::Landlock | JailTier::None => ProgramPlace::Host(user),
    };
    let plan = InitPlan { job: &job, home: &home, place, ceilings, memory, rules, is_zygote };
    let outcome = supervise(&plan, passed, (group.as_ref(), scratch.as_ref()), socket, started);
    // The order matters: this kills strays, and only an empty group can be removed.
    drop(scratch);
    group.into_iter().for_each(RunCgroup::remove);
    outcome.map(|outcome| ExecOutcome { tier: context.tier, ..outcome })
}

/// Returns the user that the program becomes without namespaces, `None` for our own. Everything
/// that is shown to another user has to be readable by all.
///
/// # Errors
/// A fault that names the first path that is not.
fn own_user(job: &ExecRequest, mounts: &[Mount], tier: JailTier) -> Result<Option<u32>, JailFault> {
    if tier != JailTier::Landlock {
        return Ok(None);
    }
    let user = identity::stranger(nix::unistd::getpid());
    let mut shown = mounts.iter().map(|mount| mount.host.as_path()).chain([&*job.program]);
    match shown.find(|path| user.is_some() && !is_open_to_all(path)) {
        None => Ok(user),
        Some(path) => {
            let step = format!("show {} to the user that programs have here", path.display());
            Err(JailFault::new(step, Errno::EACCES))
        }
    }
}

/// Returns the value of `RLIMIT_NPROC` under which the program can have at most `max` processes.
fn processes(max: u32, tier: JailTier, user: Option<u32>) -> Option<u64> {
    let max = u64::from(max);
    match tier {
        JailTier::Namespaces => Some(max + 1), // pid 1 counts as well
        JailTier::Landlock if user.is_some() => Some(max),
        // The limit counts by user, and this one has processes already.
        JailTier::Landlock => Some(max + usage::tasks_of_this_user()),
        JailTier::None => None,
    }
}

/// Runs `/bin/true` to find out whether a jail can be built on this machine.
pub(super) fn try_out(context: &HelperContext) -> Result<(), JailFault> {
    let (_caller, socket) = UnixStream::pair().step("make a socket")?;
    let job = ExecRequest::new("/bin/true");
    run(job, None, false, &socket, context).map(drop)
}

/// Resolves the symbolic links of the host's path, which would lead elsewhere inside the jail.
fn real(mount: &Mount) -> Result<Mount, JailFault> {
    let host = fs::canonicalize(&mount.host).step(format!("find {}", mount.host.display()))?;
    Ok(Mount { host, jail: mount.jail.clone() })
}

fn supervise(
    plan: &InitPlan<'_>,
    passed: Option<OwnedFd>,
    (group, scratch): (Option<&RunCgroup>, Option<&FallbackRoot>),
    socket: &UnixStream,
    started: Instant,
) -> wire::SupervisorAnswer {
    let limits = &plan.job.limits;
    let Jail { init, stdout, stderr, channel, report, alive } = jail::start(plan, passed, group)?;
    let is_counted = matches!(plan.place, ProgramPlace::Host(None))
        && !group.is_some_and(RunCgroup::counts_processes);
    let mut watch = JobWatch {
        stdout: StreamCapture::halves(stdout, limits.output_bytes),
        stderr: StreamCapture::halves(stderr, limits.output_bytes),
        channel: channel.map(|channel| StreamCapture::whole(channel, CHANNEL_BYTES)),
        init: &init,
        socket,
        group,
        scratch,
        limits,
        is_zygote: plan.is_zygote,
        network: if scratch.is_some() { NetworkAccess::Host } else { NetworkAccess::Own },
        may_hide: matches!(plan.place, ProgramPlace::Host(Some(_))),
        n_hidden: 0,
        started,
        next_count: is_counted.then(|| started + COUNT_PERIOD),
        next_sample: started + SAMPLE_PERIOD.min(limits.cpu),
        cpu: Duration::ZERO,
    };
    let stopped = watch.until_over();
    if scratch.is_some() {
        // Else a fork bomb would grow while init dies, and delay that.
        stop_strays();
    }
    sys::kill(init.pidfd.as_fd());
    bury(init.pidfd.as_fd())?;
    let (_, _, cpu) = sys::wait(Some(init.pid)).step("wait for the jail")?;
    if scratch.is_some() {
        // No namespace has died with init: strays could still write while files are collected.
        kill_strays(&HashSet::new());
    }
    let written = wire::receive_fd(alive.as_fd()).ok().flatten();
    let base = plan.job.tree.as_deref();
    let is_overlay = base.is_some() && scratch.is_none();
    let collected = written.map(|folder| collect(&folder, base, is_overlay)).unwrap_or_default();
    // Not earlier: while it builds the jail, pid 1 takes the end of this socket for our death.
    drop(alive);
    let (stopped, cpu) = (stopped?, cpu.max(watch.cpu));
    let flooded = watch.drain().or_else(|| watch.overfull());
    let exit = match first_report(report.into()) {
        Some(InitReport::Failed(fault)) => return Err(fault),
        report => exit(stopped.or(flooded), report, watch.in_group(), cpu, limits)?,
    };
    Ok(ExecOutcome {
        exit,
        stdout: watch.stdout.finish(),
        stderr: watch.stderr.finish(),
        channel: watch.channel.map(|channel| channel.finish().bytes).unwrap_or_default(),
        files: collected.files,
        removed: collected.removed,
        refused: collected.refused,
        cpu,
        wall: started.elapsed(),
        tier: JailTier::None, // `run` sets the real one
    })
}

/// Waits until pid 1 is dead. The kernel then has killed every process of its namespace.
fn bury(pidfd: BorrowedFd<'_>) -> Result<(), JailFault> {
    let mut dead = [PollFd::new(pidfd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(BURIAL).unwrap_or(PollTimeout::MAX);
    match poll(&mut dead, timeout).step("wait for the end of the jail")? {
        0 => Err(JailFault::new("wait for the end of the jail", Errno::ETIMEDOUT)),
        _ => Ok(()),
    }
}

fn first_report(mut pipe: fs::File) -> Option<InitReport> {
    let mut text = String::new();
    let _partial_is_fine = pipe.read_to_string(&mut text);
    serde_json::from_str(text.lines().next()?).ok()
}

/// Decides how the run ended: by a limit that we enforced, else by one that the kernel enforced,
/// else as pid 1 reports.
fn exit(
    stopped: Option<ExitKind>,
    report: Option<InitReport>,
    in_group: Option<ExitKind>,
    cpu: Duration,
    limits: &Limits,
) -> Result<ExitKind, JailFault> {
    if let Some(exit) = stopped {
        return Ok(exit);
    }
    if let Some(exit) = in_group {
        return Ok(exit);
    }
    if cpu > limits.cpu {
        // The program exceeded the limit and ended between two samples.
        return Ok(ExitKind::CpuLimit);
    }
    match report {
        Some(InitReport::Exited(status)) => Ok(ExitKind::Code(status)),
        Some(InitReport::Killed(libc::SIGXCPU)) => Ok(ExitKind::CpuLimit),
        Some(InitReport::Killed(signal)) => Ok(ExitKind::Signal(signal)),
        Some(InitReport::Overflowed) => Ok(ExitKind::StackLimit),
        Some(InitReport::Failed(fault)) => Err(fault),
        None => Err(JailFault::new("hear from pid 1 of the jail", Errno::ECHILD)),
    }
}

struct JobWatch<'a> {
    stdout: StreamCapture,
    stderr: StreamCapture,
    channel: Option<StreamCapture>,
    init: &'a sys::ClonedChild,
    socket: &'a UnixStream,
    group: Option<&'a RunCgroup>,
    scratch: Option<&'a FallbackRoot>,
    limits: &'a Limits,
    /// Whether the program is a zygote, whose children have limits of their own: that one of them
    /// could not start a process does not end the run.
    is_zygote: bool,
    network: NetworkAccess,
    /// Whether the program runs as a user whose processes we may not inspect.
    may_hide: bool,
    /// Consecutive samples in which some memory was hidden.
    n_hidden: u32,
    started: Instant,
    /// The next count of processes, where `RLIMIT_NPROC` is no help: it does not apply to root in
    /// a user namespace of a single id, and is shared with all other programs of a plain user.
    next_count: Option<Instant>,
    next_sample: Instant,
    /// CPU time at the last sample.
    cpu: Duration,
}

impl JobWatch<'_> {
    /// Waits until init has ended (`None`) or a limit is reached that the jail has to be stopped
    /// for.
    fn until_over(&mut self) -> Result<Option<ExitKind>, JailFault> {
        let deadline = self.started + self.limits.wall;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(Some(ExitKind::WallLimit));
            }
            if now >= self.next_sample {
                if let Some(exit) = self.sample() {
                    return Ok(Some(exit));
                }
                self.next_sample = Instant::now() + SAMPLE_PERIOD;
            }
            if self.next_count.is_some_and(|due| now >= due) {
                if self.are_too_many(&self.processes()) {
                    return Ok(Some(ExitKind::ProcessLimit));
                }
                self.next_count = Some(Instant::now() + COUNT_PERIOD);
            }
            let next =
                self.next_count.map_or(self.next_sample, |count| count.min(self.next_sample));
            let (caller_gone, over) = self.wait(deadline.min(next) - now)?;
            if caller_gone {
                return Ok(Some(ExitKind::Signal(libc::SIGKILL))); // nobody will read this
            }
            if let Some(exit) = self.drain() {
                return Ok(Some(exit));
            }
            if over {
                return Ok(None);
            }
        }
    }

    /// Waits for anything to happen: tells whether the caller is gone and whether the jail is over.
    fn wait(&self, timeout: Duration) -> Result<(bool, bool), JailFault> {
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watched(self.socket.as_fd()), watched(self.init.pidfd.as_fd())];
        let captures = [Some(&self.stdout), Some(&self.stderr), self.channel.as_ref()];
        let streams = captures.into_iter().flatten().filter_map(|capture| capture.fd.as_ref());
        fds.extend(streams.map(|fd| watched(fd.as_fd())));
        let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1)); // rounds down
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(JailFault::new("watch the jail", errno)),
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        Ok((happened(&fds[0]), happened(&fds[1])))
    }

    fn drain(&mut self) -> Option<ExitKind> {
        let mut flooded = self.stdout.drain();
        flooded |= self.stderr.drain();
        flooded |= self.channel.as_mut().is_some_and(StreamCapture::drain);
        flooded.then_some(ExitKind::OutputLimit)
    }

    fn sample(&mut self) -> Option<ExitKind> {
        let processes = self.processes();
        self.cpu = self.cpu.max(usage::cpu(&processes));
        let full = self.in_group().or_else(|| self.outside_of_group(&processes));
        let spent = || (self.cpu > self.limits.cpu).then_some(ExitKind::CpuLimit);
        full.or_else(spent).or_else(|| self.overfull())
    }

    /// Returns the limit that the control group has enforced, if any.
    fn in_group(&self) -> Option<ExitKind> {
        let group = self.group?;
        if group.out_of_memory() {
            return Some(ExitKind::MemoryLimit);
        }
        (!self.is_zygote && group.out_of_processes()).then_some(ExitKind::ProcessLimit)
    }

    /// Lists pid 1 and the processes of the program, at most a few more than allowed.
    fn processes(&self) -> Vec<i32> {
        usage::tree(self.init.pid, self.limits.processes as usize + 2)
    }

    /// Whether `processes` exceed the limit, where no control group enforces it.
    fn are_too_many(&self, processes: &[i32]) -> bool {
        let kernel_counts = self.group.is_some_and(RunCgroup::counts_processes);
        let max = u64::from(self.limits.processes) + 1; // pid 1 counts as well
        !kernel_counts && usage::tasks(processes) > max
    }

    /// Returns the limit that `processes` exceed, of those that no control group enforces.
    fn outside_of_group(&mut self, processes: &[i32]) -> Option<ExitKind> {
        if self.are_too_many(processes) {
            return Some(ExitKind::ProcessLimit);
        }
        if self.group.is_some() {
            return None;
        }
        let mut last_count = Instant::now();
        let has_grown = || {
            let is_due = last_count.elapsed() > COUNT_PERIOD;
            is_due && {
                last_count = Instant::now();
                self.are_too_many(&self.processes())
            }
        };
        let Some(held) = memory::held(processes, self.network, has_grown) else {
            return Some(ExitKind::ProcessLimit);
        };
        self.n_hidden = if held.is_hidden && !self.may_hide { self.n_hidden + 1 } else { 0 };
        // A program that keeps itself hidden could hold any amount.
        let is_full = held.bytes > self.limits.memory_bytes || self.n_hidden > MAX_HIDDEN;
        is_full.then_some(ExitKind::MemoryLimit)
    }

    fn overfull(&self) -> Option<ExitKind> {
        let scratch = self.scratch.filter(|scratch| scratch.is_overfull(self.limits));
        scratch.map(|_| ExitKind::OutputLimit)
    }
}
