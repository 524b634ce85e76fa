//! Trajectories and files of chats become adapters, by QLoRA in a process of its own.
//!
//! [`TrainingRecord`]s are cleaned, cut into tokens and split by family ([`Dataset`]); a worker
//! ([`worker_main`], started by [`TrainingWorker`]) trains an adapter on the packed base, holds it
//! against families that it never sees, and writes it as PEFT does. Whatever either process is
//! killed at, the run can be gone on with. QLoRA: arXiv:2305.14314.

mod adamw;
mod adapter;
mod backend;
mod checkpoint;
mod collect;
mod dataset;
mod dedupe;
mod error;
mod estimate;
mod example;
mod launch;
mod options;
mod record;
mod rehearsal;
mod scrub;
mod sessions;
mod steps;
#[cfg(feature = "torch")]
mod torch;
mod trainer;
mod worker;
mod workflow;

pub use adamw::AdamW;
pub use adamw::AdamWOptions;
pub use backend::TrainBackend;
pub use collect::CollectedRecords;
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
pub use example::ExampleSets;
pub use launch::TrainingWorker;
pub use options::Preset;
pub use options::RateSchedule;
pub use options::TrainDevice;
pub use options::TrainingOptions;
pub use record::RecordSource;
pub use record::TrainingRecord;
pub use record::WeightedPart;
pub use sessions::records;
pub use worker::TrainJob;
pub use worker::WorkerReport;
pub use worker::worker_main;
pub use workflow::TrainingPlan;
pub use workflow::TrainingRequest;
pub use workflow::TrainingRunConfig;
pub use workflow::plan;
pub use workflow::resume;
pub use workflow::train;

#[cfg(test)]
mod tests;
