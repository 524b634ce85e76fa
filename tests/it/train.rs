//! `rune train`: gradients, reproducibility, and runs that are resumed wherever they were killed.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rune::digest::sha256;
use rune::failpoint::Failpoint;
use rune::model::Isa;
use rune::model::LoraModel;
use rune::model::Precision;
use rune::model::TrainBatch;
use rune::model::TunedModules;
use rune::model::TunerOptions;
use rune::training::TrainingRecord;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::lines::events;
use crate::model::smollm2_file;
use crate::model::tiny;

fn options() -> TunerOptions {
    TunerOptions {
        n_threads: 2,
        precision: Precision::Exact,
        isa: Isa::detect(),
        rank: 4,
        scaling: 2.0,
        dropout: 0.0,
        neftune_alpha: 0.0,
        targets: TunedModules::all(),
        checkpointing: false,
        seed: 3,
    }
}

fn tuner(folder: &Path, model: &tiny::Gguf, change: impl FnOnce(&mut TunerOptions)) -> LoraModel {
    let path = folder.join("model.gguf");
    fs::write(&path, model.encode().1).unwrap();
    let mut options = options();
    change(&mut options);
    let mut tuner = LoraModel::load(&path, options).unwrap();
    // B starts at zero, and half of the gradients would be zero too.
    for (i, value) in (0_u32..).zip(tuner.parameters_mut().0) {
        *value += (f32::from(u8::try_from(i * 37 % 101).unwrap()) / 50.0 - 1.0) * 0.05;
    }
    tuner
}

/// Two sequences with some target tokens, one of which has weight 0.5.
fn batch() -> TrainBatch {
    let mut batch = TrainBatch::default();
    let tokens = |n: u32, seed: u32| (0..n).map(|i| (i * 31 + seed) % 256).collect::<Vec<_>>();
    let mut weights = vec![1.0; 9];
    weights[3] = 0.5;
    weights[5] = 0.0;
    batch.push(&tokens(9, 5), &weights);
    batch.push(&tokens(70, 17), &vec![1.0; 70]);
    batch
}

#[test]
fn gradients_match_finite_differences() {
    let folder = tempfile::tempdir().unwrap();
    for arch in ["llama", "qwen2"] {
        let model = tiny::model(arch, tiny::F32, 24, 40);
        let mut tuner = tuner(folder.path(), &model, |_| {});
        let batch = batch();
        tuner.accumulate(&batch, 1.0, 0);
        let gradients = tuner.parameters_mut().1.to_vec();
        let largest = gradients.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
        for index in (0..gradients.len()).step_by(gradients.len() / 97) {
            let step = 0.02;
            let mut at = |delta: f32| {
                tuner.parameters_mut().0[index] += delta;
                let loss = tuner.loss(&batch);
                tuner.parameters_mut().0[index] -= delta;
                loss
            };
            let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
            let apart = (slope - f64::from(gradients[index])).abs();
            let bound = 0.01 * slope.abs() + 2e-3 * f64::from(largest);
            assert!(apart < bound, "{arch} {index}: {slope} {}", gradients[index]);
        }
    }
}

#[test]
fn gradients_depend_on_neither_threads_nor_checkpointing() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, precision) in [(tiny::Q8_0, Precision::Packed), (tiny::F32, Precision::Exact)] {
        let model = tiny::model("qwen2", kind, 64, 96);
        let gradients = |n_threads, checkpointing| {
            let mut tuner = tuner(folder.path(), &model, |options| {
                (options.precision, options.n_threads) = (precision, n_threads);
                (options.checkpointing, options.dropout) = (checkpointing, 0.1);
                options.neftune_alpha = 5.0;
            });
            let loss = tuner.accumulate(&batch(), 0.1, 7);
            (loss, tuner.parameters_mut().1.to_vec())
        };
        let plain = gradients(1, false);
        for (n_threads, checkpointing) in [(3, false), (1, true), (2, true)] {
            assert!(gradients(n_threads, checkpointing) == plain, "{n_threads} {checkpointing}");
        }
    }
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::model("llama", tiny::Q8_0, 64, 96);
    let mut tuner = tuner(folder.path(), &model, |options| options.precision = Precision::Packed);
    let both = batch();
    let alone = |at: usize| {
        let first: usize = both.lengths[..at].iter().sum();
        let rows = first..first + both.lengths[at];
        let targets = both.targets.iter().filter(|target| rows.contains(&target.row));
        let targets =
            targets.map(|target| rune::model::NextToken { row: target.row - first, ..*target });
        TrainBatch {
            tokens: both.tokens[rows.clone()].to_vec(),
            lengths: vec![rows.len()],
            targets: targets.collect(),
        }
    };
    let parts = tuner.loss(&alone(0)) + tuner.loss(&alone(1));
    assert!((parts - tuner.loss(&both)).abs() < 1e-3 * parts, "{parts}");
}

