//! `rune merge` and `rune evolve replay`: merged adapters are stored once, know their parents, and
//! can be rebuilt to the byte.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::Arc;

use rune::adapter::Adapter;
use rune::adapter::AdapterId;
use rune::adapter::AdapterSource;
use rune::adapter::Scope;
use rune::digest::sha256;
use rune::failpoint::Failpoint;
use rune::home::Home;
use rune::peft::AdapterDelta;
use rune::peft::PeftFiles;
use rune::registry::AdapterFilter;
use rune::registry::AdapterStore;
use rune::registry::Registry;
use rune::task::TaskType;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::model::adapters::MODULES;
use crate::model::adapters::RANK;
use crate::model::adapters::Tensors;
use crate::model::adapters::config;
use crate::model::adapters::halves;
use crate::model::adapters::save;

/// A home with adapters.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn empty() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("home")).unwrap();
        bench
    }

    /// A home with the adapters `one` and `two`.
    fn new() -> Self {
        let bench = Self::empty();
        bench.add("one", 1, &[]);
        bench.add("two", 2, &[]);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::new(Registry::open(&self.path("home/rune.db")).unwrap())
    }

    pub(crate) fn store(&self) -> AdapterStore {
        AdapterStore::open(&self.registry(), &Home::new(self.path("home"))).unwrap()
    }

    pub(crate) fn adapter(&self, id: &str) -> Adapter {
        self.registry().adapter(&AdapterId::parse(id).unwrap()).unwrap()
    }

    /// Stores an adapter of the first module.
    fn add(&self, id: &str, seed: usize, changes: &[(&str, &str)]) {
        self.add_for(MODULES[0], id, seed, changes);
    }

    /// Stores an adapter of `module` with random weights, trained on the family `id`.
    pub(crate) fn add_for(
        &self,
        (module, _, size): (&str, &str, (usize, usize)),
        id: &str,
        seed: usize,
        changes: &[(&str, &str)],
    ) {
        let tensors = halves(&format!("model.layers.0.{module}"), size, RANK, seed);
        self.add_tensors((module, &tensors), id, changes);
    }

    /// Stores an adapter of `module`, trained on the family `id`.
    pub(crate) fn add_tensors(
        &self,
        (module, tensors): (&str, &Tensors),
        id: &str,
        changes: &[(&str, &str)],
    ) {
        let folder = self.path(id);
        fs::create_dir_all(&folder).unwrap();
        let last = module.rsplit('.').next().unwrap();
        save(&folder, &config(&json!({ "target_modules": [last] })), tensors);
        let files = PeftFiles::read(&folder).unwrap();
        let mut adapter = json!({
            "id": id,
            "name": null,
            "project": "p",
            "task_type": TaskType::Module,
            "scope": Scope::Project,
            "base_model": "org/tiny@abc",
            "base_digest": "digest",
            "recipe_digest": sha256(id.as_bytes()),
            "rank": files.rank(),
            "alpha": files.alpha(),
            "target_modules": files.target_modules,
            "sha256": files.sha256(),
            "size_bytes": files.tensors.len(),
            "source": AdapterSource::Qlora,
            "session_id": null,
            "dataset_digest": null,
            "train_families": [format!("family of {id}"), "common"],
            "generation": 0,
            "parents": [],
            "recipe": {},
            "created_at": "2026-01-01T00:00:00Z",
            "archived_at": null,
            "archive_reason": null,
        });
        for (field, value) in changes {
            adapter[*field] = json!(value);
        }
        let adapter: Adapter = serde_json::from_value(adapter).unwrap();
        self.store().publish(&adapter, &files).unwrap();
    }

    pub(crate) fn call(&self, args: &[&str], failpoint: Option<Failpoint>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
        command.arg("--home").arg(self.path("home")).args(args);
        command.envs(failpoint.map(|point| ("RUNE_FAILPOINT", point.name())));
        command.current_dir(self.folder.path()).output().unwrap()
    }

    /// Runs a command that succeeds, and returns its output.
    pub(crate) fn output(&self, args: &[&str]) -> String {
        let output = self.call(args, None);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs a command that fails, and returns its exit code and errors.
    pub(crate) fn failure(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.call(args, None);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn n_adapters(&self) -> usize {
        self.registry().adapters(&AdapterFilter::default()).unwrap().len()
    }
}

#[test]
fn merged_adapter_knows_its_parents_and_is_rebuilt_to_the_byte() {
    let bench = Bench::new();
    let exact = ["--energy", "1"];
    let id =
        bench.output(&[&["merge", "one:0.75", "two:-0.5", "--name", "both"], &exact[..]].concat());
    let merged = bench.adapter(&id);
    assert_eq!((merged.source, merged.generation), (AdapterSource::Merge, 1));
    assert_eq!((merged.name.as_deref(), &*merged.project), (Some("both"), "p"));
    assert_eq!(merged.train_families, ["common", "family of one", "family of two"]);
    let parents: Vec<_> =
        merged.parents.iter().map(|parent| (parent.id.as_str(), parent.weight)).collect();
    assert_eq!(parents, [("one", 0.75), ("two", -0.5)]);
    let delta = |id: &str| AdapterDelta::read(&bench.path("home/adapters").join(id)).unwrap();
    let (both, one, two) = (delta(&id), delta("one"), delta("two"));
    let wanted = 0.75 * one.inner(&one) - 0.5 * two.inner(&one);
    assert!((both.inner(&one) / wanted - 1.0).abs() < 1e-5, "{} {wanted}", both.inner(&one));

    let graph = bench.output(&["adapters", "lineage", &id, "--dot"]);
    let arrow = format!("\"one\" -> \"{id}\" [label=\"0.75\"];");
    assert!(graph.starts_with("digraph") && graph.contains(&arrow), "{graph}");

    // The same merge in another order is not stored again.
    assert_eq!(bench.output(&[&["merge", "two:-0.5", "one:0.75"], &exact[..]].concat()), id);
    assert_eq!(bench.n_adapters(), 3);
    let ties = ["merge", "one", "two", "--method", "dare_ties", "--seed", "5", "--rank", "2"];
    let ties = bench.output(&ties);
    for id in [id, ties] {
        let line: Value =
            serde_json::from_str(&bench.output(&["evolve", "replay", &id, "--json"])).unwrap();
        assert_eq!(line["identical"], true, "{line}");
        assert_eq!(line["rebuilt"], bench.adapter(&id).sha256);
    }
    let (code, stderr) = bench.failure(&["evolve", "replay", "one"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("cannot be rebuilt: its source is `qlora`"), "{stderr}");
}

#[test]
fn dry_run_reports_and_stores_nothing() {
    let bench = Bench::new();
    let table = bench.output(&["merge", "one", "two", "--dry-run"]);
    assert!(table.contains("q_proj") && table.contains("99.9 %"), "{table}");
    let line = bench.output(&["merge", "one", "two", "--dry-run", "--method", "ties", "--json"]);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["adapter"], Value::Null);
    let module = &line["modules"]["model.layers.0.self_attn.q_proj"];
    assert!(
        module["conflict"].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)),
        "{line}"
    );
    assert_eq!(bench.n_adapters(), 2);
}

