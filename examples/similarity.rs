//! How near the tasks of some files are to those of the first one, by which the threshold of
//! [`rune::similarity::NEAR`] was chosen:
//! `cargo run --release --example similarity -- zorb/train.jsonl zorb/suite.jsonl mbpp.jsonl`
//!
//! A line holds `messages`, of which the first is the task, or `task`, `text` or `prompt`. Tasks of
//! a suite are shown by group.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;

use rune::similarity::TaskProfile;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let [known, others @ ..] = paths.as_slice() else {
        return Err("usage: similarity TRAINED.jsonl TASKS.jsonl...".into());
    };
    let tasks = tasks(known)?;
    let profile = TaskProfile::new(tasks.iter().map(|(_, text)| text.as_str()));
    println!(
        "{:32} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5}",
        "TASKS", "N", "MIN", "5 %", "50 %", "95 %", "MAX"
    );
    for path in others {
        let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (group, text) in self::tasks(path)? {
            groups.entry(group).or_default().push(profile.similarity(&text));
        }
        for (group, mut found) in groups {
            found.sort_by(f64::total_cmp);
            let at = |percent: usize| found[(found.len() - 1) * percent / 100];
            let [min, low, middle, high, max] = [0, 5, 50, 95, 100].map(at);
            let n = found.len();
            println!(
                "{:32} {n:5} {min:5.2} {low:5.2} {middle:5.2} {high:5.2} {max:5.2}",
                format!("{path} {group}")
            );
        }
    }
    Ok(())
}

/// Reads the group and the text of each task of a file; lines without a task are skipped.
fn tasks(path: &str) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut tasks = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let text = [&line["messages"][0]["content"], &line["task"], &line["text"], &line["prompt"]];
        if let Some(text) = text.into_iter().find_map(Value::as_str) {
            let group = line["group"].as_str().unwrap_or_default();
            tasks.push((group.to_owned(), text.to_owned()));
        }
    }
    Ok(tasks)
}
