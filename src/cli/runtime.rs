//! Runs asynchronous work from the command line, with signals that stop it.

use std::io;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::error_class::ErrorClass;
use crate::shutdown::Shutdown;
use crate::shutdown::StopReason;

/// Shutdown token of the active work.
static AT_WORK: Mutex<Option<Shutdown>> = Mutex::new(None);

/// Runs the future of `work`, with a token that Ctrl-C and SIGTERM trigger. Only one at a time.
///
/// # Errors
/// Those of `work`, and of starting the runtime.
pub(super) fn block_on<T, F: Future<Output = anyhow::Result<T>>>(
    work: impl FnOnce(Shutdown) -> F,
) -> anyhow::Result<T> {
    watch_signals()?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shutdown = Shutdown::default();
    *at_work() = Some(shutdown.clone());
    let result = runtime.block_on(work(shutdown));
    *at_work() = None;
    // A cancelled generation may still be in its last forward pass, which is not worth waiting for.
    runtime.shutdown_background();
    result
}

/// Starts a thread that handles signals. Tokio replaces the default handlers for good, also after
/// [`block_on`] returns. A signal triggers the token of the active work. If there is none, or if it
/// was already triggered, the signal ends the process, as it would by default.
fn watch_signals() -> io::Result<()> {
    static WATCHING: OnceLock<()> = OnceLock::new();
    if WATCHING.set(()).is_err() {
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    drop(entered);
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                let reason = tokio::select! {
                    _ = int.recv() => StopReason::Interrupted,
                    _ = term.recv() => StopReason::Terminated,
                };
                stop(reason);
            }
        });
    })?;
    Ok(())
}

fn stop(reason: StopReason) {
    match &*at_work() {
        Some(shutdown) if !shutdown.is_triggered() => shutdown.trigger(reason),
        #[expect(clippy::exit, reason = "what is kept outlives any kill")]
        _ => std::process::exit(ErrorClass::Stopped(reason).exit_code().into()),
    }
}

fn at_work() -> MutexGuard<'static, Option<Shutdown>> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}
