//! `rune adapters`: imported adapters never change, a kill leaves no partial adapter, and invalid
//! adapters are rejected.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::Arc;

use rune::adapter::Adapter;
use rune::adapter::AdapterId;
use rune::adapter::AdapterSource;
use rune::adapter::ParentAdapter;
use rune::adapter::Scope;
use rune::digest::sha256;
use rune::failpoint::Failpoint;
use rune::home::Home;
use rune::peft::PeftFiles;
use rune::provider::BaseModel;
use rune::registry::AdapterFilter;
use rune::registry::AdapterStore;
use rune::registry::ClaimHolder;
use rune::registry::DatasetKind;
use rune::registry::DatasetRow;
use rune::registry::Evaluation;
use rune::registry::MeasuredGain;
use rune::registry::RecordKind;
use rune::registry::Registry;
use rune::registry::RegistryError;
use rune::registry::RunStatus;
use rune::registry::TrainingRun;
use rune::selection::AdapterChoice;
use rune::selection::select;
use rune::similarity::TaskProfile;
use rune::task::Task;
use rune::task::TaskId;
use rune::task::TaskType;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::model::adapters::MODULES;
use crate::model::adapters::RANK;
use crate::model::adapters::config;
use crate::model::adapters::halves;
use crate::model::adapters::save;
use crate::model::tiny;

/// A home with a tiny model and an adapter for it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = tiny::model("llama", tiny::F32, 24, 40).encode().1;
        fs::write(folder.path().join("m.gguf"), model).unwrap();
        let bench = Self { folder };
        bench.peft("peft", 1);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Creates a PEFT folder for the tiny model.
    fn peft(&self, name: &str, seed: usize) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir(&folder).unwrap();
        let (module, _, size) = MODULES[0];
        let tensors = halves(&format!("model.layers.0.{module}"), size, RANK, seed);
        save(&folder, &config(&json!({ "target_modules": ["q_proj"] })), &tensors);
        folder
    }

    fn call(&self, args: &[&str], failpoint: Option<Failpoint>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
        command.arg("--home").arg(self.home()).arg("adapters").args(args);
        command.envs(failpoint.map(|point| ("RUNE_FAILPOINT", point.name())));
        command.current_dir(self.folder.path()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args, None);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the exit code and the error line.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.call(args, None);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let line = stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or(&stderr);
        format!("{} {line}", output.status.code().unwrap())
    }

    fn import(&self, folder: &str, id: &str) -> String {
        self.ok(&["import", folder, "--model", "m.gguf", "--id", id, "--project", "p"])
    }
}

#[test]
fn import_and_export_leave_an_adapter_unchanged() {
    let bench = Bench::new();
    let id = bench.ok(&["import", "peft", "--model", "m.gguf", "--name", "mine"]);
    let id = id.trim();
    assert!(bench.ok(&["list"]).contains("mine"));
    let folder = bench.home().join("adapters").join(id);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o555);
    let shown: Value = serde_json::from_str(&bench.ok(&["show", id, "--json"])).unwrap();
    assert_eq!(
        (&shown["rank"], &shown["alpha"], &shown["target_modules"], &shown["source"]),
        (&json!(RANK), &json!(6.0), &json!(["q_proj"]), &json!("import"))
    );
    assert_eq!(shown["base_digest"], sha256(&fs::read(bench.path("m.gguf")).unwrap()));
    bench.ok(&["export", id, "out"]);
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let read = |folder: &str| fs::read(bench.path(folder).join(name)).unwrap();
        assert_eq!(read("out"), read("peft"));
    }
    let again = bench.refused(&["import", "peft", "--model", "m.gguf"]);
    assert_eq!(again, format!("7 error: adapter `{id}` already exists"));
    assert!(bench.refused(&["export", id, "out"]).starts_with("3 error: "));
    assert_eq!(bench.ok(&["verify"]), "1 adapters match their stored digests\n");

    assert_eq!(bench.ok(&["archive", id, "--reason", "old"]), format!("{id} archived\n"));
    assert!(bench.ok(&["list"]).starts_with("no adapters"));
    assert!(bench.ok(&["list", "--all"]).contains("archived"));
    assert_eq!(bench.refused(&["archive", id]), format!("7 error: adapter `{id}` is archived"));
    bench.ok(&["restore", id]);
    assert_eq!(bench.refused(&["restore", id]), format!("7 error: adapter `{id}` is not archived"));
    assert_eq!(bench.refused(&["show", "none"]), "2 error: no adapter `none`");
}

