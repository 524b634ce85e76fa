//! [`BenchProcess`]: a process that measures something when it is asked to.
//!
//! Rune and the peer are processes of their own, so that the peak of memory is theirs as well. Both
//! speak the same lines: a job, then an answer to every line.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::BenchError;

/// Number of lines on stderr that an error shows.
const LAST_LINES: usize = 5;

/// A process that waits for lines.
pub(super) struct BenchProcess {
    path: PathBuf,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: File,
    /// What the program needs, for errors.
    needs: &'static str,
}

impl BenchProcess {
    /// Starts it and waits until it is ready for the job.
    pub(super) fn start(
        program: &Path,
        arguments: &[OsString],
        job: &impl Serialize,
        needs: &'static str,
    ) -> Result<Self, BenchError> {
        let start = |source| BenchError::PeerStart { path: program.to_owned(), source };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let stderr = tempfile::tempfile().map_err(start)?;
        let errors = stderr.try_clone().map_err(start)?;
        let mut child = command.stderr(errors).spawn().map_err(start)?;
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut process = Self { path: program.to_owned(), child, stdin, stdout, stderr, needs };
        let line = serde_json::to_string(job).expect("plain words and numbers");
        process.send::<Value>(&line)?;
        Ok(process)
    }

    /// Asks for the next measurement.
    pub(super) fn ask<T: DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        self.send("")
    }

    /// Sends a line and reads the answer.
    fn send<T: DeserializeOwned>(&mut self, line: &str) -> Result<T, BenchError> {
        let mut answer = String::new();
        let sent = writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush());
        let read = sent.and_then(|()| self.stdout.read_line(&mut answer));
        let found = read.ok().and_then(|_| serde_json::from_str(&answer).ok());
        found.ok_or_else(|| self.ended())
    }

    /// Explains why no answer came. A program that still runs has written something else.
    fn ended(&mut self) -> BenchError {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            let _gone = self.child.kill();
        }
        let status = self.child.wait().map(|status| status.to_string()).unwrap_or_default();
        let mut text = String::new();
        let _unread = self.stderr.rewind().and_then(|()| self.stderr.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let last = if last.is_empty() { self.needs.to_owned() } else { last };
        BenchError::PeerEnded { path: self.path.clone(), status, last }
    }
}

impl Drop for BenchProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, and it is reaped all the
        // same.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads the job that a process of the bench was started with, from the first of its lines.
pub(super) fn read_job<T: DeserializeOwned>(
    lines: &mut impl Iterator<Item = io::Result<String>>,
) -> Result<T, BenchError> {
    let line = lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let job = line.and_then(|line| Ok(serde_json::from_str(&line)?));
    job.map_err(BenchError::examine("the lines of the bench"))
}
