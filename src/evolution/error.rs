//! [`EvolutionError`]: why adapters cannot be merged, rebuilt or evolved.

use std::io;

use crate::adapter::AdapterId;
use crate::adapter::AdapterSource;
use crate::error_class::ErrorClass;
use crate::evaluation::EvaluationError;
use crate::merge::MergeError;
use crate::peft::PeftError;
use crate::registry::RegistryError;
use crate::shutdown::StoppedEarly;

/// An error of merging, rebuilding or evolving adapters.
#[derive(Debug, thiserror::Error)]
pub enum EvolutionError {
    /// An adapter was given twice.
    #[error("adapter `{0}` was given twice")]
    Twice(AdapterId),
    /// Two parents were made for different models.
    #[error("`{field}` differs: `{}` has `{}`, `{}` has `{}`", one.0, one.1, other.0, other.1)]
    Incompatible {
        /// Name of the field of the adapters' metadata.
        field: &'static str,
        /// An adapter and its value.
        one: (AdapterId, String),
        /// Another adapter and its value.
        other: (AdapterId, String),
    },
    /// The weights of an adapter are not those that were stored.
    #[error("the files of adapter `{0}` have changed since it was stored")]
    Damaged(AdapterId),
    /// The adapter was made in a way that cannot be repeated.
    #[error("adapter `{id}` cannot be rebuilt: its source is `{}`", origin.as_str())]
    NotRebuildable {
        /// Id of the adapter.
        id: AdapterId,
        /// Where the adapter came from.
        origin: AdapterSource,
    },
    /// The recipe of an adapter cannot be read.
    #[error("the recipe of adapter `{id}` cannot be read: {reason}")]
    Recipe {
        /// Id of the adapter.
        id: AdapterId,
        /// Description of the problem.
        reason: String,
    },
    /// Another process evolves adapters.
    #[error("another `rune evolve` is at work")]
    Busy,
    /// The budget is spent. It is no failure: what is left is done by the next call.
    #[error("the budget is spent")]
    OutOfTime,
    /// An archived adapter cannot be promoted.
    #[error("adapter `{0}` is archived")]
    Archived(AdapterId),
    /// The project uses the adapter already.
    #[error("the project uses adapter `{0}` already")]
    Incumbent(AdapterId),
    /// The project does not use the adapter.
    #[error("the project does not use adapter `{0}`")]
    NotIncumbent(AdapterId),
    /// The project uses no adapter.
    #[error("the project uses no adapter")]
    NothingInUse,
    /// Tasks could not be asked or judged.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The adapters cannot be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The files of an adapter cannot be read.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The registry reported an error.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of Rune cannot be written, or the system gives no random numbers.
    #[error("cannot write a file, or generate an id")]
    System(#[from] io::Error),
    /// The work was stopped.
    #[error(transparent)]
    Stopped(#[from] StoppedEarly),
}

impl EvolutionError {
    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Twice(_) | Self::Incompatible { .. } | Self::NotRebuildable { .. } => {
                ErrorClass::Usage
            }
            Self::Damaged(_) | Self::Recipe { .. } | Self::System(_) | Self::OutOfTime => {
                ErrorClass::Environment
            }
            Self::Busy
            | Self::Archived(_)
            | Self::Incumbent(_)
            | Self::NotIncumbent(_)
            | Self::NothingInUse => ErrorClass::Conflict,
            Self::Evaluation(error) => error.class(),
            Self::Merge(error) => error.class(),
            Self::Peft(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Stopped(StoppedEarly(reason)) => ErrorClass::Stopped(*reason),
        }
    }

    /// Returns advice, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Twice(_) => Some("give each adapter once, with a larger weight: `ID:WEIGHT`"),
            Self::Incompatible { .. } => {
                Some("`rune adapters list` shows the model of each adapter")
            }
            Self::NotRebuildable { .. } => Some("only merged adapters can be rebuilt so far"),
            Self::Archived(_) => Some("`rune adapters restore ID` restores it"),
            Self::NotIncumbent(_) => Some("`rune evolve ledger` shows what was promoted"),
            Self::NothingInUse => Some("`rune evolve` promotes one, by evidence"),
            Self::Damaged(_) => Some("`rune adapters verify` checks all adapters"),
            _ => None,
        }
    }
}
