//! Adapters are held against tasks that they never saw.
//!
//! A [`Suite`] is a list of tasks whose answers are judged outside the judged process; [`run`] asks all of them of the
//! base or of an adapter, and [`Score`](crate::event::Score) is what came of it, with its interval. Two scores on the same tasks are compared
//! task by task ([`Paired`](crate::event::Paired)).

mod contamination;
mod error;
mod families;
mod formats;
mod library;
mod measure;
mod memory;
mod modules;
mod run;
mod statistics;
mod store;
mod suite;
mod task;
mod via;

pub use contamination::Overlap;
pub use contamination::overlaps;
pub use error::EvaluationError;
pub use families::Split;
pub use formats::Format;
pub use measure::How;
pub use measure::Measured;
pub use measure::ViaKind;
pub use measure::Who;
pub use measure::measure;
pub use modules::Modules;
pub use run::Evaluated;
pub use run::EvaluationTools;
pub use run::JUDGE_VERSION;
pub use run::Outcome;
pub use run::Subject;
pub use run::Void;
pub use run::run;
pub use statistics::PassAtK;
pub use statistics::TaskScore;
pub use statistics::by_task;
pub use statistics::compare;
pub use statistics::groups;
pub use statistics::score;
pub use store::SuiteStore;
pub use suite::Suite;
pub use task::Task;
pub use via::PipelineTools;
pub use via::Via;
