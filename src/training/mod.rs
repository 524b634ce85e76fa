//! Trains adapters on session trajectories and chat files, with QLoRA in a separate process.
//!
//! [`TrainingRecord`]s are scrubbed, tokenized and split by family ([`Dataset`]). A worker
//! ([`worker_main`], started by [`TrainingWorker`]) trains an adapter on the packed base model,
//! validates it on held-out families, and writes it in PEFT's format. A run can be resumed no
//! matter where either process was killed. QLoRA: Dettmers et al. 2023, arXiv:2305.14314.
//!
//! ```text
//!  TrainingRequest   records from sessions and chat files; options
//!        |
//!        v           scrub, deduplicate, hold out families, tokenize
//!     Dataset  ----> training/<run>/examples.json
//!        |           row `training_run`, claimed by this process
//!        v
//!  +- worker ---------------------------------------+   job:    JSON line on stdin
//!  |  forward + backward pass, AdamW, validation    |   events: JSON lines on stdout
//!  |  checkpoint.safetensors <----> resume          |
//!  +------------------------------------------------+
//!        |
//!        v           training/<run>/adapter/: PEFT files, weights last
//!  AdapterStore ---> adapters/<id>/, row `adapter`
//!        |
//!        v           row `training_run` is `completed`; training/<run>/ is removed
//!    adapter id
//! ```

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
pub use checkpoint::ValidationLosses;
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
pub use steps::StepStatistics;
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
