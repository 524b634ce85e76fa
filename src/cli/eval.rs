//! `rune eval`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use anyhow::bail;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::Value;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::run::prepare;
use crate::evaluation;
use crate::evaluation::EvaluationError;
use crate::evaluation::EvaluationTools;
use crate::evaluation::Library;
use crate::evaluation::LibraryRecords;
use crate::evaluation::Modules;
use crate::evaluation::Outcome;
use crate::evaluation::Paired;
use crate::evaluation::PipelineTools;
use crate::evaluation::Score;
use crate::evaluation::Suite;
use crate::evaluation::Via;
use crate::event::timestamp;
use crate::judge::FunctionJudge;
use crate::judge::Judge;
use crate::pipeline::Settings;
use crate::provider::InProcess;
use crate::provider::Provider;
use crate::registry::AdapterStore;
use crate::registry::Evaluation;
use crate::registry::Registry;
use crate::registry::new_id;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::training::family_digest;
use crate::trajectory::Sampling;

/// The judge's version, as evaluations carry it: it changes when a verdict could.
const JUDGE_VERSION: &str = "function-1";
/// The most tokens of an answer.
const MAX_TOKENS: u32 = 160;

/// Measure the base and adapters on tasks that they never saw
///
/// Every answer runs in the sandbox. Base and adapters get the same tasks, greedily, and are compared task by task; what
/// came of it is kept in the registry, where `rune run` looks for the adapter to use.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rune eval library --seed 1 --out zorb
  rune train --dataset zorb/train.jsonl --name zorb
  rune eval --suite zorb/suite.jsonl --lib zorb/lib --adapter 01k9zz"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The tasks, one JSON object a line
    #[arg(long, value_name = "FILE.jsonl", required = true)]
    suite: Option<PathBuf>,
    /// A folder of Python packages that answers may import
    #[arg(long, value_name = "DIR")]
    lib: Option<PathBuf>,
    /// An adapter to measure beside the base; may be given several times
    #[arg(long, value_name = "ID")]
    adapter: Vec<String>,
    /// How answers are had: one answer of the model, or all that `rune run` does
    #[arg(long, default_value = "completions")]
    via: ViaName,
    /// The part of the suite, as the registry names it
    #[arg(long, default_value = "test")]
    split: String,
    /// Print every answer that failed
    #[arg(long)]
    failures: bool,
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// Samples of code when the first one fails, with --via pipeline
    #[arg(long, value_name = "N")]
    candidates: Option<i64>,
    /// The most tokens to generate for a task, with --via pipeline
    #[arg(long, value_name = "N")]
    max_tokens: Option<i64>,
    /// Seed of all sampling
    #[arg(long)]
    seed: Option<i64>,
}

/// How answers are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ViaName {
    Completions,
    Pipeline,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Invent a Python library: the package, records that teach it, and tasks that need it
    Library(LibraryArgs),
}

