//! Entry point: parses arguments, dispatches to a subcommand, and returns an exit code.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;

use crate::cli::adapters;
use crate::cli::bench;
use crate::cli::completions;
use crate::cli::config;
use crate::cli::context::Context;
use crate::cli::context::GlobalArgs;
use crate::cli::doctor;
use crate::cli::e2e;
use crate::cli::eval;
use crate::cli::events;
use crate::cli::evolve;
use crate::cli::exit;
use crate::cli::jobs;
use crate::cli::judge;
use crate::cli::lease;
use crate::cli::man;
use crate::cli::merge;
use crate::cli::models;
use crate::cli::output;
use crate::cli::providers;
use crate::cli::run;
use crate::cli::sessions;
use crate::cli::swarm;
use crate::cli::train;
use crate::training;

/// A local-first coding agent with parametric memory
#[derive(Debug, Parser)]
#[command(name = "rune", version, after_long_help = exit::HELP, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    globals: GlobalArgs,
    #[command(subcommand)]
    command: RuneCommand,
}

#[derive(Debug, Subcommand)]
enum RuneCommand {
    Run(run::RunArgs),
    Swarm(Box<swarm::SwarmArgs>),
    Train(Box<train::TrainArgs>),
    Eval(eval::EvalArgs),
    Merge(merge::MergeArgs),
    Evolve(evolve::EvolveArgs),
    Judge(judge::JudgeArgs),
    /// Run as a training worker process
    #[command(hide = true)]
    TrainWorker,
    #[command(subcommand)]
    Models(models::ModelsArgs),
    #[command(subcommand)]
    Providers(providers::ProvidersArgs),
    #[command(subcommand)]
    Lease(lease::LeaseArgs),
    Wake(lease::WakeArgs),
    #[command(subcommand)]
    Adapters(adapters::AdaptersArgs),
    #[command(subcommand)]
    Sessions(sessions::SessionsArgs),
    #[command(subcommand)]
    Jobs(jobs::JobsArgs),
    Events(events::EventsArgs),
    #[command(subcommand)]
    Config(config::ConfigArgs),
    Doctor(doctor::DoctorArgs),
    E2e(e2e::E2eArgs),
    #[command(subcommand)]
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs `rune` with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, where the reader may already be gone.
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
        RuneCommand::Run(args) => match context(args.settings()) {
            Ok(context) => run::run(&context, args),
            Err(error) => {
                run::refuse(&cli.globals, &error);
                Err(error)
            }
        },
        RuneCommand::Swarm(args) => swarm::run(&context(args.settings())?, args),
        RuneCommand::Train(args) => train::run(&context(args.settings())?, args),
        RuneCommand::Eval(args) => eval::run(&context(args.settings())?, args),
        RuneCommand::Merge(args) => merge::run(&context(args.settings())?, args),
        RuneCommand::Evolve(args) => evolve::run(&context(args.settings())?, args),
        RuneCommand::Judge(args) => context(args.settings())
            .and_then(|context| judge::run(&context, args))
            .inspect_err(|error| judge::refuse(&cli.globals, error)),
        RuneCommand::TrainWorker => Ok(ExitCode::from(training::worker_main())),
        RuneCommand::Models(args) => models::run(&context(vec![])?, args),
        RuneCommand::Providers(args) => providers::run(&context(args.settings())?, args),
        RuneCommand::Lease(args) => lease::run(&context(vec![])?, args),
        RuneCommand::Wake(args) => lease::wake(&context(vec![])?, args),
        RuneCommand::Adapters(args) => adapters::run(&context(args.settings())?, args),
        RuneCommand::Sessions(args) => sessions::run(&context(vec![])?, args),
        RuneCommand::Jobs(args) => jobs::run(&context(vec![])?, args),
        RuneCommand::Events(args) => events::run(&context(vec![])?, args),
        RuneCommand::Config(args) => config::run(&context(vec![])?, args),
        RuneCommand::Doctor(args) => doctor::run(&context(vec![])?, args),
        RuneCommand::E2e(args) => e2e::run(&context(vec![])?, args),
        RuneCommand::Bench(args) => bench::run(&context(args.settings())?, args),
        RuneCommand::Completions(args) => completions::run(Cli::command(), args),
        RuneCommand::Man(args) => man::run(Cli::command(), args),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
