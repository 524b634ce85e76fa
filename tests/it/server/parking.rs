//! A parked server: it sleeps before anything is trained, is woken on every way out, and is what it
//! was. The faults are those of a fake; a real vLLM without a GPU goes through the same states
//! (`benches/server_adapters.py --vllm`).

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rune::config::Config;
use rune::event::Event;
use rune::hardware::GpuMemory;
use rune::home::Home;
use rune::hub::PullOptions;
use rune::hub::PullSource;
use rune::lease::LeaseState;
use rune::parking;
use rune::parking::ParkError;
use rune::parking::ParkMethod;
use rune::parking::ParkOptions;
use rune::provider::ModelSource;
use rune::registry::Registry;
use rune::services::Services;
use rune::shutdown::Shutdown;
use serde_json::json;
use tempfile::TempDir;

use super::config;
use super::fake_vllm::FakeState;
use super::fake_vllm::FakeVllm;
use crate::bench::smollm2_file;

/// A fake server with an adapter, and a home.
struct Parked {
    folder: TempDir,
    fake: FakeVllm,
    services: Services,
}

impl Parked {
    async fn new(fault: impl FnOnce(&mut FakeState)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeVllm::start().await;
        fake.state().loras.insert("rune-1".to_owned(), "/adapters/1".to_owned());
        fault(&mut fake.state());
        let home = Home::new(folder.path());
        let patience = [("server.timeout_seconds", 1.into())];
        let services = services(&home, config("vllm", &fake.url, &patience));
        Self { folder, fake, services }
    }

    fn state(&self) -> LeaseState {
        self.services.registry.lease(&self.fake.url).unwrap().unwrap().state
    }

    /// Parks the server around a piece of work, which must find it asleep.
    async fn park(&self, options: &ParkOptions) -> Result<Result<(), ParkError>, ParkError> {
        let work = async {
            assert!(self.fake.state().sleeps || options.method == ParkMethod::Commands);
            assert_eq!(self.state(), LeaseState::Training);
        };
        let parked = parking::while_parked(&self.services, options, work).await;
        parked.map(|((), woken)| woken)
    }
}

fn services(home: &Home, config: Config) -> Services {
    let pull =
        PullOptions { source: PullSource::Auto, endpoint: String::new(), python: "python3".into() };
    Services {
        registry: Arc::new(Registry::open(&home.registry()).unwrap()),
        models: ModelSource::new(home.clone(), pull),
        home: home.clone(),
        config: Arc::new(config),
        executable: crate::sandbox::binary(),
        project: "p".to_owned(),
        reporter: Arc::new(|_: &str, _: &Event| ()),
        shutdown: Shutdown::default(),
    }
}

fn options() -> ParkOptions {
    ParkOptions {
        method: ParkMethod::Sleep(1),
        is_exclusive: false,
        drain: Duration::from_millis(400),
        wake: Duration::from_millis(800),
        pause: Duration::from_millis(10),
        stop_command: String::new(),
        start_command: String::new(),
        memory: || Ok(None),
    }
}

#[tokio::test]
async fn a_server_sleeps_during_the_work_and_serves_again() {
    for level in [1, 2] {
        let parked = Parked::new(|_| ()).await;
        let options = ParkOptions { method: ParkMethod::Sleep(level), ..options() };
        parked.park(&options).await.unwrap().unwrap();
        assert_eq!(parked.state(), LeaseState::Serving);
        assert!(!parked.fake.state().sleeps);
        let calls = parked.fake.state().calls.clone();
        let expected = match level {
            1 => vec!["/sleep?level=1&mode=wait", "/wake_up"],
            _ => vec![
                "/sleep?level=2&mode=wait",
                "/wake_up?tags=weights",
                "/collective_rpc",
                "/wake_up?tags=kv_cache",
            ],
        };
        assert_eq!(calls, expected);
        // Once more: the same server can be parked again.
        parked.park(&options).await.unwrap().unwrap();
    }
}

/// A fault, whether the work was done, the error, and the state of the server afterwards.
type FaultCase = (&'static str, fn(&mut FakeState), bool, &'static str, LeaseState);

