//! Realistic suites and all kinds of cheats, each with its expected outcome.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream;
use rune::judge::Judge;
use rune::judge::TestSuite;
use rune::judge::Verdict;
use rune::task::SourceFile;
use serde::Deserialize;

use super::BARE;
use super::Bench;
use super::show;

/// Number of cases judged concurrently.
const AT_ONCE: usize = 2;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/judge")
}

/// Reads the files below `folder`.
fn tree(folder: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.push(SourceFile::from_bytes(name, fs::read(&path).unwrap()));
            }
        }
    }
    files
}

/// Copies a folder out of the repository, whose root would otherwise become the project root.
fn copied(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let from = fixtures().join("cases").join(name);
    for file in tree(&from) {
        let path = copy.path().join(&file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file.bytes()).unwrap();
    }
    copy
}

#[tokio::test]
async fn realistic_suites_have_the_right_outcome() {
    let bench = Bench::open();
    let judge = bench.judge_with_pytest();
    let table = fs::read_to_string(fixtures().join("cases/expected.tsv")).unwrap();
    // Without namespaces there is no loopback interface in the jail, and no folder that both
    // processes see.
    let is_bare = std::env::var_os(BARE).is_some();
    let gaps = ["data-files-of-tests-data-latin1", "honest-local-server"];
    let mut wrong = Vec::new();
    for line in table.lines() {
        let [name, target, outcome] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let folder = copied(name);
        let suite = TestSuite::load(&folder.path().join(target)).unwrap();
        let solution = tree(&folder.path().join("solution"));
        let verdict = judge.run_suite(&suite, &solution).await.unwrap();
        let is_expected = outcome == "passed" && !(is_bare && gaps.contains(&name));
        if verdict.passed() != is_expected {
            wrong.push(format!("{name}: {} {}", show(&verdict), verdict.reason));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(table.lines().count() >= 57);
}

/// A realistic suite, and a solution that passes it.
#[derive(Deserialize)]
struct AttackedSuite {
    suite: usize,
    tests: BTreeMap<String, Content>,
    honest: BTreeMap<String, Content>,
}

/// A wrong solution.
#[derive(Deserialize)]
struct Cheat {
    name: String,
    suite: usize,
    solution: BTreeMap<String, Content>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    text: String,
    #[serde(default)]
    base64: Option<String>,
}

fn source_files(files: &BTreeMap<String, Content>) -> Vec<SourceFile> {
    let file = |(path, content): (&String, &Content)| match &content.base64 {
        None => SourceFile::new(path.clone(), content.text.clone()),
        Some(base64) => {
            let value = serde_json::json!({ "path": path, "base64": base64 });
            serde_json::from_value(value).unwrap()
        }
    };
    files.iter().map(file).collect()
}

fn rows<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    let text = fs::read_to_string(fixtures().join("attack").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn judged(judge: &Judge, suite: &AttackedSuite, solution: Vec<SourceFile>) -> Verdict {
    let suite = TestSuite::new(source_files(&suite.tests));
    judge.run_suite(&suite, &solution).await.unwrap()
}

/// Cheats written without knowledge of the judge. Without namespaces only every seventh runs.
#[tokio::test]
async fn independent_attacks_are_not_accepted() {
    let bench = Bench::open();
    let judge = &bench.judge_with_pytest();
    let suites: Vec<AttackedSuite> = rows("suites.jsonl");
    let cheats: Vec<Cheat> = rows("cheats.jsonl");
    assert!(cheats.len() >= 200);
    let step = if std::env::var_os(BARE).is_some() { 7 } else { 1 };
    let accepted: Vec<String> = stream::iter(cheats.iter().step_by(step))
        .map(|cheat| async {
            let suite = suites.iter().find(|suite| suite.suite == cheat.suite).unwrap();
            let verdict = judged(judge, suite, source_files(&cheat.solution)).await;
            verdict.passed().then(|| format!("{} {}", cheat.name, verdict.reason))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|accepted| async { accepted })
        .collect()
        .await;
    assert_eq!(accepted, [""; 0]);
}

/// Suites that need a newer Python than 3.9: for `ExceptionGroup` and `zip(strict=True)`.
const NEWER: [(usize, &str); 2] = [(23, "3.11"), (31, "3.10")];

/// Whether `suite` can run on the Python `version`, such as `3.11.7`.
fn can_run(suite: usize, version: &str) -> bool {
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    NEWER.iter().all(|(name, needed)| *name != suite || minor(needed) <= minor(version))
}

/// The honest solution of each attacked suite.
#[tokio::test]
async fn honest_solutions_of_attacked_suites_pass() {
    let bench = Bench::open();
    let judge = &bench.judge_with_pytest();
    let suites: Vec<AttackedSuite> = rows("suites.jsonl");
    let step = if std::env::var_os(BARE).is_some() { 7 } else { 1 };
    let version = bench.interpreter.version();
    let suites = suites.iter().filter(|suite| can_run(suite.suite, version));
    let refused: Vec<String> = stream::iter(suites.step_by(step))
        .map(|suite| async {
            let verdict = judged(judge, suite, source_files(&suite.honest)).await;
            (!verdict.passed()).then(|| format!("{} {}", suite.suite, show(&verdict)))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|refused| async { refused })
        .collect()
        .await;
    assert_eq!(refused, [""; 0]);
}
