//! `rune bench memory`: what an adapter knows that the base can't.

mod report;

use std::process::ExitCode;

use serde_json::Value;
use serde_json::json;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::Scope;
use crate::cli::context::Context;
use crate::cli::eval;
use crate::cli::eval::How;
use crate::cli::eval::Measured;
use crate::cli::eval::Who;
use crate::cli::output;
use crate::cli::train::work;
use crate::cli::train::work::Order;
use crate::evaluation::Library;
use crate::evaluation::LibraryRecords;
use crate::evaluation::Modules;
use crate::evaluation::Outcome;
use crate::evaluation::Suite;
use crate::evaluation::SuiteStore;
use crate::evaluation::Task;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::sandbox::Sandbox;
use crate::training::Preset;
use crate::training::Record;
use crate::training::TrainingOptions;
use crate::trajectory::Sampling;
use report::Conditions;

/// Measure parametric memory: invented libraries, an adapter for each, and tasks that neither base nor adapter has seen
///
/// No model can know an invented library; what the base scores without its README is what can be guessed. The base is
/// asked without it, with all of it in the prompt, and with the passage that BM25 finds; then come the library's adapter
/// and the adapter of another library.
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
    /// Steps of each training at most, of 8 records each; 0 for one pass over all records, with 8 functions some 120
    #[arg(long, value_name = "N", default_value_t = 48)]
    max_steps: u32,
    /// Tasks of HumanEval for the control N2; 0 for none
    #[arg(long, value_name = "N", default_value_t = 40)]
    controls: usize,
    /// Teach each library in two rounds, half of its functions and then the others, and see what the second forgets
    #[arg(long)]
    rounds: bool,
}

pub(super) fn run(context: &Context, args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let sandbox = Sandbox::start(&std::env::current_exe()?)?;
    let registry = context.registry()?;
    let bench = Bench { context, args, sandbox: &sandbox, registry: &registry };
    let libraries = (args.seed..).take(args.libraries.into());
    let libraries: Vec<Library> =
        libraries.map(|seed| Library::invent(seed, args.functions.into())).collect();
    let text = if args.rounds { bench.two_rounds(&libraries) } else { bench.one_round(&libraries) };
    match text? {
        Ok(text) => {
            output::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(code),
    }
}

/// `Err` is the exit code of what was broken off, which was told.
type Told<T> = anyhow::Result<Result<T, ExitCode>>;

struct Bench<'a> {
    context: &'a Context,
    args: &'a MemoryArgs,
    sandbox: &'a Sandbox,
    registry: &'a Registry,
}

