//! The integration tests: one binary, one module a subject.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected shall panic")]

mod adapters;
mod bench;
mod cli;
mod e2e;
mod eval;
mod evolve;
mod fuzzing;
mod hub;
mod judge;
mod lines;
mod merge;
mod model;
mod reference;
mod registry;
mod run;
mod sandbox;
mod server;
mod skip;
mod swarm;
mod tidy;
mod train;
mod workflows;
