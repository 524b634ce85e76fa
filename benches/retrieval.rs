//! Measures the search for records of solved sessions: its time among 100,000 records of invented
//! libraries, and which tasks of MBPP it calls near.
//!
//! `cargo bench --bench retrieval -- [N_RECORDS] [mbpp.jsonl.gz]`. The registry lies in the folder
//! of `TMPDIR`; with `/dev/shm` the records are written in a minute.
#![expect(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which counts little"
)]

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use flate2::read::GzDecoder;
use rune::event::Event;
use rune::registry::ClaimHolder;
use rune::registry::ExperienceQuery;
use rune::registry::NearRecord;
use rune::registry::Registry;
use rune::registry::SessionEnd;
use rune::synthetic::RecordOptions;
use rune::synthetic::SyntheticLibrary;
use rune::task::SourceFile;
use rune::task::Task;
use rune::task::TaskId;
use rune::task::TaskType;
use rune::trajectory::Assurance;
use rune::trajectory::Session;
use rune::trajectory::SessionStatus;
use rune::trajectory::VerifiedBy;
use serde_json::Value;

/// Functions of each invented library.
const FUNCTIONS: usize = 20;
/// Queries whose times are measured.
const QUERIES: usize = 2000;
/// Thresholds to compare.
const THRESHOLDS: [f64; 5] = [0.3, 0.35, 0.4, 0.45, 0.5];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|text| text != "--bench").collect();
    let n_records = arguments.first().map_or(100_000, |text| text.parse().unwrap());
    measure_times(n_records);
    if let Some(path) = arguments.get(1) {
        measure_nearness(Path::new(path));
    }
}

/// A registry in a temporary folder.
struct TestRegistry {
    registry: Registry,
    n_sessions: usize,
    _folder: tempfile::TempDir,
}

impl TestRegistry {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("rune.db")).unwrap();
        Self { registry, n_sessions: 0, _folder: folder }
    }

    /// Records a solved session of `project`.
    fn solve(&mut self, project: &str, question: &str, code: &str) {
        self.n_sessions += 1;
        let session = session(format!("s{}", self.n_sessions), project, question);
        let event = Event::notice("");
        let registry = &self.registry;
        let claim = registry.begin_session(&session, &ClaimHolder::ThisProcess, &event).unwrap();
        let ending = SessionEnd {
            status: SessionStatus::Solved,
            verified_by: VerifiedBy::UserTests,
            assurance: Some(Assurance::Separate),
            exit_code: 0,
        };
        let files = [SourceFile::new("solution.py", code)];
        registry.end_session_with(&claim, &ending, &event, &files).unwrap();
    }

    fn nearest(&self, project: &str, text: &str, limit: usize) -> Vec<NearRecord> {
        let excluded_families = &BTreeSet::new();
        let query =
            ExperienceQuery { text, project, excluded_families, min_similarity: 0.0, limit };
        self.registry.nearest_records(&query).unwrap()
    }
}

fn session(id: String, project: &str, question: &str) -> Session {
    Session {
        id,
        project: project.to_owned(),
        task: Task {
            id: TaskId("task".to_owned()),
            text: question.to_owned(),
            task_type: TaskType::Function,
            family: None,
            tests: Vec::new(),
            test_targets: Vec::new(),
        },
        workspace: None,
        provider: "scripted".to_owned(),
        base_model: "scripted".to_owned(),
        base_digest: "scripted".to_owned(),
        adapter_id: None,
        adapter_reason: String::new(),
        propensity: None,
        memory: Vec::new(),
        passages: Vec::new(),
        status: SessionStatus::Running,
        verified_by: VerifiedBy::None,
        assurance: None,
        sandbox_tier: "none".to_owned(),
        seed: 0,
        config_json: Value::Null,
        tokens_in: 0,
        tokens_out: 0,
        started_at: "2026-01-01T00:00:00.000Z".to_owned(),
        ended_at: None,
        exit_code: None,
        job_id: None,
    }
}

