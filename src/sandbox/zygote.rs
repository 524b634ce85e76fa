//! Forks processes from a Python interpreter that is already loaded, each into a jail of its own.
//!
//! Starting an interpreter and importing modules costs ten times as much as judging a function. The
//! zygote is a trusted process in a jail that has imported them already. For every request it forks
//! a child, which builds a nested jail (pid, mount, network, ipc and user namespaces, limits,
//! Landlock, seccomp) before it runs judged code. Memory that no limit of a single process covers
//! is denied there.
//!
//! ```text
//! Zygote (rune) --datagrams, descriptors--> zygote.py --fork--> child in a nested jail
//!      ^                                                          |
//!      +------------- stream socket of the child: conversation ---+
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::SandboxError;
use super::facilities::JailCapabilities;
use super::interpreter::Interpreter;
use super::job::ExecRequest;
use super::job::ExitKind;
use super::job::Limits;
use super::launcher::Sandbox;
use super::nested::NESTED_JAIL;
use super::nested::NestedJail;
use super::wire;

/// Maximum memory of the zygote and all its children together, in bytes.
const MEMORY: u64 = 4 << 30;
/// Maximum lifetime of a zygote.
const LIFE: Duration = Duration::from_hours(24);

/// A process that forks others. Dropping it kills all of them.
#[derive(Debug)]
pub struct Zygote {
    /// Keeps the helper alive, which the zygote dies with.
    _sandbox: Arc<Sandbox>,
    control: Arc<UnixDatagram>,
    waiting: Arc<Mutex<ForkWaiters>>,
    /// Task that receives the ends of children; finishes when the zygote ends.
    listener: JoinHandle<()>,
}

/// Channels that wait for the end of a child, by its number.
#[derive(Debug, Default)]
struct ForkWaiters {
    next: u64,
    /// `None` once the zygote has ended.
    senders: Option<HashMap<u64, oneshot::Sender<ForkEnd>>>,
}

/// A child of a zygote. Dropping it kills the process.
#[derive(Debug)]
pub struct ForkedProcess {
    /// The conversation with the process; `None` once it was ended.
    stream: Option<BufReader<UnixStream>>,
    number: u64,
    control: Arc<UnixDatagram>,
    ended: oneshot::Receiver<ForkEnd>,
    is_over: bool,
}

/// The end of a forked process, with its resource usage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForkEnd {
    /// The way in which the process ended.
    pub exit: ExitKind,
    /// CPU time of the process and of the children that it waited for.
    pub cpu: Duration,
    /// Peak resident set size in bytes.
    pub peak_rss_bytes: u64,
}

/// A message from the zygote: a child has ended.
#[derive(Debug, Deserialize)]
struct ZygoteNews {
    id: u64,
    #[serde(default)]
    status: i32,
    why: Option<KillReason>,
    #[serde(default)]
    cpu: f64,
    #[serde(default)]
    rss: u64,
}

/// The reason for which the zygote killed a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KillReason {
    Cpu,
    Wall,
    Dropped,
}

impl ZygoteNews {
    fn ended(&self) -> ForkEnd {
        let signal = self.status & 0x7f;
        let exit = match self.why {
            Some(KillReason::Cpu) => ExitKind::CpuLimit,
            Some(KillReason::Wall) => ExitKind::WallLimit,
            _ if signal == libc::SIGXCPU => ExitKind::CpuLimit,
            // Nobody else sends it: the kernel killed the process for lack of memory.
            None if signal == libc::SIGKILL => ExitKind::MemoryLimit,
            _ if signal != 0 => ExitKind::Signal(signal),
            _ => ExitKind::Code(self.status >> 8 & 0xff),
        };
        let cpu = Duration::try_from_secs_f64(self.cpu).unwrap_or_default();
        ForkEnd { exit, cpu, peak_rss_bytes: self.rss }
    }
}

