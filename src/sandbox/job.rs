//! Requests to the jail and their outcomes: plain data.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::config::ProgramProfile;
use crate::config::SandboxConfig;

/// A program to run once in a fresh jail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Absolute path of the program inside the jail.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Content of standard input.
    pub stdin: Vec<u8>,
    /// Files under `/in`, which is read-only: relative path and content.
    pub inputs: Vec<(String, Vec<u8>)>,
    /// Files under `/box`, the writable work directory: relative path and content.
    pub work: Vec<(String, Vec<u8>)>,
    /// Host folder whose files `/box` starts with, in addition to `work`. The host folder itself is
    /// never modified: see [`super::RepositorySnapshot`].
    pub tree: Option<PathBuf>,
    /// Host folders shown read-only in the jail, in addition to the system's folders.
    pub mounts: Vec<Mount>,
    /// Variables added to the built-in environment; they override it.
    pub env: Vec<(String, String)>,
    /// Gives the program a pipe on file descriptor 3, whose content is returned as
    /// [`ExecOutcome::channel`].
    pub channel: bool,
    /// Returns the files that are in `/box` at the end as [`ExecOutcome::files`].
    pub collect: bool,
    /// Resource limits of the whole run.
    pub limits: Limits,
}

impl ExecRequest {
    /// Creates a request to run `program` without arguments, files or input, under the limits of a
    /// plain Python program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            stdin: Vec::new(),
            inputs: Vec::new(),
            work: Vec::new(),
            tree: None,
            mounts: Vec::new(),
            env: Vec::new(),
            channel: false,
            collect: false,
            limits: Limits::default(),
        }
    }

    /// Validates paths, arguments and variables; the error describes the first invalid one.
    pub(super) fn check(&self) -> Result<(), String> {
        let files = self.inputs.iter().chain(&self.work).map(|(path, _)| path);
        let not_below = |path: &&String| !is_below(path);
        if let Some(path) = files.clone().find(not_below) {
            return Err(format!("`{}` is not a plain relative path", path.escape_debug()));
        }
        if self.tree.as_ref().is_some_and(|tree| !tree.is_absolute()) {
            return Err("the path of the tree is not absolute".to_owned());
        }
        if let Some(mount) = self.mounts.iter().find(|mount| !mount.is_sound()) {
            return Err(format!("cannot mount a folder at `{}`", mount.jail.display()));
        }
        let mut texts =
            self.args.iter().chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        if texts.any(|text| text.contains('\0')) {
            return Err("an argument or variable contains a NUL byte".to_owned());
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return Err("invalid name of an environment variable".to_owned());
        }
        Ok(())
    }
}

/// Whether `path` is relative, without `.` and `..`, so that it stays below its folder.
fn is_below(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    plain && !path.is_empty() && !path.ends_with('/') && !path.contains('\0')
}

/// A host folder shown read-only in the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the jail.
    pub jail: PathBuf,
}

impl Mount {
    /// Whether both paths are absolute and plain, and the mount hides nothing that the jail relies
    /// on.
    fn is_sound(&self) -> bool {
        let plain = |path: &Path| {
            let climbs = path.components().any(|part| part == Component::ParentDir);
            path.is_absolute() && !climbs && path.to_str().is_some_and(|text| !text.contains('\0'))
        };
        let folder = self.jail.components().nth(1).map(Component::as_os_str);
        let taken = [None, Some("proc"), Some("dev"), Some("etc"), Some("old"), Some("sys")];
        plain(&self.host)
            && plain(&self.jail)
            && !taken.contains(&folder.map(|name| name.to_str().unwrap_or("")))
    }
}

/// Resource limits of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of the whole process tree.
    pub cpu: Duration,
    /// Wall time, including the setup of the jail.
    pub wall: Duration,
    /// Memory of the whole process tree, in bytes.
    pub memory_bytes: u64,
    /// Address space of every single process (`RLIMIT_AS`), used or only reserved. Where the memory
    /// itself is capped, room for the stacks and heaps of threads is added.
    pub address_bytes: u64,
    /// Bytes captured of each of stdout and stderr: the first and the last half. Writing 64 times
    /// as much ends the run.
    pub output_bytes: usize,
    /// Size of each of `/box`, `/tmp` and `/dev/shm`, in bytes.
    pub disk_bytes: u64,
    /// Maximum size of a single file, in bytes.
    pub file_bytes: u64,
    /// Maximum files and folders in each of `/box`, `/tmp` and `/dev/shm`.
    pub files: u32,
    /// Maximum processes and threads at a time; exceeding it ends the run.
    pub processes: u32,
}

