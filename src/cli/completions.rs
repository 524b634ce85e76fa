//! `rune completions`.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli::output;

/// Print a shell completion script
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

/// Prints the completion script of `command`, the definition of the whole command line.
pub(super) fn run(mut command: clap::Command, args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "rune", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
