//! What can go wrong with the sandbox itself, and how to mend it.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::error_class::ErrorClass;

use super::fault::JailFault;

/// The sandbox failed. It fails closed: no program has run outside of a jail.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This machine does not allow what the jail is made of.
    #[error("no jail on this machine: {reason}; {hint}")]
    Unavailable {
        /// What was refused.
        reason: String,
        /// What the user can do about it.
        hint: String,
    },
    /// A step on the way to the program failed, which therefore did not run.
    #[error("sandbox: can't {step}: {}", Errno::from_raw(*errno).desc())]
    Setup {
        /// The step, as a verb and its object.
        step: String,
        /// The error number of the system.
        errno: i32,
    },
    /// The helper, or the supervisor of the run, was killed; its jails died with it.
    #[error("the helper process of the sandbox is gone")]
    HelperGone,
    /// The helper could not be started or reached.
    #[error("the helper process of the sandbox")]
    Helper(#[from] io::Error),
    /// The process that forks others ended, or could not begin.
    #[error("the zygote ended: {0}")]
    Zygote(String),
    /// The files of a repository could not be copied.
    #[error("can't copy the files of {}", .0.display())]
    Snapshot(PathBuf, #[source] io::Error),
    /// The job asks for what the jail can't give.
    #[error("invalid job: {0}")]
    InvalidJob(String),
    /// No interpreter was found that can be run.
    #[error("no usable Python: {0}")]
    NoInterpreter(String),
}

impl SandboxError {
    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoInterpreter(_) => ErrorClass::Environment,
            _ => ErrorClass::Sandbox,
        }
    }
}

impl From<JailFault> for SandboxError {
    fn from(fault: JailFault) -> Self {
        match fault.hint() {
            Some(hint) => Self::Unavailable { reason: fault.to_string(), hint: hint.to_owned() },
            None => Self::Setup { step: fault.step, errno: fault.errno },
        }
    }
}

impl JailFault {
    /// What to do where the reason lies in how the machine is set up; `None` where it does not.
    pub(super) fn hint(&self) -> Option<&'static str> {
        hint(&self.step, Errno::from_raw(self.errno))
    }
}

/// What to do when `step` fails for reasons that lie in how the machine is set up.
fn hint(step: &str, errno: Errno) -> Option<&'static str> {
    let setting =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let namespace_step = step == "make the namespaces" || step.ends_with("id_map");
    let refused = matches!(errno, Errno::EPERM | Errno::EACCES);
    let hint = if errno == Errno::ENOTSUP && step.starts_with("hold") {
        "that needs Linux 6.2 or newer with Landlock and CONFIG_PROC_CHILDREN"
    } else if step.ends_with("to the user that programs have here") {
        "let all users read it and enter the folders that it is in, or keep it elsewhere"
    } else if errno == Errno::ENOSYS {
        "the jail needs Linux 5.14 or newer"
    } else if namespace_step && errno == Errno::ENOSPC {
        "raise the sysctl user.max_user_namespaces"
    } else if !refused || !(namespace_step || step.starts_with("mount") || step.starts_with("make"))
    {
        return None;
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces: give `rune` a profile with `userns,`, or set the sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0"
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "set the sysctl kernel.unprivileged_userns_clone=1"
    } else if step == "mount /proc" {
        "a container hides parts of /proc: start it with its /proc unmasked \
         (docker: --security-opt systempaths=unconfined)"
    } else {
        "user namespaces are blocked, as in a container with the default seccomp profile \
         (docker: --security-opt seccomp=unconfined)"
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: &str, errno: Errno) -> String {
        SandboxError::from(JailFault::new(step, errno)).to_string()
    }

    #[test]
    fn an_error_names_the_step_and_where_it_can_the_mending() {
        let full = check("make the namespaces", Errno::ENOSPC);
        assert!(full.contains("user.max_user_namespaces"), "{full}");
        let old = check("make the root read-only", Errno::ENOSYS);
        assert!(old.contains("Linux 5.14"), "{old}");
        let blocked = check("mount /proc", Errno::EPERM);
        assert!(blocked.starts_with("no jail on this machine: can't mount /proc"), "{blocked}");
        let missing = check("start /usr/bin/nothing", Errno::ENOENT);
        assert_eq!(missing, "sandbox: can't start /usr/bin/nothing: No such file or directory");
    }
}
