//! One way to run asynchronous work from the command line, with the signals that stop it.

use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::shutdown::Shutdown;
use crate::shutdown::StopReason;

/// Runs what `work` makes of a token that Ctrl-C and SIGTERM trigger: from now on they do not end the process by
/// themselves.
///
/// # Errors
/// Those of `work`, and of setting this up.
pub(super) fn block_on<T, F: Future<Output = anyhow::Result<T>>>(
    work: impl FnOnce(Shutdown) -> F,
) -> anyhow::Result<T> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::default();
        let mut int = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                let reason = tokio::select! {
                    _ = int.recv() => StopReason::Interrupted,
                    _ = term.recv() => StopReason::Terminated,
                };
                shutdown.trigger(reason);
                // Whoever asks twice does not want to wait.
                let code = tokio::select! {
                    _ = int.recv() => 130,
                    _ = term.recv() => 143,
                };
                #[expect(clippy::exit, reason = "what is kept outlives any kill")]
                std::process::exit(code);
            }
        });
        work(shutdown).await
    });
    // A generation that was given up may still be in its last pass: nobody waits for it.
    runtime.shutdown_background();
    result
}