#[test]
fn verify_reports_damaged_adapters() {
    let bench = Bench::new();
    bench.import("peft", "a");
    let file = bench.home().join("adapters/a/adapter_model.safetensors");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let output = bench.call(&["verify"], None);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stdout.ends_with("adapters/a: adapter_model.safetensors has changed since it was stored\n"),
        "{stdout}"
    );
}

#[test]
fn a_kill_at_any_step_of_an_import_leaves_no_partial_adapter() {
    let steps = [Failpoint::AdapterStaged, Failpoint::AdapterPlaced, Failpoint::AdapterStored];
    for point in steps {
        let bench = Bench::new();
        let args = ["import", "peft", "--model", "m.gguf", "--id", "a", "--project", "p"];
        let killed = bench.call(&args, Some(point));
        assert_eq!(killed.status.code(), None, "{point:?}: {killed:?}");
        let listed = bench.ok(&["list"]);
        let is_there = !listed.starts_with("no adapters");
        assert_eq!(is_there, point != Failpoint::AdapterStaged, "{point:?}: {listed}");
        assert_eq!(fs::read_dir(bench.home().join("adapters/.staging")).unwrap().count(), 0);
        assert_eq!(
            bench.ok(&["verify"]),
            format!("{} adapters match their stored digests\n", u8::from(is_there))
        );
        // The same import again finds the adapter, or stores it.
        let again = bench.call(&args, None);
        assert_eq!(again.status.code(), Some(if is_there { 7 } else { 0 }), "{point:?}: {again:?}");
        let registry = Arc::new(Registry::open(&bench.home().join("rune.db")).unwrap());
        let events = registry.events(0, Some("a"), 10).unwrap();
        let types: Vec<_> =
            events.iter().map(|event| (event.kind.as_str(), event.source.as_str())).collect();
        assert_eq!(types, [("rune.adapter.created", "/rune/adapters")]);
    }
}

