//! A control group of its own for every run, where this user may make one: the real cap on memory.
//!
//! Version 2 needs a delegated subtree: the groups above ours are tried up to the first whose children
//! have the memory controller, as those of a systemd user session do. Version 1 needs root.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::Pid;

use super::fault::Fault;
use super::fault::Step;
use super::job::Limits;
use super::sys;

/// How long a dead group may stay busy before it is left to the next sweep.
const PATIENCE_MS: u32 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The group below which every run gets its own.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    pub(super) version: Version,
    path: PathBuf,
    /// The helper: its process id is in the name of every group, so that a sweep knows whose it is.
    owner: Pid,
}

impl Parent {
    /// Finds a group that really takes processes under a memory limit, and clears away what dead helpers left there.
    pub(super) fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let parent = candidates(&own, &mounts).into_iter().find(Self::works)?;
        parent.sweep();
        Some(parent)
    }

    fn works(&self) -> bool {
        let Ok(group) = self.create(self.owner, &Limits::default()) else { return false };
        let entered = match sys::fork() {
            Err(_) => false,
            Ok(ForkResult::Child) => sys::exit(group.enter(nix::unistd::getpid()).is_err().into()),
            Ok(ForkResult::Parent { child }) => {
                waitpid(child, None).is_ok_and(|status| matches!(status, WaitStatus::Exited(_, 0)))
            }
        };
        group.remove();
        entered
    }

    /// The group of the run that `supervisor` serves.
    pub(super) fn of(&self, supervisor: Pid) -> Group {
        let path = self.path.join(format!("rune-{}-{supervisor}", self.owner));
        Group { version: self.version, path }
    }

    /// Makes the group of the run that `supervisor` serves.
    pub(super) fn create(&self, supervisor: Pid, limits: &Limits) -> Result<Group, Fault> {
        let group = self.of(supervisor);
        fs::create_dir(&group.path).step("make a control group")?;
        match group.limit(limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove();
                Err(error).step("limit the control group")
            }
        }
    }

    /// Removes groups whose makers were killed before they could.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(owner) = name.to_str().and_then(owner) else { continue };
            if !Path::new("/proc").join(owner.to_string()).exists() {
                let _still_busy = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The process id in the name of a run's group.
fn owner(group: &str) -> Option<u32> {
    group.strip_prefix("rune-")?.split('-').next()?.parse().ok()
}

/// The control group of one run.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let memory = limits.memory_bytes.to_string();
        match self.version {
            Version::V1 => {
                self.write("memory.limit_in_bytes", &memory)?;
                optional(self.write("memory.memsw.limit_in_bytes", &memory))
            }
            Version::V2 => {
                self.write("memory.max", &memory)?;
                optional(self.write("memory.swap.max", "0"))?;
                optional(self.write("memory.oom.group", "1"))?;
                let processes = limits.processes.saturating_add(1); // and pid 1
                optional(self.write("pids.max", &processes.to_string()))
            }
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// Moves `pid` here; its children will be born here.
    pub(super) fn enter(&self, pid: Pid) -> Result<(), Fault> {
        self.write("cgroup.procs", &pid.to_string()).step("enter the control group")
    }

    /// Whether the kernel has killed a process of the group for want of memory.
    pub(super) fn out_of_memory(&self) -> bool {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    }

    /// Removes the group, whose processes are dead but may not be gone yet.
    pub(super) fn remove(self) {
        for _ in 0..PATIENCE_MS {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    sleep(Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}

/// A file that this kernel does not have is no error.
fn optional(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // What creates a missing file in a control group file system is told EACCES, root EPERM.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        written => written,
    }
}

/// Where a group with a memory limit may be made: version 2 first, the nearest group first.
fn candidates(own: &str, mounts: &str) -> Vec<Parent> {
    let owner = nix::unistd::getpid();
    let mut found = Vec::new();
    if let Some(path) = own_group(own, mounts, Version::V2) {
        let ancestors = path.ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup"));
        let paths = ancestors.filter(|path| {
            let controllers = fs::read_to_string(path.join("cgroup.subtree_control"));
            controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
        });
        found.extend(paths.map(|path| Parent {
            version: Version::V2,
            path: path.to_owned(),
            owner,
        }));
    }
    let v1 = own_group(own, mounts, Version::V1);
    found.extend(v1.map(|path| Parent { version: Version::V1, path, owner }));
    found
}

/// The folder of the group that this process is in.
fn own_group(own: &str, mounts: &str, version: Version) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let ours = match version {
            Version::V1 => controllers.split(',').any(|name| name == "memory"),
            Version::V2 => controllers.is_empty(),
        };
        ours.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let (kind, rest) = right.split_once(' ')?;
        let ours = match version {
            Version::V1 => kind == "cgroup" && rest.rsplit([' ', ',']).any(|name| name == "memory"),
            Version::V2 => kind == "cgroup2",
        };
        let below = Path::new(group).strip_prefix(root).ok()?;
        ours.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let mounts = "30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n0::/c\n";
        let v1 = own_group(own, mounts, Version::V1);
        assert_eq!(v1, Some("/sys/fs/cgroup/memory/a/b".into()));
        let v2 = own_group(own, mounts, Version::V2);
        assert_eq!(v2, Some("/sys/fs/cgroup/unified/c".into()));
        assert_eq!(own_group("0::/c\n", mounts, Version::V1), None);
    }

    #[test]
    fn a_group_names_its_owner() {
        assert_eq!(owner("rune-17-probe"), Some(17));
        assert_eq!(owner("user.slice"), None);
    }
}
