//! [`LeaseState`]: what has become of a model server that gives its GPU to a training run.

use serde::Deserialize;
use serde::Serialize;

/// State of a lease. A server whose state is not [`Self::Serving`] is asked nothing.
///
/// ```text
///   serving -> draining -> sleeping -> training -> waking -> verifying -> serving
///                 |           |                      |           |
///                 +-----------+------> waking        +-----------+----> degraded -> waking
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// It answers requests as usual.
    Serving,
    /// It is about to sleep, and ends the requests that it has.
    Draining,
    /// It sleeps, and nothing is trained yet.
    Sleeping,
    /// It sleeps, and an adapter is trained.
    Training,
    /// It is being woken.
    Waking,
    /// It is awake, and is compared with what it was.
    Verifying,
    /// It could not be woken, or no longer answers as before.
    Degraded,
}

impl LeaseState {
    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Sleeping => "sleeping",
            Self::Training => "training",
            Self::Waking => "waking",
            Self::Verifying => "verifying",
            Self::Degraded => "degraded",
        }
    }

    /// Whether a server may go from this state to `next`. From every state but
    /// [`Self::Serving`] it may be woken: a holder may have died in any of them.
    pub fn may_become(self, next: Self) -> bool {
        match next {
            Self::Draining => self == Self::Serving,
            Self::Sleeping => self == Self::Draining,
            Self::Training => self == Self::Sleeping,
            Self::Waking => self != Self::Serving,
            Self::Verifying => self == Self::Waking,
            Self::Serving => self == Self::Verifying,
            Self::Degraded => matches!(self, Self::Waking | Self::Verifying),
        }
    }
}
