//! The side of `rune`: starts the helper, sends jobs and awaits their outcomes.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::setsockopt;
use nix::sys::socket::socketpair;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::TimeVal;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::child;

use super::error::SandboxError;
use super::facilities::JailCapabilities;
use super::helper;
use super::interpreter::Interpreter;
use super::interpreter::is_open_to_all;
use super::job::ExecOutcome;
use super::job::ExecRequest;
use super::job::JailTier;
use super::wire;

/// Timeout for the helper's greeting, and for an answer beyond the wall time limit of its job.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs programs, each in a fresh jail, through a helper process that lives as long as this value.
///
/// ```no_run
/// use rune::sandbox::ExecRequest;
/// use rune::sandbox::ExitKind;
/// use rune::sandbox::Sandbox;
///
/// # async fn example() -> Result<(), rune::sandbox::SandboxError> {
/// // The helper is the `rune` binary itself, started with a hidden subcommand.
/// let sandbox = Sandbox::start("/usr/local/bin/rune".as_ref())?;
/// let request = ExecRequest {
///     args: vec!["-c".into(), "echo hello > out.txt; cat out.txt; exit 7".into()],
///     collect: true,
///     ..ExecRequest::new("/bin/sh")
/// };
/// let outcome = sandbox.run(&request).await?;
/// assert_eq!(outcome.exit, ExitKind::Code(7));
/// assert_eq!(outcome.stdout.bytes, b"hello\n");
/// assert_eq!(outcome.files, [("out.txt".to_owned(), b"hello\n".to_vec())]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sandbox {
    control: OwnedFd,
    facilities: JailCapabilities,
}

impl Sandbox {
    /// Starts the helper process from `executable`, the `rune` binary.
    ///
    /// If the machine forbids namespaces, programs run in the weaker jail of
    /// [`JailTier::Landlock`]: see [`Self::facilities`].
    ///
    /// Blocks for some milliseconds, independent of the memory of this process.
    /// # Errors
    /// [`SandboxError::Helper`] when the helper does not start or does not answer;
    /// [`SandboxError::Unavailable`] or [`SandboxError::Setup`] when it cannot prepare a jail.
    pub fn start(executable: &Path) -> Result<Self, SandboxError> {
        Self::start_tier(executable, None)
    }

    /// Starts a helper that uses no namespaces even if the machine allows them.
    /// # Errors
    /// As [`Self::start`]; [`SandboxError::Unavailable`] if Landlock is too old.
    pub fn without_namespaces(executable: &Path) -> Result<Self, SandboxError> {
        Self::start_tier(executable, Some(JailTier::Landlock))
    }

    /// Starts a helper that runs programs without any jail: they can read and write everything that
    /// the user can.
    ///
    /// Limits on time, output and single processes still hold. `/in` and `/box` become folders of a
    /// fresh scratch directory, and arguments and variables that are paths in them are rewritten.
    /// Processes that the program leaves behind are killed. Only for `--unsafe-no-sandbox`.
    /// # Errors
    /// As [`Self::start`].
    pub fn unconfined(executable: &Path) -> Result<Self, SandboxError> {
        Self::start_tier(executable, Some(JailTier::None))
    }

    fn start_tier(executable: &Path, tier: Option<JailTier>) -> Result<Self, SandboxError> {
        let (control, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(io::Error::from)?;
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&control, ReceiveTimeout, &patience).map_err(io::Error::from)?;
        spawn(executable, tier, theirs)?;
        let facilities = wire::receive_greeting(control.as_fd())??;
        Ok(Self { control, facilities })
    }

    /// What the jail can enforce on this machine.
    pub fn facilities(&self) -> &JailCapabilities {
        &self.facilities
    }

    /// Finds a Python interpreter, as [`Interpreter::find`] does, that programs in this sandbox may
    /// run.
    /// # Errors
    /// As [`Interpreter::find`].
    pub fn interpreter(&self, configured: Option<&Path>) -> Result<Arc<Interpreter>, SandboxError> {
        if self.facilities.programs_have_own_user {
            Interpreter::find_for_all(configured).map(Arc::new)
        } else {
            Interpreter::find(configured).map(Arc::new)
        }
    }

    /// Whether programs could read `path` if it were mounted: without namespaces, root's programs
    /// run as another user.
    pub fn can_show(&self, path: &Path) -> bool {
        let is_open = !self.facilities.programs_have_own_user || is_open_to_all(path);
        is_open && std::fs::metadata(path).is_ok()
    }

