//! [`MergeError`]: why adapters cannot be merged.

use crate::error_class::ErrorClass;
use crate::shutdown::StopReason;

/// Adapters cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// No parent was given.
    #[error("no adapter to merge")]
    NoParents,
    /// A weight is infinite or no number.
    #[error("{0} is not a weight")]
    Weight(f64),
    /// Two parents adapt a module with different numbers of outputs or inputs.
    #[error(
        "`{module}` has {} outputs and {} inputs in `{}`, but {} and {} in `{}`",
        one.1.0, one.1.1, one.0, other.1.0, other.1.1, other.0
    )]
    Sizes {
        /// Name of the module.
        module: String,
        /// Name of a parent, with `(outputs, inputs)`.
        one: (String, (usize, usize)),
        /// Name of another parent, with `(outputs, inputs)`.
        other: (String, (usize, usize)),
    },
    /// The factors of a parent are unusable.
    #[error("adapter `{parent}`: {reason}")]
    Parent {
        /// Name of the parent.
        parent: String,
        /// Description of the problem.
        reason: String,
    },
    /// The options of a recipe do not go together.
    #[error("{0}")]
    Recipe(String),
    /// Values of the result are too large for single precision.
    #[error("the merge of `{module}` is too large for single precision")]
    Overflow {
        /// Name of the module.
        module: String,
    },
    /// The result cannot be encoded.
    #[error("the result cannot be encoded: {0}")]
    Encoding(String),
    /// The merge was stopped.
    #[error("the merge was stopped")]
    Stopped,
    /// A decomposition did not converge.
    #[error("the singular value decomposition of `{module}` did not converge")]
    Decomposition {
        /// Name of the module.
        module: String,
    },
}

impl MergeError {
    /// Returns advice, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoParents | Self::Recipe(_) => Some("`rune merge --help` describes all options"),
            Self::Weight(_) | Self::Overflow { .. } => Some("use smaller weights and lambda"),
            Self::Sizes { .. } => Some("`rune adapters show ID` prints the model of an adapter"),
            Self::Parent { .. } => Some("`rune adapters verify` finds damaged adapters"),
            Self::Encoding(_) | Self::Stopped | Self::Decomposition { .. } => None,
        }
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoParents
            | Self::Sizes { .. }
            | Self::Recipe(_)
            | Self::Weight(_)
            | Self::Overflow { .. } => ErrorClass::Usage,
            Self::Stopped => ErrorClass::Stopped(StopReason::Interrupted),
            Self::Parent { .. } | Self::Encoding(_) | Self::Decomposition { .. } => {
                ErrorClass::Environment
            }
        }
    }
}
