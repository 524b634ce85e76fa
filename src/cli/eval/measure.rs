//! An evaluation from its tools to its rows in the registry.

use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::run::prepare;
use crate::evaluation;
use crate::evaluation::EvaluationTools;
use crate::evaluation::JUDGE_VERSION;
use crate::evaluation::Modules;
use crate::evaluation::Outcome;
use crate::evaluation::PipelineTools;
use crate::evaluation::Subject;
use crate::evaluation::Suite;
use crate::evaluation::Via;
use crate::evaluation::Void;
use crate::event::timestamp;
use crate::judge::FunctionJudge;
use crate::judge::Judge;
use crate::judge::library_mounts;
use crate::pipeline::Settings;
use crate::provider::Provider;
use crate::registry::AdapterStore;
use crate::registry::Evaluation;
use crate::registry::Registry;
use crate::registry::new_id;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::trajectory::Sampling;

use super::tables;
use super::what::ViaName;

/// Outcomes of the base, and of every adapter.
pub(in crate::cli) struct Measured {
    pub(in crate::cli) base: Vec<Outcome>,
    pub(in crate::cli) adapters: Vec<(AdapterId, Vec<Outcome>)>,
    /// Tasks that can't be judged here; nobody has an outcome of them.
    pub(in crate::cli) voids: Vec<Void>,
}

impl Measured {
    /// Leaves out what somebody's answers could not be judged on, so that all are measured on the same tasks.
    fn without_voids(mut self) -> Self {
        self.voids.sort_by(|one, other| one.id.cmp(&other.id));
        self.voids.dedup_by(|one, other| one.id == other.id);
        let voids = &self.voids;
        let counts = |outcome: &Outcome| voids.iter().all(|void| void.id != outcome.id);
        self.base.retain(counts);
        self.adapters.iter_mut().for_each(|(_, outcomes)| outcomes.retain(counts));
        self
    }
}

/// Adapters to measure beside the base.
#[derive(Debug)]
pub(in crate::cli) enum Who {
    /// These; one that does not fit the model is an error.
    These(Vec<AdapterId>),
    /// Those of them that were made on the model's weights.
    ThoseThatFit(Vec<AdapterId>),
}

/// How is measured.
#[derive(Debug, Clone)]
pub(in crate::cli) struct How<'a> {
    pub(in crate::cli) via: ViaName,
    /// The part of the suite, as the registry names it.
    pub(in crate::cli) split: String,
    /// The folder that the pipeline's tests may import from.
    pub(in crate::cli) lib: Option<&'a Path>,
    /// How single answers are drawn.
    pub(in crate::cli) sampling: Sampling,
    pub(in crate::cli) n_samples: u32,
    pub(in crate::cli) is_fresh: bool,
}

impl Who {
    fn ids(&self, registry: &Registry, base_digest: &str) -> anyhow::Result<Vec<&AdapterId>> {
        let ids = match self {
            Self::These(ids) => return Ok(ids.iter().collect()),
            Self::ThoseThatFit(ids) => ids,
        };
        let mut fit = Vec::new();
        for id in ids {
            if registry.adapter(id)?.base_digest == base_digest {
                fit.push(id);
            }
        }
        Ok(fit)
    }
}

impl Default for How<'_> {
    /// One greedy answer of 160 tokens to each task.
    fn default() -> Self {
        Self {
            via: ViaName::Completions,
            split: "all".to_owned(),
            lib: None,
            sampling: Sampling { max_tokens: 160, ..Sampling::default() },
            n_samples: 1,
            is_fresh: false,
        }
    }
}

/// Measures, until an interrupt comes: `Err` is its exit code.
pub(in crate::cli) fn measure(
    context: &Context,
    registry: &Registry,
    sandbox: &Sandbox,
    what: (&Suite, &Modules),
    who: &Who,
    how: &How<'_>,
) -> anyhow::Result<Result<Measured, u8>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(async {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            measured = all(context, registry, sandbox, what, who, how) => measured.map(Ok),
            interrupt = interrupts.next() => Ok(Err(interrupt.exit_code())),
        }
    });
    // A generation that was given up may still be in its last pass: nobody waits for it.
    runtime.shutdown_background();
    measured
}