impl Zygote {
    /// Starts a zygote that loads the modules `imports`, then `programs`: name and source of
    /// trusted modules, each of which may import the earlier ones. A program that is to be forked
    /// defines a function `main(socket)`.
    ///
    /// # Errors
    /// Those of [`Sandbox::run`]; [`SandboxError::Zygote`] when the zygote ends before it is ready.
    pub async fn start(
        sandbox: &Arc<Sandbox>,
        interpreter: &Interpreter,
        imports: &[&str],
        programs: &[(&str, &str)],
    ) -> Result<Self, SandboxError> {
        let job = job(sandbox.facilities(), interpreter, imports, programs)?;
        let (control, theirs) = UnixDatagram::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let running = sandbox.begin(&job, Some(OwnedFd::from(theirs)), true).await?;
        let mut end = Box::pin(running.outcome());
        let mut ready = [0; 64];
        tokio::select! {
            outcome = &mut end => {
                let outcome = outcome?;
                let stderr = String::from_utf8_lossy(&outcome.stderr.bytes).trim().to_owned();
                return Err(SandboxError::Zygote(stderr));
            }
            received = control.recv(&mut ready) => { received?; }
        }
        let control = Arc::new(control);
        let waiting = ForkWaiters { next: 1, senders: Some(HashMap::new()) };
        let waiting = Arc::new(Mutex::new(waiting));
        let listener = {
            let (control, waiting) = (Arc::clone(&control), Arc::clone(&waiting));
            tokio::spawn(async move {
                tokio::select! {
                    _ended = end => {}
                    _failed = listen(&control, &waiting) => {}
                }
                // Drops the senders, so that everybody who waits gets an error.
                lock(&waiting).senders = None;
            })
        };
        Ok(Self { _sandbox: Arc::clone(sandbox), control, waiting, listener })
    }

    /// Forks a process that runs `program`, and waits until its jail is complete.
    ///
    /// # Errors
    /// [`SandboxError::HelperGone`] when the zygote has ended; [`SandboxError::Zygote`] when the
    /// jail cannot be built.
    pub async fn fork(
        &self,
        program: &str,
        limits: &Limits,
    ) -> Result<ForkedProcess, SandboxError> {
        let mut forked = self.begin(program, limits, None).await?;
        let stands = forked.stream()?.read_u8().await.is_ok();
        if stands { Ok(forked) } else { Err(no_jail(forked.ended().await?)) }
    }

