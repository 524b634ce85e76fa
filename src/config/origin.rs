//! [`ValueOrigin`]: the place where a setting was made.

use std::path::PathBuf;

/// The origin of a value, from the weakest to the strongest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueOrigin {
    /// The defaults: the embedded `configs/default.toml`.
    Default,
    /// The user's configuration file.
    User(PathBuf),
    /// The project's `rune.toml`, which is trusted less.
    Project(PathBuf),
    /// An environment variable `RUNE_<SECTION>_<KEY>`.
    Env,
    /// A flag on the command line.
    Flag,
}

impl std::fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::User(path) | Self::Project(path) => write!(f, "`{}`", path.display()),
            Self::Env => f.write_str("the environment"),
            Self::Flag => f.write_str("the command line"),
        }
    }
}
