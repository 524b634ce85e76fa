//! From arguments to exit code.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::bail;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit;
use crate::cli::run::Args;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::run::outcome;
use crate::cli::run::outcome::Target;
use crate::cli::run::prepare;
use crate::cli::run::resume;
use crate::cli::run::screen;
use crate::cli::run::screen::Screen;
use crate::cli::run::task;
use crate::cli::run::task::ReadTask;
use crate::event::Event;
use crate::event::SCHEMA_VERSION;
use crate::event::timestamp;
use crate::judge::Judge;
use crate::judge::OmittedFile;
use crate::judge::Outcome;
use crate::judge::PytestSource;
use crate::judge::TestSuite;
use crate::judge::library_mounts;
use crate::judge::run_with_pytest;
use crate::pipeline;
use crate::pipeline::Settings;
use crate::pipeline::Tools;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::registry;
use crate::registry::AdapterStore;
use crate::registry::Ending;
use crate::registry::Registry;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::selection;
use crate::selection::Selection;
use crate::selection::Wish;
use crate::task::Task;
use crate::trajectory::Attempt;
use crate::trajectory::Session;
use crate::trajectory::Status;
use crate::trajectory::VerifiedBy;

pub(super) fn run(context: &Context, args: &Args, screen: &Screen) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let resumed = match &args.resume {
        Some(id) => Some(resume::session(&registry, id, args)?),
        None => None,
    };
    let (task, context) = match &resumed {
        Some(session) => {
            (ReadTask::from(session.task.clone()), resume::context(context, session, args)?)
        }
        None => (task::read(args)?, context.clone()),
    };
    for omitted in &task.left_out {
        screen.say(&format!("warning: left out {omitted}"));
    }
    let out = match (&args.out, resumed.as_ref().and_then(|session| session.workspace.as_ref())) {
        (Some(out), _) => out.clone(),
        (None, Some(workspace)) => PathBuf::from(workspace),
        (None, None) => PathBuf::from("."),
    };
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let executable = std::env::current_exe()?;
    let sandbox = if args.unsafe_no_sandbox {
        Sandbox::unconfined(&executable)?
    } else {
        Sandbox::start(&executable)?
    };
    if let Some(reason) = &sandbox.facilities().refused {
        screen.say(&format!(
            "no namespaces here ({reason}): generated code is held by Landlock and system call filters; \
             `rune doctor` names what differs"
        ));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let at_work = AtWork {
        context: &context,
        screen,
        registry: &registry,
        sandbox: &sandbox,
        target: Target { out: &out, force: args.force },
        session_id: OnceLock::new(),
    };
    let result = runtime.block_on(async {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            result = at_work.go(task, resumed, args.dry_run) => result,
            interrupt = interrupts.next() => at_work.interrupted(interrupt.exit_code()),
        }
    });
    // A generation that was given up may still be in its last pass: nobody waits for it.
    runtime.shutdown_background();
    result
}

/// Finds out whether the suite can run here and can fail; fetches pytest when it is wanted and missing.
async fn prepare_suite(
    context: &Context,
    judge: &mut Judge<'_>,
    task: &Task,
) -> anyhow::Result<()> {
    let Some(suite) = TestSuite::of_task(task) else { return Ok(()) };
    let source =
        PytestSource { home: context.home.clone(), python: context.python().unwrap_or_default() };
    let verdict = run_with_pytest(judge, &suite, &[], &source).await?;
    let is_hopeless = verdict.tests.is_empty() || suite.is_blank();
    if verdict.outcome == Outcome::NoTests && is_hopeless {
        bail!("the tests check nothing: there is no test in them that could fail");
    }
    if verdict.passed() {
        bail!("the tests pass without any solution: they cannot decide about one");
    }
    Ok(())
}

/// A run, from its tools to its end.
struct AtWork<'a> {
    context: &'a Context,
    screen: &'a Screen,
    registry: &'a Registry,
    sandbox: &'a Sandbox,
    target: Target<'a>,
    /// Set once the registry has the session.
    session_id: OnceLock<String>,
}

