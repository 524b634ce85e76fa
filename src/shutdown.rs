//! [`Shutdown`]: a token that stops all running work.

use std::sync::Arc;

use tokio::sync::watch;

/// Reason why work was stopped early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Interrupted by the user: Ctrl-C (SIGINT).
    Interrupted,
    /// Terminated by SIGTERM, for example by a service manager.
    Terminated,
}

/// Error: the work was stopped early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .0 {
    StopReason::Interrupted => "interrupted",
    StopReason::Terminated => "terminated",
})]
pub struct StoppedEarly(pub StopReason);

/// A token that is cloned into all running work and triggered once for all clones.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<Option<StopReason>>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Shutdown {
    /// Triggers the token for all clones. Only the first reason counts.
    pub fn trigger(&self, reason: StopReason) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(reason);
            is_first
        });
    }

    /// Whether the token was triggered.
    pub fn is_triggered(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until the token is triggered, and returns the reason.
    pub async fn triggered(&self) -> StopReason {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                // Cannot happen: `self` is a sender, so the channel stays open.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs `work` unless the token is triggered first. The future of the work is dropped then.
    ///
    /// # Errors
    /// [`StoppedEarly`] when the token was triggered before `work` was done.
    pub async fn or_stop<T>(&self, work: impl Future<Output = T>) -> Result<T, StoppedEarly> {
        tokio::select! {
            done = work => Ok(done),
            reason = self.triggered() => Err(StoppedEarly(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_see_the_first_reason() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.or_stop(async { 7 }).await, Ok(7));
        let waiting = tokio::spawn({
            let clone = shutdown.clone();
            async move { clone.or_stop(std::future::pending::<()>()).await }
        });
        tokio::task::yield_now().await;
        shutdown.clone().trigger(StopReason::Terminated);
        shutdown.trigger(StopReason::Interrupted);
        let stopped = Err(StoppedEarly(StopReason::Terminated));
        assert_eq!(waiting.await.unwrap(), stopped);
        assert_eq!(shutdown.or_stop(std::future::pending()).await, stopped);
    }
}
