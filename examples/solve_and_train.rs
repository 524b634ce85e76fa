//! Solves a task with a small model, then trains an adapter on the session: the loop of Rune
//! without its command line.
//!
//! `cargo run --release --example solve_and_train -- FOLDER`: everything is kept in FOLDER; the
//! model (98 MB) is downloaded there unless `~/.rune` has it.

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use rune::adapter::Scope;
use rune::config::Config;
use rune::config::ConfigLayer;
use rune::event::Event;
use rune::home::Home;
use rune::hub::PullOptions;
use rune::hub::PullSource;
use rune::pipeline;
use rune::pipeline::OutputFolder;
use rune::pipeline::SessionRequest;
use rune::provider::ModelSource;
use rune::registry::Registry;
use rune::sandbox::Sandbox;
use rune::services::Services;
use rune::shutdown::Shutdown;
use rune::task::SourceFile;
use rune::task::Task;
use rune::task::TaskId;
use rune::task::TaskType;
use rune::training;
use rune::training::DataRequest;
use rune::training::Preset;
use rune::training::TrainingOptions;
use rune::training::TrainingRequest;

const TASK: &str = "Write adder.py with add(a, b), which returns the sum of two numbers.";
const TESTS: &str = "\
import unittest
from adder import add


class TestAdd(unittest.TestCase):
    def test_sum(self):
        self.assertEqual(add(2, 3), 5)
        self.assertEqual(add(2, -3), -1)
";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failure> {
    // Sandbox and training start this program again: as the sandbox's helper, and as a worker.
    let mut args = std::env::args_os().skip(1);
    let first = args.next().unwrap_or_default();
    if first == rune::sandbox::HELPER_SUBCOMMAND {
        return Ok(ExitCode::from(rune::sandbox::helper_main(args)));
    }
    if first == training::TrainingWorker::SUBCOMMAND {
        return Ok(ExitCode::from(training::worker_main()));
    }
    let folder = PathBuf::from(if first.is_empty() { "example".into() } else { first });
    let sandbox = Arc::new(Sandbox::start(&std::env::current_exe()?)?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(turn(&services(&folder)?, &sandbox, folder))?;
    Ok(ExitCode::SUCCESS)
}

fn services(folder: &std::path::Path) -> Result<Services, Failure> {
    let home = Home::new(folder.join("home"));
    home.create()?;
    let settings = [("run.model", "smollm2-135m-instruct".into())];
    let pull = PullOptions {
        source: PullSource::Auto,
        endpoint: String::new(),
        python: PathBuf::from("python3"),
    };
    let shared = std::env::home_dir().map(|home| Home::new(home.join(".rune")));
    let models = shared.unwrap_or_else(|| home.clone());
    Ok(Services {
        registry: Arc::new(Registry::open(&home.registry())?),
        models: ModelSource::new(models, pull),
        home,
        config: Arc::new(Config::load(&[ConfigLayer::from_flags(settings)])?),
        executable: std::env::current_exe()?,
        project: "example".to_owned(),
        reporter: Arc::new(|subject: &str, event: &Event| println!("{subject} {}", event.kind())),
        shutdown: Shutdown::default(),
    })
}

/// One turn of the loop: a session, and an adapter that is trained on it.
async fn turn(services: &Services, sandbox: &Arc<Sandbox>, folder: PathBuf) -> Result<(), Failure> {
    let task = Task {
        id: TaskId("add".to_owned()),
        text: TASK.to_owned(),
        task_type: TaskType::Function,
        family: None,
        tests: vec![SourceFile::new("test_adder.py", TESTS)],
        test_targets: Vec::new(),
    };
    let request =
        SessionRequest::New { task, left_out: Vec::new(), documents: Vec::new(), job_id: None };
    let out = OutputFolder { folder, force: true };
    let session = Box::pin(pipeline::run_session((services, sandbox), request, &out)).await?;
    if session.class.is_some() {
        println!("not solved: there is nothing to learn from");
        return Ok(());
    }
    let wanted = DataRequest { sessions: vec![session.id], ..DataRequest::default() };
    let request = TrainingRequest {
        data: training::collect(&services.registry, &wanted, None, &*services.reporter)?,
        options: TrainingOptions {
            max_steps: 2,
            validation_share: 0.0,
            rehearsal_share: 0.0,
            ..TrainingOptions::preset(Preset::Quick)
        },
        name: None,
        scope: Scope::Project,
        session_id: None,
        from: None,
        checkpoint_seconds: 60,
        job_id: None,
    };
    println!("adapter {}", training::train(services, &request).await?);
    Ok(())
}