#[test]
fn adapters_that_cannot_be_merged_are_refused() {
    let bench = Bench::new();
    bench.add("elsewhere", 3, &[("base_digest", "other")]);
    let lines: Vec<String> = [
        &["merge", "one", "elsewhere"][..],
        &["merge", "one", "one"],
        &["merge", "one:much"],
        &["merge", "one", "three"],
        &["merge", "one", "two", "--density", "0"],
        &["merge", "one", "two", "--rank", "0"],
        &["merge", "one", "two", "--method", "sce", "--semantics", "peft"],
    ]
    .iter()
    .map(|args| {
        let (code, stderr) = bench.failure(args);
        assert!(stderr.contains("\nhint: "), "{stderr}");
        format!("{} {}", code.unwrap(), stderr.lines().next().unwrap_or_default())
    })
    .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    2 error: `base_digest` differs: `one` has `digest`, `elsewhere` has `other`
    2 error: adapter `one` was given twice
    2 error: `much` in `one:much` is not a weight
    2 error: no adapter `three`
    2 error: the density must be above 0 and at most 1
    2 error: the rank must be 1 to 256
    2 error: `sce` is not a method of PEFT
    ");
    assert_eq!(bench.n_adapters(), 3);
}

#[test]
fn a_kill_at_any_step_leaves_the_merge_whole_or_absent() {
    let steps = [Failpoint::AdapterStaged, Failpoint::AdapterPlaced, Failpoint::AdapterStored];
    for step in steps {
        let bench = Bench::new();
        let killed = bench.call(&["merge", "one", "two"], Some(step));
        assert!(!killed.status.success(), "{step:?} {killed:?}");
        let id = bench.output(&["merge", "one", "two"]);
        assert_eq!(bench.n_adapters(), 3, "{step:?}");
        assert_eq!(bench.store().verify(&mut |_| {}).unwrap(), [], "{step:?}");
        assert!(bench.output(&["evolve", "replay", &id]).contains("identical"));
    }
}