#[test]
fn invalid_adapters_are_rejected_with_a_reason() {
    let bench = Bench::new();
    let import = |folder: &str| bench.refused(&["import", folder, "--model", "m.gguf"]);
    assert!(import("none").starts_with("3 error: "));
    let pickled = bench.path("pickled");
    fs::create_dir(&pickled).unwrap();
    fs::write(pickled.join("adapter_model.bin"), "x").unwrap();
    assert!(import("pickled").contains("its weights are pickled"), "{}", import("pickled"));
    let large_head = [u64::MAX.to_le_bytes().to_vec(), vec![b' '; 100]].concat();
    let good = fs::read(bench.path("peft/adapter_model.safetensors")).unwrap();
    let cases: [(&str, Vec<u8>, Value); 5] = [
        ("invalid header length", large_head, config(&json!({}))),
        (
            "invalid header length",
            good[..4].iter().copied().chain([255; 8]).collect(),
            config(&json!({})),
        ),
        ("the rank is 300", good.clone(), config(&json!({ "r": 300 }))),
        ("the adapter type is `LOHA`", good.clone(), config(&json!({ "peft_type": "LOHA" }))),
        ("unsupported option `use_dora`", good.clone(), config(&json!({ "use_dora": true }))),
    ];
    for (number, (reason, tensors, config)) in cases.into_iter().enumerate() {
        let folder = bench.path(&format!("bad{number}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("adapter_model.safetensors"), tensors).unwrap();
        fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
        let error = import(&format!("bad{number}"));
        assert!(error.starts_with("3 error: ") && error.contains(reason), "{reason}: {error}");
    }
    // An adapter for a model of another size.
    let folder = bench.path("other");
    fs::create_dir(&folder).unwrap();
    let tensors = halves("model.layers.0.self_attn.q_proj", (48, 48), RANK, 1);
    save(&folder, &config(&json!({})), &tensors);
    assert!(import("other").contains("has shape"), "{}", import("other"));
    assert!(bench.ok(&["list", "--all"]).starts_with("no adapters"));
}

fn adapter(id: &str, files: &PeftFiles, parents: &[&str]) -> Adapter {
    let parent = |id: &&str| ParentAdapter { id: AdapterId::parse(id).unwrap(), weight: 0.5 };
    Adapter {
        id: AdapterId::parse(id).unwrap(),
        name: None,
        project: "p".to_owned(),
        task_type: TaskType::Module,
        scope: Scope::Project,
        base_model: "m@t".to_owned(),
        base_digest: "d".repeat(64),
        recipe_digest: sha256(id.as_bytes()),
        rank: files.rank(),
        alpha: files.alpha(),
        target_modules: files.target_modules.clone(),
        sha256: files.sha256(),
        size_bytes: files.tensors.len() as u64,
        source: if parents.is_empty() { AdapterSource::Qlora } else { AdapterSource::Merge },
        session_id: None,
        dataset_digest: None,
        train_families: vec!["f".to_owned()],
        generation: 0,
        parents: parents.iter().map(parent).collect(),
        recipe: json!({ "seed": 1 }),
        created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        archived_at: None,
        archive_reason: None,
    }
}

fn publish(
    store: &AdapterStore,
    folder: &Path,
    id: &str,
    parents: &[&str],
) -> Result<(), RegistryError> {
    let files = PeftFiles::read(folder).unwrap();
    store.publish(&adapter(id, &files, parents), &files)
}

#[test]
fn parents_must_exist_and_lineage_is_followed() {
    let bench = Bench::new();
    fs::create_dir(bench.home()).unwrap();
    let registry = Arc::new(Registry::open(&bench.home().join("rune.db")).unwrap());
    let store = AdapterStore::open(&registry, &Home::new(bench.home())).unwrap();
    for (seed, (id, parents)) in
        [("a", &[][..]), ("b", &[]), ("c", &["a", "b"]), ("d", &["c", "a"])].into_iter().enumerate()
    {
        publish(&store, &bench.peft(id, 10 + seed), id, parents).unwrap();
    }
    let line = registry.lineage(&AdapterId::parse("d").unwrap()).unwrap();
    let line: Vec<_> = line.iter().map(|one| (one.adapter.id.as_str(), one.depth)).collect();
    assert_eq!(line, [("d", 0), ("a", 1), ("c", 1), ("b", 2)]);
    let orphan = publish(&store, &bench.peft("e", 20), "e", &["nobody"]).unwrap_err();
    assert!(
        matches!(orphan, RegistryError::NotFound { kind: RecordKind::Adapter, .. }),
        "{orphan}"
    );
    let found = registry.adapters(&AdapterFilter::default()).unwrap();
    assert_eq!(found.len(), 4);
    let d = registry.adapter(&AdapterId::parse("d").unwrap()).unwrap();
    assert_eq!(d, adapter("d", &PeftFiles::read(&bench.path("d")).unwrap(), &["c", "a"]));
    let taken = publish(&store, &bench.path("e"), "d", &[]).unwrap_err();
    assert_eq!(taken.to_string(), "adapter `d` already exists");
    assert!(store.verify(&mut |_| ()).unwrap().is_empty());
}

/// The schema rejects changes even if no method of the registry makes them.
#[expect(clippy::disallowed_types, reason = "no method of the registry does this")]
#[test]
fn stored_adapters_never_change() {
    let bench = Bench::new();
    bench.import("peft", "a");
    let db = rusqlite::Connection::open(bench.home().join("rune.db")).unwrap();
    for sql in [
        "UPDATE adapter SET sha256 = '0'",
        "UPDATE adapter SET base_digest = 'x'",
        "DELETE FROM adapter",
        "INSERT INTO adapter_parent VALUES ('a', 'a', 0, 1.0)",
    ] {
        assert!(db.execute(sql, []).is_err(), "{sql}");
    }
    db.execute("UPDATE adapter SET name = 'new', scope = 'global'", []).unwrap();
}

/// A folder that does not match its metadata is quarantined and reported.
#[test]
fn orphaned_folders_are_adopted_only_if_their_contents_match() {
    let bench = Bench::new();
    bench.import("peft", "a");
    let adapters = bench.home().join("adapters");
    let copy = adapters.join("b");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(adapters.join("a")).unwrap().flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    assert_eq!(bench.ok(&["verify"]), "1 adapters match their stored digests\n");
    assert!(!copy.exists() && adapters.join(".aside/b").exists());
}

/// An evaluation of an adapter on a suite of 100 tasks in as many families, with this gain, give or
/// take 10 points.
fn evaluation(id: &str, adapter: &str, suite: &str, gain: f64) -> Evaluation {
    Evaluation {
        id: id.to_owned(),
        adapter_id: Some(AdapterId::parse(adapter).unwrap()),
        gain: Some(MeasuredGain {
            base_id: "00".to_owned(),
            n_families: 100,
            difference: gain,
            interval: (gain - 0.1, gain + 0.1),
        }),
        pass_at_1: (0.5 + gain).clamp(0.0, 1.0),
        ..base_evaluation("00", suite)
    }
}

fn base_evaluation(id: &str, suite: &str) -> Evaluation {
    Evaluation {
        id: id.to_owned(),
        adapter_id: None,
        base_digest: "weights".to_owned(),
        suite: suite.to_owned(),
        suite_digest: suite.to_owned(),
        split: "test".to_owned(),
        via: "completions".to_owned(),
        n_tasks: 100,
        n_samples: 1,
        passed: 50,
        pass_at_1: 0.5,
        ci_low: 0.4,
        ci_high: 0.6,
        fitness: Some(0.42),
        conditions: Some("greedy".to_owned()),
        gain: None,
        sampling: json!({}),
        judge_version: "1".to_owned(),
        provider: "in-process".to_owned(),
        at: "2026-01-01T00:00:00.000Z".to_owned(),
    }
}

fn task(task_type: TaskType, text: &str) -> Task {
    Task {
        id: TaskId("t".to_owned()),
        text: text.to_owned(),
        task_type,
        family: None,
        tests: Vec::new(),
        test_targets: Vec::new(),
    }
}

/// A registry of a project `p` with adapters that were trained on tasks about a ledger.
struct Adapters {
    bench: Bench,
    registry: Arc<Registry>,
    base: BaseModel,
}

impl Adapters {
    fn new() -> Self {
        let bench = Bench::new();
        fs::create_dir(bench.home()).unwrap();
        let registry = Arc::new(Registry::open(&bench.home().join("rune.db")).unwrap());
        let store = AdapterStore::open(&registry, &Home::new(bench.home())).unwrap();
        learn_about_ledgers(&registry);
        for (seed, (id, project, scope)) in [
            ("own", "p", Scope::Project),
            ("better", "p", Scope::Project),
            ("other", "q", Scope::Project),
            ("all", "q", Scope::Global),
            ("fix-only", "p", Scope::Task),
        ]
        .into_iter()
        .enumerate()
        {
            let files = PeftFiles::read(&bench.peft(id, 30 + seed)).unwrap();
            let task_type = if id == "fix-only" { TaskType::Fix } else { TaskType::Module };
            let adapter = Adapter {
                project: project.to_owned(),
                scope,
                task_type,
                base_digest: "weights".to_owned(),
                dataset_digest: Some(DATASET.to_owned()),
                ..adapter(id, &files, &[])
            };
            store.publish(&adapter, &files).unwrap();
        }
        let base_model = registry.adapter(&AdapterId::parse("own").unwrap()).unwrap().base_model;
        let base = BaseModel { base_model, base_digest: "weights".to_owned() };
        registry.insert_evaluation(&base_evaluation("00", "s")).unwrap();
        Self { bench, registry, base }
    }

    fn measure(&self, id: &str, adapter: &str, suite: &str, gain: f64) {
        self.registry.insert_evaluation(&evaluation(id, adapter, suite, gain)).unwrap();
    }

    fn select(&self, project: &str, task_type: TaskType, text: &str) -> (String, String) {
        let task = task(task_type, text);
        let choice = AdapterChoice::Auto;
        let selection = select(&self.registry, &self.base, (project, &task, 1), &choice).unwrap();
        let id = selection.adapter_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        (id, selection.reason)
    }

    fn selected(&self, project: &str, task_type: TaskType) -> String {
        self.select(project, task_type, "Add a closing balance to the ledger in ledger.py").0
    }
}

/// Digest of the dataset that the adapters were trained on.
const DATASET: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn learn_about_ledgers(registry: &Registry) {
    let profile = TaskProfile::new([
        "Add an opening balance to the ledger in ledger.py",
        "Let the ledger in ledger.py post entries",
    ]);
    let dataset = DatasetRow {
        digest: DATASET.to_owned(),
        project: "p".to_owned(),
        kind: DatasetKind::File,
        n_records: 2,
        families: Vec::new(),
        source: json!({}),
        profile: Some(profile),
    };
    let run = TrainingRun {
        id: "run".to_owned(),
        project: "p".to_owned(),
        config: json!({}),
        dataset_digest: DATASET.to_owned(),
        base_model: "m".to_owned(),
        base_digest: "weights".to_owned(),
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

#[test]
fn evaluation_by_another_judge_replaces_the_one_before() {
    let adapters = Adapters::new();
    let measure = |id: &str, judge: &str, conditions: &str, gain: f64| {
        let row = Evaluation {
            judge_version: judge.to_owned(),
            conditions: Some(conditions.to_owned()),
            ..evaluation(id, "own", "s", gain)
        };
        adapters.registry.insert_evaluation(&row).unwrap();
    };
    measure("01", "1", "judge 1", -0.3);
    measure("02", "1", "judge 1, other seed", 0.3);
    assert_eq!(adapters.selected("p", TaskType::Module), "none", "it loses under one condition");
    measure("03", "2", "judge 2", 0.3);
    assert_eq!(adapters.selected("p", TaskType::Module), "own");
    let base = adapters.registry.evaluation("00").unwrap().unwrap();
    assert_eq!((base.adapter_id, base.suite.as_str()), (None, "s"));
    assert!(adapters.registry.evaluation("09").unwrap().is_none());
}

#[test]
fn a_sure_gain_is_selected_project_scope_first() {
    let adapters = Adapters::new();
    let selected = |project: &str, task_type| adapters.selected(project, task_type);
    assert_eq!(selected("p", TaskType::Module), "none");
    adapters.measure("01", "own", "s", 0.2);
    assert_eq!(selected("p", TaskType::Module), "own");
    adapters.measure("02", "better", "s", 0.3);
    adapters.measure("03", "all", "s", 0.6);
    adapters.measure("04", "other", "s", 0.7);
    adapters.measure("05", "fix-only", "s", 0.8);
    assert_eq!(selected("p", TaskType::Module), "better");
    assert_eq!(selected("p", TaskType::Fix), "fix-only");
    assert_eq!(selected("elsewhere", TaskType::Module), "all");
    // The newest evaluation counts, even if it is worse.
    adapters.measure("06", "better", "s", 0.05);
    assert_eq!(selected("p", TaskType::Module), "own");
    let own = AdapterId::parse("own").unwrap();
    adapters.registry.archive_adapter(&own, "old").unwrap();
    assert_eq!(selected("p", TaskType::Module), "all");
    // Other weights of the same model, on which nothing was measured.
    let Adapters { registry, base, .. } = &adapters;
    let other = BaseModel { base_digest: "others".to_owned(), ..base.clone() };
    let task = task(TaskType::Module, "Add a balance to ledger.py");
    let chosen = |base, choice| select(registry, base, ("p", &task, 1), choice);
    assert_eq!(chosen(&other, &AdapterChoice::Auto).unwrap().adapter_id, None);
    let asked = AdapterChoice::parse("better").unwrap();
    assert!(chosen(&other, &asked).unwrap().adapter_id.is_some());
    let foreign = BaseModel { base_model: "x@y".to_owned(), ..base.clone() };
    let refused = chosen(&foreign, &asked).unwrap_err();
    assert_eq!(refused.to_string(), "adapter `better` was not made for `x@y`");
}

#[test]
fn an_adapter_that_loses_anywhere_is_not_selected() {
    let adapters = Adapters::new();
    adapters.measure("01", "own", "s", 0.4);
    assert_eq!(adapters.selected("p", TaskType::Module), "own");
    let lost = Evaluation { split: "all-control".to_owned(), ..evaluation("02", "own", "t", -0.2) };
    adapters.registry.insert_evaluation(&lost).unwrap();
    assert_eq!(adapters.selected("p", TaskType::Module), "none");
    let why = adapters.bench.ok(&["why", "own"]);
    assert!(
        why.starts_with("not selected: it is worse than the base on `t` (all-control)"),
        "{why}"
    );
    // A loss that may be chance does not count.
    let unsure =
        Evaluation { split: "all-control".to_owned(), ..evaluation("03", "own", "t", -0.05) };
    adapters.registry.insert_evaluation(&unsure).unwrap();
    assert_eq!(adapters.selected("p", TaskType::Module), "own");
    let why = adapters.bench.ok(&["why", "own"]);
    assert!(why.starts_with("a candidate for scope project of project p"), "{why}");
    assert!(why.contains("40.0 (30.0 to 50.0)"), "{why}");
}

#[test]
fn a_gain_under_other_conditions_or_on_few_families_does_not_count() {
    let adapters = Adapters::new();
    // An evaluation of an earlier version, whose conditions are not known, has no gain.
    let unknown = Evaluation { conditions: None, gain: None, ..evaluation("01", "own", "s", 0.9) };
    adapters.registry.insert_evaluation(&unknown).unwrap();
    assert_eq!(adapters.selected("p", TaskType::Module), "none");
    let mut few = evaluation("02", "own", "s", 0.9);
    few.gain = few.gain.map(|gain| MeasuredGain { n_families: 29, ..gain });
    adapters.registry.insert_evaluation(&few).unwrap();
    assert_eq!(adapters.selected("p", TaskType::Module), "none");
    // A newer evaluation under other conditions does not take the place of one that counts.
    adapters.measure("03", "own", "s", 0.3);
    let sampled =
        Evaluation { conditions: Some("sampled".to_owned()), ..evaluation("04", "own", "s", 0.05) };
    adapters.registry.insert_evaluation(&sampled).unwrap();
    assert_eq!(adapters.selected("p", TaskType::Module), "own");
}

#[test]
fn an_adapter_is_selected_only_for_tasks_near_those_that_it_was_trained_on() {
    let adapters = Adapters::new();
    adapters.measure("01", "own", "s", 0.4);
    let (id, reason) =
        adapters.select("p", TaskType::Module, "Add a closing balance to the ledger in ledger.py");
    assert!(id == "own" && reason.contains("+40.0 points over the base on 100 tasks"), "{reason}");
    let (id, reason) = adapters.select("p", TaskType::Module, "Write primes.py with is_prime(n)");
    assert!(id == "none" && reason.contains("no adapter near the task"), "{reason}");
    let (id, reason) = adapters.select("p", TaskType::Module, "Balance a chemical equation");
    assert!(
        id == "none" && reason.contains("not near those that `own` was trained on"),
        "{reason}"
    );
}

#[test]
fn adapters_are_compared_by_what_they_add_to_the_weights() {
    let bench = Bench::new();
    fs::create_dir(bench.home()).unwrap();
    let registry = Arc::new(Registry::open(&bench.home().join("rune.db")).unwrap());
    let store = AdapterStore::open(&registry, &Home::new(bench.home())).unwrap();
    for (seed, id) in ["one", "two"].into_iter().enumerate() {
        let files = PeftFiles::read(&bench.peft(id, 60 + seed)).unwrap();
        store.publish(&adapter(id, &files, &[]), &files).unwrap();
    }
    let line = bench.ok(&["similarity", "one", "two", "--json"]);
    let pair: serde_json::Value = serde_json::from_str(&line).unwrap();
    let cosine = pair["cosine"].as_f64().unwrap();
    assert!(pair["a"] == "one" && pair["b"] == "two" && cosine.abs() < 0.9, "{pair}");
    let table = bench.ok(&["similarity", "one", "two"]);
    assert_eq!(table.matches(" 1.000").count(), 2, "{table}");
    assert_eq!(table.matches(&format!("{cosine:.3}")).count(), 2, "{table}");
    let refused = bench.refused(&["similarity", "one", "three"]);
    assert!(refused.contains("no adapter `three`"), "{refused}");
}
