//! [`TrainingWorker`]: starts the worker process and receives its reports.

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
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use crate::child;

use super::FailureKind;
use super::TrainingError;
use super::worker::TrainJob;
use super::worker::WorkerReport;

/// Time without a report after which a worker hangs. Working, it reports every few seconds.
const SILENCE: Duration = Duration::from_mins(10);
/// Time that a hung worker has to exit by itself.
const GRACE: Duration = Duration::from_secs(10);

/// A running worker process. Dropping it kills the process.
#[derive(Debug)]
pub struct TrainingWorker {
    child: Child,
    reports: UnboundedReceiver<WorkerReport>,
    /// Whether the final report was received.
    has_ended: bool,
}

impl TrainingWorker {
    /// The hidden subcommand of `rune` that runs [`super::worker_main`].
    pub const SUBCOMMAND: &str = "train-worker";

    /// Starts a worker from `executable`, the `rune` binary, in its own process group. The worker
    /// stops when this process ends.
    ///
    /// # Errors
    /// [`TrainingError::Files`] when the process cannot be started.
    ///
    /// # Panics
    /// Never: both pipes are configured here.
    pub fn start(executable: &Path, job: &TrainJob) -> Result<Self, TrainingError> {
        let files = |source| TrainingError::Files { path: executable.to_owned(), source };
        let mut command = Command::new(executable);
        command.arg(Self::SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C signals the whole foreground process group. The worker must not get it: this
        // process decides when the worker stops.
        command.process_group(0);
        let mut child = child::spawn(command).map_err(files)?;
        let line = serde_json::to_string(job).expect("plain words and numbers") + "\n";
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(line.as_bytes()).map_err(files)?;
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, reports) = unbounded_channel();
        // A thread, because the pipe is read by blocking calls. It ends with the worker's stdout.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Lines that are not reports, such as output of libtorch, are skipped.
                let Ok(report) = serde_json::from_str(&line) else { continue };
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, reports, has_ended: false })
    }

    /// Returns the worker's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next report; `None` after the final one. If the worker exits without a final
    /// report, a [`WorkerReport::Failed`] is returned in its place.
    ///
    /// # Errors
    /// When waiting for the process fails.
    pub async fn next(&mut self) -> io::Result<Option<WorkerReport>> {
        if self.has_ended {
            return Ok(None);
        }
        let report = match timeout(SILENCE, self.reports.recv()).await {
            Ok(Some(report)) => report,
            Ok(None) => silent_end(self.child.wait()?),
            Err(_) => self.end_hung().await?,
        };
        self.has_ended = matches!(report, WorkerReport::Done { .. } | WorkerReport::Failed { .. });
        if self.has_ended {
            // It exits right after its final report: reap it, so that no zombie is left.
            self.child.wait()?;
        }
        Ok(Some(report))
    }

    /// Ends a worker that no longer reports: first by asking, then by force.
    async fn end_hung(&mut self) -> io::Result<WorkerReport> {
        self.stop();
        let ended = timeout(GRACE, async { while self.reports.recv().await.is_some() {} }).await;
        if ended.is_err() {
            self.child.kill()?;
        }
        let detail = format!("the worker did not report for {} seconds", SILENCE.as_secs());
        Ok(WorkerReport::Failed { kind: FailureKind::Crash, detail })
    }

    /// Asks the worker to write a checkpoint and exit.
    pub fn stop(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for TrainingWorker {
    fn drop(&mut self) {
        // If it has exited by itself, `kill` fails, but it still has to be reaped.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Derives a report from the exit status of a worker that sent no final report.
fn silent_end(status: std::process::ExitStatus) -> WorkerReport {
    let (kind, detail) = match status.signal() {
        // The OOM killer sends SIGKILL. Nobody else is expected to.
        Some(libc::SIGKILL) => (
            FailureKind::Oom,
            "the worker was killed, most likely because memory ran out".to_owned(),
        ),
        // Rust aborts when an allocation fails.
        Some(libc::SIGABRT) => (
            FailureKind::Oom,
            "the worker aborted, most likely because an allocation failed".to_owned(),
        ),
        // Asked to stop before it was able to write a checkpoint.
        Some(libc::SIGTERM) => (FailureKind::Interrupted, "interrupted before step 1".to_owned()),
        _ => (FailureKind::Crash, format!("the worker exited without a report: {status}")),
    };
    WorkerReport::Failed { kind, detail }
}
