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

/// Shared services of all workflows. Owns its parts, so that a clone can move into a spawned task.
#[derive(Clone)]
pub struct Services {
    /// Home folder with all data.
    pub home: Home,
    /// The settings in force.
    pub config: Arc<Config>,
    /// Registry of sessions, adapters and training runs.
    pub registry: Arc<Registry>,
    /// Finds, downloads and loads models.
    pub models: ModelSource,
    /// Path of the `rune` binary, from which child processes are started.
    pub executable: PathBuf,
    /// Key of the project that new sessions and adapters belong to.
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
