//! Parking: a model server gives its GPU to a training run, and is woken on every way out.
//!
//! [`while_parked`] lets the server sleep, does the work, and wakes it: after an error, a panic and
//! a stop by a signal as well. When the process is killed, the next one finds the lease in the
//! registry and wakes the server ([`recover`]). No answer of a server is believed: that it sleeps
//! is asked again, that its memory is free is read from the driver, and awake it has to answer as
//! it did before.

mod error;

use std::panic::AssertUnwindSafe;
use std::panic::resume_unwind;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use futures_util::FutureExt;
use nvml_wrapper::error::NvmlError;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use tokio::process::Command;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::config::Config;
use crate::config::ProviderKind;
use crate::error_class::with_causes;
use crate::event::Event;
use crate::event::Reporter;
use crate::hardware;
use crate::hardware::GpuMemory;
use crate::lease::LeaseState;
use crate::provider::DrainMode;
use crate::provider::ProviderError;
use crate::provider::ServedAnswer;
use crate::provider::SleepControl;
use crate::registry::HeldClaim;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::services::Services;

pub use error::ParkError;

/// Attempts to wake a server.
const TRIES: u32 = 3;
/// Time between two questions whether a server has changed its state.
const POLL: Duration = Duration::from_millis(50);
/// Time that the memory of a dead training may take to become free.
const HELD: Duration = Duration::from_secs(30);

/// How a server is made to give its GPU away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkMethod {
    /// It sleeps, with its weights in the memory of the machine (1) or dropped (2).
    Sleep(u8),
    /// It is stopped and started by the commands of the settings.
    Commands,
}

/// How to park a server.
#[derive(Clone)]
pub struct ParkOptions {
    /// How it gives its GPU away.
    pub method: ParkMethod,
    /// Whether it is parked also while it answers others.
    pub is_exclusive: bool,
    /// Time that its requests have to end, and that it has to fall asleep.
    pub drain: Duration,
    /// Time that each attempt to wake it may take.
    pub wake: Duration,
    /// Pause before the second attempt to wake it; doubled before each further one.
    pub pause: Duration,
    /// Shell command that stops it; empty for none.
    pub stop_command: String,
    /// Shell command that starts it; empty for none.
    pub start_command: String,
    /// Reads the memory of the GPUs; `None` where there are none.
    pub memory: fn() -> Result<Option<GpuMemory>, NvmlError>,
}

impl ParkOptions {
    /// Returns the options of the settings for a server of this kind: vLLM sleeps, others are
    /// stopped and started.
    pub fn new(config: &Config, kind: ProviderKind) -> Self {
        let park = &config.park;
        let method = match kind {
            ProviderKind::Vllm => ParkMethod::Sleep(park.level),
            _ => ParkMethod::Commands,
        };
        Self {
            method,
            is_exclusive: park.exclusive,
            drain: Duration::from_secs(park.drain_seconds),
            wake: Duration::from_secs(park.wake_seconds),
            pause: Duration::from_secs(1),
            stop_command: park.stop_command.clone(),
            start_command: park.start_command.clone(),
            memory: hardware::gpu_memory,
        }
    }
}

/// What a server was before it slept, as stored in the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ServerBefore {
    method: ParkMethod,
    answers: Vec<ServedAnswer>,
    /// Memory of the GPUs that its sleep is to leave free, in bytes; `None` without a GPU.
    to_free: Option<u64>,
}

/// Does `work` while the server of the settings is parked. The server is woken before this returns;
/// if that fails, the second result says why.
///
/// # Errors
/// [`ParkError`], when the server could not be parked. No work was done, and the server serves on
/// unless the error is [`ParkError::Degraded`].
pub async fn while_parked<T>(
    services: &Services,
    options: &ParkOptions,
    work: impl Future<Output = T>,
) -> Result<(T, Result<(), ParkError>), ParkError> {
    let parked = ParkedServer::park(services, options).await?;
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    let woken = parked.wake().await;
    match outcome {
        Ok(outcome) => Ok((outcome, woken)),
        Err(panic) => resume_unwind(panic),
    }
}

