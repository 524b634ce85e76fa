//! A control group for every run, if this user may create one: the only exact cap on memory.
//!
//! Version 2 needs a delegated subtree: our group and its ancestors are tried, nearest first, for
//! one whose children have the memory controller, as in a systemd user session. Version 1 needs
//! root.

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

use super::fault::JailFault;
use super::fault::NamedStep;
use super::job::Limits;
use super::sys;

/// How long, in milliseconds, the group of a dead run may stay busy before its removal is left to
/// the next helper.
const PATIENCE_MS: u32 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupVersion {
    V1,
    V2,
}

/// The group below which the groups of runs are created.
#[derive(Debug, Clone)]
pub(super) struct ParentCgroup {
    pub(super) version: CgroupVersion,
    path: PathBuf,
    /// The group in the `pids` hierarchy, which version 1 keeps separately.
    processes: Option<PathBuf>,
    /// The helper. Its process id is part of every group's name, so that stale groups are
    /// recognized.
    owner: Pid,
}

impl ParentCgroup {
    /// Finds a group in which limits can be set and processes can be placed, and removes the groups
    /// of dead helpers from it.
    pub(super) fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let parent = candidates(&own, &mounts).into_iter().find(Self::works)?;
        parent.remove_stale();
        Some(parent)
    }

    /// Tries a group: places a short-lived process in it.
    fn works(&self) -> bool {
        // Being able to create a group and to set its limits is not enough: cgroup v2 also checks
        // write access to the common ancestor when a process is moved.
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

    /// Names the group of the run that `supervisor` serves.
    pub(super) fn of(&self, supervisor: Pid) -> RunCgroup {
        let name = format!("rune-{}-{supervisor}", self.owner);
        let processes = match self.version {
            CgroupVersion::V1 => self.processes.as_ref().map(|path| path.join(&name)),
            CgroupVersion::V2 => Some(self.path.join(&name)),
        };
        RunCgroup { version: self.version, path: self.path.join(&name), processes }
    }

    /// Creates the group of the run that `supervisor` serves, with its limits.
    pub(super) fn create(&self, supervisor: Pid, limits: &Limits) -> Result<RunCgroup, JailFault> {
        let mut group = self.of(supervisor);
        fs::create_dir(&group.path).step("make a control group")?;
        match group.limit(limits) {
            Ok(()) => {
                // Without the `pids` controller the supervisor counts processes itself.
                group.processes.take_if(|folder| limit_processes(folder, limits).is_err());
                Ok(group)
            }
            Err(error) => {
                group.remove();
                Err(error).step("limit the control group")
            }
        }
    }

    /// Removes groups whose helpers were killed before they could remove them.
    fn remove_stale(&self) {
        let folders = [Some(&self.path), self.processes.as_ref()].into_iter().flatten();
        for entry in folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            let name = entry.file_name();
            let Some(owner) = name.to_str().and_then(owner) else { continue };
            if !Path::new("/proc").join(owner.to_string()).exists() {
                let _still_busy = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Parses the helper's process id from the name of a run's group.
fn owner(group: &str) -> Option<u32> {
    group.strip_prefix("rune-")?.split('-').next()?.parse().ok()
}

/// The control group of one run.
#[derive(Debug)]
pub(super) struct RunCgroup {
    version: CgroupVersion,
    path: PathBuf,
    /// The group in which the kernel counts processes, if it does.
    processes: Option<PathBuf>,
}

impl RunCgroup {
    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let memory = limits.memory_bytes.to_string();
        match self.version {
            CgroupVersion::V1 => {
                self.write("memory.limit_in_bytes", &memory)?;
                optional(self.write("memory.memsw.limit_in_bytes", &memory))
            }
            CgroupVersion::V2 => {
                self.write("memory.max", &memory)?;
                optional(self.write("memory.swap.max", "0"))?;
                // The whole group dies with the process that the kernel picks.
                optional(self.write("memory.oom.group", "1"))
            }
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// Moves the process `pid` into the group; its future children start in it.
    pub(super) fn enter(&self, pid: Pid) -> Result<(), JailFault> {
        // In version 2 both controllers share one folder.
        let others = self.processes.iter().filter(|folder| **folder != self.path);
        [&self.path].into_iter().chain(others).try_for_each(|folder| {
            fs::write(folder.join("cgroup.procs"), pid.to_string()).step("enter the control group")
        })
    }

    /// Whether the kernel counts the processes of the group.
    pub(super) fn counts_processes(&self) -> bool {
        self.processes.is_some()
    }

    /// Whether the kernel has refused to start a process or thread because of the limit.
    pub(super) fn out_of_processes(&self) -> bool {
        let Some(folder) = &self.processes else { return false };
        let text = fs::read_to_string(folder.join("pids.events")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("max "));
        count.is_some_and(|count| count.trim() != "0")
    }

    /// Whether the kernel has killed a process of the group because of the memory limit.
    pub(super) fn out_of_memory(&self) -> bool {
        let file = match self.version {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    }

    /// Removes the group. Its processes are dead, but the kernel may not have released them yet.
    pub(super) fn remove(self) {
        [Some(&self.path), self.processes.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|path| remove(path));
    }
}

/// Limits processes and threads in the group at `folder`. Creates it unless it is also the group in
/// which memory is counted.
fn limit_processes(folder: &Path, limits: &Limits) -> io::Result<()> {
    let made = fs::create_dir(folder);
    made.or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    })?;
    let max = limits.processes.saturating_add(1); // pid 1 counts as well
    // Without this file a refusal could not be told from an error of the program's own.
    fs::metadata(folder.join("pids.events"))?;
    fs::write(folder.join("pids.max"), max.to_string())
}

fn remove(folder: &Path) {
    for _ in 0..PATIENCE_MS {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                sleep(Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

/// Ignores the error of writing to a control file that this kernel does not have.
fn optional(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Creating a missing file in a cgroup file system fails with EACCES, as root with EPERM.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        written => written,
    }
}

/// Lists the groups in which a group with a memory limit may be created: version 2 first, nearest
/// first.
fn candidates(own: &str, mounts: &str) -> Vec<ParentCgroup> {
    let owner = nix::unistd::getpid();
    let mut found = Vec::new();
    if let Some(path) = own_group(own, mounts, None) {
        // A group may only have processes or controlled children, so ours itself seldom qualifies
        // ("no internal processes", cgroup-v2.rst); a delegated ancestor does.
        let ancestors = path.ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup"));
        let paths = ancestors.filter(|path| {
            let controllers = fs::read_to_string(path.join("cgroup.subtree_control"));
            controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
        });
        found.extend(paths.map(|path| ParentCgroup {
            version: CgroupVersion::V2,
            path: path.to_owned(),
            processes: None,
            owner,
        }));
    }
    let processes = own_group(own, mounts, Some("pids"));
    let v1 = own_group(own, mounts, Some("memory"));
    found.extend(v1.map(|path| ParentCgroup {
        version: CgroupVersion::V1,
        path,
        processes,
        owner,
    }));
    found
}

/// Finds the folder of this process's own group: in version 1 for a `controller`, else in version
/// 2. `own` is the text of `/proc/self/cgroup`, `mounts` that of `/proc/self/mountinfo`.
fn own_group(own: &str, mounts: &str, controller: Option<&str>) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let ours = match controller {
            Some(controller) => controllers.split(',').any(|name| name == controller),
            None => controllers.is_empty(),
        };
        ours.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        // `30 29 0:26 ROOT POINT rw - TYPE SOURCE OPTIONS`, see proc_pid_mountinfo(5).
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let (kind, rest) = right.split_once(' ')?;
        let ours = match controller {
            Some(controller) => {
                kind == "cgroup" && rest.rsplit([' ', ',']).any(|name| name == controller)
            }
            None => kind == "cgroup2",
        };
        let below = Path::new(group).strip_prefix(root).ok()?;
        ours.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_group_is_found_in_both_versions() {
        let mounts = "30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n0::/c\n";
        let v1 = own_group(own, mounts, Some("memory"));
        assert_eq!(v1, Some("/sys/fs/cgroup/memory/a/b".into()));
        let v2 = own_group(own, mounts, None);
        assert_eq!(v2, Some("/sys/fs/cgroup/unified/c".into()));
        assert_eq!(own_group("0::/c\n", mounts, Some("memory")), None);
    }

    #[test]
    fn owner_is_parsed_from_the_group_name() {
        assert_eq!(owner("rune-17-probe"), Some(17));
        assert_eq!(owner("user.slice"), None);
    }
}
