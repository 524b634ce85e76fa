//! Trajectories and files of chats become adapters, by QLoRA in a process of its own.
//!
//! [`Record`]s are cleaned, cut into tokens and split by family ([`Dataset`]); a worker ([`worker_main`], started
//! by [`Worker`]) trains an adapter on the packed base, holds it against families that it never sees, and writes it as
//! PEFT does. Whatever either process is killed at, the run can be gone on with. QLoRA: arXiv:2305.14314.

mod adamw;
mod adapter;
mod checkpoint;
mod collect;
mod dataset;
mod dedupe;
mod error;
mod estimate;
mod example;
mod launch;
mod learner;
mod options;
mod record;
mod rehearsal;
mod run;
mod scrub;
mod sessions;
mod steps;
#[cfg(feature = "torch")]
mod torch;
mod trainer;
mod worker;

pub use adamw::AdamW;
pub use adamw::AdamWOptions;
pub use collect::Collected;
pub use collect::DataRequest;
pub use collect::DatasetSource;
pub use collect::SessionsWanted;
pub use collect::collect;
pub use dataset::Dataset;
pub use dataset::family_digest;
pub use error::FailureKind;
pub use error::TrainingError;
pub use estimate::memory;
pub use example::Example;
pub use example::Examples;
pub use launch::Worker;
pub use learner::Learner;
pub use options::Device;
pub use options::Preset;
pub use options::Schedule;
pub use options::TrainingOptions;
pub use record::Record;
pub use record::RecordSource;
pub use record::Weighted;
pub use run::RunConfig;
pub use run::TrainingPlan;
pub use run::TrainingRequest;
pub use run::plan;
pub use run::resume;
pub use run::train;
pub use sessions::records;
pub use worker::Job;
pub use worker::WorkerReport;
pub use worker::worker_main;

#[cfg(test)]
mod tests;
