//! Runs model-written programs in a jail.

mod job;

pub use job::Captured;
pub use job::Exit;
pub use job::Job;
pub use job::Limits;
pub use job::Mount;
pub use job::Outcome;
pub use job::Tier;