impl AtWork<'_> {
    async fn go(
        &self,
        ReadTask { mut task, left_out }: ReadTask,
        resumed: Option<Session>,
        is_dry: bool,
    ) -> anyhow::Result<ExitCode> {
        let config = &self.context.config;
        let python = Path::new(&config.sandbox.python);
        let interpreter =
            self.sandbox.interpreter((!python.as_os_str().is_empty()).then_some(python))?;
        let mut judge = Judge::new(self.sandbox, &interpreter);
        judge.limits = Limits::from(&config.sandbox);
        if !config.run.lib.is_empty() {
            judge.libs.extend(library_mounts(&[&config.run.lib])?);
        }
        if resumed.is_none() {
            pipeline::release_targets(&judge, &mut task).await?;
        }
        let paths = pipeline::planned_paths(&judge, &task).await?;
        prepare_suite(self.context, &mut judge, &task).await?;
        if is_dry {
            return outcome::print_plan(self.context, self.sandbox, &task, &paths);
        }
        outcome::refuse_to_overwrite(&self.target, paths.iter())?;
        let provider = prepare::provider(self.context, self.screen).await?;
        let (session, recorded) = match resumed {
            Some(session) => self.take_up(session)?,
            None => (self.begin(&provider, task)?, Vec::new()),
        };
        self.record_left_out(&session.id, &left_out)?;
        let result = match self.load_adapter(&provider, &session) {
            Ok(()) => self.solve(&provider, judge, &session, recorded).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.failed(&session.id, error);
        }
        result
    }

    /// Records what the tests have to do without; the user was told already.
    fn record_left_out(&self, id: &str, left_out: &[OmittedFile]) -> anyhow::Result<()> {
        for omitted in left_out {
            let event = Event::Warning { message: format!("left out {omitted}") };
            self.registry.append_event(id, &event)?;
            if self.context.json {
                self.screen.event(&event);
            }
        }
        Ok(())
    }

    async fn solve(
        &self,
        provider: &Provider,
        judge: Judge<'_>,
        session: &Session,
        recorded: Vec<Attempt>,
    ) -> anyhow::Result<ExitCode> {
        let tools = Tools {
            provider,
            judge,
            registry: self.registry,
            settings: Settings {
                seed: session.seed,
                adapter_id: session.adapter_id.clone(),
                ..Settings::new(&self.context.config)
            },
            progress: &|progress| self.screen.show(progress),
        };
        let solution = pipeline::solve(&tools, &session.id, &session.task, recorded).await?;
        let (context, screen) = (self.context, self.screen);
        outcome::finish(context, &self.target, screen, self.registry, session, &solution)
    }

    /// Ends a session that an error breaks off.
    fn failed(&self, id: &str, error: &anyhow::Error) {
        let exit_code = i32::from(exit::code(error));
        let ending = Ending::unverified(Status::Failed, exit_code);
        // The registry may be what failed, or the session over already: the first error is the one to tell.
        if self.registry.end_session(id, &ending, &screen::failure(error)).is_ok() {
            self.screen.say(&format!("resume with: rune run --resume {id}"));
        }
    }

    /// Gives the provider the adapter that was chosen for the session.
    fn load_adapter(&self, provider: &Provider, session: &Session) -> anyhow::Result<()> {
        let Some(id) = &session.adapter_id else { return Ok(()) };
        let Provider::InProcess(engine) = provider else {
            let provider = provider.name();
            return Err(ProviderError::AdapterUnsupported { provider, adapter: id.clone() }.into());
        };
        let store = AdapterStore::open(self.registry, &self.context.home)?;
        engine.load_adapter(id.clone(), &store.path(id))?;
        self.screen.say(&format!("adapter {id}: {}", session.adapter_reason));
        Ok(())
    }

    fn begin(&self, provider: &Provider, task: Task) -> anyhow::Result<Session> {
        let config = &self.context.config;
        let base = provider.base();
        let project = prepare::project(self.context);
        let wish = Wish::parse(&config.run.adapter)?;
        let Selection { adapter_id, reason } =
            selection::select(self.registry, &base, (&project, task.task_type), &wish)?;
        let session = Session {
            id: registry::new_id()?,
            project,
            workspace: Some(std::path::absolute(self.target.out)?.display().to_string()),
            provider: provider.name().to_owned(),
            base_model: base.base_model,
            base_digest: base.base_digest,
            adapter_id,
            adapter_reason: reason,
            status: Status::Running,
            verified_by: VerifiedBy::None,
            assurance: None,
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
        self.opened(&session.id);
        self.screen.event(&event);
        Ok(session)
    }

    fn take_up(&self, session: Session) -> anyhow::Result<(Session, Vec<Attempt>)> {
        let event = |n_attempts| Event::SessionResumed { schema: SCHEMA_VERSION, n_attempts };
        self.registry.reopen_session(&session.id, event)?;
        self.opened(&session.id);
        let recorded = self.registry.attempts(&session.id)?;
        self.screen.event(&event(u32::try_from(recorded.len()).unwrap_or(u32::MAX)));
        Ok((session, recorded))
    }

    fn opened(&self, id: &str) {
        self.session_id.get_or_init(|| id.to_owned());
        self.screen.open(id);
    }

    fn interrupted(&self, code: u8) -> anyhow::Result<ExitCode> {
        let exit_code = i32::from(code);
        let id = self.session_id.get();
        let error = match id {
            Some(id) => format!("interrupted; `rune run --resume {id}` goes on"),
            None => "interrupted before a session began".to_owned(),
        };
        let event = Event::SessionFailed { exit_code, error: error.clone() };
        if let Some(id) = id {
            self.registry.append_event(id, &Event::SessionInterrupted)?;
            self.screen.event(&Event::SessionInterrupted);
            let status = Status::Interrupted;
            let ending = Ending::unverified(status, exit_code);
            self.registry.end_session(id, &ending, &event)?;
        }
        self.screen.event(&event);
        self.screen.say(&error);
        Ok(ExitCode::from(code))
    }
}
