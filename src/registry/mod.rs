//! The registry: sessions, attempts, events, adapters, training runs and evaluations in one SQLite
//! file, `rune.db` in Rune's home, and the adapter folders next to it.
//!
//! Every method is one transaction with `synchronous=FULL`. Once it has returned, its effect
//! survives `kill -9` and a power cut, and a change is stored together with the event that reports
//! it. Calls take milliseconds, so async code may call them directly or through `spawn_blocking`.
//! Triggers in the schema protect what must never change: attempts, events, solved sessions.
//! Sessions and training runs are written under a claim ([`HeldClaim`]), which one holder at a time
//! has. All SQL of Rune is in this module.

mod adapter;
mod attempt;
mod backlog;
mod card;
mod claim;
mod codec;
mod database;
mod error;
mod evaluation;
mod event;
mod experience;
mod family;
mod id;
mod job;
mod lease;
mod ledger;
mod nearest;
mod owner;
mod schema;
mod session;
mod store;
mod swarm;
mod training;

pub use adapter::AdapterAncestor;
pub use adapter::AdapterFilter;
pub use card::AdapterQuery;
pub use card::SessionCounts;
pub use claim::ClaimHolder;
pub use claim::HeldClaim;
pub use database::Registry;
pub use error::RecordKind;
pub use error::RegistryError;
pub use evaluation::AnswerCost;
pub use evaluation::Evaluation;
pub use evaluation::MeasuredGain;
pub use evaluation::OutcomeRow;
pub use evaluation::RACE;
pub use event::StoredEvent;
pub use experience::ExperienceRecord;
#[cfg(test)]
pub(crate) use experience::tests::SOLVED;
#[cfg(test)]
pub(crate) use experience::tests::end;
#[cfg(test)]
pub(crate) use experience::tests::passed;
#[cfg(test)]
pub(crate) use experience::tests::session as session_of;
#[cfg(test)]
pub(crate) use experience::tests::solve;
pub use id::new_id;
pub use job::Job;
pub use job::JobCount;
pub use job::JobEnd;
pub use job::JobError;
pub use job::JobFilter;
pub use job::NewJob;
pub use lease::LeaseRow;
pub use ledger::ACCEPT;
pub use ledger::DecisionEffect;
pub use ledger::LedgerFilter;
pub use ledger::LedgerRow;
pub use nearest::ExperienceQuery;
pub use nearest::NearRecord;
pub use session::SessionEnd;
pub use session::SessionFilter;
pub use store::AdapterStore;
pub use store::IntegrityError;
pub use swarm::SwarmRow;
pub use swarm::SwarmSeconds;
pub use training::DatasetKind;
pub use training::DatasetRow;
pub use training::MetricRow;
pub use training::RunStatus;
pub use training::TrainingRun;
