//! Fallback when namespaces are unavailable: a scratch directory in place of a file system, and
//! subreapers that kill strays in place of a pid namespace.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nix::unistd::getpid;
use nix::unistd::getppid;

use super::fault::JailFault;
use super::fault::NamedStep;
use super::filesystem::write_files;
use super::job::ExecRequest;
use super::job::Limits;
use super::snapshot::copy_all;
use super::snapshot::give;
use super::usage;

/// Folders of the jail that the scratch directory holds, the read-only one first.
const FOLDERS: [&str; 3] = ["in", "box", "tmp"];
/// Maximum depth of nested folders.
const MAX_DEPTH: usize = 64;

/// The scratch directory of one run. Dropping it kills all that is left of the program, then
/// removes the directory.
#[derive(Debug)]
pub(super) struct FallbackRoot {
    path: PathBuf,
}

impl FallbackRoot {
    /// Writes the files of `job` to a fresh scratch directory, makes `user` the owner of its
    /// writable folders, and rewrites the job's paths in `/in`, `/box` and `/tmp` to it.
    pub(super) fn prepare(job: &mut ExecRequest, user: Option<u32>) -> Result<Self, JailFault> {
        // Processes that leave their parent become children of this process, so that
        // `kill_strays` finds them.
        nix::sys::prctl::set_child_subreaper(true).step("adopt the orphans of the program")?;
        let made = tempfile::Builder::new().prefix(&prefix(getppid(), getpid())).tempdir();
        let scratch = Self { path: made.step("make a folder")?.keep() };
        write_files(&scratch.folder("in"), &job.inputs).step("write the inputs")?;
        if let Some(tree) = &job.tree {
            copy_all(tree, &scratch.folder("box")).step("copy the tree")?;
        }
        write_files(&scratch.folder("box"), &job.work).step("write the work files")?;
        write_files(&scratch.folder("tmp"), &[]).step("make a folder")?;
        if let Some(user) = user {
            scratch.give_to(user).step("give the folder to the program's user")?;
        }
        if job.env.iter().all(|(name, _)| name != "TMPDIR") {
            job.env.push(("TMPDIR".to_owned(), "/tmp".to_owned()));
        }
        let values = job.env.iter_mut().map(|(_, value)| value);
        job.args.iter_mut().chain(values).for_each(|text| relocate(text, &scratch.path));
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the jail's folder `name`.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn give_to(&self, user: u32) -> io::Result<()> {
        // The directory can be entered but not listed: other users could not guess what is in it.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711))?;
        ["box", "tmp"].map(|name| self.folder(name)).iter().try_for_each(|folder| {
            give(folder, user)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        })
    }

    /// Whether the program has written more than its limits allow, or where it cannot be measured.
    pub(super) fn is_overfull(&self, limits: &Limits) -> bool {
        let (mut bytes, mut files) = (0, 0);
        let mut folders = vec![(self.folder("box"), 0), (self.folder("tmp"), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // The program runs while this walks: entries come and go.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // A folder that the program has made unreadable could hold anything.
                Err(_) => return true,
            };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else { continue }; // removed meanwhile
                // Allocated blocks, so that a sparse file counts what it occupies.
                bytes += metadata.blocks() * 512;
                files += 1;
                if metadata.is_dir() {
                    folders.push((entry.path(), depth + 1));
                }
            }
            // The limits are those of one file system; there are two writable folders here.
            let max_files = 2 * u64::from(limits.files);
            if bytes > 2 * limits.disk_bytes || files > max_files || depth > MAX_DEPTH {
                return true;
            }
        }
        false
    }
}

impl Drop for FallbackRoot {
    fn drop(&mut self) {
        kill_strays(&HashSet::new());
        let _left_to_the_helper = remove(&self.path);
    }
}

/// Prefix of the names of the scratch directories that `supervisor`, forked by `helper`, creates.
fn prefix(helper: Pid, supervisor: Pid) -> String {
    format!("rune-jail-{helper}-{supervisor}-")
}

/// Removes the scratch directories of a dead `supervisor` of `helper`, or of all its supervisors.
pub(super) fn remove_left(helper: Pid, supervisor: Option<Pid>) {
    let of_all = format!("rune-jail-{helper}-");
    let prefix = supervisor.map_or(of_all, |supervisor| prefix(helper, supervisor));
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            let _nobody_to_tell = remove(&entry.path());
        }
    }
}

