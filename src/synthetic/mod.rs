//! Synthetic data: invented Python libraries, records that teach them, and held-out tasks that need
//! them.
//!
//! A [`SyntheticLibrary`] has an invented name and functions with invented verbs, each one of some
//! fifty pure operations on a list of integers, and beside them a keyword, an error class, a
//! protocol and constants with invented names. No base model can know it, so what a model can do
//! with it after training comes from the training. [`SyntheticLibrary::training`] gives chat
//! records, and [`SyntheticLibrary::tasks`] gives tasks whose wordings, variables and function
//! names no record has, together with controls that need no library. [`leaks`] looks for what the
//! two share after all.
//!
//! Rehearsal counters what such records do to a model: [`document_questions`] have to be answered
//! from a document in front, and [`standard_questions`] with Python's own library.
//!
//! Everything follows from a seed. Nothing here reads or writes files, runs code or prints; a
//! [`LibraryCheck`] is plain data for a judge that runs Python.

mod documents;
mod drill;
mod facts;
mod leaks;
mod library;
mod names;
mod operations;
mod passages;
mod random;
mod records;
mod source;
mod standard_questions;
mod standard_tasks;
mod tasks;
mod templates;
#[cfg(test)]
mod tests;

pub use documents::FIRST_RESERVED_SEED;
pub use documents::document_questions;
pub use documents::reader_records;
pub use leaks::leaks;
pub use library::SyntheticLibrary;
pub use operations::is_new_to_reader;
pub use records::LibraryRecord;
pub use records::RecordOptions;
pub use standard_questions::standard_questions;
pub use standard_tasks::standard_tasks;
pub use tasks::AnswerForm;
pub use tasks::LibraryCheck;
pub use tasks::LibraryTask;
pub use tasks::LibraryUses;
