//! Starts a jail, seen from outside: pipes, the process in new namespaces, its ids, its control
//! group.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::SealFlag;
use nix::fcntl::fcntl;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;
use nix::unistd::pipe2;

use super::cgroup::RunCgroup;
use super::fault::JailFault;
use super::fault::NamedStep;
use super::identity;
use super::init;
use super::init::InitPlan;
use super::init::PipeEnds;
use super::sys;
use super::sys::ClonedChild;

/// Inherited descriptors start here, out of the way of those that the program is given.
const FIRST_INHERITED: i32 = 10;

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS; // that of control groups comes when pid 1 is in its group

/// A jail at work.
#[derive(Debug)]
pub(super) struct Jail {
    /// Pid 1: with it everything in the jail dies.
    pub(super) init: ClonedChild,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) channel: Option<OwnedFd>,
    pub(super) report: OwnedFd,
    /// Tells pid 1 that we live.
    pub(super) alive: UnixStream,
}

/// Starts the process that builds the jail and runs the program of `plan` in it, which is given
/// what is `passed`.
pub(super) fn start(
    plan: &InitPlan<'_>,
    passed: Option<OwnedFd>,
    group: Option<&RunCgroup>,
) -> Result<Jail, JailFault> {
    let stdin = input(&plan.job.stdin).step("make the standard input")?;
    let (stdout, inner_stdout) = pipe()?;
    let (stderr, inner_stderr) = pipe()?;
    let (channel, inner_channel) = if plan.job.channel {
        pipe().map(|(ours, theirs)| (Some(ours), Some(theirs)))?
    } else {
        (None, None)
    };
    let passed = passed.map(raise).transpose().step("take the descriptor")?;
    let (report, inner_report) = pipe()?;
    let (alive, supervisor) = UnixStream::pair().step("make a socket")?;
    let ends = PipeEnds {
        stdin,
        stdout: inner_stdout,
        stderr: inner_stderr,
        channel: inner_channel,
        passed,
        report: inner_report,
        supervisor: raise(&supervisor).step("make a socket")?,
    };
    drop(supervisor);
    let namespaces = if plan.place.has_namespaces() { NAMESPACES } else { 0 };
    let Some(init) = sys::clone(namespaces).step("make the namespaces")? else {
        // A copy of our end would keep pid 1 from seeing that we are dead.
        drop((alive, stdout, stderr, channel, report));
        init::run(plan, ends)
    };
    let jail = Jail { init, stdout, stderr, channel, report, alive };
    if let Err(fault) = admit(&jail, plan, group) {
        sys::kill(jail.init.pidfd.as_fd());
        sys::wait(Some(jail.init.pid)).step("wait for the jail")?;
        return Err(fault);
    }
    Ok(jail)
}

/// Gives pid 1 what it can't take for itself, and lets it go on.
fn admit(jail: &Jail, plan: &InitPlan<'_>, group: Option<&RunCgroup>) -> Result<(), JailFault> {
    let pid = jail.init.pid;
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")
        .step("offer the jail to the OOM killer")?;
    if plan.place.has_namespaces() {
        identity::map(pid)?;
    }
    if let Some(group) = group {
        group.enter(pid)?;
    }
    let _dead_and_has_said_why = (&jail.alive).write(b"g");
    Ok(())
}

/// A pipe whose first end is ours and does not block.
fn pipe() -> Result<(OwnedFd, OwnedFd), JailFault> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("make a pipe")?;
    Ok((ours, raise(&theirs).step("make a pipe")?))
}

/// A copy of `fd` that is out of the way.
fn raise(fd: impl AsFd) -> nix::Result<OwnedFd> {
    fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_INHERITED)).map(sys::own)
}

/// A file in memory that holds `content` for ever: reading it can't block, and needs nobody who
/// writes.
fn input(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"stdin", flags)?);
    file.write_all(content)?;
    file.rewind()?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(raise(&file)?)
}
