//! The worker as its parent sees it.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::unbounded_channel;

use crate::child;

use super::FailureKind;
use super::TrainingError;
use super::worker::TrainJob;
use super::worker::WorkerReport;

/// A worker at work. When it is dropped the process is killed.
#[derive(Debug)]
pub struct TrainingWorker {
    child: Child,
    reports: UnboundedReceiver<WorkerReport>,
    /// Whether it has said what became of it.
    has_ended: bool,
}

impl TrainingWorker {
    /// The subcommand of `rune` that becomes a worker: [`super::worker_main`].
    pub const SUBCOMMAND: &str = "train-worker";

    /// Starts `executable`, which is `rune`, as a worker in a process group of its own. It is told
    /// to stop when this process ends.
    ///
    /// # Errors
    /// [`TrainingError::Files`] when the process can't be started.
    ///
    /// # Panics
    /// Never: its pipes are asked for.
    pub fn start(executable: &Path, job: &TrainJob) -> Result<Self, TrainingError> {
        let files = |source| TrainingError::Files { path: executable.to_owned(), source };
        let mut command = Command::new(executable);
        command.arg(Self::SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.process_group(0);
        let mut child = child::spawn(command).map_err(files)?;
        let line = serde_json::to_string(job).expect("plain words and numbers") + "\n";
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(line.as_bytes()).map_err(files)?;
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, reports) = unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(report) = serde_json::from_str(&line) else { continue };
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, reports, has_ended: false })
    }

    /// The worker's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next thing it says; `None` after it has said what became of it. A worker that ends
    /// without a word has failed.
    ///
    /// # Errors
    /// When its end can't be waited for.
    pub async fn next(&mut self) -> io::Result<Option<WorkerReport>> {
        if self.has_ended {
            return Ok(None);
        }
        let report = match self.reports.recv().await {
            Some(report) => report,
            None => silent_end(self.child.wait()?),
        };
        self.has_ended = matches!(report, WorkerReport::Done { .. } | WorkerReport::Failed { .. });
        if self.has_ended {
            self.child.wait()?;
        }
        Ok(Some(report))
    }

    /// Asks it to write a checkpoint and stop.
    pub fn stop(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for TrainingWorker {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, and it is reaped all the
        // same.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a worker would have said that ended without a word: the kernel kills what takes too much
/// memory, and a failed allocation aborts.
fn silent_end(status: std::process::ExitStatus) -> WorkerReport {
    let (kind, detail) = match status.signal() {
        Some(libc::SIGKILL) => {
            (FailureKind::Oom, "it was killed, as the kernel does when memory runs out".to_owned())
        }
        Some(libc::SIGABRT) => {
            (FailureKind::Oom, "it aborted, as it does when memory is refused".to_owned())
        }
        _ => (FailureKind::Crash, format!("it ended without a word, {status}")),
    };
    WorkerReport::Failed { kind, detail }
}