/// Removes `folder` and everything in it, at any depth: subfolders are moved up to the top until
/// there are none.
fn remove(folder: &Path) -> io::Result<()> {
    // `fs::remove_dir_all` recurses and holds a descriptor per level, which a program that nests
    // thousands of folders exhausts. Moving up needs neither, and no path gets longer than two
    // names.
    let mut next_name = 0_u64;
    while let Some(entry) = fs::read_dir(folder)?.next() {
        let path = entry?.path();
        if !fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_file(&path)?;
            continue;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        for inner in fs::read_dir(&path)? {
            let inner = inner?.path();
            if fs::symlink_metadata(&inner)?.is_dir() {
                let mut target = folder.join(next_name.to_string());
                while fs::symlink_metadata(&target).is_ok() {
                    next_name += 1;
                    target = folder.join(next_name.to_string());
                }
                fs::set_permissions(&inner, fs::Permissions::from_mode(0o700))?;
                fs::rename(&inner, target)?;
            } else {
                fs::remove_file(&inner)?;
            }
        }
        fs::remove_dir(&path)?;
    }
    fs::remove_dir(folder)
}

/// Prefixes `text` with the scratch directory if it is a path in one of the jail's folders.
fn relocate(text: &mut String, scratch: &Path) {
    let inside = |name: &&str| {
        let rest = text.strip_prefix('/').and_then(|rest| rest.strip_prefix(*name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if FOLDERS.iter().any(inside) {
        *text = format!("{}{text}", scratch.display());
    }
}

/// Kills every child of this process except those in `keep`, and all their descendants. Orphans
/// have become its children, because it is a subreaper.
pub(super) fn kill_strays(keep: &HashSet<i32>) {
    loop {
        // All are stopped before the first is killed: a stopped process cannot fork, and it still
        // occupies its place under the limit on processes, so a fork bomb cannot refill the tree.
        let stopped = stop_except(keep);
        if stopped.is_empty() {
            return;
        }
        for pid in &stopped {
            let _gone_already = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        // Only killed ones are awaited. The child of a process that was dying while the tree was
        // read may have been missed, and still runs: the outer loop finds it among our children,
        // as it does the children of the killed ones.
        for pid in strays(keep).into_iter().filter(|pid| stopped.contains(pid)) {
            let _reaped_already = waitpid(Pid::from_raw(pid), None);
        }
    }
}

/// Stops every process below this one.
pub(super) fn stop_strays() {
    let _killed_later = stop_except(&HashSet::new());
}

/// Stops every child of this process except those in `keep`, and all their descendants. Returns the
/// stopped ones.
fn stop_except(keep: &HashSet<i32>) -> HashSet<i32> {
    let mut stopped = HashSet::new();
    while stop_new(keep, &mut stopped) {}
    stopped
}

/// Stops the processes below this one that are not in `stopped` yet, and adds them there. Returns
/// whether there were any.
fn stop_new(keep: &HashSet<i32>, stopped: &mut HashSet<i32>) -> bool {
    let before = stopped.len();
    let mut found = strays(keep);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        // Stopped first, so that its list of children hardly grows while it is read.
        if stopped.insert(pid) {
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        }
        found.extend(usage::children(pid));
        next += 1;
    }
    stopped.len() > before
}

/// Lists the children of this process that are not in `keep`.
fn strays(keep: &HashSet<i32>) -> Vec<i32> {
    let children = usage::children(getpid().as_raw()).into_iter();
    children.filter(|pid| !keep.contains(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_jail_are_relocated() {
        let check = |text: &str| {
            let mut text = text.to_owned();
            relocate(&mut text, Path::new("/w"));
            text
        };
        assert_eq!(check("/in/a.py"), "/w/in/a.py");
        assert_eq!(check("/box"), "/w/box");
        assert_eq!(check("/tmp"), "/w/tmp");
        assert_eq!(check("/input"), "/input");
        assert_eq!(check("-c"), "-c");
    }

    #[test]
    fn folder_is_removed_at_any_depth() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut python = std::process::Command::new("python3");
        let script = "import os\nfor n in range(3000):\n open('0', 'w'); os.mkdir('d' * 200); os.chdir('d' * 200)";
        assert!(python.args(["-c", script]).current_dir(&folder).status().unwrap().success());
        std::os::unix::fs::symlink("/", folder.join("link")).unwrap();
        remove(&folder).unwrap();
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
    }
}
