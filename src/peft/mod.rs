//! Adapter folders in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! [`PeftFiles::read`] is the only reader, [`write_adapter`] the only writer, and [`PeftConfig`]
//! the only representation of the configuration. [`AdapterDelta`] is the task vector of an adapter,
//! as factors. The output of an adapted module is `W x + scaling * B (A x)` (Hu et al. 2021,
//! arXiv:2106.09685). Features that would otherwise be ignored silently are rejected: other adapter
//! types, options that change the computation, incomplete pairs of factors, pickled weights.
//!
//! No other module knows the names of these files, keys and tensors, and this module knows neither
//! models nor the registry.

mod config;
mod delta;
mod error;
mod files;
mod folder;
mod tensors;
mod write;

pub use config::MAX_RANK;
pub use config::PeftConfig;
pub use config::TargetModules;
pub use config::scaling;
pub use delta::AdapterDelta;
pub use error::PeftError;
pub use files::PeftFiles;
pub use folder::CONFIG_FILE;
pub use folder::WEIGHTS_FILE;
pub use tensors::LoraFactors;
pub use tensors::LoraMatrix;
pub use tensors::NamedTensor;
pub use tensors::tensor_name;
pub use tensors::to_f32;
pub use tensors::write_tensors;
pub use write::write_adapter;
pub use write::write_factors;