impl Bench<'_> {
    /// Teaches all of every library and compares with the base, with and without documents, and with what another
    /// library's adapter does.
    fn one_round(&self, libraries: &[Library]) -> Told<String> {
        let mut adapters = Vec::new();
        for library in libraries {
            match self.teach(library, library.training(LibraryRecords::default()), None)? {
                Ok(adapter) => adapters.push(adapter),
                Err(code) => return Ok(Err(code)),
            }
        }
        let mut found = Conditions::default();
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
            match (measured, with_document, with_passage) {
                (Ok(measured), Ok(document), Ok(passage)) => {
                    found.add(measured, document.base, passage.base);
                }
                (Err(code), ..) | (_, Err(code), _) | (.., Err(code)) => return Ok(Err(code)),
            }
        }
        if let ([library], [adapter]) = (libraries, adapters.as_slice()) {
            let other = Library::invent(library.seed() + 1, self.args.functions.into());
            let adapter = std::slice::from_ref(adapter);
            match self.examine(&other, ("", only(&other, false)), adapter)? {
                Ok(measured) => found.add_untaught(measured),
                Err(code) => return Ok(Err(code)),
            }
        }
        // They need no library and are asked once.
        match self.examine(&libraries[0], ("+builtins", only(&libraries[0], true)), &adapters)? {
            Ok(measured) => found.add_controls("N1", &measured),
            Err(code) => return Ok(Err(code)),
        }
        if self.args.controls > 0 {
            match self.human_eval(&adapters)? {
                Ok(measured) => found.add_controls("N2", &measured),
                Err(code) => return Ok(Err(code)),
            }
        }
        Ok(Ok(if self.context.json { found.lines() } else { found.text() }))
    }

    /// The base and `adapters` on the first tasks of HumanEval.
    fn human_eval(&self, adapters: &[AdapterId]) -> Told<Measured> {
        let store = SuiteStore::open(&self.context.home)?;
        let suite = eval::human_eval(self.context, &store)?.first(self.args.controls);
        let sampling = Sampling { max_tokens: 512, ..Sampling::default() };
        let split = format!("all, first {}", self.args.controls);
        let how = How { split, sampling, ..How::default() };
        self.measure((&suite, &Modules::default()), adapters, &how)
    }

    /// Teaches half of every library's functions; then, from that adapter on, the other half, once with the records of
    /// the first round given again and once without.
    fn two_rounds(&self, libraries: &[Library]) -> Told<String> {
        const WHO: [&str; 4] = ["base", "round 1", "round 2, new records", "round 2, all records"];
        let mut old: [Vec<Outcome>; 4] = Default::default();
        let mut new: [Vec<Outcome>; 4] = Default::default();
        for library in libraries {
            let all = library.training(LibraryRecords::default());
            let is_first = |name: &str| first_half(library, name);
            let (first, second): (Vec<_>, Vec<_>) =
                all.iter().cloned().partition(|record| is_first(&record.family));
            let mut adapters: Vec<AdapterId> = Vec::new();
            for records in [first, second, all] {
                let from = adapters.first().map(|id| self.registry.adapter(id)).transpose()?;
                match self.teach(library, records, from)? {
                    Ok(adapter) => adapters.push(adapter),
                    Err(code) => return Ok(Err(code)),
                }
            }
            let tasks = library.tasks(N_VARIABLES);
            let measured = match self.examine(library, ("", tasks), &adapters)? {
                Ok(measured) => measured,
                Err(code) => return Ok(Err(code)),
            };
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
        Ok(Ok(text))
    }

    fn text(&self, title: &str, all: &[(&str, &[Outcome])]) -> String {
        if !self.context.json {
            return format!("{title}\n{}", eval::scores(all));
        }
        let mut text = String::new();
        for mut line in eval::score_lines(all) {
            line["part"] = Value::from(title);
            text += &(line.to_string() + "\n");
        }
        text
    }

    /// Trains an adapter on `records` of `library`.
    fn teach(
        &self,
        library: &Library,
        records: Vec<Record>,
        from: Option<Adapter>,
    ) -> Told<AdapterId> {
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
        let order = Order {
            records,
            kind: "file",
            source: json!({ "library": name, "seed": seed, "functions": self.args.functions }),
            options,
            name: Some(name.to_owned()),
            scope: Scope::Project,
            session_id: None,
            task_type: None,
            from,
            checkpoint_seconds: 60,
        };
        // A runtime each: the worker ends with the thread that started it, and that is this one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match work::train(self.context, self.registry, &runtime, &order) {
            Err(error) => match error.downcast() {
                // Of an earlier call that was broken off.
                Ok(RegistryError::AdapterExists(id)) => Ok(Ok(id)),
                Ok(error) => Err(error.into()),
                Err(error) => Err(error),
            },
            trained => trained,
        }
    }

    /// Measures the base and `adapters` on `tasks` about `library`; `kind` tells them from others.
    fn examine(
        &self,
        library: &Library,
        (kind, tasks): (&str, Vec<Task>),
        adapters: &[AdapterId],
    ) -> Told<Measured> {
        let suite = Suite::new(format!("{}{kind}", library.name()), tasks);
        let modules = Modules::single(library.name(), &library.module_source());
        self.measure((&suite, &modules), adapters, &How::default())
    }

    fn measure(
        &self,
        what: (&Suite, &Modules),
        adapters: &[AdapterId],
        how: &How<'_>,
    ) -> Told<Measured> {
        let who = Who::These(adapters.to_vec());
        let measured = eval::measure(self.context, self.registry, self.sandbox, what, &who, how)?;
        Ok(measured.map_err(ExitCode::from))
    }
}

/// Variables that a task is asked with, of four.
const N_VARIABLES: usize = 2;

/// The tasks of a library that are controls, or the others.
fn only(library: &Library, is_control: bool) -> Vec<Task> {
    let mut tasks = library.tasks(N_VARIABLES);
    tasks.retain(|task| task.is_control == is_control);
    tasks
}

/// Whether a family is about one of the first half of a library's functions.
fn first_half(library: &Library, family: &str) -> bool {
    let functions = library.functions();
    functions[..functions.len() / 2].iter().any(|function| {
        family.strip_prefix(library.name()).and_then(|rest| rest.split('/').nth(1))
            == Some(function.operation.id)
    })
}
