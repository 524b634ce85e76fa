//! A failed step of the jail's setup.

use std::fmt;
use std::io;

use nix::errno::Errno;
use serde::Deserialize;
use serde::Serialize;

/// The step that failed, as a verb and its object, and the system's `errno`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JailFault {
    pub(super) step: String,
    pub(super) errno: i32,
}

impl JailFault {
    pub(super) fn new(step: impl Into<String>, errno: Errno) -> Self {
        Self { step: step.into(), errno: errno as i32 }
    }
}

impl fmt::Display for JailFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't {}: {}", self.step, Errno::from_raw(self.errno).desc())
    }
}

/// Attaches the name of a setup step to an error of the system.
pub(super) trait NamedStep<T> {
    /// Turns the error into a fault of `step`, a verb and its object: "mount /proc".
    fn step(self, step: impl Into<String>) -> Result<T, JailFault>;
}

impl<T> NamedStep<T> for nix::Result<T> {
    fn step(self, step: impl Into<String>) -> Result<T, JailFault> {
        self.map_err(|errno| JailFault::new(step, errno))
    }
}

impl<T> NamedStep<T> for io::Result<T> {
    fn step(self, step: impl Into<String>) -> Result<T, JailFault> {
        self.map_err(|error| JailFault {
            step: step.into(),
            // Errors that the standard library makes itself, such as a short read, have no errno.
            errno: error.raw_os_error().unwrap_or(Errno::EIO as i32),
        })
    }
}
