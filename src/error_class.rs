//! [`ErrorClass`]: a coarse classification of errors. Every interface translates it; the command
//! line, into exit codes.

use crate::shutdown::StopReason;

/// Class of an error. Each error type of the workflows has a method `class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request is invalid.
    Usage,
    /// The requested object does not exist.
    NotFound,
    /// The object already exists, is in use, or is in a state that does not allow the operation.
    Conflict,
    /// A setting is wrong, or something on this machine is missing or broken.
    Environment,
    /// The inference backend failed, or the prompt does not fit into the context window.
    Provider,
    /// The sandbox is unavailable, and nothing was executed.
    Sandbox,
    /// A budget of tokens or time is used up.
    Budget,
    /// The work ran to its end without success.
    Unsolved,
    /// The work was stopped by a signal.
    Stopped(StopReason),
}

impl ErrorClass {
    /// Returns the exit code of `rune`, as listed at the end of `rune --help`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Unsolved => 1,
            Self::Usage | Self::NotFound => 2,
            Self::Environment => 3,
            Self::Provider => 4,
            Self::Sandbox => 5,
            Self::Budget => 6,
            Self::Conflict => 7,
            Self::Stopped(StopReason::Interrupted) => 130,
            Self::Stopped(StopReason::Terminated) => 143,
        }
    }
}

/// Formats an error and its causes in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