#[derive(Debug, clap::Args)]
struct LibraryArgs {
    /// Decides all of it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Functions, 6 to 40
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(6..=40))]
    functions: u16,
    /// Where to write lib/, train.jsonl and suite.jsonl; must not be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Args {
    /// The settings that the flags stand for.
    pub(super) fn settings(&self) -> Vec<(&'static str, toml::Value)> {
        let all = [
            ("run.model", self.model.clone().map(toml::Value::String)),
            ("run.candidates", self.candidates.map(toml::Value::Integer)),
            ("run.max_tokens", self.max_tokens.map(toml::Value::Integer)),
            ("run.seed", self.seed.map(toml::Value::Integer)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(Command::Library(args)) = &args.command {
        return invent(args);
    }
    let Some(path) = &args.suite else { bail!("--suite says what to measure on") };
    let suite = Suite::read(path)?;
    let modules = match &args.lib {
        Some(folder) => Modules::read(folder)
            .map_err(|source| EvaluationError::Files { path: folder.clone(), source })?,
        None => Modules::default(),
    };
    let registry = context.registry()?;
    let mut adapters = Vec::new();
    for id in &args.adapter {
        let adapter = registry.adapter(&AdapterId::parse(id)?)?;
        refuse_seen(&suite, &adapter.train_families)?;
        adapters.push(adapter.id);
    }
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let sandbox = Sandbox::start(&std::env::current_exe()?)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let how = How { via: args.via, split: &args.split, lib: args.lib.as_deref() };
    let measured = runtime.block_on(async {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            result = measure(context, &registry, &sandbox, (&suite, &modules), &adapters, how) =>
                result.map(Ok),
            interrupt = interrupts.next() => Ok(Err(interrupt.exit_code())),
        }
    });
    runtime.shutdown_background();
    match measured? {
        Ok(measured) => {
            let text =
                if context.json { lines(&measured) } else { table(&measured, args.failures) };
            output::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(ExitCode::from(code)),
    }
}

/// Writes `files` into the folder `out`, which must not be there.
fn write_new(out: &Path, files: &[(String, String)]) -> io::Result<()> {
    fs::create_dir_all(out.parent().unwrap_or(Path::new("")))?;
    fs::create_dir(out)?;
    for (name, text) in files {
        let path = out.join(name);
        fs::create_dir_all(path.parent().unwrap_or(out))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Writes an invented library with all that belongs to it.
fn invent(args: &LibraryArgs) -> anyhow::Result<ExitCode> {
    let library = Library::invent(args.seed, args.functions.into());
    let records = library.training(LibraryRecords::default());
    let tasks = library.tasks();
    let leaks = evaluation::leaks(&records, &tasks);
    if let Some(leak) = leaks.first() {
        bail!("this seed gives tasks that are not held out: {leak}");
    }
    let mut lines = String::new();
    for record in &records {
        lines += &(serde_json::to_string(record)? + "\n");
    }
    let suite = Suite::new(library.name(), tasks);
    let files = [
        (format!("lib/{}/__init__.py", library.name()), library.module_source()),
        ("README.md".to_owned(), library.readme()),
        ("train.jsonl".to_owned(), lines),
        ("suite.jsonl".to_owned(), suite.to_lines()),
    ];
    write_new(&args.out, &files)
        .with_context(|| format!("cannot write the new folder `{}`", args.out.display()))?;
    output::print(&format!(
        "{}: {} functions, {} records, {} tasks\n",
        library.name(),
        library.functions().len(),
        records.len(),
        suite.n_tasks()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// An adapter that has seen a family of the suite would show its memory of it.
fn refuse_seen(suite: &Suite, train_families: &[String]) -> Result<(), EvaluationError> {
    let is_seen = |family: &&str| train_families.binary_search(&family_digest(family)).is_ok();
    match suite.families().find(is_seen) {
        Some(family) => Err(EvaluationError::SeenBefore { family: family.to_owned() }),
        None => Ok(()),
    }
}

/// Outcomes of the base, and of every adapter.
pub(super) struct Measured {
    pub(super) base: Vec<Outcome>,
    pub(super) adapters: Vec<(AdapterId, Vec<Outcome>)>,
}

/// How is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) via: ViaName,
    /// The part of the suite, as the registry names it.
    pub(super) split: &'a str,
    /// The folder that the pipeline's tests may import from.
    pub(super) lib: Option<&'a Path>,
}

pub(super) async fn measure(
    context: &Context,
    registry: &Registry,
    sandbox: &Sandbox,
    (suite, modules): (&Suite, &Modules),
    adapters: &[AdapterId],
    how: How<'_>,
) -> anyhow::Result<Measured> {
    let python = Path::new(&context.config.sandbox.python);
    let interpreter = sandbox.interpreter((!python.as_os_str().is_empty()).then_some(python))?;
    let limits = Limits::from(&context.config.sandbox);
    let judge = FunctionJudge::start(sandbox, &interpreter, limits).await?;
    let (path, hub_id) = prepare::model(context).await?;
    let options = prepare::engine_options(context);
    let load = move || InProcess::load(&path, hub_id, &options);
    let engine = tokio::task::spawn_blocking(load).await??;
    let store = AdapterStore::open(registry, &context.home)?;
    for id in adapters {
        engine.load_adapter(id.clone(), &store.path(id))?;
    }
    let provider = Provider::InProcess(engine);
    let sampling = Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() };
    let scratch = tempfile::tempdir()?;
    let mut visible = Judge::new(sandbox, &interpreter);
    visible.limits = limits;
    visible.libs.extend(how.lib.map(prepare::library).transpose()?);
    let settings = Settings::new(&context.config);
    let pipeline = PipelineTools::new(visible, settings, &scratch.path().join("rune.db"))?;
    let via = match how.via {
        ViaName::Completions => Via::Completions(&sampling),
        ViaName::Pipeline => Via::Pipeline(&pipeline),
    };
    let seed = context.config.run.seed;
    let tools = EvaluationTools { provider: &provider, judge: &judge, modules, via, seed };
    let display = Display::new(context, suite.n_tasks() * (1 + adapters.len()));
    let on_each = |_: &Outcome| display.step();
    let base = evaluation::run(&tools, suite, None, &on_each).await?;
    keep(registry, &tools, suite, (None, how.split), &base)?;
    let mut measured = Measured { base, adapters: Vec::new() };
    for id in adapters {
        let outcomes = evaluation::run(&tools, suite, Some(id), &on_each).await?;
        keep(registry, &tools, suite, (Some(id), how.split), &outcomes)?;
        measured.adapters.push((id.clone(), outcomes));
    }
    display.close();
    Ok(measured)
}

/// Stores what came of it: one row for the tasks that the library is needed for, and one for the controls.
fn keep(
    registry: &Registry,
    tools: &EvaluationTools<'_>,
    suite: &Suite,
    (adapter, split): (Option<&AdapterId>, &str),
    outcomes: &[Outcome],
) -> anyhow::Result<()> {
    let (controls, tasks): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.is_control);
    for (split, outcomes) in [(split.to_owned(), tasks), (format!("{split}-control"), controls)] {
        if outcomes.is_empty() {
            continue;
        }
        let score = score(&outcomes);
        registry.insert_evaluation(&Evaluation {
            id: new_id()?,
            adapter_id: adapter.cloned(),
            base_digest: tools.provider.base().base_digest,
            suite: suite.name.clone(),
            suite_digest: suite.digest.clone(),
            split,
            via: tools.via.as_str().to_owned(),
            n_tasks: score.n,
            n_samples: 1,
            passed: score.passed,
            pass_at_1: score.share(),
            ci_low: score.interval.0,
            ci_high: score.interval.1,
            sampling: tools.via.sampling(),
            judge_version: JUDGE_VERSION.to_owned(),
            provider: tools.provider.name().to_owned(),
            at: timestamp(SystemTime::now()),
        })?;
    }
    Ok(())
}

fn score(outcomes: &[&Outcome]) -> Score {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
    Score::new(count(passed), count(outcomes.len()))
}

/// How far it is: a bar on a terminal, else a line now and then.
struct Display {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    done: std::sync::Mutex<Cell<usize>>,
    total: usize,
}

impl Display {
    fn new(context: &Context, total: usize) -> Self {
        let is_quiet = context.quiet || context.json;
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} tasks, eta {eta}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = (!is_quiet && io::stderr().is_terminal())
            .then(|| ProgressBar::new(total as u64).with_style(style));
        Self { bar, is_quiet, done: std::sync::Mutex::default(), total }
    }

    fn step(&self) {
        let done = self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.set(done.get() + 1);
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if !self.is_quiet && done.get().is_multiple_of(50) => {
                output::note(&format!("{} of {} tasks", done.get(), self.total));
            }
            None => {}
        }
    }

    fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Outcomes by the group of their tasks.
fn groups(outcomes: &[Outcome]) -> BTreeMap<String, Vec<&Outcome>> {
    let mut groups: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(outcome.group.clone()).or_default().push(outcome);
    }
    groups
}

/// The outcomes of the base and of the adapters, by name.
fn everyone<'a>(measured: &'a Measured, names: &'a [String]) -> Vec<(&'a str, &'a [Outcome])> {
    let adapters = measured.adapters.iter().map(|(_, outcomes)| outcomes.as_slice());
    let adapters = names.iter().map(String::as_str).zip(adapters);
    std::iter::once(("base", measured.base.as_slice())).chain(adapters).collect()
}

fn table(measured: &Measured, failures: bool) -> String {
    let names: Vec<String> = measured.adapters.iter().map(|(id, _)| id.to_string()).collect();
    let mut text = scores(&everyone(measured, &names));
    if failures {
        let shown = match measured.adapters.last() {
            Some((_, outcomes)) => outcomes,
            None => &measured.base,
        };
        for outcome in shown.iter().filter(|outcome| !outcome.passed) {
            let answer = output::escape(&outcome.answer);
            let Outcome { id, summary, .. } = outcome;
            let _infallible = writeln!(text, "\n{id}: {summary}\n{answer}");
        }
    }
    text
}

/// A table of everyone's score on each group of tasks; the first is what the others are compared with.
pub(super) fn scores(all: &[(&str, &[Outcome])]) -> String {
    let head = ["TASKS", "N", "WHO", "PASS@1 (95 %)", "GAINED", "LOST", "DIFFERENCE", "P"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let Some(((first, before), others)) = all.split_first() else { return String::new() };
    for (group, before) in groups(before) {
        let n = before.len().to_string();
        rows.push(vec![group.clone(), n.clone(), (*first).to_owned(), score(&before).to_string()]);
        for (name, outcomes) in others {
            let after = groups(outcomes).remove(&group).unwrap_or_default();
            let paired = compare(&before, &after);
            let points = |share: f64| format!("{:+.1}", share * 100.0);
            let (low, high) = paired.interval;
            rows.push(vec![
                group.clone(),
                n.clone(),
                (*name).to_owned(),
                score(&after).to_string(),
                paired.gained.to_string(),
                paired.lost.to_string(),
                format!("{} ({} to {})", points(paired.difference), points(low), points(high)),
                p_value(paired.p_value),
            ]);
        }
    }
    output::table(&rows)
}

fn p_value(p: f64) -> String {
    if p < 0.001 { format!("{p:.0e}") } else { format!("{p:.3}") }
}

fn compare(before: &[&Outcome], after: &[&Outcome]) -> Paired {
    let passed = |outcomes: &[&Outcome]| outcomes.iter().map(|o| o.passed).collect::<Vec<_>>();
    Paired::new(&passed(before), &passed(after))
}

fn lines(measured: &Measured) -> String {
    let names: Vec<String> = measured.adapters.iter().map(|(id, _)| id.to_string()).collect();
    let all = everyone(measured, &names);
    let mut text = String::new();
    for (who, outcomes) in &all {
        for outcome in *outcomes {
            let mut line = json!(outcome);
            line["type"] = json!("eval.task");
            line["who"] = json!(who);
            let _infallible = writeln!(text, "{line}");
        }
    }
    for line in score_lines(&all) {
        let _infallible = writeln!(text, "{line}");
    }
    text
}

/// The same as objects.
pub(super) fn score_lines(all: &[(&str, &[Outcome])]) -> Vec<Value> {
    let Some(((first, before), _)) = all.split_first() else { return Vec::new() };
    let mut lines = Vec::new();
    for (index, (who, outcomes)) in all.iter().enumerate() {
        for (group, outcomes) in groups(outcomes) {
            let before = groups(before).remove(&group).unwrap_or_default();
            lines.push(json!({
                "type": "eval.score",
                "who": who,
                "group": group,
                "score": score(&outcomes),
                "pass_at_1": score(&outcomes).share(),
                "against": (index > 0).then(|| json!({
                    "who": first, "paired": compare(&before, &outcomes),
                })),
            }));
        }
    }
    lines
}
