//! A llama-server to measure beside the engine: one that runs, or one that is started and ended
//! here.
//!
//! One that is started runs in a process group of its own and can't outlive Rune: it is killed when
//! [`PeerServer`] is dropped, on every way out, and Ctrl-C drops it; and as [`exec_bound`] asked
//! the kernel to kill it when the thread that started it ends, it goes even when Rune itself is
//! killed.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::BenchError;
use crate::child;
use crate::hardware::peak_rss;
use crate::model::ModelFacts;
use crate::provider::LlamaCpp;
use crate::provider::ProviderError;

/// How long a peer may take to load its model.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two looks at a peer that is loading.
const PERIOD: Duration = Duration::from_millis(20);
/// Lines of a failed peer that are shown.
const LAST_LINES: usize = 5;

/// Where the peer comes from.
#[derive(Debug, Clone)]
pub enum PeerSource {
    /// A server on loopback that has the same model loaded.
    Url(String),
    /// A `llama-server` to be started.
    Program {
        /// Path of the server's program.
        path: PathBuf,
        /// A command that ends in a call of [`exec_bound`] with the program and arguments that are
        /// added to it.
        launcher: Vec<OsString>,
    },
}

/// A peer that is ready.
pub(super) struct PeerServer {
    pub(super) client: LlamaCpp,
    process: Option<ServerProcess>,
    /// From its start until it was ready; `None` when it was not started here.
    pub(super) load: Option<Duration>,
}

impl PeerServer {
    /// Starts the peer, or finds it, and waits until it is ready.
    pub(super) async fn new(source: &PeerSource, facts: &ModelFacts) -> Result<Self, BenchError> {
        match source {
            PeerSource::Url(url) => {
                let client = LlamaCpp::new(url)?;
                client.is_ready().await?;
                let mut peer = Self { client, process: None, load: None };
                peer.wait(Instant::now()).await?;
                Ok(peer)
            }
            PeerSource::Program { path, launcher } => {
                let start = |source| BenchError::PeerStart { path: path.clone(), source };
                let path = path.canonicalize().map_err(start)?;
                let port = free_port().map_err(start)?;
                let began = Instant::now();
                let process = ServerProcess::start(&path, launcher, &arguments(facts, port));
                let process = Some(process.map_err(start)?);
                let client = LlamaCpp::new(&format!("http://127.0.0.1:{port}"))?;
                let mut peer = Self { client, process, load: None };
                peer.wait(began).await?;
                peer.load = Some(began.elapsed());
                Ok(peer)
            }
        }
    }

    /// The most memory that it has had resident, where it was started here.
    pub(super) fn peak_rss(&self) -> Result<Option<u64>, BenchError> {
        let pid = self.process.as_ref().map(|process| process.child.id());
        let read = |pid| peak_rss(Some(pid)).map_err(BenchError::examine("the peer's memory"));
        pid.map(read).transpose()
    }

    async fn wait(&mut self, began: Instant) -> Result<(), BenchError> {
        loop {
            match self.client.is_ready().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(ProviderError::Unreachable { .. }) if self.process.is_some() => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(process) = &mut self.process {
                process.check()?;
            }
            if began.elapsed() > PATIENCE {
                let peer = self.client.url().to_owned();
                let last = self.process.as_mut().map(ServerProcess::last_lines).unwrap_or_default();
                return Err(BenchError::PeerSlow { peer, seconds: PATIENCE.as_secs(), last });
            }
            tokio::time::sleep(PERIOD).await;
        }
    }
}

/// A running server and what it writes.
struct ServerProcess {
    path: PathBuf,
    child: Child,
    log: File,
}

impl ServerProcess {
    fn start(path: &Path, launcher: &[OsString], arguments: &[OsString]) -> io::Result<Self> {
        let log = tempfile::tempfile()?;
        let mut words = launcher.iter();
        let mut command = Command::new(words.next().ok_or(io::ErrorKind::InvalidInput)?);
        command.args(words).arg(std::process::id().to_string()).arg(path).args(arguments);
        // Prompts kept aside count as memory; unlike the flag, the variable is known to no old
        // server as an error.
        command.env("LLAMA_ARG_CACHE_RAM", "0").process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let child = child::spawn(command)?;
        Ok(Self { path: path.to_owned(), child, log })
    }

    /// An error when it has ended.
    fn check(&mut self) -> Result<(), BenchError> {
        let ended = self.child.try_wait().map_err(BenchError::examine("the peer"))?;
        let Some(status) = ended else { return Ok(()) };
        let last = self.last_lines();
        Err(BenchError::PeerEnded { path: self.path.clone(), status: status.to_string(), last })
    }

    /// The last lines that it wrote, as one.
    fn last_lines(&mut self) -> String {
        let mut bytes = Vec::new();
        if self.log.rewind().and_then(|()| self.log.read_to_end(&mut bytes)).is_err() {
            return "its output cannot be read".to_owned();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, and it is reaped all the
        // same.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Becomes `program`, which the kernel then kills when the process `parent`, which started this
/// one, ends. Returns only when that failed. The folder of `program` is put in front of
/// `library_path`.
pub fn exec_bound(
    parent: u32,
    program: &Path,
    arguments: &[OsString],
    library_path: Option<&OsStr>,
) -> io::Error {
    if let Err(errno) = child::bind_to(parent, Signal::SIGKILL) {
        return errno.into();
    }
    let mut folders = program.parent().unwrap_or(Path::new(".")).as_os_str().to_owned();
    if let Some(others) = library_path.filter(|others| !others.is_empty()) {
        folders.push(":");
        folders.push(others);
    }
    Command::new(program).args(arguments).env("LD_LIBRARY_PATH", folders).exec()
}

/// What a server is started with to do what the engine does.
fn arguments(facts: &ModelFacts, port: u16) -> Vec<OsString> {
    let threads = facts.n_threads.to_string();
    let (context, port) = (facts.context.to_string(), port.to_string());
    let mut all = vec![OsString::from("-m"), facts.path.clone().into_os_string()];
    all.extend(["--host", "127.0.0.1", "--port", &port, "-c", &context].map(OsString::from));
    all.extend(["-t", &threads, "-tb", &threads, "-ngl", "0"].map(OsString::from));
    all.extend(["-np", "1", "--no-webui"].map(OsString::from));
    all
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
