//! The registry: sessions, attempts, events, adapters, training runs and evaluations in one SQLite
//! file, `rune.db` in Rune's home, and the adapters' folders beside it.
//!
//! Every method is one transaction, with `synchronous=FULL`: what it returned from survives `kill
//! -9` and a power cut, and a change is stored together with the event that tells of it. Calls take
//! milliseconds; async code may call them directly, or through `spawn_blocking`. What must never
//! change (attempts, events, a solved session) is guarded by triggers in the schema itself. Sessions
//! and training runs are written under a claim ([`HeldClaim`]), which one holder at a time has. ALL
//! SQL lives here.

mod adapter;
mod attempt;
mod claim;
mod codec;
mod database;
mod error;
mod evaluation;
mod event;
mod id;
mod owner;
mod schema;
mod session;
mod store;
mod training;

pub use adapter::AdapterAncestor;
pub use adapter::AdapterFilter;
pub use claim::ClaimHolder;
pub use claim::HeldClaim;
pub use database::Registry;
pub use error::RecordKind;
pub use error::RegistryError;
pub use evaluation::Evaluation;
pub use evaluation::MeasuredAdapter;
pub use evaluation::OutcomeRow;
pub use event::StoredEvent;
pub use id::new_id;
pub use session::SessionEnd;
pub use session::SessionFilter;
pub use store::AdapterStore;
pub use store::IntegrityError;
pub use training::DatasetKind;
pub use training::DatasetRow;
pub use training::MetricRow;
pub use training::RunStatus;
pub use training::TrainingRun;
