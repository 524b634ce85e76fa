//! Measures how an adapter is selected among many: the time among 1,000 adapters, whether the right
//! one of 30 invented libraries is found, and what is lost against the best fixed choice.
//!
//! `cargo bench --bench selection -- [N_ADAPTERS]`. The registry lies in the folder of `TMPDIR`;
//! with `/dev/shm` it is made in half a minute.
#![expect(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which counts little"
)]

use std::sync::Arc;
use std::time::Instant;

use rune::adapter::Adapter;
use rune::adapter::AdapterId;
use rune::adapter::AdapterSource;
use rune::adapter::Scope;
use rune::digest::sha256;
use rune::home::Home;
use rune::peft::LoraMatrix;
use rune::peft::NamedTensor;
use rune::peft::PeftConfig;
use rune::peft::PeftFiles;
use rune::peft::tensor_name;
use rune::provider::BaseModel;
use rune::registry::AdapterStore;
use rune::registry::ClaimHolder;
use rune::registry::DatasetKind;
use rune::registry::DatasetRow;
use rune::registry::Evaluation;
use rune::registry::MeasuredGain;
use rune::registry::Registry;
use rune::registry::RunStatus;
use rune::registry::TrainingRun;
use rune::selection::AdapterChoice;
use rune::selection::select;
use rune::similarity::TaskProfile;
use rune::synthetic::RecordOptions;
use rune::synthetic::SyntheticLibrary;
use rune::task::Task;
use rune::task::TaskId;
use rune::task::TaskType;
use serde_json::json;

const BASE_MODEL: &str = "bench@tokenizer";
const BASE_DIGEST: &str = "weights";
const PROJECT: &str = "bench";
/// Functions of each invented library.
const FUNCTIONS: usize = 8;
/// Seed of the first library.
const FIRST_SEED: u64 = 7_000;
/// Number of libraries whose tasks are routed.
const ROUTED: u64 = 30;
/// Pass rates of an adapter on tasks of its own library, and of everything else there.
const OWN: f64 = 0.7;
const OTHER: f64 = 0.1;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|text| text != "--bench").collect();
    let n_adapters: u64 = arguments.first().map_or(1000, |text| text.parse().unwrap());
    route(ROUTED, true);
    route(n_adapters, false);
}

