//! The settings: [`Config`], laid together from [`ConfigLayer`]s and checked once.
//!
//! `cli` collects the texts and variables and hands them in; nothing here reads a file or the
//! environment, and nothing below `cli` does so for settings. The defaults live in
//! `configs/default.toml` alone, the rules for each key in one table (`keys.rs`). A project's
//! `rune.toml` comes with somebody's repository, so it may only ask for less.

mod error;
mod keys;
mod layer;
mod nearest;
mod origin;
mod parts;
mod settings;

pub use error::ConfigError;
pub use layer::ConfigLayer;
pub use nearest::nearest;
pub use origin::ValueOrigin;
pub use parts::EngineConfig;
pub use parts::ProgramProfile;
pub use parts::ProviderKind;
pub use parts::RunSettings;
pub use parts::SamplingConfig;
pub use parts::SandboxConfig;
pub use parts::TokensConfig;
pub use settings::Config;
pub use settings::ConfigEntry;
