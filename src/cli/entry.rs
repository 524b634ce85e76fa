//! The entry: arguments in, exit code out.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;

use crate::cli::adapters;
use crate::cli::bench;
use crate::cli::completions;
use crate::cli::config;
use crate::cli::context::Context;
use crate::cli::context::Globals;
use crate::cli::doctor;
use crate::cli::eval;
use crate::cli::events;
use crate::cli::exit;
use crate::cli::judge;
use crate::cli::man;
use crate::cli::models;
use crate::cli::output;
use crate::cli::run;
use crate::cli::sessions;
use crate::cli::train;
use crate::training;

/// A local-first coding agent with parametric memory
#[derive(Debug, Parser)]
#[command(name = "rune", version, after_long_help = exit::HELP, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Train(Box<train::Args>),
    Eval(eval::Args),
    Judge(judge::Args),
    /// Become a training worker
    #[command(hide = true)]
    TrainWorker,
    #[command(subcommand)]
    Models(models::Args),
    #[command(subcommand)]
    Adapters(adapters::Args),
    #[command(subcommand)]
    Sessions(sessions::Args),
    Events(events::Args),
    #[command(subcommand)]
    Config(config::Args),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Bench(bench::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs `rune` with this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, and nobody may be reading it.
            let _unread = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) if exit::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error, exit::hint(&error).as_deref(), cli.globals.colors_stderr());
            ExitCode::from(exit::code(&error))
        }
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    let context = |settings| Context::load(&cli.globals, settings);
    match &cli.command {
        Command::Run(args) => match context(args.settings()) {
            Ok(context) => run::run(&context, args),
            Err(error) => {
                run::refuse(&cli.globals, &error);
                Err(error)
            }
        },
        Command::Train(args) => train::run(&context(args.settings())?, args),
        Command::Eval(args) => eval::run(&context(args.settings())?, args),
        Command::Judge(args) => context(args.settings())
            .and_then(|context| judge::run(&context, args))
            .inspect_err(|error| judge::refuse(&cli.globals, error)),
        Command::TrainWorker => Ok(ExitCode::from(training::worker_main())),
        Command::Models(args) => models::run(&context(vec![])?, args),
        Command::Adapters(args) => adapters::run(&context(args.settings())?, args),
        Command::Sessions(args) => sessions::run(&context(vec![])?, args),
        Command::Events(args) => events::run(&context(vec![])?, args),
        Command::Config(args) => config::run(&context(vec![])?, args),
        Command::Doctor(args) => doctor::run(&context(vec![])?, args),
        Command::Bench(args) => bench::run(&context(args.settings())?, args),
        Command::Completions(args) => completions::run(Cli::command(), args),
        Command::Man(args) => man::run(Cli::command(), args),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
