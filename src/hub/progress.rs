//! Progress reports of a pull.

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::unbounded_channel;

use crate::event::Event;
use crate::event::Reporter;
use crate::hub::error::HubError;

/// Reports the progress of pulling one model.
#[derive(Clone, Copy)]
pub(super) struct PullReporter<'a> {
    /// Name of the model.
    pub(super) model: &'a str,
    /// Receiver of the events.
    pub(super) reporter: &'a dyn Reporter,
}

impl PullReporter<'_> {
    /// Reports an event about the model.
    pub(super) fn report(self, event: &Event) {
        self.reporter.report(self.model, event);
    }

    /// Runs blocking work on its own thread, and reports the events that it sends.
    pub(super) async fn follow<T: Send + 'static>(
        self,
        work: impl FnOnce(EventSender) -> Result<T, HubError> + Send + 'static,
    ) -> Result<T, HubError> {
        let (sender, mut events) = unbounded_channel();
        let working = tokio::task::spawn_blocking(move || work(EventSender(sender)));
        // Ends when the work is done and has dropped its sender.
        while let Some(event) = events.recv().await {
            self.report(&event);
        }
        working.await.expect("the work does not panic")
    }
}

/// Sends events from a blocking thread.
pub(super) struct EventSender(UnboundedSender<Event>);

impl EventSender {
    /// Sends an event; it is dropped if the pull has been cancelled.
    pub(super) fn send(&self, event: Event) {
        let _unheard = self.0.send(event);
    }
}
