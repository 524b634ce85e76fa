//! [`Event`]: what sessions, training runs, evaluations, pulls and benchmarks report while they
//! run, and the JSON lines of `--json`.
//!
//! Workflows report every event to a [`Reporter`] as it happens. The registry stores events in the
//! same transaction as the change they describe, except for transient ones
//! ([`Event::is_transient`]), which are never stored. A JSON line adds `ts`, a gap-free `seq` and
//! the `subject` of the event; `src/event/schema.json` ([`SCHEMA`]) describes it. Tables and other
//! answers that `--json` prints at once are documents, not events: they have no envelope and no
//! `type`.

mod attributes;
mod figures;
mod kind;
mod reporter;
mod stream;
#[cfg(test)]
mod tests;

pub use figures::ConditionCost;
pub use figures::DecisionKind;
pub use figures::MemoryVerdict;
pub use figures::MetricSummary;
pub use figures::PairedScores;
pub use figures::PassRate;
pub use figures::ScoreComparison;
pub use kind::Event;
pub use kind::PlannedSubtask;
pub use reporter::Reporter;
pub use stream::EventStream;
pub use stream::timestamp;

/// Version of the JSON lines; `session.started` and `bench.started` carry it.
pub const SCHEMA_VERSION: u32 = 1;

/// The JSON schema (draft 2020-12) of one JSON line.
pub const SCHEMA: &str = include_str!("schema.json");
