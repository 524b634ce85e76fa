//! Better adapters from those that exist: measured, merged, promoted and archived by evidence, with
//! proof that a merge can be repeated.

mod audit;
mod breed;
mod error;
mod evolve;
mod examiner;
mod gate;
mod merge;
mod promote;
mod race;
mod replay;
mod request;
mod round;
mod trial;

pub use audit::Audit;
pub use audit::SplitGain;
pub use audit::audit;
pub use error::EvolutionError;
pub use evolve::evolve;
pub use evolve::measure_options;
pub use evolve::plan;
pub use gate::GateDecision;
pub use gate::GateRule;
pub use merge::MergeOutcome;
pub use merge::MergeRequest;
pub use merge::merge;
pub use promote::promote;
pub use promote::rollback;
pub use replay::ReplayOutcome;
pub use replay::replay;
pub use request::EvolveReport;
pub use request::EvolveRequest;
pub use request::MIN_GATE_TASKS;
pub use request::Population;
pub use request::RacedAdapter;
