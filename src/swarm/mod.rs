//! A night of work: agents solve tasks, adapters are trained on what they solved, the better ones
//! are promoted, and the next generation tries the rest again.
//!
//! ```text
//!  tasks of train families
//!        |
//!        v
//!  +-> solve -----> train -----> evolve      one adapter, decisions by evidence
//!  |     |                          |
//!  |     v                          v
//!  |   all tried ----------------> evaluate  base and incumbent on gate families
//!  |                                |
//!  +--- unsolved tasks, next generation ---> report
//! ```
//!
//! All of it are jobs in a durable queue ([`crate::registry::Job`]), and each calls the same
//! workflow as its subcommand does. What is next follows from the queue alone, so a swarm that was
//! killed anywhere goes on where it stopped. Agents share one engine and decode in one batch; a
//! training runs in a process of its own.
//!
//! **Invariant:** agents never get a task of a family that measures adapters.

mod config;
mod error;
mod night;
mod report;
mod tasks;
mod watchdog;
mod work;

pub use config::SwarmConfig;
pub use config::SwarmLimits;
pub use config::TrainShare;
pub use error::SwarmError;
pub use night::SwarmRequest;
pub use night::resume;
pub use night::run;
pub use report::GenerationReport;
pub use report::SwarmReport;
pub use report::report;
pub use tasks::SwarmTasks;
pub use work::HeldOutScore;
