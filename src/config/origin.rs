//! [`ValueOrigin`].

use std::path::PathBuf;

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueOrigin {
    /// `configs/default.toml`, embedded.
    Default,
    /// The user's own file.
    User(PathBuf),
    /// The project's file, which is trusted less.
    Project(PathBuf),
    /// The environment.
    Env,
    /// The command line.
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