/// Wakes the servers whose holder has died, and makes sure that the server of the settings can be
/// asked, if the settings use one. Failures of other servers are only reported.
///
/// # Errors
/// [`ParkError::Degraded`]; [`ParkError::Held`] while another process trains.
pub async fn recover(services: &Services) -> Result<(), ParkError> {
    let config = &services.config;
    for row in services.registry.leases()? {
        let is_left = !matches!(row.state, LeaseState::Serving | LeaseState::Degraded);
        if is_left && !row.is_held {
            services.notice(format!("{} was left {}: waking it", row.server, row.state.as_str()));
            if let Err(error) = wake(services, &row.server).await {
                services.notice(with_causes(&error));
            }
        }
    }
    if !config.run.provider.uses_server() {
        return Ok(());
    }
    let url = config.server.url.trim_end_matches('/').to_owned();
    match services.registry.lease(&url)? {
        Some(row) if row.state == LeaseState::Degraded => {
            Err(ParkError::Degraded { url, reason: row.detail })
        }
        Some(row) if row.state != LeaseState::Serving => {
            Err(ParkError::Held { url, state: row.state })
        }
        _ => Ok(()),
    }
}

/// Wakes a server because the user asks for it, or because its holder has died. Returns whether
/// there was anything to do.
///
/// # Errors
/// [`ParkError::Degraded`] if it does not wake up; [`ParkError::Registry`] while a living process
/// holds it.
pub async fn wake(services: &Services, url: &str) -> Result<bool, ParkError> {
    let control = SleepControl::new(&services.config.server, url)?;
    let Some((row, claim)) = services.registry.reclaim_lease(control.url())? else {
        // It sleeps without a lease if another program has told it to.
        let sleeps = control.is_sleeping().await?.unwrap_or_default();
        if sleeps {
            services.notice("whether it keeps its weights is unknown: compare its answers");
            control.wake(1).await?;
            if control.is_sleeping().await? == Some(true) {
                return Err(ParkError::NotAwake(control.url().to_owned()));
            }
        }
        return Ok(sleeps);
    };
    let unreadable = |error: serde_json::Error| RegistryError::Unreadable {
        column: "gpu_lease.before_json",
        text: error.to_string(),
    };
    let before: ServerBefore = serde_json::from_value(row.before).map_err(unreadable)?;
    let options = ParkOptions {
        method: before.method,
        ..ParkOptions::new(&services.config, ProviderKind::Vllm)
    };
    ParkedServer::new(services, options, (control, claim), before).wake().await?;
    Ok(true)
}

/// A server that sleeps, or is about to. Dropping it wakes it.
struct ParkedServer {
    registry: Arc<Registry>,
    reporter: Arc<dyn Reporter>,
    options: ParkOptions,
    control: SleepControl,
    claim: HeldClaim,
    before: ServerBefore,
    is_woken: bool,
}

impl ParkedServer {
    fn new(
        services: &Services,
        options: ParkOptions,
        (control, claim): (SleepControl, HeldClaim),
        before: ServerBefore,
    ) -> Self {
        Self {
            registry: Arc::clone(&services.registry),
            reporter: Arc::clone(&services.reporter),
            options,
            control,
            claim,
            before,
            is_woken: false,
        }
    }

    /// Parks the server of the settings.
    async fn park(services: &Services, options: &ParkOptions) -> Result<Self, ParkError> {
        let control = SleepControl::new(&services.config.server, &services.config.server.url)?;
        refuse_unfit(&control, options).await?;
        let memory = (options.memory)()?;
        // At least half of what is in use: the server need not be alone on the GPUs.
        let to_free = memory.map(|memory| memory.free + memory.used / 2);
        let answers = control.answers().await?;
        let before = ServerBefore { method: options.method, answers, to_free };
        let options = options.clone();
        let claim = services.registry.begin_lease(control.url(), &json!(before))?;
        let mut parked = Self::new(services, options, (control, claim), before);
        parked.tell(LeaseState::Draining, "");
        // From here on, every way out wakes it.
        match parked.fall_asleep().await {
            Ok(()) => Ok(parked),
            Err(error) => {
                // Nothing was trained whose memory could be waited for.
                parked.before.to_free = None;
                parked.wake().await?;
                Err(error)
            }
        }
    }

    async fn fall_asleep(&mut self) -> Result<(), ParkError> {
        match self.options.method {
            ParkMethod::Sleep(level) => self.drain_and_sleep(level).await?,
            ParkMethod::Commands => {
                run(&self.options.stop_command).await?;
                let gone = || async { Ok(self.control.is_healthy().await.is_err()) };
                self.until(self.options.drain, gone).await?;
            }
        }
        if let Some(holders) = self.holders()? {
            return Err(ParkError::NotFreed { url: self.url(), holders });
        }
        self.step(LeaseState::Sleeping, "")?;
        self.step(LeaseState::Training, "")
    }

