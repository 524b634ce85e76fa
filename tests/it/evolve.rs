//! `rune evolve`: adapters are measured, archived, promoted and merged by evidence, once, wherever
//! it was killed.
//!
//! The model is a script that solves a kind of task only with an adapter of a certain module, so
//! that a merge of two adapters can do what both can.

use std::fs;

use rune::failpoint::Failpoint;
use rune::families::FamilySplit;
use rune::registry::AdapterFilter;
use rune::registry::LedgerFilter;
use serde_json::Value;
use serde_json::json;

use crate::merge::Bench;
use crate::model::adapters::MODULES;
use crate::model::adapters::RANK;
use crate::model::adapters::halves;

/// Kinds of tasks, with the module whose adapter solves them; `None` is the base itself.
const KINDS: [(&str, Option<&str>); 3] =
    [("queues", Some("q_proj")), ("keys", Some("k_proj")), ("easy", None)];
const OURS: &[(&str, &str)] = &[("base_model", "scripted"), ("base_digest", "scripted")];

/// A home with the adapters `queues`, `keys` and `broken`, and a suite of all kinds with `n` tasks
/// each for race and gate.
fn bench(n: usize) -> Bench {
    let bench = Bench::empty();
    bench.add_for(MODULES[0], "queues", 1, OURS);
    bench.add_for(MODULES[1], "keys", 2, OURS);
    bench.add_for(MODULES[2], "broken", 3, OURS);
    let line = |when: &[&str], adapts: Option<&str>, code: &str| {
        let text = format!("```python\ndef answer():\n    return {code}\n```");
        format!("{}\n", json!({ "when": when, "adapts": adapts, "text": text, "repeat": true }))
    };
    let mut script = line(&[], Some("v_proj"), "None");
    script.extend(KINDS.map(|(kind, module)| line(&[kind], module, "1")));
    script += &line(&[], None, "None");
    fs::write(bench.path("script.jsonl"), script).unwrap();
    let config = "[run]\nprovider = \"scripted\"\nscripted = \"script.jsonl\"\nproject = \"p\"\n";
    fs::write(bench.path("home/config.toml"), config).unwrap();
    let mut tasks = String::new();
    for split in [FamilySplit::Dev, FamilySplit::Gate, FamilySplit::Vault] {
        let families = (0..).map(|number: u32| format!("family {number}"));
        let families = families.filter(|family| FamilySplit::of(family) == split);
        for (family, at) in families.zip(0..n * KINDS.len()) {
            tasks.extend([task(&family, KINDS[at % KINDS.len()].0).to_string(), "\n".to_owned()]);
        }
    }
    fs::write(bench.path("suite.jsonl"), tasks).unwrap();
    bench
}

fn task(family: &str, kind: &str) -> Value {
    json!({
        "id": family,
        "group": kind,
        "family": family,
        "messages": [{ "role": "user", "content": format!("About {kind}, {family}") }],
        "check": {
            "kind": "function",
            "entry_point": "answer",
            "prompt": "",
            "prelude": "",
            "test": "assert answer() == 1",
        },
        "answer": "def answer():\n    return 1\n",
    })
}

fn evolve(bench: &Bench) -> Value {
    serde_json::from_str(&bench.output(&["evolve", "--suite", "suite.jsonl", "--json"])).unwrap()
}

/// Every decision in order: its kind, its subject unless it is a digest or new, and its word.
fn decisions(bench: &Bench) -> Vec<String> {
    let rows = bench.registry().ledger(&LedgerFilter::default(), u32::MAX).unwrap();
    let words = rows.iter().rev().map(|row| {
        let known = ["queues", "keys", "broken", "copy"];
        let subject = known.iter().find(|name| **name == row.subject).unwrap_or(&"merge");
        format!("{} {subject} {}", row.kind.as_str(), row.decision)
    });
    words.collect()
}

/// What is decided about [`bench`].
const EXPECTED: [&str; 6] = [
    "archive broken worse",
    "gate keys accept",
    "promote keys project",
    "gate merge accept",
    "merge merge accept",
    "promote merge project",
];

fn merged(bench: &Bench) -> String {
    let adapters = bench.registry().adapters(&AdapterFilter::default()).unwrap();
    let merged = adapters.into_iter().filter(|adapter| !adapter.parents.is_empty());
    let merged: Vec<String> = merged.map(|adapter| adapter.id.to_string()).collect();
    assert_eq!(merged.len(), 1, "{merged:?}");
    merged[0].clone()
}

