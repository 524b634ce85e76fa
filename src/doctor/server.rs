//! The checks of model servers.

use crate::config::Config;
use crate::error_class::with_causes;
use crate::home::Home;
use crate::lease::LeaseState;
use crate::provider::ModelServer;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::registry::LeaseRow;
use crate::registry::Registry;

use super::DoctorCheck;

/// Connects to the server of the settings; `None` if the provider uses none.
pub(super) fn check(config: &Config) -> Option<DoctorCheck> {
    if !config.run.provider.uses_server() {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Some(DoctorCheck::fail("server", error.to_string(), "try again")),
    };
    let name = |path: &std::path::Path| path.display().to_string();
    Some(match runtime.block_on(ModelServer::connect(config, None, &name)) {
        Ok(server) => DoctorCheck::ok("server", describe(server)),
        Err(error) => {
            let fix =
                ProviderError::hint(&error).unwrap_or("start the server, or set `server.url`");
            DoctorCheck::fail("server", with_causes(&error), fix)
        }
    })
}

/// Names the servers that do not serve; `None` if none was ever parked.
pub(super) fn leases(home: &Home) -> Option<DoctorCheck> {
    if !home.registry().exists() {
        return None;
    }
    // A registry that cannot be opened has a check of its own.
    let leases = Registry::open(&home.registry()).and_then(|registry| registry.leases()).ok()?;
    let away = leases.iter().filter(|row| row.state != LeaseState::Serving);
    let words = |row: &LeaseRow| format!("{} is {} {}", row.server, row.state.as_str(), row.detail);
    let away: Vec<String> = away.map(words).collect();
    match (leases.is_empty(), away.is_empty()) {
        (true, _) => None,
        (false, true) => Some(DoctorCheck::ok("lease", "all parked servers serve again")),
        (false, false) => {
            let fix = "`rune wake` wakes it, unless an adapter is being trained";
            Some(DoctorCheck::warn("lease", away.join("; "), fix))
        }
    }
}

fn describe(server: ModelServer) -> String {
    let (model, url) = (server.model().to_owned(), server.url().to_owned());
    let known_by = if server.reads_weights() { "its file" } else { "an answer" };
    let able = Provider::Server(server).capabilities();
    format!(
        "{model} on {url}, known by {known_by}, context {}, {} requests at once",
        able.context_length, able.parallel
    )
}