#[test]
fn lora_branch_equals_merged_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = tiny::model("qwen2", tiny::F32, 24, 40);
    let mut beside = tuner(folder.path(), &model, |_| {});
    let loss = beside.loss(&batch());
    let places = beside.tensors();
    let values = beside.parameters();
    for pair in places.chunks_exact(2) {
        let [a, b] = [&values[pair[0].range.clone()], &values[pair[1].range.clone()]];
        let rank = pair[0].shape[0];
        model.change(&name_in_gguf(&pair[0].name), |numbers| {
            for (row, b) in numbers.chunks_exact_mut(pair[0].shape[1]).zip(b.chunks_exact(rank)) {
                for (number, a) in row.iter_mut().zip(a.chunks_exact(rank)) {
                    *number += 2.0 * a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                }
            }
        });
    }
    fs::write(folder.path().join("model.gguf"), model.encode().1).unwrap();
    let options = TunerOptions { targets: TunedModules::named(&[]).unwrap(), ..options() };
    let merged =
        LoraModel::load(&folder.path().join("model.gguf"), options).unwrap().loss(&batch());
    let bare = tuner(folder.path(), &tiny::model("qwen2", tiny::F32, 24, 40), |options| {
        options.targets = TunedModules::named(&[]).unwrap();
    });
    let bare = { bare }.loss(&batch());
    let (apart, moved) = ((loss - merged).abs(), (loss - bare).abs());
    assert!(apart < 0.01 * moved && moved > 0.05, "{loss} {merged} {bare}");
}

/// Returns the name of the GGUF tensor that PEFT's key `name` adapts.
fn name_in_gguf(name: &str) -> String {
    let layer = name.split("layers.").nth(1).unwrap().split('.').next().unwrap();
    let names = [
        ("q_proj", "attn_q"),
        ("k_proj", "attn_k"),
        ("v_proj", "attn_v"),
        ("o_proj", "attn_output"),
        ("gate_proj", "ffn_gate"),
        ("up_proj", "ffn_up"),
        ("down_proj", "ffn_down"),
    ];
    let (_, part) = names.into_iter().find(|(peft, _)| name.contains(peft)).unwrap();
    format!("blk.{layer}.{part}.weight")
}

