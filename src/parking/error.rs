//! [`ParkError`]: why a server could not be parked or woken.

use nvml_wrapper::error::NvmlError;

use crate::error_class::ErrorClass;
use crate::lease::LeaseState;
use crate::provider::ProviderError;
use crate::registry::RegistryError;

/// A server could not be parked or woken.
#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    /// The server has no `/sleep`.
    #[error("{0} cannot sleep")]
    CannotSleep(String),
    /// It sleeps already, and Rune has not told it to.
    #[error("{0} is already asleep, and Rune did not put it to sleep")]
    SleepsAlready(String),
    /// It has requests of others, or does not say whether it has.
    #[error("{url} is in use: {}", n_requests.map_or("it does not say by how many requests".to_owned(), |n| format!("{n} requests")))]
    InUse {
        /// URL of the server.
        url: String,
        /// Number of its requests, if it says.
        n_requests: Option<u64>,
    },
    /// It says that it does not sleep.
    #[error("{0} did not fall asleep")]
    NotAsleep(String),
    /// It sleeps, but its memory is not free.
    #[error("{url} sleeps, but the GPU's memory is not free: held by {holders}")]
    NotFreed {
        /// URL of the server.
        url: String,
        /// Processes with their memory.
        holders: String,
    },
    /// The GPU's driver does not answer.
    #[error("cannot read the memory of the GPU")]
    Driver(#[from] NvmlError),
    /// This machine has no memory for the weights.
    #[error("{url} cannot keep its weights of {} MiB in the {} MiB of memory that are available", bytes >> 20, available >> 20)]
    NoMemory {
        /// URL of the server.
        url: String,
        /// Size of the weights in bytes.
        bytes: u64,
        /// Available memory of the machine in bytes.
        available: u64,
    },
    /// The settings have no command for this method.
    #[error("the setting `{0}` is empty")]
    NoCommand(&'static str),
    /// A command of the settings has failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command, as it stands in the settings.
        command: String,
        /// Exit status, or why it could not be started.
        reason: String,
    },
    /// It was told to wake, and sleeps on.
    #[error("{0} did not wake up")]
    NotAwake(String),
    /// Awake, it does not answer as before.
    #[error("{url} answers differently than before it slept (`{model}`)")]
    OtherAnswers {
        /// URL of the server.
        url: String,
        /// The model or adapter whose answer differs.
        model: String,
    },
    /// It could not be woken, and its state is `degraded`.
    #[error("{url} is degraded: {reason}")]
    Degraded {
        /// URL of the server.
        url: String,
        /// What went wrong when it was woken.
        reason: String,
    },
    /// Another process holds the server.
    #[error("{url} is in use by another process (state `{}`)", state.as_str())]
    Held {
        /// URL of the server.
        url: String,
        /// State in which the other process holds it.
        state: LeaseState,
    },
    /// A request to the server failed.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The lease could not be stored, or another process holds the server.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl ParkError {
    /// Returns advice on how to fix the error, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::CannotSleep(_) => Some(
                "start vLLM with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1, and give its URL \
                 without `/v1`",
            ),
            Self::InUse { .. } => {
                Some("wait, or set `park.exclusive` to let it sleep nevertheless")
            }
            Self::NoMemory { .. } => {
                Some("set `park.level = 2`: the server then drops its weights")
            }
            Self::SleepsAlready(_) | Self::Degraded { .. } => Some("`rune wake` wakes it"),
            Self::Held { .. } => Some("`rune lease show` tells more"),
            Self::Provider(error) => error.hint(),
            _ => None,
        }
    }

    /// Whether another process has taken the server over.
    pub(super) fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Registry(RegistryError::ClaimLost { .. } | RegistryError::Ended { .. })
        )
    }

    /// Returns the class, which determines the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::CannotSleep(_) | Self::NoCommand(_) | Self::Driver(_) | Self::NoMemory { .. } => {
                ErrorClass::Environment
            }
            Self::SleepsAlready(_) | Self::InUse { .. } | Self::Held { .. } => ErrorClass::Conflict,
            Self::Registry(error) => error.class(),
            Self::Provider(error) => error.class(),
            _ => ErrorClass::Provider,
        }
    }
}