fn measure_times(n_records: usize) {
    let mut test = TestRegistry::new();
    let (started, mut seed) = (Instant::now(), 0);
    while test.n_sessions < n_records {
        let library = SyntheticLibrary::invent(seed, FUNCTIONS);
        for record in library.training(RecordOptions::default()) {
            let [question, answer] = &record.messages[..] else { continue };
            test.solve(library.name(), &question.content, &answer.content);
        }
        seed += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    let each = seconds * 1e3 / f64::from(u32::try_from(test.n_sessions).unwrap());
    println!("{} records of {seed} libraries, {each:.2} ms per session", test.n_sessions);
    let tasks = (0..seed).flat_map(|seed| {
        let library = SyntheticLibrary::invent(seed, FUNCTIONS);
        let name = library.name().to_owned();
        library
            .tasks(1)
            .into_iter()
            .map(move |task| (name.clone(), task.messages[0].content.clone()))
    });
    let tasks: Vec<(String, String)> = tasks.collect();
    let step = (tasks.len() / QUERIES).max(1);
    let (mut times, mut best) = (Vec::new(), Vec::new());
    for (project, text) in tasks.iter().step_by(step) {
        let started = Instant::now();
        let found = test.nearest(project, text, 32);
        times.push(started.elapsed().as_secs_f64() * 1e3);
        best.push(found.first().map_or(0.0, |near| near.similarity));
    }
    println!("{} queries, ms: {}", times.len(), quantiles(&mut times));
    println!("similarity of the first record of the own library: {}", quantiles(&mut best));
}

fn quantiles(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() * percent / 100).min(values.len() - 1)];
    format!(
        "p1 {:.2}, p10 {:.2}, p50 {:.2}, p90 {:.2}, p99 {:.2}",
        at(1),
        at(10),
        at(50),
        at(90),
        at(99)
    )
}

/// A task of MBPP with its reference solution.
struct Problem {
    text: String,
    code: String,
    /// Sequences of three tokens of the code.
    shingles: HashSet<[String; 3]>,
}

/// Prints the share of pairs above each threshold: related pairs, whose reference solutions share
/// 40 % of their token triples, and random pairs; once with one record in the registry, once with
/// all of them.
fn measure_nearness(path: &Path) {
    let problems = problems(path);
    let related = related(&problems);
    let n = problems.len();
    let random: Vec<(usize, usize)> = (1..=800).map(|i| (i * 7919 % n, i * 104_729 % n)).collect();
    let random: Vec<_> = random
        .into_iter()
        .filter(|(a, b)| a != b && resemblance(&problems, *a, *b) < 0.1)
        .collect();
    println!("{} related and {} random pairs of MBPP", related.len(), random.len());
    let alone = |(task, record): &(usize, usize)| {
        let mut test = TestRegistry::new();
        test.solve("p", &problems[*record].text, &problems[*record].code);
        let near = test.nearest("p", &problems[*task].text, 1);
        near.first().map_or(0.0, |near| near.similarity)
    };
    print_shares("one record", "related", related.iter().map(alone));
    print_shares("one record", "random", random.iter().map(alone));
    let mut all = TestRegistry::new();
    for problem in &problems {
        all.solve("p", &problem.text, &problem.code);
    }
    let among = |(task, record): &(usize, usize)| {
        let near = all.nearest("p", &problems[*task].text, n);
        let found = near.iter().find(|near| near.record.question == problems[*record].text.trim());
        found.map_or(0.0, |near| near.similarity)
    };
    print_shares("all records", "related", related.iter().map(among));
    print_shares("all records", "random", random.iter().map(among));
}

fn print_shares(index: &str, kind: &str, similarities: impl Iterator<Item = f64>) {
    let similarities: Vec<f64> = similarities.collect();
    let share = |threshold: &f64| {
        let above = similarities.iter().filter(|similarity| *similarity >= threshold).count();
        format!("{threshold}: {:.1} %", 100.0 * above as f64 / similarities.len() as f64)
    };
    let shares: Vec<String> = THRESHOLDS.iter().map(share).collect();
    println!("{index}, {kind} pairs above {}", shares.join(", "));
}

fn problems(path: &Path) -> Vec<Problem> {
    let lines = BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines();
    let problem = |line: std::io::Result<String>| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let code = text("code");
        // A user names the function that the tests call.
        let test = line["test_list"][0].as_str().unwrap_or_default().to_owned();
        let name = test.trim_start_matches("assert ").split('(').next().unwrap_or_default();
        Problem { text: format!("{} Name: {name}", text("text")), shingles: shingles(&code), code }
    };
    lines.map(problem).collect()
}

fn shingles(code: &str) -> HashSet<[String; 3]> {
    let mut tokens: Vec<String> = Vec::new();
    let mut is_word = false;
    for c in code.chars() {
        let continues = c.is_alphanumeric() || c == '_';
        match tokens.last_mut().filter(|_| is_word && continues) {
            Some(token) => token.push(c),
            None if c.is_whitespace() => {}
            None => tokens.push(c.to_string()),
        }
        is_word = continues;
    }
    tokens.windows(3).map(|three| [three[0].clone(), three[1].clone(), three[2].clone()]).collect()
}

fn resemblance(problems: &[Problem], a: usize, b: usize) -> f64 {
    let (a, b) = (&problems[a].shingles, &problems[b].shingles);
    let common = a.intersection(b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

fn related(problems: &[Problem]) -> Vec<(usize, usize)> {
    let pairs = (0..problems.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    pairs.filter(|(a, b)| resemblance(problems, *a, *b) >= 0.4).collect()
}