#[tokio::test]
async fn whatever_the_server_does_nothing_is_trained_beside_it_and_it_is_woken() {
    use LeaseState::Degraded;
    use LeaseState::Serving;
    let cases: [FaultCase; 8] = [
        ("asleep, but hangs", |fake| fake.hangs_asleep = true, true, "", Serving),
        ("500 to sleep", |fake| fake.refuses_sleep = Some(500), false, "no sleep", Serving),
        (
            "lies about sleep",
            |fake| fake.only_says_it_sleeps = true,
            false,
            "did not fall asleep",
            Serving,
        ),
        ("wakes at the third time", |fake| fake.n_wake_failures = 2, true, "", Serving),
        ("does not wake", |fake| fake.n_wake_failures = 9, true, "EngineDeadError", Degraded),
        ("garbage", |fake| fake.garbles = true, true, "answers differently", Degraded),
        ("lost adapters", |fake| fake.forgets_loras = true, true, "", Serving),
        ("none", |_| (), true, "", Serving),
    ];
    for (name, fault, is_worked, expected, state) in cases {
        let parked = Parked::new(fault).await;
        let result = parked.park(&options()).await;
        assert_eq!(result.is_ok(), is_worked, "{name}: {result:?}");
        let error = match result {
            Ok(woken) => woken.err(),
            Err(error) => Some(error),
        };
        let shown = error.as_ref().map(|error| rune::error_class::with_causes(error));
        let shown = shown.unwrap_or_default();
        assert!(
            shown.contains(expected) && (expected.is_empty() == shown.is_empty()),
            "{name}: {shown}"
        );
        assert_eq!(parked.state(), state, "{name}");
        // A server that would not wake up sleeps on; every other one is awake, with its adapter.
        assert_eq!(parked.fake.state().sleeps, name == "does not wake", "{name}");
        assert_eq!(parked.fake.state().loras.len(), 1, "{name}");
    }
}

/// A server that cannot be parked, the error, and its exit code.
type RefusedCase = (fn(&mut FakeState), &'static str, u8);

#[tokio::test]
async fn servers_that_cannot_be_parked_are_refused_before_they_sleep() {
    let cases: [RefusedCase; 3] = [
        (|fake| fake.lacks_sleep = true, "cannot sleep", 3),
        (|fake| fake.sleeps = true, "is already asleep, and Rune did not", 7),
        (|fake| fake.n_requests = 2, "is in use: 2 requests", 7),
    ];
    for (fault, expected, code) in cases {
        let parked = Parked::new(fault).await;
        let error = parked.park(&options()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!((error.class().exit_code(), error.hint().is_some()), (code, true), "{error}");
        assert!(parked.fake.state().calls.is_empty());
        assert_eq!(parked.services.registry.lease(&parked.fake.url).unwrap(), None);
    }
    let parked = Parked::new(|fake| fake.n_requests = 2).await;
    let exclusive = ParkOptions { is_exclusive: true, ..options() };
    parked.park(&exclusive).await.unwrap().unwrap();
}

#[tokio::test]
async fn memory_is_read_from_the_driver_and_not_from_the_server() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    fn gpu(free: u64) -> GpuMemory {
        GpuMemory { free: free << 30, used: (80 - free) << 30, processes: vec![(77, 3 << 30)] }
    }
    let parked = Parked::new(|_| ()).await;
    let stuck = ParkOptions { memory: || Ok(Some(gpu(5))), ..options() };
    let error = parked.park(&stuck).await.unwrap_err().to_string();
    assert!(error.ends_with("is not free: held by process 77 (3072 MiB)"), "{error}");
    assert_eq!(parked.state(), LeaseState::Serving);
    // Free while it sleeps, but held by the dead training when it is to be woken.
    let memory = || Ok(Some(gpu(if CALLS.fetch_add(1, SeqCst) == 1 { 75 } else { 5 })));
    let held = ParkOptions { memory, ..options() };
    let error = parked.park(&held).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("held by process 77"), "{error}");
    assert_eq!(parked.state(), LeaseState::Degraded);
    // By hand, it wakes.
    assert!(parking::wake(&parked.services, &parked.fake.url).await.unwrap());
    assert_eq!((parked.state(), parked.fake.state().sleeps), (LeaseState::Serving, false));
    assert!(!parking::wake(&parked.services, &parked.fake.url).await.unwrap());
}

