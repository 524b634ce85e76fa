//! The whole loop on this machine, with the real binary and a real model, in a home of its own: a
//! session is solved, adapters are trained, measured, merged, promoted and used, and nothing is
//! lost when a process is killed. Every step asserts its outcome.
//!
//! ```text
//! doctor -> run -> sessions -> train -> evaluate -> merge -> evolve -> use
//!                                                                       |
//!                                          integrity <- swarm <- crash <-+
//! ```
//!
//! Steps act as a user does, by running `rune`, and read what they assert from its output, its exit
//! code and the registry. A check that cannot fail proves nothing, so [`run`] can take every step
//! once with a fault that it has to notice.

mod binary;
mod course;
mod durability;
mod learning;
mod report;
mod solving;
mod tasks;

pub use course::E2eRequest;
pub use course::run;
pub use report::E2eReport;
pub use report::E2eStep;
pub use report::StepOutcome;
pub use tasks::E2eProfile;
