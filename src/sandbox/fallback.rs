//! What stands in for a file system and a process namespace of the run's own: a folder and a broom.

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

/// Folders of the jail that lie in a workplace, the read-only one first.
const FOLDERS: [&str; 3] = ["in", "box", "tmp"];
/// How deep folders may lie in each other.
const DEEPEST: usize = 64;

/// The folder of one run. Dropping it kills all that is left of the program, then removes it.
#[derive(Debug)]
pub(super) struct FallbackRoot {
    path: PathBuf,
}

impl FallbackRoot {
    /// Writes the files of `job` to a fresh folder, of which `user` may write what the job's
    /// program may, and turns what the job says of `/in`, `/box` and `/tmp` into paths there.
    pub(super) fn prepare(job: &mut ExecRequest, user: Option<u32>) -> Result<Self, JailFault> {
        nix::sys::prctl::set_child_subreaper(true).step("adopt the orphans of the program")?;
        let made = tempfile::Builder::new().prefix(&prefix(getppid(), getpid())).tempdir();
        let workplace = Self { path: made.step("make a folder")?.keep() };
        write_files(&workplace.folder("in"), &job.inputs).step("write the inputs")?;
        if let Some(tree) = &job.tree {
            copy_all(tree, &workplace.folder("box")).step("copy the tree")?;
        }
        write_files(&workplace.folder("box"), &job.work).step("write the work files")?;
        write_files(&workplace.folder("tmp"), &[]).step("make a folder")?;
        if let Some(user) = user {
            workplace.give_to(user).step("give the folder to the program's user")?;
        }
        if job.env.iter().all(|(name, _)| name != "TMPDIR") {
            job.env.push(("TMPDIR".to_owned(), "/tmp".to_owned()));
        }
        let values = job.env.iter_mut().map(|(_, value)| value);
        job.args.iter_mut().chain(values).for_each(|text| relocate(text, &workplace.path));
        Ok(workplace)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the folder `name` of the jail is.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn give_to(&self, user: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711))?;
        ["box", "tmp"].map(|name| self.folder(name)).iter().try_for_each(|folder| {
            give(folder, user)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        })
    }

    /// Whether the program has written more than it may, or where that can't be measured.
    pub(super) fn is_overfull(&self, limits: &Limits) -> bool {
        let (mut bytes, mut files) = (0, 0);
        let mut folders = vec![(self.folder("box"), 0), (self.folder("tmp"), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // meanwhile
                Err(_) => return true,
            };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else { continue }; // gone meanwhile
                bytes += metadata.blocks() * 512;
                files += 1;
                if metadata.is_dir() {
                    folders.push((entry.path(), depth + 1));
                }
            }
            let most_files = 2 * u64::from(limits.files);
            if bytes > 2 * limits.disk_bytes || files > most_files || depth > DEEPEST {
                return true;
            }
        }
        false
    }
}

impl Drop for FallbackRoot {
    fn drop(&mut self) {
        sweep(&HashSet::new());
        let _left_to_the_next_sweep = remove(&self.path);
    }
}

/// How the names of the folders begin that a supervisor of `helper` makes.
fn prefix(helper: Pid, supervisor: Pid) -> String {
    format!("rune-jail-{helper}-{supervisor}-")
}

/// Removes the folders of a dead `supervisor` of `helper`, or of all of them.
pub(super) fn remove_left(helper: Pid, supervisor: Option<Pid>) {
    let of_all = format!("rune-jail-{helper}-");
    let prefix = supervisor.map_or(of_all, |supervisor| prefix(helper, supervisor));
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            let _nobody_to_tell = remove(&entry.path());
        }
    }
}

/// Removes `folder` with all that is in it, however deep: what lies in its folders is moved up
/// until there are none.
fn remove(folder: &Path) -> io::Result<()> {
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

fn relocate(text: &mut String, workplace: &Path) {
    let inside = |name: &&str| {
        let rest = text.strip_prefix('/').and_then(|rest| rest.strip_prefix(*name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if FOLDERS.iter().any(inside) {
        *text = format!("{}{text}", workplace.display());
    }
}

/// Kills every child of this process but those to `keep`, and all that is below them; orphans have
/// become its children.
///
/// All are stopped before the first is killed: who can't run can't fork, and the stopped fill the
/// places there are.
pub(super) fn sweep(keep: &HashSet<i32>) {
    loop {
        let strays = || {
            let children = usage::children(getpid().as_raw()).into_iter();
            children.filter(|pid| !keep.contains(pid)).collect::<Vec<_>>()
        };
        let mut stopped = Vec::new();
        loop {
            let found = strays().into_iter().flat_map(|pid| usage::tree(Pid::from_raw(pid)));
            let new: Vec<i32> = found.filter(|pid| !stopped.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            signal_all(&new, Signal::SIGSTOP);
            stopped.extend(new);
        }
        if stopped.is_empty() {
            return;
        }
        signal_all(&stopped, Signal::SIGKILL);
        for pid in strays() {
            let _reaped_already = waitpid(Pid::from_raw(pid), None);
        }
    }
}

fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids {
        let _gone_already = kill(Pid::from_raw(*pid), signal);
    }
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
    fn a_folder_is_removed_however_deep_it_is() {
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
