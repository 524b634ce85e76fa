//! [`RuneBinary`]: runs `rune` as a user does, in a home of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;

use crate::home::Home;
use crate::registry::Registry;

use super::report::StepFailure;
use super::report::ensure;

/// Lines of the log that a failure shows.
const LOG_LINES: usize = 6;

/// The binary with a home and settings.
#[derive(Debug, Clone)]
pub(super) struct RuneBinary {
    pub(super) executable: PathBuf,
    pub(super) home: Home,
    /// Working folder; files of the user lie here.
    pub(super) folder: PathBuf,
    /// Environment variables, beside those of this process that are not Rune's.
    pub(super) variables: Vec<(&'static str, String)>,
}

/// How a command has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    log: String,
}

impl Ended {
    /// Returns the lines of `--json` with this type.
    pub(super) fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line: &Value| line["type"] == kind).collect()
    }

    /// Fails unless the exit code is one of `codes`.
    pub(super) fn expect(self, what: &str, codes: &[i32]) -> Result<Self, StepFailure> {
        let is_expected = self.status.code().is_some_and(|code| codes.contains(&code));
        ensure(is_expected, || format!("{what}: {}: {}", self.status, self.log))?;
        Ok(self)
    }
}

impl RuneBinary {
    /// Creates an empty home in `folder`, with the models and packages of this one.
    pub(super) fn with_new_home(&self, folder: PathBuf) -> Result<Self, StepFailure> {
        let home = Home::new(folder);
        home.create()?;
        symlink(fs::canonicalize(self.home.models())?, home.models())?;
        symlink(fs::canonicalize(self.home.python())?, home.python())?;
        Ok(Self { home, ..self.clone() })
    }

    /// Sets an environment variable.
    pub(super) fn with(&self, name: &'static str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.variables.retain(|(known, _)| *known != name);
        changed.variables.push((name, value.to_owned()));
        changed
    }

    pub(super) fn registry(&self) -> Result<Registry, StepFailure> {
        Ok(Registry::open(&self.home.registry())?)
    }

    /// Runs `rune` to its end.
    pub(super) async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Ended, StepFailure> {
        let output = self.command(args).stderr(Stdio::piped()).output().await?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("; ");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Ended { status: output.status, stdout, log })
    }

    /// Runs `rune`, which must succeed.
    pub(super) async fn succeed<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Ended, StepFailure> {
        let words = args.iter().take(3).map(|word| word.as_ref().to_string_lossy());
        let what = format!("rune {}", words.collect::<Vec<_>>().join(" "));
        self.run(args).await?.expect(&what, &[0])
    }

    /// Starts `rune`, whose output is read line by line.
    pub(super) fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<RunningRune, StepFailure> {
        let mut child = self.command(args).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| StepFailure("no output".to_owned()))?;
        Ok(RunningRune { child, lines: BufReader::new(stdout).lines() })
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.executable);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RUNE_") {
                command.env_remove(name);
            }
        }
        command.env("RUNE_HOME", self.home.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(args).current_dir(&self.folder);
        // A step that is dropped takes its processes along.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// A process that will be killed or stopped.
#[derive(Debug)]
pub(super) struct RunningRune {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl RunningRune {
    /// Waits for `n` lines that contain `text`, and returns the last of them.
    pub(super) async fn wait_for(&mut self, text: &str, n: usize) -> Result<String, StepFailure> {
        let mut n_seen = 0;
        while let Some(line) = self.lines.next_line().await? {
            n_seen += usize::from(line.contains(text));
            if n_seen == n {
                return Ok(line);
            }
        }
        Err(StepFailure(format!("the process ended without `{text}`")))
    }

    /// Kills the process with SIGKILL.
    pub(super) async fn kill(mut self) -> Result<(), StepFailure> {
        Ok(self.child.kill().await?)
    }

    /// Interrupts the process as Ctrl-C does, and waits for its end.
    pub(super) async fn interrupt(mut self) -> Result<ExitStatus, StepFailure> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| StepFailure("the process has ended".to_owned()))?;
        kill(Pid::from_raw(pid), Signal::SIGINT)?;
        while self.lines.next_line().await?.is_some() {}
        Ok(self.child.wait().await?)
    }
}

/// Returns a path as an argument.
pub(super) fn argument(path: &Path) -> String {
    path.display().to_string()
}
