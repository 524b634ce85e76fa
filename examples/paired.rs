//! Compares files of `rune eval --samples` task by task, each with the first: the same tasks after
//! other prompts, or answered with an adapter:
//! `cargo run --release --example paired -- suite.jsonl base.jsonl passage.jsonl`
//!
//! Answers belong to the family that the suite names for their task; the intervals count families.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;

use rune::evaluation::PairedAnswer;
use rune::evaluation::TaskScore;
use rune::event::PairedScores;
use rune::event::PassRate;
use serde_json::Value;

/// Verdicts by task.
type Verdicts = BTreeMap<String, bool>;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let [suite, samples @ ..] = paths.as_slice() else {
        return Err("usage: paired SUITE.jsonl SAMPLES.jsonl...".into());
    };
    let mut families = BTreeMap::new();
    for task in lines(suite)? {
        families.insert(word(&task, "id")?, word(&task, "family")?);
    }
    let mut first = None;
    for (who, verdicts) in subjects(samples)? {
        let known =
            |id: &String| families.get(id).map(String::as_str).ok_or(format!("no task {id}"));
        let mut scores = Vec::new();
        for (id, passed) in &verdicts {
            scores.push(TaskScore { family: known(id)?, n: 1, passed: u32::from(*passed) });
        }
        println!("{who}: {} of {} tasks", PassRate::new(&scores), scores.len());
        let before: &Verdicts = first.get_or_insert_with(|| verdicts.clone());
        let mut pairs = Vec::new();
        for (id, after) in verdicts.iter().filter(|(id, _)| before.contains_key(*id)) {
            pairs.push(PairedAnswer { family: known(id)?, before: before[id], after: *after });
        }
        print_change(&PairedScores::new(&pairs));
    }
    Ok(())
}

fn print_change(change: &PairedScores) {
    let [difference, low, high] =
        [change.difference, change.interval.0, change.interval.1].map(|share| share * 100.0);
    println!(
        "  gained {}, lost {}, {difference:+.1} ({low:+.1} to {high:+.1}), p = {:.2e}, {} families",
        change.gained, change.lost, change.p_value, change.n_families
    );
}

/// Reads who answered, the base or an adapter, with the verdicts of each file in turn.
fn subjects(paths: &[String]) -> Result<Vec<(String, Verdicts)>, Box<dyn Error>> {
    let mut all = Vec::new();
    for path in paths {
        let mut by_subject: BTreeMap<String, Verdicts> = BTreeMap::new();
        for line in lines(path)? {
            let subject = line["adapter"].as_str().unwrap_or("base");
            let passed = line["passed"].as_bool().ok_or("a line without a verdict")?;
            let verdicts = by_subject.entry(format!("{path} {subject}")).or_default();
            verdicts.insert(word(&line, "task_id")?, passed);
        }
        all.extend(by_subject);
    }
    Ok(all)
}

fn lines(path: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn word(line: &Value, field: &str) -> Result<String, Box<dyn Error>> {
    Ok(line[field].as_str().ok_or(format!("a line without {field}"))?.to_owned())
}
