//! Errors of the sandbox itself, with hints for machines that are not set up for a jail.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::error_class::ErrorClass;

use super::fault::JailFault;

/// A failure of the sandbox itself. It fails closed: no program has run outside of a jail.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This machine refuses a kernel feature that the jail needs.
    #[error("sandbox unavailable: {reason}")]
    Unavailable {
        /// The setup step that was refused, with the system's error.
        reason: String,
        /// How to change the machine's setup; see [`Self::hint`].
        hint: String,
    },
    /// A setup step failed before the program was started, so it did not run.
    #[error("sandbox: can't {step}: {}", Errno::from_raw(*errno).desc())]
    Setup {
        /// The step, as a verb and its object.
        step: String,
        /// The error number (`errno`) of the system.
        errno: i32,
    },
    /// The helper, or the supervisor of the run, was killed; its jails died with it.
    #[error("the sandbox helper process has exited")]
    HelperGone,
    /// The supervisor of the run has not answered in this time. Its jail is killed.
    #[error("the sandbox did not answer within {} s", .0.as_secs())]
    Unresponsive(Duration),
    /// The helper could not be started or reached.
    #[error("cannot start or reach the sandbox helper process")]
    Helper(#[from] io::Error),
    /// The zygote ended, could not start, or could not build a jail for a child.
    #[error("the zygote process failed: {0}")]
    Zygote(String),
    /// The files of a repository could not be copied.
    #[error("cannot copy the files of `{}`", .0.display())]
    Snapshot(PathBuf, #[source] io::Error),
    /// The request asks for something that the jail cannot provide.
    #[error("invalid job: {0}")]
    InvalidJob(String),
    /// No usable Python interpreter was found.
    #[error("no usable Python: {0}")]
    NoInterpreter(String),
}

impl SandboxError {
    /// The class that decides the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoInterpreter(_) => ErrorClass::Environment,
            _ => ErrorClass::Sandbox,
        }
    }

    /// What the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unavailable { hint, .. } => Some(hint),
            _ => None,
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
    /// How to fix the machine's setup; `None` if that is not the cause.
    pub(super) fn hint(&self) -> Option<&'static str> {
        hint(&self.step, Errno::from_raw(self.errno))
    }
}

/// How to fix the machine's setup when `step` fails with `errno` because of it.
fn hint(step: &str, errno: Errno) -> Option<&'static str> {
    let setting =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    // The texts of steps are matched here: rename them in both places.
    let namespace_step = step == "make the namespaces" || step.ends_with("id_map");
    let refused = matches!(errno, Errno::EPERM | Errno::EACCES);
    let hint = if errno == Errno::ENOTSUP && step.starts_with("hold") {
        "a jail without namespaces needs Linux 6.2 or newer with Landlock and CONFIG_PROC_CHILDREN"
    } else if step.ends_with("to the user that programs have here") {
        "make the path and its parent folders readable by all users, or move it elsewhere"
    } else if errno == Errno::ENOSYS {
        "the jail needs Linux 5.14 or newer"
    } else if namespace_step && errno == Errno::ENOSPC {
        "raise the sysctl user.max_user_namespaces"
    } else if !refused || !(namespace_step || step.starts_with("mount") || step.starts_with("make"))
    {
        // The cause is not the machine's setup.
        return None;
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces: give `rune` a profile with `userns,`, or set the sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0"
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "set the sysctl kernel.unprivileged_userns_clone=1"
    } else if step == "mount /proc" {
        "the container masks parts of /proc: start it with /proc unmasked \
         (docker: --security-opt systempaths=unconfined)"
    } else {
        "user namespaces are blocked, for example by a container's default seccomp profile \
         (docker: --security-opt seccomp=unconfined)"
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: &str, errno: Errno) -> String {
        let error = SandboxError::from(JailFault::new(step, errno));
        [error.to_string().as_str(), error.hint().unwrap_or_default()].join(" ").trim().to_owned()
    }

    #[test]
    fn errors_name_the_step_and_hint_at_the_machine_setup() {
        let full = check("make the namespaces", Errno::ENOSPC);
        assert!(full.contains("user.max_user_namespaces"), "{full}");
        let old = check("make the root read-only", Errno::ENOSYS);
        assert!(old.contains("Linux 5.14"), "{old}");
        let blocked = check("mount /proc", Errno::EPERM);
        assert!(blocked.starts_with("sandbox unavailable: can't mount /proc"), "{blocked}");
        let missing = check("start /usr/bin/nothing", Errno::ENOENT);
        assert_eq!(missing, "sandbox: can't start /usr/bin/nothing: No such file or directory");
    }
}