#[test]
fn what_is_better_is_promoted_and_what_is_worse_archived() {
    let bench = bench(16);
    let report = evolve(&bench);
    assert_eq!(decisions(&bench), EXPECTED, "{report:#}");
    let id = merged(&bench);
    assert_eq!(report["incumbent"], id.as_str());
    assert_eq!(report["raced"][0]["adapter_id"], id.as_str());
    assert_eq!(report["raced"][0]["score"]["share"], 1.0);
    let broken = bench.adapter("broken").archive_reason.unwrap();
    assert!(broken.starts_with("worse than the base: 0.0 %"), "{broken}");
    assert!(bench.output(&["evolve", "replay", &id]).contains("identical"));
    let why = bench.output(&["adapters", "why", &id]);
    assert!(why.starts_with("promoted: project p uses it"), "{why}");
    assert!(why.contains("promoted: ") && why.contains("instead of keys"), "{why}");

    // A second call finds nothing new, and asks nothing.
    let n_events = bench.registry().events(0, None, u32::MAX).unwrap().len();
    let second = evolve(&bench);
    assert_eq!((&second["decisions"], &second["incumbent"]), (&json!([]), &report["incumbent"]));
    assert_eq!(bench.registry().events(0, None, u32::MAX).unwrap().len(), n_events);

    // What was rolled back is not promoted again by the same evidence.
    bench.output(&["evolve", "rollback", &id]);
    assert_eq!(evolve(&bench)["incumbent"], "keys");
    let (code, stderr) = bench.failure(&["evolve", "rollback", &id]);
    assert_eq!(code, Some(7), "{stderr}");
    bench.output(&["evolve", "rollback", "keys"]);
    assert_eq!(evolve(&bench)["incumbent"], Value::Null, "the base is what was asked for");
    let why = bench.output(&["adapters", "why", "keys"]);
    assert!(why.starts_with("not selected: project p uses the base model alone"), "{why}");
    bench.output(&["evolve", "promote", &id]);
    assert_eq!(evolve(&bench)["incumbent"], id.as_str());

    let audit = bench.output(&["evolve", "audit", "--suite", "suite.jsonl"]);
    assert!(audit.contains("vault") && !audit.contains("more than 2 SE"), "{audit}");
}

#[test]
fn a_kill_after_any_decision_changes_none_of_them() {
    let steps = [Failpoint::EvolutionDecided, Failpoint::AdapterPlaced, Failpoint::AdapterStored];
    for step in steps {
        let bench = bench(16);
        let mut n_killed = 0;
        // The ledger grows with every call, so a later one finds nothing to be killed at.
        while !bench.call(&["evolve", "--suite", "suite.jsonl"], Some(step)).status.success() {
            n_killed += 1;
            assert!(n_killed <= EXPECTED.len(), "{step:?}");
        }
        assert!(n_killed > 0, "{step:?}");
        assert_eq!(decisions(&bench), EXPECTED, "{step:?}");
        assert!(bench.output(&["evolve", "replay", &merged(&bench)]).contains("identical"));
        assert_eq!(bench.store().verify(&mut |_| {}).unwrap(), [], "{step:?}");
    }
}

#[test]
fn without_enough_tasks_nothing_is_decided() {
    let bench = bench(6);
    let text = bench.output(&["evolve", "--suite", "suite.jsonl"]);
    assert!(text.contains("2 tasks for the gate are missing: `suite` has 18 of 20"), "{text}");
    assert!(bench.output(&["evolve"]).contains("20 tasks for the gate are missing"));
    assert_eq!(decisions(&bench), [""; 0]);
    assert!(bench.output(&["evolve", "ledger"]).contains("nothing was decided yet"));
}

#[test]
fn an_adapter_that_is_no_better_is_not_promoted() {
    let bench = bench(16);
    // Everything fails but what the base can do: the adapters are equal to the base.
    let text = "```python\ndef answer():\n    return 1\n```";
    let easy = json!({ "when": ["easy"], "text": text, "repeat": true });
    let rest = json!({ "text": "no code", "repeat": true });
    fs::write(bench.path("script.jsonl"), format!("{easy}\n{rest}\n")).unwrap();
    let report = evolve(&bench);
    assert_eq!((&report["decisions"], &report["incumbent"]), (&json!([]), &Value::Null));
    assert_eq!(report["raced"].as_array().unwrap().len(), 3);
}

#[test]
fn a_duplicate_is_archived_before_it_is_measured() {
    let bench = bench(16);
    // The same update in other factors: equal weights would be refused when they are stored.
    let (module, _, size) = MODULES[0];
    let mut tensors = halves(&format!("model.layers.0.{module}"), size, RANK, 1);
    for ((.., values), factor) in tensors.iter_mut().zip([2.0, 0.5]) {
        for value in values {
            *value *= factor;
        }
    }
    let later = [OURS, &[("created_at", "2026-01-02T00:00:00Z")]].concat();
    bench.add_tensors((module, &tensors), "copy", &later);
    evolve(&bench);
    assert_eq!(decisions(&bench)[0], "archive copy duplicate");
    assert_eq!(bench.adapter("copy").archive_reason.unwrap(), "a duplicate of queues");
}
