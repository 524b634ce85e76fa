//! The registry: sessions, attempts and events in one SQLite file, `rune.db` in Rune's home.
//!
//! Every method is one transaction, with `synchronous=FULL`: what it returned from survives `kill -9`
//! and a power cut, and a change is stored together with the event that tells of it. Calls take
//! milliseconds; async code may call them directly, or through `spawn_blocking`. What must never
//! change (attempts, events, a solved session) is guarded by triggers in the schema itself.
//! ALL SQL lives here.

mod attempt;
mod codec;
mod database;
mod error;
mod event;
mod id;
mod owner;
mod schema;
mod session;

pub use database::Registry;
pub use error::RegistryError;
pub use event::StoredEvent;
pub use id::new_id;
pub use session::Ending;
pub use session::SessionFilter;
