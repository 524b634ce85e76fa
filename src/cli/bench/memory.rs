//! `rune bench memory`: what an adapter knows that the base can't.

mod report;

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::cli::context::Context;
use crate::cli::eval;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::evaluation;
use crate::evaluation::EvalOutcome;
use crate::evaluation::EvalTask;
use crate::evaluation::MeasureOptions;
use crate::evaluation::MeasuredAdapters;
use crate::evaluation::MeasuredOutcomes;
use crate::evaluation::PackageModules;
use crate::evaluation::SuiteStore;
use crate::evaluation::TaskSuite;
use crate::registry::DatasetKind;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::sandbox::Sandbox;
use crate::synthetic::LibraryRecord;
use crate::synthetic::LibraryTask;
use crate::synthetic::RecordOptions;
use crate::synthetic::SyntheticLibrary;
use crate::training;
use crate::training::CollectedRecords;
use crate::training::Preset;
use crate::training::TrainingError;
use crate::training::TrainingOptions;
use crate::training::TrainingRecord;
use crate::training::TrainingRequest;
use crate::trajectory::Sampling;
use report::ConditionOutcomes;

/// Measure parametric memory: invented libraries, an adapter for each, and tasks that neither base
/// nor adapter has seen
///
/// No model can know an invented library; what the base scores without its README is what can be
/// guessed. The base is asked without it, with all of it in the prompt, and with the passage that
/// BM25 finds; then come the library's adapter and the adapter of another library.
#[derive(Debug, clap::Args)]
#[command(after_help = "Tasks, about which no record has the wording, the variable or the name:
  skill   T1 a comment asks for a value     T2 a docstring asks for a function's body
          T3 one function on another's      T4 a keyword      T5 a protocol
  recall  T6 an error class      T7 a constant      T8 a function's name
  controls, which an adapter has to leave as they are
          N1 Python's builtins, no library      N2 the first tasks of HumanEval
          N3 a library that the adapter was not taught

Memory works when an adapter gains 20 points or more, p < 0.01, N1 and N2 lose less than 2 points and N3 gains less
than 5. Libraries are trained one after the other; the adapters stay in the registry, and a call that was broken off
goes on.

Example:
  rune bench memory --seed 7")]
pub(in crate::cli) struct MemoryArgs {
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) model: Option<String>,
    /// Invented libraries, each with an adapter of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=50))]
    libraries: u16,
    /// Functions of each, 6 to 40
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(6..=40))]
    functions: u16,
    /// The first library's seed; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of each training at most, of 8 records each; 0 for one pass over all records, with 8
    /// functions some 120
    #[arg(long, value_name = "N", default_value_t = 48)]
    max_steps: u32,
    /// Tasks of HumanEval for the control N2; 0 for none
    #[arg(long, value_name = "N", default_value_t = 40)]
    controls: usize,
    /// Teach each library in two rounds, half of its functions and then the others, and see what
    /// the second forgets
    #[arg(long)]
    rounds: bool,
}

pub(super) fn run(context: &Context, args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let sandbox = Arc::new(Sandbox::start(&std::env::current_exe()?)?);
    let registry = context.registry()?;
    let screen = Arc::new(Screen::new(context));
    let bench =
        MemoryBench { context, args, screen: &screen, sandbox: &sandbox, registry: &registry };
    let libraries = (args.seed..).take(args.libraries.into());
    let libraries: Vec<SyntheticLibrary> =
        libraries.map(|seed| SyntheticLibrary::invent(seed, args.functions.into())).collect();
    let text = if args.rounds { bench.two_rounds(&libraries) } else { bench.one_round(&libraries) };
    output::print(&text?)?;
    Ok(ExitCode::SUCCESS)
}

struct MemoryBench<'a> {
    context: &'a Context,
    args: &'a MemoryArgs,
    screen: &'a Arc<Screen>,
    sandbox: &'a Arc<Sandbox>,
    registry: &'a Arc<Registry>,
}

