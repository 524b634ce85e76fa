//! Better adapters from those that exist: merges, proof that a merge can be repeated, and the rule
//! by which one adapter replaces another.

mod error;
mod gate;
mod merge;
mod replay;

pub use error::EvolutionError;
pub use gate::GateDecision;
pub use gate::GateRule;
pub use merge::MergeOutcome;
pub use merge::MergeRequest;
pub use merge::merge;
pub use replay::ReplayOutcome;
pub use replay::replay;
