//! `rune man`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::output;

/// Print the manual page, or write a page per subcommand
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Write `rune.1`, `rune-models.1` and so on into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Renders the manual pages of `command`, the definition of the whole command line.
pub(super) fn run(command: clap::Command, args: &ManArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.dir {
        fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(command, folder))
            .with_context(|| format!("cannot write to `{}`", folder.display()))?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::print(&String::from_utf8(page)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