impl MemoryBench<'_> {
    /// Teaches all of every library and compares with the base, with and without documents, and
    /// with what another library's adapter does.
    fn one_round(&self, libraries: &[SyntheticLibrary]) -> anyhow::Result<String> {
        let mut adapters = Vec::new();
        for library in libraries {
            let records = library.training(RecordOptions::default());
            adapters.push(self.teach(library, records, None)?);
        }
        let mut found = ConditionOutcomes::default();
        for (index, library) in libraries.iter().enumerate() {
            let (own, before) =
                (&adapters[index], index.checked_sub(1).unwrap_or(adapters.len() - 1));
            let tasks = only(library, false);
            let two = [own.clone(), adapters[before].clone()];
            let asked: &[AdapterId] = if libraries.len() > 1 { &two } else { &two[..1] };
            let passage = library.with_passage(&tasks);
            let document = library.with_document(&tasks);
            let measured = self.examine(library, ("", tasks), asked)?;
            let with_document = self.examine(library, ("+document", document), &[])?;
            let with_passage = self.examine(library, ("+passage", passage), &[])?;
            found.add(measured, with_document.base, with_passage.base);
        }
        if let ([library], [adapter]) = (libraries, adapters.as_slice()) {
            let other = SyntheticLibrary::invent(library.seed() + 1, self.args.functions.into());
            let adapter = std::slice::from_ref(adapter);
            found.add_untaught(self.examine(&other, ("", only(&other, false)), adapter)?);
        }
        // They need no library and are asked once.
        let controls = ("+builtins", only(&libraries[0], true));
        found.add_controls("N1", &self.examine(&libraries[0], controls, &adapters)?);
        if self.args.controls > 0 {
            found.add_controls("N2", &self.human_eval(&adapters)?);
        }
        if self.context.json {
            self.screen.report_all(&found.events());
            return Ok(String::new());
        }
        Ok(found.text())
    }

    /// The base and `adapters` on the first tasks of HumanEval.
    fn human_eval(&self, adapters: &[AdapterId]) -> anyhow::Result<MeasuredOutcomes> {
        let store = SuiteStore::open(&self.context.home)?;
        let suite = eval::human_eval(self.context, &store)?.first(self.args.controls);
        let sampling = Sampling { max_tokens: 512, ..Sampling::default() };
        let split = format!("all, first {}", self.args.controls);
        let how = MeasureOptions { split, sampling, ..MeasureOptions::default() };
        self.measure((&suite, &PackageModules::default()), adapters, &how)
    }

    /// Teaches half of every library's functions; then, from that adapter on, the other half, once
    /// with the records of the first round given again and once without.
    fn two_rounds(&self, libraries: &[SyntheticLibrary]) -> anyhow::Result<String> {
        const WHO: [&str; 4] = ["base", "round 1", "round 2, new records", "round 2, all records"];
        let mut old: [Vec<EvalOutcome>; 4] = Default::default();
        let mut new: [Vec<EvalOutcome>; 4] = Default::default();
        for library in libraries {
            let all = library.training(RecordOptions::default());
            let is_first = |name: &str| first_half(library, name);
            let (first, second): (Vec<_>, Vec<_>) =
                all.iter().cloned().partition(|record| is_first(&record.family));
            let mut adapters: Vec<AdapterId> = Vec::new();
            for records in [first, second, all] {
                let from = adapters.first().map(|id| self.registry.adapter(id)).transpose()?;
                adapters.push(self.teach(library, records, from)?);
            }
            let tasks = library.tasks(N_VARIABLES);
            let measured = self.examine(library, ("", tasks), &adapters)?;
            let others = measured.adapters.into_iter().map(|(_, outcomes)| outcomes);
            for (who, outcomes) in std::iter::once(measured.base).chain(others).enumerate() {
                for outcome in outcomes {
                    let half = if is_first(&outcome.family) { &mut old } else { &mut new };
                    half[who].push(outcome);
                }
            }
        }
        let parts = [
            ("functions of round 1, against the adapter of round 1", &old, 1),
            ("functions of round 2, and controls, against the base", &new, 0),
        ];
        let mut text = String::new();
        for (title, outcomes, first) in parts {
            let all = WHO.into_iter().zip(outcomes.iter().map(Vec::as_slice)).skip(first);
            text += &self.text(title, &all.collect::<Vec<_>>());
        }
        Ok(text)
    }

    fn text(&self, title: &str, all: &[(&str, &[EvalOutcome])]) -> String {
        if !self.context.json {
            return format!("{title}\n{}", eval::scores(all));
        }
        self.screen.report_all(&eval::score_events(all, Some(title)));
        String::new()
    }

    /// Trains an adapter on `records` of `library`.
    fn teach(
        &self,
        library: &SyntheticLibrary,
        records: Vec<LibraryRecord>,
        from: Option<Adapter>,
    ) -> anyhow::Result<AdapterId> {
        let (name, seed) = (library.name(), library.seed());
        if !self.context.quiet && !self.context.json {
            output::note(&format!("library {name} of seed {seed}"));
        }
        let options = TrainingOptions {
            learning_rate: 6e-4,
            batch_sequences: 8,
            max_steps: self.args.max_steps,
            seed,
            ..TrainingOptions::preset(Preset::Quick)
        };
        let source = json!({ "library": name, "seed": seed, "functions": self.args.functions });
        let records = records.into_iter().map(TrainingRecord::from).collect();
        let request = TrainingRequest {
            data: CollectedRecords { records, kind: DatasetKind::File, source, task_type: None },
            options,
            name: Some(name.to_owned()),
            scope: Scope::Project,
            session_id: None,
            from,
            checkpoint_seconds: 60,
        };
        let request = &request;
        let train = |services| async move { Ok(training::train(&services, request).await) };
        let trained = workflow::run(self.context, self.registry, self.screen.clone(), train);
        self.screen.close();
        match trained? {
            // An earlier, interrupted call has trained it.
            Err(TrainingError::Registry(RegistryError::AdapterExists(id))) => Ok(id),
            trained => Ok(trained?),
        }
    }

    /// Measures the base and `adapters` on `tasks` about `library`; `kind` tells them from others.
    fn examine(
        &self,
        library: &SyntheticLibrary,
        (kind, tasks): (&str, Vec<LibraryTask>),
        adapters: &[AdapterId],
    ) -> anyhow::Result<MeasuredOutcomes> {
        let tasks = tasks.into_iter().map(EvalTask::from).collect();
        let suite = TaskSuite::new(format!("{}{kind}", library.name()), tasks);
        let modules = PackageModules::single(library.name(), &library.module_source());
        self.measure((&suite, &modules), adapters, &MeasureOptions::default())
    }

    fn measure(
        &self,
        what: (&TaskSuite, &PackageModules),
        adapters: &[AdapterId],
        how: &MeasureOptions,
    ) -> anyhow::Result<MeasuredOutcomes> {
        let who = MeasuredAdapters::These(adapters.to_vec());
        let who = &who;
        let measure = |services| async move {
            Ok(evaluation::measure((&services, self.sandbox), what, who, how).await?)
        };
        let measured = workflow::run(self.context, self.registry, self.screen.clone(), measure);
        self.screen.close();
        measured
    }
}

/// Variables that a task is asked with, of four.
const N_VARIABLES: usize = 2;

/// The tasks of a library that are controls, or the others.
fn only(library: &SyntheticLibrary, is_control: bool) -> Vec<LibraryTask> {
    let mut tasks = library.tasks(N_VARIABLES);
    tasks.retain(|task| task.is_control == is_control);
    tasks
}

/// Whether a family is about one of the first half of a library's functions.
fn first_half(library: &SyntheticLibrary, family: &str) -> bool {
    let functions = library.functions();
    functions[..functions.len() / 2].iter().any(|function| {
        family.strip_prefix(library.name()).and_then(|rest| rest.split('/').nth(1))
            == Some(function.operation.id)
    })
}
