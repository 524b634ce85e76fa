//! What stands in for the jail when the user orders to do without: a folder and a broom.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::fault::Fault;
use super::fault::Step;
use super::filesystem::write_files;
use super::job::Job;
use super::usage;

/// Writes the files of `job` to a fresh folder, and turns what the job says of `/in` and `/box` into paths there.
pub(super) fn prepare(job: &mut Job) -> Result<TempDir, Fault> {
    nix::sys::prctl::set_child_subreaper(true).step("adopt the orphans of the program")?;
    let workplace = tempfile::Builder::new().prefix("rune-").tempdir().step("make a folder")?;
    write_files(&workplace.path().join("in"), &job.inputs).step("write the inputs")?;
    write_files(&workplace.path().join("box"), &job.work).step("write the work files")?;
    let values = job.env.iter_mut().map(|(_, value)| value);
    job.args.iter_mut().chain(values).for_each(|text| relocate(text, workplace.path()));
    Ok(workplace)
}

fn relocate(text: &mut String, workplace: &Path) {
    let inside = |folder: &str| text == folder || text.starts_with(&format!("{folder}/"));
    if inside("/in") || inside("/box") {
        *text = format!("{}{text}", workplace.display());
    }
}

/// Kills all that is left of the program: its orphans have become children of this process.
pub(super) fn sweep() {
    let own = nix::unistd::getpid();
    loop {
        for pid in usage::tree(own).into_iter().filter(|pid| *pid != own.as_raw()) {
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if let Err(Errno::ECHILD) = waitpid(None, Some(WaitPidFlag::empty())) {
            break;
        }
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
        assert_eq!(check("/input"), "/input");
        assert_eq!(check("-c"), "-c");
    }
}
