//! The workflows without the command line: a session, a training run on it, an evaluation, and the
//! next session with the resulting adapter.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rune::adapter::AdapterId;
use rune::adapter::Scope;
use rune::config::Config;
use rune::config::ConfigLayer;
use rune::evaluation;
use rune::evaluation::MeasureOptions;
use rune::evaluation::MeasuredAdapters;
use rune::evaluation::PackageModules;
use rune::evaluation::TaskSuite;
use rune::event::Event;
use rune::home::Home;
use rune::hub;
use rune::hub::PullOptions;
use rune::pipeline;
use rune::pipeline::OutputFolder;
use rune::pipeline::SessionError;
use rune::pipeline::SessionOutcome;
use rune::pipeline::SessionRequest;
use rune::provider::ModelSource;
use rune::registry::Registry;
use rune::registry::RunStatus;
use rune::registry::SessionFilter;
use rune::sandbox::Sandbox;
use rune::services::Services;
use rune::shutdown::Shutdown;
use rune::shutdown::StopReason;
use rune::synthetic::SyntheticLibrary;
use rune::task::SourceFile;
use rune::task::Task;
use rune::task::TaskId;
use rune::task::TaskType;
use rune::training;
use rune::training::DataRequest;
use rune::training::Preset;
use rune::training::TrainingError;
use rune::training::TrainingOptions;
use rune::training::TrainingRequest;
use rune::trajectory::Session;
use rune::trajectory::SessionStatus;
use serde_json::json;

use crate::model::smollm2_file;

const TASK: &str = "Write adder.py with add(a, b), which returns the sum of two numbers.";
const TESTS: &str = "\
import unittest
from adder import add


class TestAdd(unittest.TestCase):
    def test_both_positive(self):
        self.assertEqual(add(1, 2), 3)

    def test_one_negative(self):
        self.assertEqual(add(5, -3), 2)
";
const RIGHT: &str = "```python\ndef add(a, b):\n    return a + b\n```\n";
const WRONG: &str = "```python\ndef add(a, b):\n    return a - b\n```\n";

/// A home and all services that workflows need. A clone can move into a spawned task.
#[derive(Clone)]
struct Loop {
    folder: PathBuf,
    services: Services,
    sandbox: Arc<Sandbox>,
    told: Told,
}