/// Makes an adapter for each of `n` libraries, and selects among them for tasks of the first ones.
fn route(n: u64, shows_regret: bool) {
    let bench = AdapterLibrary::new(n);
    let (mut times, mut n_right, mut gain) = (Vec::new(), 0_usize, 0.0);
    let mut n_tasks = 0_usize;
    for seed in 0..ROUTED.min(n) {
        for task in SyntheticLibrary::invent(FIRST_SEED + seed, FUNCTIONS).tasks(1) {
            if task.is_control {
                continue;
            }
            let text = &task.messages.last().unwrap().content;
            let started = Instant::now();
            let found = bench.select(text, n_tasks as u64);
            times.push(started.elapsed());
            let is_right = found == Some(adapter_id(seed));
            n_right += usize::from(is_right);
            gain += if is_right { OWN } else { OTHER };
            n_tasks += 1;
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!(
        "{n} adapters, {n_tasks} tasks: {:.1} % get the right adapter; {:.2} ms (p50), {:.2} ms \
         (p99)",
        100.0 * n_right as f64 / n_tasks as f64,
        at(50),
        at(99),
    );
    if shows_regret {
        // Every task as often as any other: a fixed adapter is right for one library.
        let fixed = OWN / n as f64 + OTHER * (1.0 - 1.0 / n as f64);
        println!(
            "expected pass rate: {:.3} with the selection, {fixed:.3} with the best fixed adapter, \
             {OWN} with the right one each time",
            gain / n_tasks as f64,
        );
    }
}

fn adapter_id(seed: u64) -> AdapterId {
    AdapterId::parse(&format!("library-{seed}")).unwrap()
}

/// Adapters of invented libraries, each measured to be better than the base on its own tasks.
struct AdapterLibrary {
    registry: Arc<Registry>,
    _folder: tempfile::TempDir,
}

impl AdapterLibrary {
    fn new(n: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let registry = Arc::new(Registry::open(&home.registry()).unwrap());
        let store = AdapterStore::open(&registry, &home).unwrap();
        registry.insert_evaluation(&evaluation("base", None, OTHER)).unwrap();
        for seed in 0..n {
            let library = SyntheticLibrary::invent(FIRST_SEED + seed, FUNCTIONS);
            let records = library.training(RecordOptions::default());
            let profile =
                TaskProfile::new(records.iter().map(|record| record.messages[0].content.as_str()));
            let dataset_digest = sha256(format!("dataset {seed}").as_bytes());
            learn(&registry, &dataset_digest, profile);
            let (adapter, files) = adapter(seed, dataset_digest);
            store.publish(&adapter, &files).unwrap();
            let measured = evaluation(&format!("of-{seed}"), Some(adapter.id), OWN);
            registry.insert_evaluation(&measured).unwrap();
        }
        registry.index_cards().unwrap();
        Self { registry, _folder: folder }
    }

    fn select(&self, text: &str, seed: u64) -> Option<AdapterId> {
        let task = Task {
            id: TaskId("task".to_owned()),
            text: text.to_owned(),
            task_type: TaskType::Function,
            family: None,
            tests: Vec::new(),
            test_targets: Vec::new(),
        };
        let base =
            BaseModel { base_model: BASE_MODEL.to_owned(), base_digest: BASE_DIGEST.to_owned() };
        let wanted = (PROJECT, &task, seed);
        select(&self.registry, &base, wanted, &AdapterChoice::Auto).unwrap().adapter_id
    }
}

fn learn(registry: &Registry, digest: &str, profile: TaskProfile) {
    let dataset = DatasetRow {
        digest: digest.to_owned(),
        project: PROJECT.to_owned(),
        kind: DatasetKind::File,
        n_records: 1,
        families: Vec::new(),
        source: json!({}),
        profile: Some(profile),
    };
    let run = TrainingRun {
        id: format!("run-{}", &digest[..16]),
        project: PROJECT.to_owned(),
        config: json!({}),
        dataset_digest: digest.to_owned(),
        base_model: BASE_MODEL.to_owned(),
        base_digest: BASE_DIGEST.to_owned(),
        status: RunStatus::Running,
        step: 0,
        total_steps: 0,
        best_val_loss: None,
        adapter_id: None,
        error: None,
        job_id: None,
        started_at: "2026-01-01T00:00:00.000Z".to_owned(),
        ended_at: None,
    };
    registry.begin_training(&dataset, &run, &ClaimHolder::ThisProcess).unwrap();
}

/// An adapter of one tiny module, which is never run.
fn adapter(seed: u64, dataset_digest: String) -> (Adapter, PeftFiles) {
    let values = [seed as f32, 1.0];
    let tensor = |name| NamedTensor { name, shape: vec![1, 2], values: (&values[..]).into() };
    let module = "model.layers.0.mlp.up_proj";
    let names = [LoraMatrix::A, LoraMatrix::B].map(|matrix| tensor_name(module, matrix));
    let tensors =
        [tensor(names[0].as_str()), NamedTensor { shape: vec![2, 1], ..tensor(&names[1]) }];
    let config = PeftConfig::new(1, 1.0, vec!["up_proj".to_owned()]);
    let files = PeftFiles::new(&config, &tensors).unwrap();
    let adapter = Adapter {
        id: adapter_id(seed),
        name: None,
        project: PROJECT.to_owned(),
        task_type: TaskType::Function,
        scope: Scope::Project,
        base_model: BASE_MODEL.to_owned(),
        base_digest: BASE_DIGEST.to_owned(),
        recipe_digest: sha256(&seed.to_le_bytes()),
        rank: files.rank(),
        alpha: files.alpha(),
        target_modules: files.target_modules.clone(),
        sha256: files.sha256(),
        size_bytes: files.tensors.len() as u64,
        source: AdapterSource::Qlora,
        session_id: None,
        dataset_digest: Some(dataset_digest),
        train_families: Vec::new(),
        generation: 0,
        parents: Vec::new(),
        recipe: json!({}),
        created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        archived_at: None,
        archive_reason: None,
    };
    (adapter, files)
}

/// A score on 100 tasks, of an adapter beside the base or of the base.
fn evaluation(id: &str, adapter_id: Option<AdapterId>, share: f64) -> Evaluation {
    let gain = adapter_id.is_some().then(|| MeasuredGain {
        base_id: "base".to_owned(),
        n_families: 100,
        difference: share - OTHER,
        interval: (share - OTHER - 0.1, share - OTHER + 0.1),
    });
    Evaluation {
        id: id.to_owned(),
        adapter_id,
        base_digest: BASE_DIGEST.to_owned(),
        suite: "suite".to_owned(),
        suite_digest: "suite".to_owned(),
        split: "all".to_owned(),
        via: "completions".to_owned(),
        n_tasks: 100,
        n_samples: 1,
        passed: if share > 0.5 { 70 } else { 10 },
        pass_at_1: share,
        ci_low: share - 0.1,
        ci_high: share + 0.1,
        fitness: Some(share - 0.08),
        conditions: Some("greedy".to_owned()),
        gain,
        sampling: json!({}),
        judge_version: "1".to_owned(),
        provider: "in-process".to_owned(),
        at: "2026-01-01T00:00:00.000Z".to_owned(),
    }
}
