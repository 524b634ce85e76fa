//! From arguments to exit code.

use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit;
use crate::cli::run::Args;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::run::outcome;
use crate::cli::run::prepare;
use crate::cli::run::screen::Screen;
use crate::cli::run::task;
use crate::event::Event;
use crate::event::SCHEMA_VERSION;
use crate::event::timestamp;
use crate::hub;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::judge::Suite;
use crate::pipeline;
use crate::pipeline::Settings;
use crate::pipeline::Tools;
use crate::provider::Provider;
use crate::registry;
use crate::registry::Ending;
use crate::registry::Registry;
use crate::sandbox::Interpreter;
use crate::sandbox::Limits;
use crate::sandbox::Mount;
use crate::sandbox::Sandbox;
use crate::task::Task;
use crate::trajectory::Attempt;
use crate::trajectory::Session;
use crate::trajectory::Status;
use crate::trajectory::VerifiedBy;

/// Where pytest lies in the jail when Rune brings its own.
const PYTEST: &str = "/opt/pytest";

pub(super) fn run(context: &Context, args: &Args, screen: &Screen) -> anyhow::Result<ExitCode> {
    context.make_home()?;
    let registry = context.registry()?;
    let (task, resumed) = match &args.resume {
        Some(id) => {
            let session = registry.session(id)?;
            (session.task.clone(), Some(session))
        }
        None => (task::read(args)?, None),
    };
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let executable = std::env::current_exe()?;
    let sandbox = match args.unsafe_no_sandbox {
        true => Sandbox::unconfined(&executable)?,
        false => Sandbox::start(&executable)?,
    };
    let configured = context.config.sandbox.python.as_str();
    let interpreter =
        Interpreter::find((!configured.is_empty()).then_some(std::path::Path::new(configured)))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut judge = Judge::new(&sandbox, &interpreter);
        judge.limits = Limits::from(&context.config.sandbox);
        prepare_suite(context, &mut judge, &task).await?;
        let paths = pipeline::planned_paths(&judge, &task).await?;
        if args.dry_run {
            return outcome::print_plan(context, &sandbox, &task, &paths);
        }
        outcome::refuse_to_overwrite(args, &paths)?;
        let provider = prepare::provider(context, screen).await?;
        let started = Started { context, args, screen, registry: &registry, sandbox: &sandbox };
        started.solve(&provider, judge, task, resumed).await
    });
    // A generation that was given up may still be in its last pass: nobody waits for it.
    runtime.shutdown_background();
    result
}

/// Finds out whether the suite can run here; fetches pytest when it is wanted and missing.
async fn prepare_suite(
    context: &Context,
    judge: &mut Judge<'_>,
    task: &Task,
) -> anyhow::Result<()> {
    if task.tests.is_empty() {
        return Ok(());
    }
    let suite = Suite::new(task.tests.clone());
    match judge.run_suite(&suite, &[]).await {
        Err(JudgeError::PytestMissing) => {
            let (home, python) = (context.home.clone(), context.python().unwrap_or_default());
            let install = move || hub::ensure_pytest(&home, &python);
            let host = tokio::task::spawn_blocking(install).await??;
            judge.libs.push(Mount { host, jail: PYTEST.into() });
            judge.run_suite(&suite, &[]).await?;
        }
        other => {
            other?;
        }
    }
    Ok(())
}

/// A run whose tools are ready.
struct Started<'a> {
    context: &'a Context,
    args: &'a Args,
    screen: &'a Screen,
    registry: &'a Registry,
    sandbox: &'a Sandbox,
}

impl Started<'_> {
    async fn solve(
        &self,
        provider: &Provider,
        judge: Judge<'_>,
        task: Task,
        resumed: Option<Session>,
    ) -> anyhow::Result<ExitCode> {
        let (session, recorded) = match resumed {
            Some(session) => self.take_up(session)?,
            None => (self.begin(provider, task)?, Vec::new()),
        };
        let tools = Tools {
            provider,
            judge,
            registry: self.registry,
            settings: Settings { seed: session.seed, ..Settings::new(&self.context.config) },
            progress: &|progress| self.screen.show(progress),
        };
        let mut interrupts = Interrupts::new()?;
        let solved = tokio::select! {
            solved = pipeline::solve(&tools, &session.id, &session.task, recorded) => solved,
            interrupt = interrupts.next() => return self.interrupted(&session.id, interrupt.exit_code()),
        };
        match solved {
            Ok(solution) => outcome::finish(
                self.context,
                self.args,
                self.screen,
                self.registry,
                &session,
                &solution,
            ),
            Err(error) => {
                let error = anyhow::Error::from(error);
                let exit_code = i32::from(exit::code(&error));
                let event = Event::SessionFailed { exit_code, error: format!("{error:#}") };
                let status = Status::Failed;
                let ending = Ending { status, verified_by: VerifiedBy::None, exit_code };
                self.registry.end_session(&session.id, &ending, &event)?;
                self.screen.say(&format!("resume with: rune run --resume {}", session.id));
                Err(error)
            }
        }
    }

    fn begin(&self, provider: &Provider, task: Task) -> anyhow::Result<Session> {
        let config = &self.context.config;
        let base = provider.base();
        let session = Session {
            id: registry::new_id()?,
            project: prepare::project(self.context),
            workspace: Some(std::path::absolute(&self.args.out)?.display().to_string()),
            provider: provider.name().to_owned(),
            base_model: base.base_model,
            base_digest: base.base_digest,
            adapter_id: None,
            adapter_reason: "none: there are no adapters yet".to_owned(),
            status: Status::Running,
            verified_by: VerifiedBy::None,
            sandbox_tier: json!(self.sandbox.facilities().tier)
                .as_str()
                .unwrap_or("none")
                .to_owned(),
            seed: config.run.seed,
            config_json: json!(config),
            tokens_in: 0,
            tokens_out: 0,
            started_at: timestamp(SystemTime::now()),
            ended_at: None,
            exit_code: None,
            task,
        };
        let event = Event::SessionStarted {
            schema: SCHEMA_VERSION,
            task: session.task.text.clone(),
            task_type: session.task.task_type,
            provider: session.provider.clone(),
            model: config.run.model.clone(),
            seed: session.seed,
        };
        self.registry.begin_session(&session, &event)?;
        self.screen.open(&session.id);
        self.screen.event(&event);
        Ok(session)
    }

    fn take_up(&self, session: Session) -> anyhow::Result<(Session, Vec<Attempt>)> {
        let event = |n_attempts| Event::SessionResumed { schema: SCHEMA_VERSION, n_attempts };
        self.registry.reopen_session(&session.id, event)?;
        let recorded = self.registry.attempts(&session.id)?;
        self.screen.open(&session.id);
        self.screen.event(&event(u32::try_from(recorded.len()).unwrap_or(u32::MAX)));
        Ok((session, recorded))
    }

    fn interrupted(&self, id: &str, code: u8) -> anyhow::Result<ExitCode> {
        let exit_code = i32::from(code);
        self.registry.append_event(id, &Event::SessionInterrupted)?;
        self.screen.event(&Event::SessionInterrupted);
        let error = format!("interrupted; `rune run --resume {id}` goes on");
        let event = Event::SessionFailed { exit_code, error: error.clone() };
        let ending =
            Ending { status: Status::Interrupted, verified_by: VerifiedBy::None, exit_code };
        self.registry.end_session(id, &ending, &event)?;
        self.screen.event(&event);
        self.screen.say(&error);
        Ok(ExitCode::from(code))
    }
}
