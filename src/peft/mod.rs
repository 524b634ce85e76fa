//! PEFT's adapter folders: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! [`PeftFiles::read`] is the one reader, [`write_adapter`] the one writer, and [`PeftConfig`] the
//! one form of the settings. [`AdapterDelta`] is what an adapter adds to the weights, kept as
//! factors. A module's output becomes `W x + scaling * B (A x)` (Hu et al. 2021, arXiv:2106.09685).
//! Whatever would be left out in silence is refused: other kinds of adapters, options that change
//! the sums, half pairs of factors, pickled weights.
//!
//! No other module knows the names of these files, their keys or the names of their tensors, and
//! this one knows neither models nor the registry.

mod config;
mod delta;
mod error;
mod files;
mod folder;
mod tensors;
mod write;

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