async fn all(
    context: &Context,
    registry: &Registry,
    sandbox: &Sandbox,
    (suite, modules): (&Suite, &Modules),
    who: &Who,
    how: &How<'_>,
) -> anyhow::Result<Measured> {
    let python = Path::new(&context.config.sandbox.python);
    let interpreter = sandbox.interpreter((!python.as_os_str().is_empty()).then_some(python))?;
    let limits = Limits::from(&context.config.sandbox);
    let judge = FunctionJudge::start(sandbox, &interpreter, limits).await?;
    let engine = prepare::engine(context, prepare::model(context).await?).await?;
    let store = AdapterStore::open(registry, &context.home)?;
    let mut subjects = Vec::new();
    for id in who.ids(registry, engine.base_digest())? {
        engine.load_adapter(id.clone(), &store.path(id))?;
        subjects.push(Subject { id: id.clone(), sha256: registry.adapter(id)?.sha256 });
    }
    let provider = Provider::InProcess(engine);
    let scratch = tempfile::tempdir()?;
    let mut visible = Judge::new(sandbox, &interpreter);
    visible.limits = limits;
    visible.libs.extend(library_mounts(how.lib.as_slice())?);
    let settings = Settings::new(&context.config);
    let pipeline = PipelineTools::new(visible, settings, &scratch.path().join("rune.db"))?;
    let via = match how.via {
        ViaName::Completions => Via::Completions(&how.sampling),
        ViaName::BestOfN => Via::BestOfN(&pipeline),
        ViaName::Pipeline => Via::Pipeline(&pipeline),
    };
    let tools = EvaluationTools {
        provider: &provider,
        judge: &judge,
        suites: &pipeline.judge,
        modules,
        via,
        registry,
        is_fresh: how.is_fresh,
        seed: context.config.run.seed,
        n_samples: how.n_samples,
    };
    let n_tasks = suite.tasks().iter().filter(|task| tools.via.takes(task)).count();
    let n_answers = n_tasks * how.n_samples as usize;
    let display = Display::new(context, n_answers * (1 + subjects.len()));
    let on_each = |outcome: &Outcome| display.step(outcome.passed);
    let base = evaluation::run(&tools, suite, None, &on_each).await?;
    let mut measured = Measured { base: base.outcomes, adapters: Vec::new(), voids: base.voids };
    for subject in &subjects {
        display.begin();
        let one = evaluation::run(&tools, suite, Some(subject), &on_each).await?;
        measured.adapters.push((subject.id.clone(), one.outcomes));
        measured.voids.extend(one.voids);
    }
    let measured = measured.without_voids();
    keep(registry, &tools, suite, (None, &how.split), &measured.base)?;
    for (subject, (_, outcomes)) in subjects.iter().zip(&measured.adapters) {
        keep(registry, &tools, suite, (Some(subject), &how.split), outcomes)?;
    }
    display.close();
    if let [Void { id, reason }, others @ ..] = measured.voids.as_slice()
        && !display.is_quiet
    {
        let more =
            if others.is_empty() { String::new() } else { format!(" ({} more)", others.len()) };
        output::note(&format!("left out, as it cannot be judged here: `{id}`: {reason}{more}"));
    }
    Ok(measured)
}

/// Stores what came of it: one row for the tasks that the library is needed for, and one for the controls.
fn keep(
    registry: &Registry,
    tools: &EvaluationTools<'_>,
    suite: &Suite,
    (adapter, split): (Option<&Subject>, &str),
    outcomes: &[Outcome],
) -> anyhow::Result<()> {
    let (controls, tasks): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.is_control);
    for (split, outcomes) in [(split.to_owned(), tasks), (format!("{split}-control"), controls)] {
        if outcomes.is_empty() {
            continue;
        }
        let score = tables::score(&outcomes);
        registry.insert_evaluation(&Evaluation {
            id: new_id()?,
            adapter_id: adapter.map(|subject| subject.id.clone()),
            base_digest: tools.provider.base().base_digest,
            suite: suite.name.clone(),
            suite_digest: suite.digest.clone(),
            split,
            via: tools.via.as_str().to_owned(),
            n_tasks: score.n_tasks,
            n_samples: score.n_samples,
            passed: score.passed,
            pass_at_1: score.share,
            ci_low: score.interval.0,
            ci_high: score.interval.1,
            fitness: Some(score.fitness),
            sampling: json!({ "drawn": tools.via.sampling(), "seed": tools.seed }),
            judge_version: JUDGE_VERSION.to_owned(),
            provider: tools.provider.name().to_owned(),
            at: timestamp(SystemTime::now()),
        })?;
    }
    Ok(())
}

/// How far it is, and how many of the present one's answers passed: a bar on a terminal, else a line now and then.
struct Display {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    /// Answers in all, and those of the present one: how many, how many passed.
    counts: Mutex<[u32; 3]>,
    total: usize,
}

impl Display {
    fn new(context: &Context, total: usize) -> Self {
        let is_quiet = context.quiet || context.json;
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} answers, {msg}, eta {eta}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = (!is_quiet && io::stderr().is_terminal())
            .then(|| ProgressBar::new(total as u64).with_style(style));
        Self { bar, is_quiet, counts: Mutex::default(), total }
    }

    /// From here on it is another's answers.
    fn begin(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)[1..].fill(0);
    }

    fn step(&self, passed: bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts[0] += 1;
        counts[1] += 1;
        counts[2] += u32::from(passed);
        let [all, n, passed] = *counts;
        let rate = 100.0 * f64::from(passed) / f64::from(n);
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{rate:.1} % passed"));
                bar.inc(1);
            }
            None if !self.is_quiet && all.is_multiple_of(50) => {
                output::note(&format!("{all} of {} answers, {rate:.1} % passed", self.total));
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
