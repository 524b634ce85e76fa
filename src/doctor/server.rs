//! The check of the model server.

use crate::config::Config;
use crate::config::ProviderKind;
use crate::error_class::with_causes;
use crate::provider::ModelServer;
use crate::provider::Provider;
use crate::provider::ProviderError;

use super::DoctorCheck;

/// Connects to the server of the settings; `None` if the provider uses none.
pub(super) fn check(config: &Config) -> Option<DoctorCheck> {
    if matches!(config.run.provider, ProviderKind::InProcess | ProviderKind::Scripted) {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Some(DoctorCheck::fail("server", error.to_string(), "try again")),
    };
    let name = |path: &std::path::Path| path.display().to_string();
    Some(match runtime.block_on(ModelServer::connect(config, &name)) {
        Ok(server) => DoctorCheck::ok("server", describe(server)),
        Err(error) => {
            let fix =
                ProviderError::hint(&error).unwrap_or("start the server, or set `server.url`");
            DoctorCheck::fail("server", with_causes(&error), fix)
        }
    })
}

fn describe(server: ModelServer) -> String {
    let (model, url) = (server.model().to_owned(), server.url().to_owned());
    let known_by = if server.reads_file() { "its file" } else { "an answer" };
    let able = Provider::Server(server).capabilities();
    format!(
        "{model} on {url}, known by {known_by}, context {}, {} requests at once",
        able.context_length, able.parallel
    )
}
