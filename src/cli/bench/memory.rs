//! `rune bench memory`: what training is worth beside records in the prompt, and what it harms.

mod report;

use std::process::ExitCode;
use std::sync::Arc;

use crate::adapter::AdapterId;
use crate::bench;
use crate::bench::MemoryRequest;
use crate::bench::RoundScores;
use crate::cli::context::Context;
use crate::cli::eval;
use crate::cli::output;
use crate::cli::screen::Screen;
use crate::cli::workflow;
use crate::evaluation::SuiteStore;
use crate::synthetic::FIRST_RESERVED_SEED;

/// Seeds stay below this one: those of all libraries have to stay below the reserved ones.
const MAX_SEED: u64 = FIRST_RESERVED_SEED - 64;

/// Measure what training on a library's records is worth, beside the same records in the prompt
///
/// No model can know an invented library; what the base scores without help is what can be guessed.
/// The base is asked with the README, with worked calls, and with the nearest 1, 4 and 8 records in
/// the prompt; the library's adapter without and with them. Another library's adapter shows what an
/// adapter harms where it does not belong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Tasks, about which no record has the wording, the variable or the name:
  skill   T1 a comment asks for a value     T2 a docstring asks for a function's body
          T3 one function on another's      T4 a keyword      T5 a protocol
  recall  T6 an error class      T7 a constant      T8 a function's name
  controls, which an adapter has to leave as they are
          N1 Python's builtins      N2 the first tasks of HumanEval      N3 Python's standard library

Memory works when the adapter, alone or with records, is better than the records alone (95% interval), when a loss of
5 points is ruled out on each control and for another library's adapter (90% interval), and when no answer to a
control uses a name of the library. Libraries are trained one after the other; the adapters stay in the registry, and
an interrupted call resumes when it is repeated. No score is recorded for `--adapter auto`.

Example:
  rune bench memory --seed 7")]
pub(in crate::cli) struct MemoryArgs {
    /// The model: a name of `rune models list`, or the path of a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) model: Option<String>,
    /// Invented libraries, each with an adapter of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=50))]
    libraries: u16,
    /// Functions of each, 6 to 40
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(6..=40))]
    functions: u16,
    /// The first library's seed; the others follow
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..MAX_SEED))]
    seed: u64,
    /// Maximum steps of each training, 0 for no limit [default: that of `rune train`, whose other
    /// options are used as well]
    #[arg(long, value_name = "N")]
    max_steps: Option<u32>,
    /// Tasks of HumanEval for the control N2; 0 for none
    #[arg(long, value_name = "N", default_value_t = 164)]
    controls: usize,
    /// Also measure this adapter, which was trained to read documents, in front of the libraries'
    /// README, passages and records
    #[arg(long, value_name = "ADAPTER", conflicts_with = "rounds")]
    reader: Option<String>,
    /// Teach each library in two rounds, half of its functions and then the others, and see what
    /// the second forgets
    #[arg(long)]
    rounds: bool,
}

pub(super) fn run(context: &Context, args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    let sandbox = &workflow::sandbox()?;
    let registry = context.registry()?;
    let request = &request(context, args)?;
    let screen = Arc::new(Screen::new(context));
    let text = workflow::run(context, &registry, screen.clone(), |services| async move {
        if args.rounds {
            let rounds = Box::pin(bench::memory_in_rounds(&services, sandbox, request)).await?;
            let part = |round: &RoundScores| {
                format!("{}\n{}", round.title, eval::scores(&round.outcomes()))
            };
            return Ok(rounds.iter().map(part).collect());
        }
        let found = Box::pin(bench::memory(&services, sandbox, request)).await?;
        Ok(report::text(&found))
    });
    screen.close();
    let text = text?;
    if !context.json {
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(context: &Context, args: &MemoryArgs) -> anyhow::Result<MemoryRequest> {
    let controls = if args.rounds || args.controls == 0 {
        None
    } else {
        let store = SuiteStore::open(&context.home)?;
        Some(eval::human_eval(context, &store)?.first(args.controls))
    };
    Ok(MemoryRequest {
        seed: args.seed,
        n_libraries: args.libraries.into(),
        n_functions: args.functions.into(),
        max_steps: args.max_steps,
        controls,
        reader: args.reader.as_deref().map(AdapterId::parse).transpose()?,
    })
}