/// Subject and type of every reported event.
type Told = Arc<Mutex<Vec<(String, &'static str)>>>;

impl Loop {
    fn open(folder: &Path) -> Self {
        let home = Home::new(folder.join("home"));
        home.create().unwrap();
        let pull = PullOptions {
            source: hub::PullSource::Auto,
            endpoint: String::new(),
            python: PathBuf::from("python3"),
        };
        let told = Told::default();
        let heard = Arc::clone(&told);
        let reporter = move |subject: &str, event: &Event| {
            heard.lock().unwrap().push((subject.to_owned(), event.kind()));
        };
        let services = Services {
            registry: Arc::new(Registry::open(&home.registry()).unwrap()),
            models: ModelSource::new(home.clone(), pull),
            home,
            config: Arc::new(config(&[])),
            executable: crate::sandbox::binary(),
            project: "p".to_owned(),
            reporter: Arc::new(reporter),
            shutdown: Shutdown::default(),
        };
        let sandbox = Arc::new(Sandbox::start(&services.executable).unwrap());
        Self { folder: folder.to_owned(), services, sandbox, told }
    }

    fn kinds(&self, subject: &str) -> Vec<&'static str> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|(of, _)| of == subject).map(|(_, kind)| *kind).collect()
    }

    async fn session(
        &self,
        config: &Config,
        request: SessionRequest,
        out: &str,
    ) -> Result<SessionOutcome, SessionError> {
        let services = Services { config: Arc::new(config.clone()), ..self.services.clone() };
        let target = OutputFolder { folder: self.folder.join(out), force: false };
        pipeline::run_session((&services, &self.sandbox), request, &target).await
    }

    /// Trains on the session `id`, or resumes the run of that id.
    async fn train(&self, what: Train<'_>) -> Result<AdapterId, TrainingError> {
        let services = &self.services;
        match what {
            Train::Resume(id) => training::resume(services, id, 60).await,
            Train::On(id, max_steps) => {
                let wanted =
                    DataRequest { sessions: vec![id.to_owned()], ..DataRequest::default() };
                let data =
                    training::collect(&services.registry, &wanted, None, &*services.reporter)?;
                let options = TrainingOptions {
                    rank: 2,
                    alpha: 4.0,
                    epochs: max_steps,
                    max_steps,
                    validation_share: 0.0,
                    rehearsal_share: 0.0,
                    ..TrainingOptions::preset(Preset::Quick)
                };
                let request = TrainingRequest {
                    data,
                    options,
                    name: None,
                    scope: Scope::Project,
                    session_id: Some(id.to_owned()),
                    from: None,
                    checkpoint_seconds: 0,
                    job_id: None,
                };
                training::train(services, &request).await
            }
        }
    }

    fn sessions(&self) -> Vec<Session> {
        self.services.registry.sessions(&SessionFilter::default(), 100).unwrap()
    }

    /// Returns the number of attempts of a session with the wrong answer.
    fn n_wrong(&self, id: &str) -> usize {
        let attempts = self.services.registry.attempts(id).unwrap();
        attempts.iter().filter(|attempt| attempt.completion.text == WRONG).count()
    }

    /// Settings of a session that gets these answers in turn, each after its delay in milliseconds;
    /// a single answer is repeated.
    fn scripted(&self, name: &str, answers: &[(&str, u64)]) -> Config {
        let lines = answers.iter().map(|(text, delay)| {
            let repeat = answers.len() == 1;
            let line = json!({ "when": [], "text": text, "delay_ms": delay, "repeat": repeat });
            format!("{line}\n")
        });
        let path = self.folder.join(name);
        fs::write(&path, lines.collect::<String>()).unwrap();
        config(&[
            ("run.provider", "scripted".into()),
            ("run.scripted", path.to_str().unwrap().into()),
        ])
    }
}

