//! `rune bench memory`: what an adapter knows that the base can't.

use std::process::ExitCode;

use serde_json::json;

use crate::adapter::Scope;
use crate::cli::context::Context;
use crate::cli::eval;
use crate::cli::output;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::train::work;
use crate::cli::train::work::Order;
use crate::evaluation::Library;
use crate::evaluation::LibraryRecords;
use crate::evaluation::Modules;
use crate::evaluation::Outcome;
use crate::evaluation::Suite;
use crate::sandbox::Sandbox;
use crate::training::Preset;
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
}

pub(super) fn run(context: &Context, args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    // Before any other thread, and before the model fills the memory: see `sandbox`.
    let sandbox = Sandbox::start(&std::env::current_exe()?)?;
    let registry = context.registry()?;
    let (mut before, mut after): (Vec<Outcome>, Vec<Outcome>) = Default::default();
    for seed in (args.seed..).take(args.libraries.into()) {
        let library = Library::invent(seed, args.functions.into());
        let name = library.name();
        if !context.quiet && !context.json {
            output::note(&format!("library {name} of seed {seed}"));
        }
        let records = library.training(LibraryRecords::default());
        let options = TrainingOptions {
            learning_rate: 3e-4,
            max_steps: args.max_steps,
            seed,
            ..TrainingOptions::preset(Preset::Quick)
        };
        let order = Order {
            records,
            kind: "file",
            source: json!({ "library": name, "seed": seed, "functions": args.functions }),
            options,
            name: Some(name.to_owned()),
            scope: Scope::Project,
            session_id: None,
            from: None,
            checkpoint_seconds: 60,
        };
        // A runtime each: the worker ends with the thread that started it, and that is this one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let adapter = match work::train(context, &registry, &runtime, &order)? {
            Ok(adapter) => adapter,
            Err(code) => return Ok(code),
        };
        drop(runtime);
        let suite = Suite::new(name, library.tasks());
        let modules = Modules::single(name, &library.module_source());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let measured = runtime.block_on(async {
            let mut interrupts = Interrupts::new()?;
            let adapters = [adapter];
            let measured =
                eval::measure(context, &registry, &sandbox, (&suite, &modules), &adapters, "test");
            tokio::select! {
                measured = measured => measured.map(Ok),
                interrupt = interrupts.next() => Ok(Err(interrupt.exit_code())),
            }
        });
        runtime.shutdown_background();
        let measured = match measured? {
            Ok(measured) => measured,
            Err(code) => return Ok(ExitCode::from(code)),
        };
        before.extend(measured.base);
        after.extend(measured.adapters.into_iter().flat_map(|(_, outcomes)| outcomes));
    }
    let text = if context.json {
        eval::score_lines(&[("base", &before), ("adapters", &after)])
    } else {
        eval::scores(&before, &[("adapters", &after)])
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