    /// Forks a process that runs `program`, sends it `order` over its conversation, and waits for
    /// its end. Returns the bytes that it has written to descriptor 4, an in-memory file: so no
    /// process is woken up in between.
    ///
    /// # Errors
    /// As [`Self::fork`], and [`SandboxError::Helper`] when the file cannot be created.
    pub async fn run(
        &self,
        program: &str,
        limits: &Limits,
        order: &[u8],
    ) -> Result<(ForkEnd, Vec<u8>), SandboxError> {
        let paper = memfd_create(c"paper", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?;
        let mut paper = File::from(paper);
        let mut forked = self.begin(program, limits, Some(&paper)).await?;
        let stream = forked.stream()?;
        let _it_has_ended = stream.write_all(order).await;
        let _likewise = stream.shutdown().await;
        let ended = (&mut forked.ended).await.map_err(|_| SandboxError::HelperGone)?;
        forked.is_over = true;
        // The child announces a complete jail with one byte, which is still buffered here.
        if forked.stream()?.read_u8().await.is_err() {
            return Err(no_jail(ended));
        }
        let mut written = Vec::new();
        paper.rewind()?;
        paper.take(limits.file_bytes).read_to_end(&mut written)?;
        Ok((ended, written))
    }

    /// Requests a fork, without waiting for it. The process gets `paper` as descriptor 4.
    async fn begin(
        &self,
        program: &str,
        limits: &Limits,
        paper: Option<&File>,
    ) -> Result<ForkedProcess, SandboxError> {
        let (stream, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let (sender, ended) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            let number = waiting.next;
            waiting.next += 1;
            let senders = waiting.senders.as_mut().ok_or(SandboxError::HelperGone)?;
            senders.insert(number, sender);
            number
        };
        let limits = json!({
            "cpu": limits.cpu.as_secs_f64(),
            "wall": limits.wall.as_secs_f64(),
            "address_bytes": limits.address_bytes,
            "disk_bytes": limits.disk_bytes.max(4096),
            "file_bytes": limits.file_bytes,
            "processes": limits.processes,
        });
        let request = json!({ "id": number, "program": program, "limits": limits }).to_string();
        let passed: Vec<_> =
            [Some(theirs.as_fd()), paper.map(AsFd::as_fd)].into_iter().flatten().collect();
        let send = || Ok(wire::send_with_fds(self.control.as_fd(), request.as_bytes(), &passed)?);
        let sent = self.control.async_io(Interest::WRITABLE, send).await;
        sent.map_err(|_| SandboxError::HelperGone)?;
        // A copy of its end here would hide that the child has closed its conversation.
        drop(theirs);
        let control = Arc::clone(&self.control);
        let stream = Some(BufReader::new(stream));
        Ok(ForkedProcess { stream, number, control, ended, is_over: false })
    }
}

fn no_jail(ended: ForkEnd) -> SandboxError {
    SandboxError::Zygote(format!("cannot build the jail of a child ({:?})", ended.exit))
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl ForkedProcess {
    /// The conversation with the process: a stream socket.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] after [`Self::ended`].
    pub fn stream(&mut self) -> io::Result<&mut BufReader<UnixStream>> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Closes the conversation and waits until the process has ended.
    ///
    /// # Errors
    /// [`SandboxError::HelperGone`] when the zygote has ended.
    pub async fn ended(&mut self) -> Result<ForkEnd, SandboxError> {
        self.stream = None;
        let ended = (&mut self.ended).await.map_err(|_| SandboxError::HelperGone);
        self.is_over = true;
        ended
    }
}

impl Drop for ForkedProcess {
    fn drop(&mut self) {
        if !self.is_over {
            let request = json!({ "kill": self.number }).to_string();
            let _zygote_is_gone_or_its_limits_hold = self.control.try_send(request.as_bytes());
        }
    }
}

fn lock(waiting: &Mutex<ForkWaiters>) -> std::sync::MutexGuard<'_, ForkWaiters> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(control: &UnixDatagram, waiting: &Mutex<ForkWaiters>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let n = control.recv(&mut buffer).await?;
        let news: ZygoteNews = serde_json::from_slice(&buffer[..n])?;
        let sender = lock(waiting).senders.as_mut().and_then(|senders| senders.remove(&news.id));
        let _nobody_waits = sender.map(|sender| sender.send(news.ended()));
    }
}

/// Builds the job that runs the zygote in a jail.
fn job(
    facilities: &JailCapabilities,
    interpreter: &Interpreter,
    imports: &[&str],
    programs: &[(&str, &str)],
) -> Result<ExecRequest, SandboxError> {
    let mounts = interpreter.mounts();
    // One control group counts all children together, so for each of them memory counts as
    // uncounted.
    let jail = NestedJail { memory_is_counted: false, has_loopback: false, files: 64 };
    let plan = json!({
        "imports": imports,
        "programs": programs,
        "jail": jail.plan(facilities, &mounts)?,
    });
    Ok(ExecRequest {
        args: ["-I", "-S", "-B", "/in/zygote.py"].map(str::to_owned).into(),
        stdin: plan.to_string().into_bytes(),
        inputs: vec![
            ("zygote.py".to_owned(), include_bytes!("zygote.py").to_vec()),
            ("jail.py".to_owned(), NESTED_JAIL.into()),
        ],
        mounts,
        limits: Limits {
            cpu: LIFE,
            wall: LIFE,
            memory_bytes: MEMORY,
            address_bytes: MEMORY,
            processes: 512,
            ..Limits::default()
        },
        ..ExecRequest::new(interpreter.executable())
    })
}
