//! The command line: the only module that prints and reads the environment.
//!
//! Each subcommand has one file: its arguments, one call, one print. Results go to stdout,
//! everything else to stderr. Text written by a model or a program passes through [`escape`] before
//! it reaches the terminal.

mod adapters;
mod bench;
mod completions;
mod config;
mod context;
mod doctor;
mod e2e;
mod entry;
mod eval;
mod events;
mod evolve;
mod exit;
mod jobs;
mod judge;
mod lease;
mod ledger;
mod man;
mod merge;
mod model_args;
mod models;
mod output;
mod providers;
mod run;
mod runtime;
mod screen;
mod sessions;
mod swarm;
mod train;
mod workflow;

pub use entry::main;
pub use output::escape;
pub use output::escape_line;
