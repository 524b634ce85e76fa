//! One run, from the job to the answer: a process of its own, forked from the helper.
//!
//! It watches the streams, the clock, processor time and memory of the jail, and the socket to `rune`:
//! when that closes nobody waits for the answer any more and the jail is killed.

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

use super::capture::Capture;
use super::cgroup;
use super::cgroup::Group;
use super::collect::collect;
use super::fault::Fault;
use super::fault::Step;
use super::helper::Context;
use super::identity;
use super::init::Place;
use super::init::Plan;
use super::init::Report;
use super::init::Rules;
use super::interpreter::is_open_to_all;
use super::jail;
use super::jail::Jail;
use super::job::Exit;
use super::job::Job;
use super::job::Limits;
use super::job::Mount;
use super::job::Outcome;
use super::job::Tier;
use super::memory;
use super::memory::MemoryCount;
use super::restrict::Access;
use super::restrict::Ceilings;
use super::restrict::Network;
use super::sys;
use super::usage;
use super::wire;
use super::wire::Order;
use super::workplace::Workplace;
use super::workplace::sweep;

/// What the program writes to its channel.
const CHANNEL_BYTES: usize = 4 << 20;
/// How often processor time and memory are measured.
const PERIOD: Duration = Duration::from_millis(50);
/// How many times as many processes and threads as a program may have the kernel refuses to it in any case: who has more
/// than it may is found out before, and stopped, which a refusal could not be told from an error of its own.
const BACKSTOP: u32 = 4;
/// How many times in a row the memory of a program may be out of sight: while it starts, it is.
const MOST_HIDDEN: u32 = 10;
/// How long the kernel may take to clear away a killed jail.
const BURIAL: Duration = Duration::from_secs(10);

/// Serves the one order that comes over `socket`.
pub(super) fn serve(mut socket: UnixStream, context: &Context) {
    let Ok(order) = wire::receive::<Order>(&socket) else { return }; // the caller is gone
    let passed = if order.passes { wire::receive_fd(socket.as_fd()) } else { Ok(None) };
    let answer = passed.step("receive a descriptor");
    let answer =
        answer.and_then(|passed| run(order.job, passed, order.is_zygote, &socket, context));
    if let Ok(frame) = wire::encode(answer) {
        let _caller_is_gone = socket.write_all(&frame);
    }
}

fn run(
    mut job: Job,
    passed: Option<OwnedFd>,
    is_zygote: bool,
    socket: &UnixStream,
    context: &Context,
) -> wire::Answer {
    let started = Instant::now();
    let mounts = job.mounts.iter().map(real).collect::<Result<Vec<_>, _>>()?;
    let user = own_user(&job, &mounts, context.tier)?;
    if is_zygote {
        // Its children, each with a limit of its own, are not to keep it from forking.
        job.limits.processes = job.limits.processes.saturating_mul(BACKSTOP);
    }
    let workplace = match context.tier {
        Tier::Namespaces => None,
        Tier::Landlock | Tier::None => Some(Workplace::prepare(&mut job, user)?),
    };
    let home = workplace.as_ref().map_or("/box".into(), |workplace| workplace.folder("box"));
    let create = |groups: &cgroup::Parent| groups.create(nix::unistd::getpid(), &job.limits);
    let group = context.groups.as_ref().map(create).transpose()?;
    let memory = if group.is_some() { MemoryCount::Group } else { MemoryCount::Watchdog };
    let access = match &workplace {
        Some(workplace) => Access::to_host(workplace, &mounts, memory),
        None => Access::to_jail(),
    };
    let is_held = context.tier != Tier::None && !is_zygote;
    let rules = is_held.then_some(Rules { access, filters: &context.filters });
    let ceilings = if is_zygote || !(group.is_some() || usage::is_known()) {
        let processes = processes(job.limits.processes, context.tier, user);
        Ceilings::tight(&job.limits, processes)
    } else {
        let many = job.limits.processes.saturating_mul(BACKSTOP);
        Ceilings::wide(&job.limits, processes(many, context.tier, user))
    };
    let place = match context.tier {
        Tier::Namespaces => Place::Namespaces(mounts),
        Tier::Landlock | Tier::None => Place::Host(user),
    };
    let plan = Plan { job: &job, home: &home, place, ceilings, memory, rules, is_zygote };
    let outcome = supervise(&plan, passed, (group.as_ref(), workplace.as_ref()), socket, started);
    drop(workplace); // before the group, which has to be empty
    group.into_iter().for_each(Group::remove);
    outcome.map(|outcome| Outcome { tier: context.tier, ..outcome })
}

/// The user that the program becomes where there are no namespaces, if it is another one; what is shown to it has to be
/// readable by all then.
fn own_user(job: &Job, mounts: &[Mount], tier: Tier) -> Result<Option<u32>, Fault> {
    if tier != Tier::Landlock {
        return Ok(None);
    }
    let user = identity::stranger(nix::unistd::getpid());
    let mut shown = mounts.iter().map(|mount| mount.host.as_path()).chain([&*job.program]);
    match shown.find(|path| user.is_some() && !is_open_to_all(path)) {
        None => Ok(user),
        Some(path) => {
            let step = format!("show {} to the user that programs have here", path.display());
            Err(Fault::new(step, Errno::EACCES))
        }
    }
}