    /// Names the processes that hold memory which is to be free while the server sleeps; `None` if
    /// it is free.
    fn holders(&self) -> Result<Option<String>, ParkError> {
        let (Some(to_free), Some(now)) = (self.before.to_free, (self.options.memory)()?) else {
            return Ok(None);
        };
        Ok((now.free < to_free).then(|| now.holders()))
    }

    /// Lets requests end, aborts those that do not, and waits until the server sleeps.
    async fn drain_and_sleep(&self, level: u8) -> Result<(), ParkError> {
        let drained = timeout(self.options.drain, self.control.sleep(level, DrainMode::Wait)).await;
        match drained {
            Ok(Err(error @ ProviderError::Refused { .. })) => return Err(error.into()),
            Ok(Ok(())) => {}
            // Whether it has heard the request is unknown; a second one does no harm.
            Ok(Err(_)) | Err(_) => {
                let abort = self.control.sleep(level, DrainMode::Abort);
                let _late = timeout(self.options.drain, abort).await;
            }
        }
        let asleep = || async { Ok(self.control.is_sleeping().await? == Some(true)) };
        self.until(self.options.drain, asleep).await
    }

    /// Waits until `holds` is true, for as long as `patience`.
    async fn until<F: Future<Output = Result<bool, ProviderError>>>(
        &self,
        patience: Duration,
        holds: impl Fn() -> F,
    ) -> Result<(), ParkError> {
        let waited = timeout(patience, async {
            // A server that does not answer at the moment may answer later.
            while !holds().await.unwrap_or(false) {
                sleep(POLL).await;
            }
        });
        waited.await.map_err(|_| ParkError::NotAsleep(self.url()))
    }

    /// Wakes the server, and compares it with what it was.
    async fn wake(mut self) -> Result<(), ParkError> {
        self.wake_in_place().await
    }

    async fn wake_in_place(&mut self) -> Result<(), ParkError> {
        // A registry that cannot be written, on a full disk for example, leaves nobody asleep.
        let stored = self.step(LeaseState::Waking, "");
        if matches!(&stored, Err(error) if error.is_lost()) {
            self.is_woken = true;
            return stored;
        }
        let mut result = self.rouse().await;
        if let Err(error) = &result
            && !self.options.start_command.is_empty()
        {
            self.tell(LeaseState::Waking, &format!("{}: restarting it", with_causes(error)));
            result = self.restart().await;
        }
        self.is_woken = true;
        match result {
            Ok(()) => stored.and_then(|()| self.step(LeaseState::Serving, "")),
            Err(error) => {
                let (url, reason) = (self.url(), with_causes(&error));
                stored.and_then(|()| self.step(LeaseState::Degraded, &reason))?;
                Err(ParkError::Degraded { url, reason })
            }
        }
    }

    async fn rouse(&mut self) -> Result<(), ParkError> {
        self.wait_for_memory().await?;
        match self.options.method {
            ParkMethod::Sleep(level) => self.wake_sleeper(level).await?,
            ParkMethod::Commands => {
                if !self.control.is_healthy().await.unwrap_or(false) {
                    run(&self.options.start_command).await?;
                }
                self.until_healthy().await?;
            }
        }
        self.verify().await
    }

