//! The settings: [`Config`], merged from [`ConfigLayer`]s and validated once.
//!
//! `cli` collects the texts and variables and hands them in; nothing here reads a file or the
//! environment, and nothing below `cli` does so for settings. The defaults live in
//! `configs/default.toml`, the rules of each key in one table (`keys.rs`). A project's
//! `rune.toml` comes with a repository that may not be trusted, so it may only lower limits.

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
pub use parts::MemoryConfig;
pub use parts::MemoryKind;
pub use parts::ParkConfig;
pub use parts::ProgramProfile;
pub use parts::ProviderKind;
pub use parts::RunSettings;
pub use parts::SamplingConfig;
pub use parts::SandboxConfig;
pub use parts::ServerConfig;
pub use parts::TokensConfig;
pub use settings::Config;
pub use settings::ConfigEntry;
