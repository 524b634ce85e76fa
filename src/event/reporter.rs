//! [`Reporter`]: whoever hears of events.

use super::kind::Event;

/// Hears of everything as it happens: the terminal, a file of JSON lines, a server's subscribers.
pub trait Reporter: Send + Sync {
    /// Takes news of `subject`: the id of a session or a training run, the name of a model that is
    /// pulled, or nothing.
    fn report(&self, subject: &str, event: &Event);
}

impl<F: Fn(&str, &Event) + Send + Sync> Reporter for F {
    fn report(&self, subject: &str, event: &Event) {
        self(subject, event);
    }
}