    /// Waits until the memory that the training had is free again.
    async fn wait_for_memory(&self) -> Result<(), ParkError> {
        // A server that was restarted meanwhile holds it itself.
        if self.control.is_sleeping().await.is_ok_and(|sleeps| sleeps != Some(true)) {
            return Ok(());
        }
        let started = Instant::now();
        while let Some(holders) = self.holders()? {
            if started.elapsed() > HELD.min(self.options.wake) {
                return Err(ParkError::NotFreed { url: self.url(), holders });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn wake_sleeper(&self, level: u8) -> Result<(), ParkError> {
        let mut pause = self.options.pause;
        let mut error = ParkError::NotAwake(self.url());
        for n_tries in 1..=TRIES {
            match timeout(self.options.wake, self.wake_once(level)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(refused)) => error = refused.into(),
            }
            if n_tries < TRIES {
                sleep(pause).await;
                pause *= 2;
            }
        }
        Err(error)
    }

    /// Wakes the server unless it is awake, and returns whether it is then.
    async fn wake_once(&self, level: u8) -> Result<bool, ProviderError> {
        // One that was restarted in the meantime is awake, and may not be able to sleep.
        if self.is_awake().await? {
            return Ok(true);
        }
        self.control.wake(level).await?;
        self.is_awake().await
    }

    /// Whether the server is awake. One that is still starting does not listen yet.
    async fn is_awake(&self) -> Result<bool, ProviderError> {
        loop {
            match self.control.is_sleeping().await {
                Err(ProviderError::Unreachable { .. }) => sleep(POLL).await,
                other => return Ok(other? != Some(true)),
            }
        }
    }

    async fn restart(&mut self) -> Result<(), ParkError> {
        let _stored = self.step(LeaseState::Waking, "");
        if !self.options.stop_command.is_empty() {
            run(&self.options.stop_command).await?;
        }
        run(&self.options.start_command).await?;
        self.until_healthy().await?;
        self.verify().await
    }

    async fn until_healthy(&self) -> Result<(), ParkError> {
        let waited = self.until(self.options.wake, || self.control.is_healthy()).await;
        waited.map_err(|_| ParkError::NotAwake(self.url()))
    }

    /// Fails unless the server answers as it did before it slept, with every adapter that it had.
    async fn verify(&mut self) -> Result<(), ParkError> {
        // What the server answers decides, also where the step cannot be stored.
        let _stored = self.step(LeaseState::Verifying, "");
        let before = &self.before.answers;
        let again = timeout(self.options.wake, self.control.answers_again(before)).await;
        let again = again.map_err(|_| ParkError::NotAwake(self.url()))??;
        match before.iter().zip(&again).find(|(before, now)| !before.is_same(now)) {
            Some((one, _)) => {
                Err(ParkError::OtherAnswers { url: self.url(), model: one.model.clone() })
            }
            None => Ok(()),
        }
    }

    fn step(&mut self, state: LeaseState, detail: &str) -> Result<(), ParkError> {
        self.registry.move_lease(&self.claim, state, detail)?;
        self.tell(state, detail);
        Ok(())
    }

    fn tell(&self, state: LeaseState, detail: &str) {
        let event = Event::LeaseChanged { state, detail: detail.to_owned() };
        self.reporter.report(self.control.url(), &event);
    }

    fn url(&self) -> String {
        self.control.url().to_owned()
    }
}

impl Drop for ParkedServer {
    /// Wakes a server whose work was dropped. This blocks: nobody must use the server before.
    fn drop(&mut self) {
        if self.is_woken {
            return;
        }
        // A thread of its own, because this may run within an asynchronous task.
        thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let woken = match runtime {
                    Ok(runtime) => runtime.block_on(self.wake_in_place()),
                    Err(error) => {
                        Err(ParkError::Degraded { url: self.url(), reason: error.to_string() })
                    }
                };
                // A server that is degraded has said so.
                if let Err(error) = woken
                    && !matches!(error, ParkError::Degraded { .. })
                {
                    self.tell(LeaseState::Degraded, &with_causes(&error));
                }
            });
        });
    }
}

/// Refuses a server that cannot be parked, before anything has changed.
async fn refuse_unfit(control: &SleepControl, options: &ParkOptions) -> Result<(), ParkError> {
    let url = || control.url().to_owned();
    match options.method {
        ParkMethod::Sleep(_) => match control.is_sleeping().await? {
            None => return Err(ParkError::CannotSleep(url())),
            Some(true) => return Err(ParkError::SleepsAlready(url())),
            Some(false) => {}
        },
        ParkMethod::Commands => {
            let commands = [
                ("park.stop_command", &options.stop_command),
                ("park.start_command", &options.start_command),
            ];
            if let Some((name, _)) = commands.into_iter().find(|(_, command)| command.is_empty()) {
                return Err(ParkError::NoCommand(name));
            }
        }
    }
    if options.method == ParkMethod::Sleep(1)
        && let (Some(bytes), Ok((available, _))) =
            (control.weight_bytes().await?, hardware::memory())
        && available < bytes
    {
        return Err(ParkError::NoMemory { url: url(), bytes, available });
    }
    if options.is_exclusive {
        return Ok(());
    }
    match control.n_requests().await? {
        Some(0) => Ok(()),
        n_requests => Err(ParkError::InUse { url: url(), n_requests }),
    }
}

/// Runs a command of the settings. One that goes on, as a server does, is left alone after a
/// moment.
async fn run(command: &str) -> Result<(), ParkError> {
    const MOMENT: Duration = Duration::from_secs(2);
    let failed = |reason: String| ParkError::Command { command: command.to_owned(), reason };
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).process_group(0);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().map_err(|error| failed(error.to_string()))?;
    match timeout(MOMENT, child.wait()).await {
        Err(_) => Ok(()),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
    }
}
