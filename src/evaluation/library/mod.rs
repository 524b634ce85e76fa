//! Generates an invented Python library, what teaches it, and held-out tasks that need it.
//!
//! A [`Library`] has an invented name and functions with invented verbs, each one of some fifty
//! pure operations on a list of integers, and beside them a keyword, an error class, a protocol and
//! constants with invented names. No base model can know it, so what a model can do
//! with it after training comes from the training. [`Library::training`] gives chat records, and
//! [`Library::tasks`] gives tasks whose wordings, variables and function names no record has,
//! together with controls that need no library. [`leaks`] looks for what the two share after all.
//!
//! Everything follows from a seed. Nothing here reads or writes files, runs code or prints; a
//! [`LibraryCheck`] is plain data for a judge that runs Python.

mod chance;
mod facts;
mod invented;
mod leaks;
mod names;
mod operations;
mod passages;
mod source;
mod tasks;
mod templates;
#[cfg(test)]
mod tests;
mod training;

pub use invented::Library;
pub use leaks::leaks;
pub(super) use tasks::LibraryCheck;
pub use training::TrainingOptions;