#[tokio::test]
async fn a_server_that_is_cut_off_meanwhile_is_degraded_and_nobody_asks_it() {
    let parked = Parked::new(|_| ()).await;
    let work = async { parked.fake.state().is_cut_off = true };
    let options = options();
    let ((), woken) = parking::while_parked(&parked.services, &options, work).await.unwrap();
    let error = woken.unwrap_err();
    assert_eq!((parked.state(), error.class().exit_code()), (LeaseState::Degraded, 4), "{error}");
    let refused = parking::recover(&parked.services).await.unwrap_err();
    assert!(matches!(refused, ParkError::Degraded { .. }), "{refused}");
    let again = parking::while_parked(&parked.services, &options, async {}).await.unwrap_err();
    assert!(matches!(again, ParkError::Provider(_) | ParkError::Registry(_)), "{again}");
    parked.fake.state().is_cut_off = false;
    assert!(parking::wake(&parked.services, &parked.fake.url).await.unwrap());
    parking::recover(&parked.services).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_and_a_dropped_future_wake_the_server_too() {
    let parked = Arc::new(Parked::new(|_| ()).await);
    let shared = Arc::clone(&parked);
    let panicking = tokio::spawn(async move {
        let work = async { panic!("in the training") };
        parking::while_parked(&shared.services, &options(), work).await.map(|_: ((), _)| ())
    });
    assert!(panicking.await.unwrap_err().is_panic());
    assert_eq!((parked.state(), parked.fake.state().sleeps), (LeaseState::Serving, false));
    let options = options();
    let endless = parking::while_parked(&parked.services, &options, std::future::pending::<()>());
    tokio::select! {
        ended = endless => panic!("{:?}", ended.map(|_| ())),
        () = async {
            while parked.state() != LeaseState::Training {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
    assert_eq!((parked.state(), parked.fake.state().sleeps), (LeaseState::Serving, false));
}

#[tokio::test]
async fn a_server_is_stopped_and_started_by_commands() {
    let parked = Parked::new(|_| ()).await;
    let file = parked.folder.path().join("log");
    let log = |word: &str| format!("echo {word} >> {}", file.display());
    // It answers garbage after waking, and no longer once it was stopped.
    let start_command = format!("{}; sleep 0.3", log("start"));
    let options = ParkOptions { stop_command: log("stop"), start_command, ..options() };
    parked.fake.state().garbles = true;
    let fake = &parked.fake;
    let repaired = async {
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("stop")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fake.state().garbles = false;
        fake.state().lacks_weights = false;
        std::future::pending::<()>().await;
    };
    let woken = tokio::select! {
        woken = parked.park(&options) => woken,
        () = repaired => unreachable!(),
    };
    woken.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "stop\nstart\n");
    assert_eq!(parked.state(), LeaseState::Serving);
    let none = ParkOptions { method: ParkMethod::Commands, ..self::options() };
    let error = parked.park(&none).await.unwrap_err();
    assert_eq!(error.to_string(), "the setting `park.stop_command` is empty");
    let failing = ParkOptions {
        method: ParkMethod::Commands,
        stop_command: "exit 3".to_owned(),
        start_command: "true".to_owned(),
        ..self::options()
    };
    let error = parked.park(&failing).await.unwrap_err();
    assert!(error.to_string().contains("`exit 3` failed"), "{error}");
    assert_eq!(parked.state(), LeaseState::Serving);
}

/// Runs `rune` with this home and server.
fn rune(home: &Path, url: &str, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rune"));
    command.env("RUNE_HOME", home).env("RUNE_SERVER_URL", url).current_dir(home);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_training_was_killed_is_woken_by_the_next_command() {
    let fake = FakeVllm::start().await;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let chat = json!({ "messages": [
        { "role": "user", "content": "Say yes." }, { "role": "assistant", "content": "yes" },
    ] });
    let chats: Vec<String> =
        (0..8).map(|n| chat.to_string().replace("Say", &format!("{n}. Say"))).collect();
    std::fs::write(home.join("chats.jsonl"), chats.join("\n")).unwrap();
    let model = smollm2_file();
    let model = model.to_str().unwrap();
    let train = ["train", "--dataset", "chats.jsonl", "--model", model, "--rehearsal", "0"];
    let endless = ["--max-steps", "100000", "--epochs", "100000", "--park", "vllm"];
    let mut training = rune(home, &fake.url, &[&train[..], &endless].concat()).spawn().unwrap();
    let registry = Registry::open(&Home::new(home).registry()).unwrap();
    let state = || registry.lease(&fake.url).unwrap().map(|row| row.state);
    let sleeps = async {
        while state() != Some(LeaseState::Training) || !fake.state().sleeps {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), sleeps).await.unwrap();
    // While it trains, nobody else is given the server.
    let other = rune(home, &fake.url, &[&train[..], &["--park", "vllm"]].concat()).output();
    let other = other.await.unwrap();
    assert_eq!(other.status.code(), Some(7), "{}", String::from_utf8_lossy(&other.stderr));
    training.kill().await.unwrap();
    assert!(fake.state().sleeps);
    let next =
        rune(home, &fake.url, &[&train[..], &["--dry-run"]].concat()).output().await.unwrap();
    let log = String::from_utf8_lossy(&next.stderr);
    assert_eq!(next.status.code(), Some(0), "{log}");
    assert!(log.contains("was left training: waking it"), "{log}");
    assert_eq!((state(), fake.state().sleeps), (Some(LeaseState::Serving), false));
    // Ctrl-C: the training writes a checkpoint, and the server is woken.
    let training = rune(home, &fake.url, &[&train[..], &endless].concat()).spawn().unwrap();
    let sleeps = async {
        while state() != Some(LeaseState::Training) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), sleeps).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(training.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(Duration::from_mins(1), training.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!((state(), fake.state().sleeps), (Some(LeaseState::Serving), false));
    let shown = rune(home, &fake.url, &["lease", "show"]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("serving"));
    let woken = rune(home, &fake.url, &["wake"]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&woken.stdout).contains("was awake"));
}