enum Train<'a> {
    On(&'a str, u32),
    Resume(&'a str),
}

/// Settings for the small model, with small limits.
fn config(further: &[(&'static str, toml::Value)]) -> Config {
    let model = smollm2_file().to_str().unwrap().to_owned();
    let mut all = vec![
        ("run.model", model.into()),
        ("engine.context", 2048.into()),
        ("run.candidates", 1.into()),
        ("run.max_tokens", 150.into()),
        ("run.adapter", "none".into()),
    ];
    all.extend(further.iter().cloned());
    Config::load(&[ConfigLayer::from_flags(all)]).unwrap()
}

fn task() -> SessionRequest {
    let task = Task {
        id: TaskId("add".to_owned()),
        text: TASK.to_owned(),
        task_type: TaskType::Function,
        family: None,
        tests: vec![SourceFile::new("test_adder.py", TESTS)],
        test_targets: Vec::new(),
    };
    SessionRequest::New { task, left_out: Vec::new(), documents: Vec::new(), job_id: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_run_without_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Loop::open(folder.path());
    // A solved session.
    let scripted = bench.scripted("right.jsonl", &[(RIGHT, 0)]);
    let solved = bench.session(&scripted, task(), "first").await.unwrap();
    assert_eq!((solved.class, solved.paths.len()), (None, 1));
    assert!(fs::read_to_string(&solved.paths[0]).unwrap().contains("return a + b"));
    let kinds = bench.kinds(&solved.id);
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"session.started"), Some(&"session.completed"))
    );
    // Training the small model on it.
    let adapter = bench.train(Train::On(&solved.id, 2)).await.unwrap();
    let kinds = bench.kinds(adapter.as_str());
    assert_eq!(kinds.iter().filter(|kind| **kind == "training.step").count(), 2, "{kinds:?}");
    let stored = bench.services.registry.adapter(&adapter).unwrap();
    assert_eq!(stored.session_id.as_deref(), Some(solved.id.as_str()));
    // Evaluation of the adapter.
    let library = SyntheticLibrary::invent(3, 6);
    let tasks = library.tasks(1).into_iter().map(Into::into).collect();
    let suite = TaskSuite::new(library.name(), tasks).first(2);
    let modules = PackageModules::single(library.name(), &library.module_source());
    let how = MeasureOptions::default();
    let who = MeasuredAdapters::These(vec![adapter.clone()]);
    let measured =
        evaluation::measure((&bench.services, &bench.sandbox), (&suite, &modules), &who, &how)
            .await
            .unwrap();
    assert_eq!((measured.base.len(), measured.adapters[0].1.len()), (2, 2));
    assert_eq!(bench.kinds("").iter().filter(|kind| **kind == "evaluation.answered").count(), 4);
    let digest = bench.services.registry.measured_suite(&suite.name).unwrap();
    assert_eq!(digest.as_ref(), Some(&suite.digest));
    // The next session uses the adapter and ends cleanly, whatever such a small model writes.
    let with_adapter = config(&[("run.adapter", adapter.as_str().into())]);
    let next = bench.session(&with_adapter, task(), "second").await.unwrap();
    let session = bench.services.registry.session(&next.id).unwrap();
    assert_eq!(session.adapter_id.as_ref(), Some(&adapter));
    assert!(
        matches!(session.status, SessionStatus::Solved | SessionStatus::Unsolved),
        "{session:?}"
    );
    let attempts = bench.services.registry.attempts(&next.id).unwrap();
    assert!(attempts.iter().all(|attempt| attempt.adapter_id.as_ref() == Some(&adapter)));
    assert!(!attempts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_token_stops_a_session_that_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Loop::open(folder.path());
    let slow = bench.scripted("slow.jsonl", &[(WRONG, 0), (RIGHT, 60_000)]);
    let (stopped, ()) = tokio::join!(bench.session(&slow, task(), "out"), async {
        while !bench.told.lock().unwrap().iter().any(|(_, kind)| *kind == "attempt.completed") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bench.services.shutdown.trigger(StopReason::Terminated);
    });
    let error = stopped.unwrap_err();
    assert_eq!(error.class().exit_code(), 143, "{error}");
    let [session] = &bench.sessions()[..] else { panic!("there is one") };
    assert_eq!((session.status, session.exit_code), (SessionStatus::Interrupted, Some(143)));

    let services = Services { shutdown: Shutdown::default(), ..bench.services.clone() };
    let bench = Loop { services, ..bench };
    let right = bench.scripted("right.jsonl", &[(RIGHT, 0)]);
    let session = bench.services.registry.resumable(&session.id).unwrap();
    let solved =
        bench.session(&right, SessionRequest::Resume(Box::new(session)), "out").await.unwrap();
    assert_eq!((solved.class, bench.n_wrong(&solved.id)), (None, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_work_is_given_back_to_the_same_process() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Loop::open(folder.path());
    let heard = async |wanted: &str| {
        while !bench.told.lock().unwrap().iter().any(|(_, kind)| *kind == wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let slow = bench.scripted("slow.jsonl", &[(WRONG, 0), (RIGHT, 60_000)]);
    tokio::select! {
        ended = bench.session(&slow, task(), "out") => panic!("it was to be dropped: {ended:?}"),
        () = heard("attempt.completed") => {}
    }
    let [session] = &bench.sessions()[..] else { panic!("there is one") };
    assert_eq!(session.status, SessionStatus::Interrupted);
    let right = bench.scripted("right.jsonl", &[(RIGHT, 0)]);
    let request = SessionRequest::Resume(Box::new(session.clone()));
    let solved = bench.session(&right, request, "out").await.unwrap();
    assert_eq!((solved.class, bench.n_wrong(&solved.id)), (None, 1));

    tokio::select! {
        ended = bench.train(Train::On(&solved.id, 400)) => panic!("it was to be dropped: {ended:?}"),
        () = heard("training.step") => {}
    }
    let runs = bench.services.registry.training_runs(10).unwrap();
    assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Interrupted]);
}

/// Names the folder of the process to kill.
const VICTIM: &str = "RUNE_TEST_VICTIM";

/// Two sessions and a training run in one process, which the test below kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_run_concurrently() {
    let Some(folder) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let bench = Loop::open(&folder);
    let taught = bench.scripted("taught.jsonl", &[(RIGHT, 0)]);
    let taught = bench.session(&taught, task(), "taught").await.unwrap();
    let slow = bench.scripted("slow.jsonl", &[(WRONG, 0), (RIGHT, 600_000)]);
    let session = |out: &'static str| {
        let (bench, slow) = (bench.clone(), slow.clone());
        async move { bench.session(&slow, task(), out).await }
    };
    let training = bench.clone();
    // As in a server: spawned tasks that outlive their caller, on any thread.
    let ended = tokio::join!(
        tokio::spawn(session("one")),
        tokio::spawn(session("two")),
        tokio::spawn(async move { training.train(Train::On(&taught.id, 400)).await }),
    );
    panic!("it was to be killed: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_work_resumes_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "workflows::workflows_run_concurrently"]).env(VICTIM, folder.path());
    let mut victim = victim.spawn().unwrap();
    let registry = folder.path().join("home/rune.db");
    let begun = Instant::now();
    // Both sessions have an answer, and the training run has done some steps.
    let is_far = || {
        let registry = Registry::open(&registry).ok()?;
        let sessions = registry.sessions(&SessionFilter::default(), 100).ok()?;
        let answered = |one: &&Session| !registry.attempts(&one.id).unwrap_or_default().is_empty();
        let n_answered = sessions.iter().filter(answered).count();
        let [run] = &registry.training_runs(9).ok()?[..] else { return None };
        Some(n_answered == 3 && run.step >= 3)
    };
    while is_far() != Some(true) {
        assert!(begun.elapsed() < Duration::from_mins(2), "it gets nowhere");
        assert_eq!(victim.try_wait().unwrap(), None, "it has ended");
        thread::sleep(Duration::from_millis(100));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();

    let bench = Loop::open(folder.path());
    let left: Vec<Session> =
        bench.sessions().into_iter().filter(|one| one.status == SessionStatus::Running).collect();
    let [one, two] = &left[..] else { panic!("two are left: {left:?}") };
    let run = bench.services.registry.training_runs(9).unwrap().remove(0);
    assert_eq!(run.status, RunStatus::Running);
    // The worker writes a checkpoint after its parent's end and exits; the remaining steps are
    // quick.
    let right = bench.scripted("right.jsonl", &[(RIGHT, 0)]);
    let stop_soon = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if bench.kinds(&run.id).contains(&"training.step") {
                bench.services.shutdown.trigger(StopReason::Interrupted);
                return;
            }
        }
    };
    let resumed = |session: &Session| SessionRequest::Resume(Box::new(session.clone()));
    let (one, two) = tokio::join!(
        bench.session(&right, resumed(one), "one"),
        bench.session(&right, resumed(two), "two"),
    );
    for solved in [one.unwrap(), two.unwrap()] {
        // The answer recorded by the killed process is still there.
        assert_eq!((solved.class, bench.n_wrong(&solved.id)), (None, 1));
    }
    let (trained, ()) = tokio::join!(bench.train(Train::Resume(&run.id)), stop_soon);
    assert_eq!(trained.unwrap_err().class().exit_code(), 130);
    let again = bench.services.registry.training_run(&run.id).unwrap();
    assert!(again.step > run.step, "{} steps, then {}", run.step, again.step);
    assert_eq!(again.status, RunStatus::Interrupted);
}