/// A home with a tiny model and a dataset.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = tiny::model("llama", tiny::Q8_0, 64, 96).encode().1;
        fs::write(folder.path().join("m.gguf"), model).unwrap();
        let record = |i: usize| {
            let letter = char::from(b'a' + u8::try_from(i % 6).unwrap());
            json!({
                "messages": [
                    { "role": "user", "content": format!("{letter}{}", i % 10) },
                    { "role": "assistant", "content": format!("{letter}{letter}!") },
                ],
                "family": format!("f{}", i % 8),
            })
        };
        let lines: Vec<String> = (0..48).map(|i| record(i).to_string()).collect();
        fs::write(folder.path().join("d.jsonl"), lines.join("\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, home: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rune"));
        command.arg("--home").arg(self.path(home)).args(args).current_dir(self.folder.path());
        command
    }

    fn call(&self, home: &str, args: &[&str]) -> Output {
        self.command(home, args).output().unwrap()
    }

    fn ok(&self, home: &str, args: &[&str]) -> String {
        let output = self.call(home, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.call("home", args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let line = stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or(&stderr);
        format!("{} {line}", output.status.code().unwrap())
    }

    /// Returns the only training run of a home.
    fn run(&self, home: &str) -> Value {
        let runs = self.ok(home, &["train", "runs", "--json"]);
        assert_eq!(runs.lines().count(), 1, "{runs}");
        serde_json::from_str(runs.lines().next().unwrap()).unwrap()
    }

    /// Returns the digest of the only adapter's weights.
    fn weights(&self, home: &str) -> String {
        let id = self.run(home)["adapter_id"].as_str().unwrap().to_owned();
        let folder = self.path(home).join("adapters").join(id);
        sha256(&fs::read(folder.join("adapter_model.safetensors")).unwrap())
    }

    /// Starts a long run that writes a checkpoint after every step, and waits until some steps are
    /// done.
    fn begin(&self, home: &str) -> (Child, u32) {
        let mut command = self.command(home, &LONG);
        let mut child = command.arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut steps = lines.map_while(Result::ok).filter_map(|line| {
            let line: Value = serde_json::from_str(&line).unwrap();
            (line["type"] == "training.step").then(|| line["step"].as_u64().unwrap())
        });
        assert!(steps.any(|step| step == 12), "the run ended too soon");
        let worker = children(child.id()).pop().unwrap();
        // The pipe must stay open: the run would notice a closed reader.
        std::thread::spawn(move || steps.count());
        (child, worker)
    }
}

const QUICK: [&str; 14] = [
    "train",
    "--dataset",
    "d.jsonl",
    "--model",
    "m.gguf",
    "--project",
    "p",
    "--rank",
    "4",
    "--quiet",
    "--epochs",
    "2",
    "--rehearsal",
    "0",
];
const LONG: [&str; 23] = [
    "train",
    "--dataset",
    "d.jsonl",
    "--model",
    "m.gguf",
    "--project",
    "p",
    "--rank",
    "4",
    "--epochs",
    "80",
    "--batch",
    "4",
    "--patience",
    "0",
    "--checkpoint-seconds",
    "0",
    "--dropout",
    "0.1",
    "--seed",
    "5",
    "--rehearsal",
    "0",
];

/// Returns the child processes of `pid`.
fn children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// Returns the parent of a living process.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?;
    let parent = rest.next()?.parse().ok();
    parent.filter(|_| state != "Z")
}