    /// Runs `job` once in a fresh jail. Any number of runs may be in flight; dropping the future
    /// kills its jail.
    /// # Errors
    /// Only when the sandbox fails, never because of what the program does.
    /// [`SandboxError::InvalidJob`] for paths that leave their folder;
    /// [`SandboxError::Unavailable`] when this machine forbids a jail; [`SandboxError::Setup`] when
    /// a step of its setup fails, including the start of the program; [`SandboxError::HelperGone`]
    /// when the helper or the supervisor of the run was killed.
    pub async fn run(&self, job: &ExecRequest) -> Result<ExecOutcome, SandboxError> {
        self.begin(job, None, false).await?.outcome().await
    }

    /// Runs `job`, a trusted program that itself builds jails for the processes that it forks: see
    /// [`super::NestedJail`].
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn run_nesting(&self, job: &ExecRequest) -> Result<ExecOutcome, SandboxError> {
        self.begin(job, None, true).await?.outcome().await
    }

    /// Sends `job` to a new supervisor, and `passed` as the program's first free descriptor. A
    /// zygote is a trusted program that may build jails itself.
    pub(super) async fn begin(
        &self,
        job: &ExecRequest,
        passed: Option<OwnedFd>,
        is_zygote: bool,
    ) -> Result<RunningJob, SandboxError> {
        job.check().map_err(SandboxError::InvalidJob)?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(ours)?;
        let order = wire::SupervisorOrder { job: job.clone(), passes: passed.is_some(), is_zygote };
        let frame = wire::encode(order)?;
        // The supervisor is forked on receipt of its end; only then does anybody read the frame.
        self.hand_over(theirs).await?;
        socket.write_all(&frame).await.map_err(|_| SandboxError::HelperGone)?;
        if let Some(passed) = passed {
            let send = || Ok(wire::send_fd(socket.as_fd(), passed.as_fd())?);
            let sent = socket.async_io(Interest::WRITABLE, send).await;
            sent.map_err(|_| SandboxError::HelperGone)?;
        }
        Ok(RunningJob { socket, patience: job.limits.wall.saturating_add(PATIENCE) })
    }

    async fn hand_over(&self, socket: StdUnixStream) -> Result<(), SandboxError> {
        loop {
            match wire::send_fd(self.control.as_fd(), socket.as_fd()) {
                Ok(()) => return Ok(()),
                // With many runs at once the queue is full until the helper has taken the earlier
                // sockets (ETOOMANYREFS: the kernel's limit on descriptors in flight).
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(SandboxError::HelperGone),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }
}

/// A run in flight. Dropping it kills the jail.
#[derive(Debug)]
pub(crate) struct RunningJob {
    socket: UnixStream,
    patience: Duration,
}

impl RunningJob {
    /// Waits until the run has ended.
    pub(crate) async fn outcome(mut self) -> Result<ExecOutcome, SandboxError> {
        // The supervisor enforces the wall time limit; this only catches one that hangs itself.
        let answer = tokio::time::timeout(self.patience, answer(&mut self.socket)).await;
        let answer = answer.map_err(|_| SandboxError::Unresponsive(self.patience))?;
        Ok(answer.map_err(|_| SandboxError::HelperGone)??)
    }
}

/// Receives the answer. An error means that the supervisor is dead.
async fn answer(socket: &mut UnixStream) -> io::Result<wire::SupervisorAnswer> {
    let mut prefix = [0; 8];
    socket.read_exact(&mut prefix).await?;
    let mut answer = vec![0; wire::frame_length(prefix)?];
    socket.read_exact(&mut answer).await?;
    wire::decode(&answer)
}

/// Starts the helper, and a thread that reaps it.
fn spawn(executable: &Path, tier: Option<JailTier>, control: OwnedFd) -> Result<(), SandboxError> {
    let mut command = Command::new(executable);
    command.arg(helper::SUBCOMMAND).arg(std::process::id().to_string());
    command.arg(serde_json::to_string(&tier).map_err(io::Error::from)?);
    command.env_clear().stdin(Stdio::from(control)).stdout(Stdio::null());
    let mut helper = child::spawn(command).map_err(SandboxError::Helper)?;
    thread::Builder::new().name("jail-helper".into()).spawn(move || helper.wait())?;
    Ok(())
}
