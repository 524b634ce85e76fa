//! [`Services`]: the environment that sessions, training runs and evaluations share.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::event::Event;
use crate::event::Reporter;
use crate::home::Home;
use crate::provider::ModelSource;
use crate::registry::Registry;
use crate::shutdown::Shutdown;

/// What every workflow works with. Owns all of it, so that a clone can move into a spawned task.
#[derive(Clone)]
pub struct Services {
    /// Where files are kept.
    pub home: Home,
    /// The settings in force.
    pub config: Arc<Config>,
    /// Where everything is recorded.
    pub registry: Arc<Registry>,
    /// Finds, downloads and loads models.
    pub models: ModelSource,
    /// The `rune` binary, which child processes are started from.
    pub executable: PathBuf,
    /// The key of the project that sessions and adapters belong to.
    pub project: String,
    /// Receives every event as it happens.
    pub reporter: Arc<dyn Reporter>,
    /// Stops the work; sessions, training runs and evaluations can be resumed afterwards.
    pub shutdown: Shutdown,
}

impl Services {
    /// Reports an event about `subject`, the id of a session or a training run.
    pub fn report(&self, subject: &str, event: &Event) {
        self.reporter.report(subject, event);
    }

    /// Reports a message that belongs to no session or training run.
    pub fn notice(&self, message: impl Into<String>) {
        self.report("", &Event::notice(message));
    }

    /// The Python interpreter of the settings; `None` for the first one on `PATH`.
    pub fn python(&self) -> Option<&Path> {
        let python = Path::new(&self.config.sandbox.python);
        (!python.as_os_str().is_empty()).then_some(python)
    }
}
