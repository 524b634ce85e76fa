//! Runs a workflow from the command line.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::cli::models;
use crate::cli::runtime;
use crate::event::Reporter;
use crate::parking;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::services::Services;

/// Starts the sandbox. Call it before the process has other threads or a model in memory: see
/// [`crate::sandbox`].
///
/// # Errors
/// Those of [`Sandbox::start`], and of finding the path of `rune`.
pub(super) fn sandbox() -> anyhow::Result<Arc<Sandbox>> {
    Ok(Arc::new(Sandbox::start(&std::env::current_exe()?)?))
}

/// Runs `work` with the services that `context` describes, until it ends or a signal stops it.
/// Servers that a dead process has left asleep are woken first.
///
/// # Errors
/// Those of `work`, of [`parking::recover`], and of [`runtime::block_on`].
pub(super) fn run<T, F: Future<Output = anyhow::Result<T>>>(
    context: &Context,
    registry: &Arc<Registry>,
    reporter: Arc<dyn Reporter>,
    work: impl FnOnce(Services) -> F,
) -> anyhow::Result<T> {
    run_at_once(context, registry, reporter, |services| async move {
        let recovered = parking::recover(&services);
        services.shutdown.clone().or_stop(recovered).await??;
        work(services).await
    })
}

/// Runs `work` like [`run`], but leaves servers as they are.
///
/// # Errors
/// Those of `work`, and of [`runtime::block_on`].
pub(super) fn run_at_once<T, F: Future<Output = anyhow::Result<T>>>(
    context: &Context,
    registry: &Arc<Registry>,
    reporter: Arc<dyn Reporter>,
    work: impl FnOnce(Services) -> F,
) -> anyhow::Result<T> {
    let executable = std::env::current_exe()?;
    runtime::block_on(|shutdown| {
        work(Services {
            home: context.home.clone(),
            config: Arc::new(context.config.clone()),
            registry: Arc::clone(registry),
            models: models::source(context),
            executable,
            project: context.project(),
            reporter,
            shutdown,
        })
    })
}
