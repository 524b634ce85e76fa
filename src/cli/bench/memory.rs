//! `rune bench memory`: what an adapter knows that the base can't.

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
use crate::cli::output;
use crate::cli::train::work;
use crate::cli::train::work::Order;
use crate::evaluation::Library;
use crate::evaluation::LibraryRecords;
use crate::evaluation::Modules;
use crate::evaluation::Outcome;
use crate::evaluation::Suite;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::sandbox::Sandbox;
use crate::training::Preset;
use crate::training::Record;
use crate::training::TrainingOptions;

/// Measure parametric memory: invented libraries, an adapter for each, and tasks that neither base nor adapter has seen
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  rune bench memory --libraries 3

No model can know an invented library; what the base scores on T1 and T2 is what can be guessed. T1: a comment asks for
a value. T2: a docstring asks for a function's body. N1, a control: Python's builtins are asked for, without a library.
Wordings, variables and names of the tasks are in no record. Libraries are trained one after the other; the adapters
stay in the registry.")]
pub(in crate::cli) struct MemoryArgs {
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) model: Option<String>,
    /// Invented libraries, each with an adapter of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    libraries: u16,
    /// Functions of each, 6 to 40
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(6..=40))]
    functions: u16,
    /// The first library's seed; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of each training at most; 0 for one pass over the records
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_steps: u32,
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
    /// Teaches all of every library and compares with the base.
    fn one_round(&self, libraries: &[Library]) -> Told<String> {
        let (mut before, mut after): (Vec<Outcome>, Vec<Outcome>) = Default::default();
        for library in libraries {
            let records = library.training(LibraryRecords::default());
            let adapter = match self.teach(library, records, None)? {
                Ok(adapter) => adapter,
                Err(code) => return Ok(Err(code)),
            };
            let measured = match self.examine(library, &[adapter])? {
                Ok(measured) => measured,
                Err(code) => return Ok(Err(code)),
            };
            before.extend(measured.base);
            after.extend(measured.adapters.into_iter().flat_map(|(_, outcomes)| outcomes));
        }
        Ok(Ok(self.text("all functions", &[("base", &before), ("adapters", &after)])))
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
            let measured = match self.examine(library, &adapters)? {
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
            learning_rate: 3e-4,
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

    /// Measures the base and `adapters` on the tasks of `library`.
    fn examine(&self, library: &Library, adapters: &[AdapterId]) -> Told<Measured> {
        let suite = Suite::new(library.name(), library.tasks());
        let modules = Modules::single(library.name(), &library.module_source());
        let (what, how) = ((&suite, &modules), How::default());
        let measured =
            eval::measure(self.context, self.registry, self.sandbox, what, adapters, &how)?;
        Ok(measured.map_err(ExitCode::from))
    }
}

/// Whether a family is about one of the first half of a library's functions.
fn first_half(library: &Library, family: &str) -> bool {
    let functions = library.functions();
    functions[..functions.len() / 2].iter().any(|function| {
        family.strip_prefix(library.name()).and_then(|rest| rest.split('/').nth(1))
            == Some(function.operation.id)
    })
}
