//! Rune: a local-first coding agent with parametric memory.
//!
//! The modules stand in the order in which data flows: words, formats, tools, engines, choice,
//! work, faces. A module imports only from rows above its own (`tests/it/tidy.rs`).
//! `ARCHITECTURE.md` is the map.

// Words.
pub mod bm25;
pub mod child;
pub mod config;
pub mod digest;
pub mod durable;
pub mod failpoint;
pub mod home;
pub mod job;
pub mod lease;
pub(crate) mod rng;
pub mod shutdown;
pub mod task;
pub mod terms;
// Words made of those.
pub mod adapter;
pub mod documents;
pub mod error_class;
pub mod event;
pub mod families;
pub(crate) mod minhash;
pub mod similarity;
pub mod trajectory;
// Formats.
pub mod peft;
// Tools.
pub mod hardware;
pub mod hub;
pub mod model;
pub mod registry;
pub mod repository;
pub mod sandbox;
pub mod synthetic;
pub mod template;
// Engines.
pub mod judge;
pub mod merge;
pub mod provider;
// Choice.
pub mod memory;
pub mod selection;
pub mod services;
// Work.
pub mod parking;
pub mod pipeline;
pub mod training;
// Work on what that made.
pub mod evaluation;
// Better adapters from those.
pub mod evolution;
// Nights of work.
pub mod swarm;
// Faces.
pub mod bench;
pub mod cli;
pub mod doctor;
pub mod e2e;

#[doc(hidden)]
pub mod fuzzing;