/// What `RLIMIT_NPROC` has to be for the program to have at `most` so many processes.
fn processes(most: u32, tier: Tier, user: Option<u32>) -> Option<u64> {
    let most = u64::from(most);
    match tier {
        Tier::Namespaces => Some(most + 1), // and pid 1
        Tier::Landlock if user.is_some() => Some(most),
        Tier::Landlock => Some(most + usage::tasks_of_this_user()),
        Tier::None => None,
    }
}

/// Runs a program that does nothing: tells whether a jail can be built here.
pub(super) fn try_out(context: &Context) -> Result<(), Fault> {
    let (_caller, socket) = UnixStream::pair().step("make a socket")?;
    let job = Job::new("/bin/true");
    run(job, None, false, &socket, context).map(drop)
}

/// Follows the symbolic links of the host's path: in the jail they would lead elsewhere.
fn real(mount: &Mount) -> Result<Mount, Fault> {
    let host = fs::canonicalize(&mount.host).step(format!("find {}", mount.host.display()))?;
    Ok(Mount { host, jail: mount.jail.clone() })
}

fn supervise(
    plan: &Plan<'_>,
    passed: Option<OwnedFd>,
    (group, workplace): (Option<&Group>, Option<&Workplace>),
    socket: &UnixStream,
    started: Instant,
) -> wire::Answer {
    let limits = &plan.job.limits;
    let Jail { init, stdout, stderr, channel, report, alive } = jail::start(plan, passed, group)?;
    // Root in a user namespace of a single id may start as many processes as it likes: these have to be counted.
    let has_no_limit = matches!(plan.place, Place::Host(None)) && nix::unistd::geteuid().is_root();
    let period = if has_no_limit { PERIOD / 10 } else { PERIOD };
    let mut watch = Watch {
        stdout: Capture::halves(stdout, limits.output_bytes),
        stderr: Capture::halves(stderr, limits.output_bytes),
        channel: channel.map(|channel| Capture::whole(channel, CHANNEL_BYTES)),
        init: &init,
        socket,
        group,
        workplace,
        limits,
        is_zygote: plan.is_zygote,
        network: if workplace.is_some() { Network::Host } else { Network::Own },
        may_hide: matches!(plan.place, Place::Host(Some(_))),
        n_hidden: 0,
        started,
        period,
        next_sample: started + period.min(limits.cpu),
        cpu: Duration::ZERO,
    };
    let stopped = watch.until_over();
    sys::kill(init.pidfd.as_fd());
    bury(init.pidfd.as_fd())?;
    let (_, _, cpu) = sys::wait(Some(init.pid)).step("wait for the jail")?;
    if workplace.is_some() {
        sweep(&HashSet::new()); // or what is left of the program could still write
    }
    let written = wire::receive_fd(alive.as_fd()).ok().flatten();
    let base = plan.job.tree.as_deref();
    let is_overlay = base.is_some() && workplace.is_none();
    let collected = written.map(|folder| collect(&folder, base, is_overlay)).unwrap_or_default();
    drop(alive); // while it is building, pid 1 takes the end of this for our death
    let (stopped, cpu) = (stopped?, cpu.max(watch.cpu));
    let flooded = watch.drain().or_else(|| watch.overfull());
    let exit = match first_report(report.into()) {
        Some(Report::Failed(fault)) => return Err(fault),
        report => exit(stopped.or(flooded), report, watch.in_group(), cpu, limits)?,
    };
    Ok(Outcome {
        exit,
        stdout: watch.stdout.finish(),
        stderr: watch.stderr.finish(),
        channel: watch.channel.map(|channel| channel.finish().bytes).unwrap_or_default(),
        files: collected.files,
        removed: collected.removed,
        refused: collected.refused,
        cpu,
        wall: started.elapsed(),
        tier: Tier::None, // `run` knows better
    })
}