fn signal(pid: u32, which: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), which).unwrap();
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn equal_seeds_give_equal_adapters_that_have_learned() {
    let bench = Bench::new();
    for home in ["one", "two"] {
        bench.ok(home, &QUICK);
    }
    assert_eq!(bench.weights("one"), bench.weights("two"));
    let run = bench.run("one");
    assert_eq!(run["status"], "completed");
    let shown = bench
        .ok("one", &["train", "show", run["id"].as_str().unwrap(), "--svg", "loss.svg", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let loss = |name: &str| -> Vec<f64> {
        let metrics = shown["metrics"].as_array().unwrap().iter();
        metrics.filter(|m| m["name"] == name).map(|m| m["value"].as_f64().unwrap()).collect()
    };
    let (train, validation) = (loss("loss"), loss("val_loss"));
    assert!(train.last().unwrap() < train.first().unwrap(), "{train:?}");
    assert!(validation.last().unwrap() < validation.first().unwrap(), "{validation:?}");
    assert!(fs::read_to_string(bench.path("loss.svg")).unwrap().contains("<polyline"));
    // The run's folder is removed, and the same training is not repeated.
    assert_eq!(fs::read_dir(bench.path("one/training")).unwrap().count(), 0);
    assert_eq!(bench.ok("one", &["adapters", "verify"]), "1 adapters match their stored digests\n");
    for other in [&[][..], &["--name", "other"]] {
        let again = bench.call("one", &[&QUICK[..], other].concat());
        assert_eq!(again.status.code(), Some(7), "{again:?}");
    }
    assert_eq!(bench.weights("one"), bench.weights("two"));
}

#[test]
fn twenty_records_can_be_memorized() {
    let bench = Bench::new();
    let record = |i: u32| {
        let answer: String =
            (0..6).map(|at| char::from(b'a' + u8::try_from(i * (at + 3) % 26).unwrap())).collect();
        let messages = [
            json!({ "role": "system", "content": "." }),
            json!({ "role": "user", "content": format!("{i}") }),
            json!({ "role": "assistant", "content": answer }),
        ];
        json!({ "messages": messages, "family": format!("f{i}") }).to_string()
    };
    let lines: Vec<String> = (0..20).map(record).collect();
    fs::write(bench.path("heart.jsonl"), lines.join("\n")).unwrap();
    let model = smollm2_file();
    let args = format!(
        "train --dataset heart.jsonl --model {} --quiet --validation 0 --dropout 0 --epochs 16 --batch 4 --learning-rate 1e-3 --rehearsal 0",
        model.display()
    );
    bench.ok("home", &args.split_whitespace().collect::<Vec<_>>());
    let id = bench.run("home")["id"].as_str().unwrap().to_owned();
    let shown: Value =
        serde_json::from_str(&bench.ok("home", &["train", "show", &id, "--json"])).unwrap();
    let losses = shown["metrics"].as_array().unwrap().iter().filter(|m| m["name"] == "loss");
    let last = losses.max_by_key(|m| m["step"].as_u64()).unwrap();
    assert!(last["value"].as_f64().unwrap() < 0.2, "{last}");
}

#[test]
fn second_round_continues_from_the_first_adapter() {
    let bench = Bench::new();
    bench.ok("home", &QUICK);
    let first = bench.run("home");
    let id = first["adapter_id"].as_str().unwrap();
    let on = ["train", "--dataset", "d.jsonl", "--model", "m.gguf", "--project", "p", "--from", id];
    let briefly = ["--quiet", "--seed", "9", "--max-steps", "2", "--rehearsal", "0"];
    let second = bench.ok("home", &[&on[..], &briefly].concat());
    // Families that the first round held out are held out again, and their loss starts where it
    // ended.
    let shown = bench.ok("home", &["train", "show", second.trim(), "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let begins = shown["metrics"].as_array().unwrap().iter();
    let begins = begins.clone().find(|m| m["name"] == "val_loss" && m["step"] == 0).unwrap();
    assert_eq!(begins["value"], first["best_val_loss"]);
    let of = |id: &str| -> Value {
        serde_json::from_str(&bench.ok("home", &["adapters", "show", id, "--json"])).unwrap()
    };
    let (parent, child) = (of(id), of(second.trim()));
    assert_eq!(child["parents"], json!([{ "id": id, "weight": 1.0 }]));
    assert_eq!((&child["rank"], &child["generation"]), (&json!(4), &json!(1)));
    assert_eq!(child["train_families"], parent["train_families"]);
    // The old data is replayed together with the new data.
    let new = json!({ "messages": [
        { "role": "user", "content": "new" },
        { "role": "assistant", "content": "news" },
    ], "family": "new" });
    fs::write(bench.path("new.jsonl"), new.to_string()).unwrap();
    let families = |more: &[&str]| {
        let args = ["train", "--dataset", "new.jsonl", "--model", "m.gguf", "--from", id];
        let plan = bench.ok("home", &[&args[..], &["--dry-run", "--json"], more].concat());
        serde_json::from_str::<Value>(&plan).unwrap()["n_families"].as_u64().unwrap()
    };
    assert_eq!((families(&[]), families(&["--no-replay"])), (9, 1));
    // The base weights and the shape of the adapter must match.
    fs::write(bench.path("m.gguf"), tiny::model("llama", tiny::Q8_0, 64, 128).encode().1).unwrap();
    let other = bench.call("home", &on);
    let stderr = String::from_utf8(other.stderr).unwrap();
    assert!(stderr.contains("was not made for"), "{stderr}");
    let both = bench.call("home", &[&on[..], &["--rank", "8"]].concat());
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}

#[test]
fn runs_resume_wherever_either_process_was_killed() {
    let bench = Bench::new();
    bench.ok("whole", &LONG);
    let resume = |home: &str| {
        let id = bench.run(home)["id"].as_str().unwrap().to_owned();
        bench.ok(home, &["train", "--resume", &id, "--checkpoint-seconds", "0"]);
        assert_eq!(bench.weights(home), bench.weights("whole"), "{home}");
        assert_eq!(bench.run(home)["status"], "completed");
    };

    let (mut parent_killed, worker) = bench.begin("parent");
    signal(parent_killed.id(), Signal::SIGKILL);
    parent_killed.wait().unwrap();
    wait_until("the worker outlives its parent", || parent(worker).is_none());
    assert_eq!(bench.run("parent")["status"], "running");
    resume("parent");

    let (worker_killed, worker) = bench.begin("worker");
    signal(worker, Signal::SIGKILL);
    let code = worker_killed.wait_with_output().unwrap().status.code();
    let run = bench.run("worker");
    assert_eq!((code, &run["status"]), (Some(3), &json!("failed")));
    assert!(run["error"].as_str().unwrap().starts_with("oom: "), "{run}");
    resume("worker");

    let (interrupted, worker) = bench.begin("interrupted");
    signal(interrupted.id(), Signal::SIGINT);
    assert_eq!(interrupted.wait_with_output().unwrap().status.code(), Some(130));
    assert!(parent(worker).is_none());
    assert_eq!(bench.run("interrupted")["status"], "interrupted");
    resume("interrupted");
}

#[test]
fn runs_killed_near_their_end_are_completed_by_resume() {
    let bench = Bench::new();
    let of_training = |point: &Failpoint| {
        ["adapter.", "training."].iter().any(|part| point.name().starts_with(part))
    };
    for point in Failpoint::ALL.into_iter().filter(of_training) {
        let home = point.name();
        let mut command = bench.command(home, &QUICK);
        let killed = command.env("RUNE_FAILPOINT", home).output().unwrap();
        assert_eq!(killed.status.code(), None, "{home}: {killed:?}");
        let id = bench.run(home)["id"].as_str().unwrap().to_owned();
        bench.ok(home, &["train", "--resume", &id]);
        assert_eq!(bench.run(home)["status"], "completed", "{home}");
        assert_eq!(
            bench.ok(home, &["adapters", "verify"]),
            "1 adapters match their stored digests\n"
        );
    }
}

#[test]
fn unusable_data_and_options_are_rejected_with_a_reason() {
    let bench = Bench::new();
    let write = |text: &str| fs::write(bench.path("bad.jsonl"), text).unwrap();
    let train = |more: &[&str]| {
        let args = ["train", "--dataset", "bad.jsonl", "--model", "m.gguf", "--rehearsal", "0"];
        bench.refused(&[&args, more].concat())
    };
    write("");
    insta::assert_snapshot!(train(&[]), @"2 error: no training data: the sources contain no records");
    write("{\"messages\": []}\n");
    insta::assert_snapshot!(train(&[]), @"2 error: `bad.jsonl`, line 1: the record has no message of the assistant");
    write("\n{\"message\": 1}\n");
    insta::assert_snapshot!(train(&[]), @"2 error: `bad.jsonl`, line 2: unknown field `message`, expected one of `messages`, `family`, `source`, `weights` at line 1 column 10");
    write(&fs::read_to_string(bench.path("d.jsonl")).unwrap());
    insta::assert_snapshot!(train(&["--max-length", "8"]), @"2 error: no training data: all 30 records are longer than 8 tokens");
    insta::assert_snapshot!(train(&["--rank", "0"]), @"2 error: rank must be between 1 and 256");
    insta::assert_snapshot!(train(&["--targets", "q_proj,head"]), @"2 error: unknown target module `head`: expected q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
    insta::assert_snapshot!(bench.refused(&["train"]), @"2 error: no training data given");
    insta::assert_snapshot!(bench.refused(&["train", "--resume", "none"]), @"2 error: no training run `none`");
    let diverged = bench.refused(&[&QUICK[..], &["--learning-rate", "1e38"]].concat());
    let reason = "1 error: training failed (nan): loss or gradient is not finite at step ";
    assert!(diverged.starts_with(reason), "{diverged}");
    let says = |family: &str, letter: &str| {
        let messages = [
            json!({ "role": "user", "content": "?" }),
            json!({ "role": "assistant", "content": letter.repeat(40) }),
        ];
        json!({ "messages": messages, "family": family }).to_string()
    };
    // The family with the smallest digest is held out.
    let mut families = ["one", "two"];
    families.sort_by_key(|family| rune::training::family_digest(family));
    write(&format!("{}\n{}\n", says(families[0], "z"), says(families[1], "a")));
    let worse = train(&["--learning-rate", "1e-2", "--quiet"]);
    assert!(worse.starts_with("1 error: training failed (no_gain): no improvement"), "{worse}");
    insta::assert_snapshot!(train(&["--rank", "4000000000"]), @"2 error: rank must be between 1 and 256");
    insta::assert_snapshot!(train(&["--scope", "task"]), @"2 error: --scope task requires sessions with one task type");
    let ignored = bench.call("home", &["train", "--resume", "x", "--learning-rate", "1"]);
    assert_eq!(ignored.status.code(), Some(2), "{ignored:?}");
}

#[test]
fn json_lines_report_a_run_from_preparation_to_adapter() {
    let bench = Bench::new();
    let lines = events(&bench.ok("home", &[&QUICK[..], &["--json"]].concat()));
    let run = bench.run("home");
    assert!(lines.iter().all(|line| line["subject"] == run["id"]), "{lines:?}");
    let mut kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "training.prepared");
    assert_eq!(lines.last().unwrap()["adapter_id"], run["adapter_id"]);
    kinds.sort_unstable();
    kinds.dedup();
    let expected = ["completed", "prepared", "step", "validated"];
    assert_eq!(kinds, expected.map(|kind| format!("training.{kind}")), "{lines:?}");
}

#[test]
fn dry_run_reports_the_training_plan() {
    let bench = Bench::new();
    let args = ["train", "--dataset", "d.jsonl", "--model", "m.gguf", "--dry-run", "--json"];
    let plan = &events(&bench.ok("home", &args))[0];
    assert_eq!(plan["n_families"], 8);
    assert_eq!(plan["n_train"].as_u64().unwrap() + plan["n_validation"].as_u64().unwrap(), 30);
    assert!(plan["memory_bytes"].as_u64().unwrap() > 1 << 20);
    let share = |name: &str| plan[name].as_f64().unwrap();
    // Whole examples, of more tokens than eight short records have, exceed the share.
    assert!((0.4..0.75).contains(&share("rehearsal_share")), "{plan}");
    assert!(share("min_rehearsal_share") > 0.0, "{plan}");
    // Four steps of 8 records in each of three epochs.
    assert_eq!(plan["n_steps"], 12);
    assert!(bench.ok("home", &["train", "runs"]).starts_with("no training runs"));
}

/// A real model's answers are mixed into the training data, and are generated only once.
#[test]
fn base_model_answers_are_rehearsed_and_cached() {
    let bench = Bench::new();
    let model = smollm2_file();
    let args = ["train", "--dataset", "d.jsonl", "--model", model.to_str().unwrap()];
    let briefly = "--quiet --validation 0 --max-steps 1 --rank 1 --targets q_proj".split(' ');
    let briefly: Vec<&str> = briefly.collect();
    let plan = |more: &[&str]| -> Value {
        let args = [&args[..], &["--dry-run", "--json"], more].concat();
        serde_json::from_str(&bench.ok("home", &args)).unwrap()
    };
    let number = |plan: &Value, name: &str| plan[name].as_u64().unwrap();
    let before = plan(&[]);
    assert_eq!(number(&before, "n_rehearsal_validation"), 0);
    bench.ok("home", &[&args[..], &briefly, &["--rehearsal", "0.8"]].concat());
    let kept = fs::read_dir(bench.path("home/rehearsal")).unwrap().next().unwrap().unwrap().path();
    let records = TrainingRecord::read_all(&kept).unwrap();
    assert!(records.len() > 20, "{} answers came to their end", records.len());
    let (without, with) = (plan(&["--rehearsal", "0"]), plan(&[]));
    assert_eq!(number(&without, "n_rehearsal"), 0);
    assert!(number(&with, "n_rehearsal") > number(&before, "n_rehearsal"), "{with}");
    assert!(number(&with, "n_rehearsal_validation") > 0, "{with}");
    for name in ["n_train", "n_families", "n_validation"] {
        assert_eq!(with[name], without[name], "{name}");
    }
    // The second run generates nothing: it uses the cached file, even an empty one.
    fs::write(&kept, "").unwrap();
    bench.ok("home", &[&args[..], &briefly].concat());
    assert_eq!(fs::read(&kept).unwrap(), b"");
}
