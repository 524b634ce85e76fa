//! What is asked of the jail and what it reports: plain data.

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
    /// Absolute path of the program, inside the jail.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// What the program reads on standard input.
    pub stdin: Vec<u8>,
    /// Files under `/in`, which is read-only: relative path and content.
    pub inputs: Vec<(String, Vec<u8>)>,
    /// Files under `/box`, the work directory, which is writable: relative path and content.
    pub work: Vec<(String, Vec<u8>)>,
    /// Host folder that `/box` begins as, beside the files of `work`; whatever the program does, it
    /// does not change: see [`super::RepositorySnapshot`].
    pub tree: Option<PathBuf>,
    /// Host folders shown read-only in the jail, beside the system's own.
    pub mounts: Vec<Mount>,
    /// Variables added to the built environment.
    pub env: Vec<(String, String)>,
    /// Gives the program a pipe on file descriptor 3; what it writes there is
    /// [`ExecOutcome::channel`].
    pub channel: bool,
    /// Takes the files that lie in `/box` in the end out of the jail: [`Outcome::files`].
    pub collect: bool,
    /// What the program may use.
    pub limits: Limits,
}

impl ExecRequest {
    /// `program` by itself: no arguments, no files, nothing to read, the limits of a plain Python
    /// program.
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

    /// Says what is wrong with the job: above all, with paths that lead out of their folder.
    pub(super) fn check(&self) -> Result<(), String> {
        let files = self.inputs.iter().chain(&self.work).map(|(path, _)| path);
        let not_below = |path: &&String| !is_below(path);
        if let Some(path) = files.clone().find(not_below) {
            return Err(format!("`{}` is not a path below a folder", path.escape_debug()));
        }
        if self.tree.as_ref().is_some_and(|tree| !tree.is_absolute()) {
            return Err("the tree has no absolute path".to_owned());
        }
        if let Some(mount) = self.mounts.iter().find(|mount| !mount.is_sound()) {
            return Err(format!("can't show a folder at `{}`", mount.jail.display()));
        }
        let mut texts =
            self.args.iter().chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        if texts.any(|text| text.contains('\0')) {
            return Err("an argument or variable has a NUL in it".to_owned());
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return Err("a variable has no proper name".to_owned());
        }
        Ok(())
    }
}

/// Whether `path` is relative and leads nowhere but down.
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
    /// Whether both paths are absolute and plain, and the jail's hides nothing that the jail relies
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

/// What one run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time of the whole process tree.
    pub cpu: Duration,
    /// Time on the clock, set-up included.
    pub wall: Duration,
    /// Memory of the whole process tree.
    pub memory_bytes: u64,
    /// Addresses of every single process: what it may reserve, used or not. The stacks and heaps of
    /// its threads come on top where the memory itself is capped.
    pub address_bytes: u64,
    /// What is kept of each of stdout and stderr (first and last half); 64 times as much ends the
    /// run.
    pub output_bytes: usize,
    /// Size of each of `/box`, `/tmp` and `/dev/shm`.
    pub disk_bytes: u64,
    /// Largest single file.
    pub file_bytes: u64,
    /// Files and folders in each of `/box`, `/tmp` and `/dev/shm`.
    pub files: u32,
    /// Processes and threads at a time. Who starts more is stopped.
    pub processes: u32,
}

impl Limits {
    /// The limits of a kind of program.
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
    /// Limits for a plain Python program: [`ProgramProfile::Python`].
    fn default() -> Self {
        Self::of(ProgramProfile::Python)
    }
}

/// How a run ended. A sandbox that failed is an error, never an `ExitKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitKind {
    /// The program ended by itself with this status.
    Code(i32),
    /// A signal ended the program.
    Signal(i32),
    /// The clock ran out.
    WallLimit,
    /// The processor time ran out.
    CpuLimit,
    /// The memory cap was reached.
    MemoryLimit,
    /// It wrote without end: to its streams or, where no file system of its own ends that, to its
    /// folders.
    OutputLimit,
    /// It had more processes and threads than it may.
    ProcessLimit,
    /// The stack of its main thread was full.
    StackLimit,
}

/// The first and last part of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedStream {
    /// Bytes kept, raw: escape them before they reach a terminal.
    pub bytes: Vec<u8>,
    /// Bytes left out in the middle.
    pub dropped: u64,
}

/// What the jail could enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailTier {
    /// Namespaces, and everything that the head of [`crate::sandbox`] names.
    Namespaces,
    /// No namespaces, which this machine forbids: Landlock, more system calls denied, limits, and
    /// processes that sweep up; [`super::JailCapabilities::gaps`] tells what is missing.
    Landlock,
    /// No jail at all: only by the user's explicit order, never trained on.
    None,
}

/// What a run left behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// How it ended.
    pub exit: ExitKind,
    /// Standard output.
    pub stdout: CapturedStream,
    /// Standard error.
    pub stderr: CapturedStream,
    /// What was written to file descriptor 3, at most 4 MiB.
    pub channel: Vec<u8>,
    /// Relative path and content of the regular files in `/box`, when [`Job::collect`] asks for
    /// them: at most 1,000 files and 64 MiB. With [`ExecRequest::tree`] only what differs from it.
    pub files: Vec<(String, Vec<u8>)>,
    /// What of [`ExecRequest::tree`] is gone: relative paths; one that ends in `/` stands for all
    /// that was below it and is not among `files`.
    pub removed: Vec<String>,
    /// What was left there, and why: links, files with two names, sockets, names with control
    /// characters, what belongs to git.
    pub refused: Vec<String>,
    /// Processor time of the tree.
    pub cpu: Duration,
    /// Time on the clock.
    pub wall: Duration,
    /// What was enforced.
    pub tier: JailTier,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_lead_down_are_taken() {
        for good in ["a", "a/b.py", "..a", "a b", "-rf", "\u{e9}\n"] {
            assert!(is_below(good), "{good:?}");
        }
        for bad in ["", "/a", "../a", "a/../b", "a/..", "./a", "a/", "a\0b"] {
            assert!(!is_below(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_mount_hides_nothing_of_the_jail() {
        let check = |jail: &str| Mount { host: "/opt".into(), jail: jail.into() }.is_sound();
        assert!(check("/opt/python") && check("/root/x") && check("/box/data"));
        assert!(!check("/") && !check("/proc") && !check("/dev/shm") && !check("/etc/x"));
        assert!(!check("/opt/../proc") && !check("opt"));
    }
}