/// Waits until pid 1 is dead, and with it, as the kernel has it, every process of its namespace.
fn bury(pidfd: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut dead = [PollFd::new(pidfd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(BURIAL).unwrap_or(PollTimeout::MAX);
    match poll(&mut dead, timeout).step("wait for the end of the jail")? {
        0 => Err(Fault::new("wait for the end of the jail", Errno::ETIMEDOUT)),
        _ => Ok(()),
    }
}

fn first_report(mut pipe: fs::File) -> Option<Report> {
    let mut text = String::new();
    let _partial_is_fine = pipe.read_to_string(&mut text);
    serde_json::from_str(text.lines().next()?).ok()
}

/// How the run ended: what we stopped it for, else what the kernel did, else what pid 1 reports.
fn exit(
    stopped: Option<Exit>,
    report: Option<Report>,
    in_group: Option<Exit>,
    cpu: Duration,
    limits: &Limits,
) -> Result<Exit, Fault> {
    if let Some(exit) = stopped {
        return Ok(exit);
    }
    if let Some(exit) = in_group {
        return Ok(exit);
    }
    if cpu > limits.cpu {
        return Ok(Exit::CpuLimit); // also when it slipped through between two samples
    }
    match report {
        Some(Report::Exited(status)) => Ok(Exit::Code(status)),
        Some(Report::Killed(libc::SIGXCPU)) => Ok(Exit::CpuLimit),
        Some(Report::Killed(signal)) => Ok(Exit::Signal(signal)),
        Some(Report::Overflowed) => Ok(Exit::StackLimit),
        Some(Report::Failed(fault)) => Err(fault),
        None => Err(Fault::new("hear from pid 1 of the jail", Errno::ECHILD)),
    }
}

struct Watch<'a> {
    stdout: Capture,
    stderr: Capture,
    channel: Option<Capture>,
    init: &'a sys::Child,
    socket: &'a UnixStream,
    group: Option<&'a Group>,
    workplace: Option<&'a Workplace>,
    limits: &'a Limits,
    /// Whether that a process could not be started is no reason to end the run: that of others, which have said so.
    is_zygote: bool,
    network: Network,
    /// Whether nobody can be asked to look into the program, as it runs as a user that we may not look at.
    may_hide: bool,
    /// How many samples in a row could not see all memory.
    n_hidden: u32,
    started: Instant,
    period: Duration,
    next_sample: Instant,
    /// Processor time at the last sample.
    cpu: Duration,
}

impl Watch<'_> {
    /// Waits until the jail is over, or gives what it has to be stopped for.
    fn until_over(&mut self) -> Result<Option<Exit>, Fault> {
        let deadline = self.started + self.limits.wall;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(Some(Exit::WallLimit));
            }
            if now >= self.next_sample {
                if let Some(exit) = self.sample() {
                    return Ok(Some(exit));
                }
                self.next_sample = Instant::now() + self.period;
            }
            let (caller_gone, over) = self.wait(deadline.min(self.next_sample) - now)?;
            if caller_gone {
                return Ok(Some(Exit::Signal(libc::SIGKILL))); // nobody will read it
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
    fn wait(&self, timeout: Duration) -> Result<(bool, bool), Fault> {
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watched(self.socket.as_fd()), watched(self.init.pidfd.as_fd())];
        let captures = [Some(&self.stdout), Some(&self.stderr), self.channel.as_ref()];
        let streams = captures.into_iter().flatten().filter_map(|capture| capture.fd.as_ref());
        fds.extend(streams.map(|fd| watched(fd.as_fd())));
        let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1)); // rounds down
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Fault::new("watch the jail", errno)),
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        Ok((happened(&fds[0]), happened(&fds[1])))
    }

    fn drain(&mut self) -> Option<Exit> {
        let mut flooded = self.stdout.drain();
        flooded |= self.stderr.drain();
        flooded |= self.channel.as_mut().is_some_and(Capture::drain);
        flooded.then_some(Exit::OutputLimit)
    }

    fn sample(&mut self) -> Option<Exit> {
        let processes = usage::tree(self.init.pid);
        self.cpu = self.cpu.max(usage::cpu(&processes));
        let full = self.in_group().or_else(|| self.out_of_sight_of_groups(&processes));
        let spent = || (self.cpu > self.limits.cpu).then_some(Exit::CpuLimit);
        full.or_else(spent).or_else(|| self.overfull())
    }

    /// The limit that the control group has held the program to, if any.
    fn in_group(&self) -> Option<Exit> {
        let group = self.group?;
        if group.out_of_memory() {
            return Some(Exit::MemoryLimit);
        }
        (!self.is_zygote && group.out_of_processes()).then_some(Exit::ProcessLimit)
    }

    /// The limit that `processes` exceed of those that no control group counts.
    fn out_of_sight_of_groups(&mut self, processes: &[i32]) -> Option<Exit> {
        let kernel_counts = self.group.is_some_and(Group::counts_processes);
        let most = u64::from(self.limits.processes) + 1; // and pid 1
        if !kernel_counts && usage::tasks(processes) > most {
            return Some(Exit::ProcessLimit);
        }
        if self.group.is_some() {
            return None;
        }
        let held = memory::held(processes, self.network);
        self.n_hidden = if held.is_hidden && !self.may_hide { self.n_hidden + 1 } else { 0 };
        let is_full = held.bytes > self.limits.memory_bytes || self.n_hidden > MOST_HIDDEN;
        is_full.then_some(Exit::MemoryLimit)
    }

    fn overfull(&self) -> Option<Exit> {
        let workplace = self.workplace.filter(|workplace| workplace.is_overfull(self.limits));
        workplace.map(|_| Exit::OutputLimit)
    }
}
