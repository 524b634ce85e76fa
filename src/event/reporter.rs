//! [`Reporter`]: receives events.

use super::kind::Event;

/// Receives every event as it happens, for example to draw progress or to print JSON lines.
pub trait Reporter: Send + Sync {
    /// Receives an event about `subject`: the id of a session or training run, the name of a model
    /// that is being pulled, or an empty string.
    fn report(&self, subject: &str, event: &Event);
}

impl<F: Fn(&str, &Event) + Send + Sync> Reporter for F {
    fn report(&self, subject: &str, event: &Event) {
        self(subject, event);
    }
}
