//! Starts a jail from outside: pipes, the process in new namespaces, its id maps, its control
//! group.
//!
//! ```text
//! supervisor                        init
//!   clone3 -------------------------> waits for one byte on `supervisor`
//!   oom_score_adj, id maps, cgroup
//!   "g" over `alive` ---------------> builds the jail, forks the program
//!   reads stdout, stderr, channel <-- program
//!   reads `report` <----------------- how the program ended, or the fault of the setup
//! ```

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

/// Lowest number of an inherited descriptor, above those that the program is given.
const FIRST_INHERITED: i32 = 10;

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    // The cgroup namespace is made later: its root is the group that pid 1 is in by then.
    | libc::CLONE_NEWUTS;

/// A running jail: its first process, and our ends of its pipes.
#[derive(Debug)]
pub(super) struct Jail {
    /// Pid 1; everything in the jail dies with it.
    pub(super) init: ClonedChild,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) channel: Option<OwnedFd>,
    pub(super) report: OwnedFd,
    /// Our end of the socket by which pid 1 notices that we have died.
    pub(super) alive: UnixStream,
}

/// Starts the process that builds the jail and runs the program of `plan` in it. The program gets
/// `passed` as its first free descriptor.
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
        // A copy of our end in pid 1 would keep it from noticing our death.
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

/// Sets up what pid 1 cannot set up for itself (its id maps and control group), then lets it
/// continue.
fn admit(jail: &Jail, plan: &InitPlan<'_>, group: Option<&RunCgroup>) -> Result<(), JailFault> {
    let pid = jail.init.pid;
    // 1000 is the maximum: when the machine runs out of memory, the jail goes first.
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")
        .step("offer the jail to the OOM killer")?;
    if plan.place.has_namespaces() {
        identity::map(pid)?;
    }
    if let Some(group) = group {
        group.enter(pid)?;
    }
    // If pid 1 is already dead, its report says why.
    let _dead_and_has_said_why = (&jail.alive).write(b"g");
    Ok(())
}

/// Makes a pipe; the first end is ours and non-blocking.
fn pipe() -> Result<(OwnedFd, OwnedFd), JailFault> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("make a pipe")?;
    Ok((ours, raise(&theirs).step("make a pipe")?))
}

/// Duplicates `fd` to a number of at least [`FIRST_INHERITED`].
fn raise(fd: impl AsFd) -> nix::Result<OwnedFd> {
    fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_INHERITED)).map(sys::own)
}

/// Makes an in-memory file with `content`. Unlike a pipe, it never blocks the reader and needs no
/// writer.
fn input(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"stdin", flags)?);
    file.write_all(content)?;
    file.rewind()?;
    // Sealed: the program has a descriptor of this file and could reopen it for writing.
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(raise(&file)?)
}