impl Limits {
    /// Returns the default limits for a kind of program.
    pub fn of(profile: ProgramProfile) -> Self {
        let plain = Self {
            cpu: Duration::from_secs(10),
            wall: Duration::from_secs(100),
            memory_bytes: 512 << 20,
            address_bytes: 512 << 20,
            output_bytes: 64 << 10,
            disk_bytes: 32 << 20,
            file_bytes: 16 << 20,
            files: 2048,
            processes: 128,
        };
        match profile {
            ProgramProfile::Python => plain,
            ProgramProfile::Numeric => {
                Self { memory_bytes: 4 << 30, address_bytes: 8 << 30, processes: 256, ..plain }
            }
            ProgramProfile::Shell => Self {
                cpu: Duration::from_mins(5),
                wall: Duration::from_mins(50),
                memory_bytes: 2 << 30,
                address_bytes: 8 << 30,
                disk_bytes: 1 << 30,
                file_bytes: 512 << 20,
                processes: 256,
                ..plain
            },
        }
    }
}

impl From<&SandboxConfig> for Limits {
    fn from(config: &SandboxConfig) -> Self {
        let of_profile = Self::of(config.profile);
        let memory_bytes = config.memory_mb << 20;
        let address_bytes = match config.profile {
            ProgramProfile::Python => memory_bytes,
            ProgramProfile::Numeric | ProgramProfile::Shell => {
                of_profile.address_bytes.max(memory_bytes)
            }
        };
        Self {
            cpu: Duration::from_secs(config.cpu_seconds),
            wall: Duration::from_secs(config.wall_seconds),
            memory_bytes,
            address_bytes,
            output_bytes: usize::try_from(config.output_kb << 10).unwrap_or(usize::MAX),
            disk_bytes: config.disk_mb << 20,
            processes: u32::try_from(config.processes).unwrap_or(u32::MAX),
            ..of_profile
        }
    }
}

impl Default for Limits {
    /// Returns the limits for a plain Python program ([`ProgramProfile::Python`]).
    fn default() -> Self {
        Self::of(ProgramProfile::Python)
    }
}

/// The way a run ended. A failure of the sandbox is an error, never an `ExitKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitKind {
    /// The program exited with this status.
    Code(i32),
    /// This signal killed the program.
    Signal(i32),
    /// The wall time limit was reached.
    WallLimit,
    /// The CPU time limit was reached.
    CpuLimit,
    /// The memory limit was reached.
    MemoryLimit,
    /// The output limit was reached: on its streams or, where it has no file system with a size
    /// limit, in its folders.
    OutputLimit,
    /// The limit on processes and threads was exceeded.
    ProcessLimit,
    /// The main thread's stack overflowed.
    StackLimit,
}

/// The first and last part of an output stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedStream {
    /// Captured raw bytes: escape them before they reach a terminal.
    pub bytes: Vec<u8>,
    /// Number of bytes dropped in the middle.
    pub dropped: u64,
}

/// The kind of jail that a program runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailTier {
    /// Namespaces, with everything that the documentation of [`crate::sandbox`] lists.
    Namespaces,
    /// No namespaces, because this machine forbids them: Landlock, more denied system calls,
    /// limits, and subreapers that kill strays. [`super::JailCapabilities::gaps`] lists what is
    /// missing.
    Landlock,
    /// No jail at all: only on the user's explicit request, and never used as training data.
    None,
}

/// The outcome of one run: how it ended, its output and its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// The way the run ended.
    pub exit: ExitKind,
    /// The first and last part of standard output.
    pub stdout: CapturedStream,
    /// The first and last part of standard error.
    pub stderr: CapturedStream,
    /// Bytes written to file descriptor 3, at most 4 MiB.
    pub channel: Vec<u8>,
    /// Relative path and content of the regular files in `/box`, if [`ExecRequest::collect`] is
    /// set: at most 1,000 files and 64 MiB. With [`ExecRequest::tree`] only files that differ from
    /// it.
    pub files: Vec<(String, Vec<u8>)>,
    /// Relative paths of [`ExecRequest::tree`] that were removed. A path that ends in `/` stands
    /// for everything that was below it and is not among `files`.
    pub removed: Vec<String>,
    /// Entries of `/box` that were not collected, with the reason: links, hard links, sockets,
    /// names with control characters, anything that belongs to git.
    pub refused: Vec<String>,
    /// CPU time of the process tree.
    pub cpu: Duration,
    /// Wall time, including the setup of the jail.
    pub wall: Duration,
    /// The kind of jail that was enforced.
    pub tier: JailTier,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_folder_are_rejected() {
        for good in ["a", "a/b.py", "..a", "a b", "-rf", "\u{e9}\n"] {
            assert!(is_below(good), "{good:?}");
        }
        for bad in ["", "/a", "../a", "a/../b", "a/..", "./a", "a/", "a\0b"] {
            assert!(!is_below(bad), "{bad:?}");
        }
    }

    #[test]
    fn mounts_cannot_hide_parts_of_the_jail() {
        let check = |jail: &str| Mount { host: "/opt".into(), jail: jail.into() }.is_sound();
        assert!(check("/opt/python") && check("/root/x") && check("/box/data"));
        assert!(!check("/") && !check("/proc") && !check("/dev/shm") && !check("/etc/x"));
        assert!(!check("/opt/../proc") && !check("opt"));
    }
}
