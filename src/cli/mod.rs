//! The command line: the only place that prints, and that reads the environment.
//!
//! One file a subcommand: its arguments, one call, one print. Results go to stdout, everything else
//! to stderr. Text that a model or a program wrote passes [`escape`] on its way to the terminal.

mod adapters;
mod bench;
mod completions;
mod config;
mod context;
mod doctor;
mod entry;
mod eval;
mod events;
mod exit;
mod judge;
mod man;
mod models;
mod output;
mod run;
mod runtime;
mod screen;
mod sessions;
mod train;
mod workflow;

pub use entry::main;
pub use output::escape;
pub use output::escape_line;
pub(crate) use run::is_task_line;
