//! [`ErrorClass`]: what kind of trouble an error is. Every face translates it: `rune` into exit
//! codes.

use crate::shutdown::StopReason;

/// A kind of trouble. Each error type of the workflows has a method `class` that names its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// What was asked for makes no sense.
    Usage,
    /// There is no such thing.
    NotFound,
    /// It is there already, taken, or in another state.
    Conflict,
    /// A setting is wrong, or something is missing or broken on this machine.
    Environment,
    /// The model gives no answer, or the prompt does not fit.
    Provider,
    /// There is no jail: nothing was run.
    Sandbox,
    /// A budget is used up.
    Budget,
    /// It ran and did not succeed.
    Unsolved,
    /// It was stopped before its end.
    Stopped(StopReason),
}

impl ErrorClass {
    /// The exit code of `rune`: the table is at the end of `rune --help`.
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

/// An error and what caused it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
